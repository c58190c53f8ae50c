"""Choosing a pair, and what is promised of it."""

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest
from test_benchmarks import six
from worlds import (
    SIZES,
    Models,
    all_pairs,
    dataset,
    difference,
    draw_answers,
    draw_models,
    draw_rows,
    limited,
    model_margins,
    world_rows,
)

from bench.data.load import load_data
from bench.schema import SECTIONS, PreconditionError, UsageError
from bench.study import choose as module
from bench.study.choose import CHOICE, RULES, Choice, Wish, choose
from bench.study.design import Rows, judged, plain_accuracy, rows_of
from bench.study.held_out import N_SPLITS, held_out, held_out_scores
from bench.study.interval import Sample, share_limits

NAN = float("nan")
SMALL = dict.fromkeys(SIZES, 12)
"""12 rows per subset: enough noise for a winner to owe much to luck."""


@cache
def gifted() -> Models:
    """A world without an effect, in which one model alone is good at safety, and is not the best performing one."""
    models = draw_models(effect=0.0, rng=np.random.default_rng(8))
    tilt = models.section_tilt.copy()
    tilt[np.argsort(models.performance["alpaca_eval_2_lc"])[25], list(SECTIONS).index("safety")] += 1.5
    return models._replace(section_tilt=tilt)


def sample(models: Models, sizes: dict[str, int], *, seed: int) -> tuple[np.ndarray, Rows]:
    """Right and wrong of all pairs on fresh rows, (pairs, rows)."""
    rng = np.random.default_rng([5, seed])
    margins = model_margins(models, draw_rows(rng=rng, sizes=sizes), rng=rng)
    place = pd.Index(models.model_ids)
    pairs = all_pairs(models)
    strong, weak = (margins[place.get_indexer(pairs[side])] for side in ("strong", "weak"))
    return judged(difference(strong, weak)).forward, rows_of(dataset(sizes).examples)


@cache
def true_safety() -> np.ndarray:
    """Accuracy of each pair of the gifted world on safety, over 16 x 740 rows, (pairs,)."""
    found = []
    for seed in range(1000, 1016):
        correct, rows = sample(gifted(), SIZES, seed=seed)
        found.append(plain_accuracy(correct, rows)[[name for _, name in rows.levels].index("safety")])
    return np.mean(found, axis=0)


def plain_rows(n_rows: int, n_problems: int | None = None) -> Rows:
    cluster = np.arange(n_rows) % (n_problems or n_rows)
    return Rows(
        (("overall", "score"),), np.full((1, n_rows), 1 / n_rows), np.zeros(n_rows, dtype=int), cluster, tuple(SECTIONS)
    )


def sample_of(rows: Rows) -> Sample:
    return Sample(rows.weights[0], rows.subset, rows.cluster)


def simple_board() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "pair_id": ["p", "q", "r", "s"],
            "gap_points": [3.0, 9.0, NAN, 20.0],
            "n_params": [16e9, 14e9, NAN, 1e9],
            "cost_flop": [4e12, 3e12, 1e12, 1e12],
            "licence": ["mit", "mit + apache-2.0", None, "mit"],
        }
    )


def simple_answers() -> np.ndarray:
    """p right on 8 of 10 rows, q on 7, r on 6; s on 9, with one left out."""
    correct = np.array([[1.0] * n + [0.0] * (10 - n) for n in (8, 7, 6, 9)])
    correct[3, 9] = NAN
    return correct


def chosen(wish: Wish = Wish(), *, top: int = 3, seed: int = 0) -> Choice:  # noqa: B008
    return choose(simple_board(), simple_answers(), plain_rows(10), wish, rng=np.random.default_rng(seed), top=top)


def test_columns_are_the_declared_ones_and_rules_stand_in_order():
    table = chosen(top=2).table
    assert tuple(table.columns) == CHOICE
    assert table["rule"].tolist() == [RULES[0], RULES[0], RULES[1], RULES[2]]
    assert table["pair_id"].tolist() == ["p", "q", "q", ""]


def test_it_says_on_how_many_rows_and_among_how_many_pairs_it_chose():
    table = chosen().table
    assert (table["n_rows"] == 10).all()
    assert (table["n_candidates"] == 3).all()
    assert chosen().words().startswith("Ranked 3 pairs on 10 rows. held_out belongs to the rule and place")


def test_where_one_pair_is_always_first_it_is_held_out_at_its_score():
    # p is right wherever q and r are, so p leads on every part of the rows or ties with them
    correct = np.array([[1.0] * 16 + [0.0] * 4, [1.0] * 4 + [0.0] * 16])
    board = simple_board().iloc[:2]
    best = choose(board, correct, plain_rows(20), Wish(), rng=np.random.default_rng(0)).table.iloc[0]
    assert (best["pair_id"], best["best_share"]) == ("p", 1)
    assert (best["held_out"], best["optimism"]) == pytest.approx((0.8, 0))
    assert (best["over_gap"], best["over_random"]) == pytest.approx((0.6, 0.3))


def test_rules_that_look_at_no_rows_have_no_optimism():
    table = chosen().table.set_index("rule")
    assert table.loc["largest gap", ["score", "optimism", "gap_points"]].tolist() == [0.7, 0, 9]
    assert table.loc["random pair", "score"] == pytest.approx(0.7)
    assert table.loc["random pair", "optimism"] == 0
    assert np.isnan(table.loc["random pair", "gap_points"])
    # 7 of 10: Wilson's limits
    low, high = share_limits(simple_answers()[[1]], sample_of(plain_rows(10)))
    assert table.loc["largest gap", ["held_out_low", "held_out_high"]].tolist() == [low[0], high[0]]


def test_one_pair_is_all_three_rules():
    table = chosen(Wish(max_params=15.9e9)).table
    assert table["rule"].tolist() == list(RULES)
    assert table["held_out"].tolist() == pytest.approx([0.7] * 3)
    assert table.loc[0, ["over_gap", "over_gap_low", "over_gap_high", "over_random"]].tolist() == [0, 0, 0, 0]
    assert table["why"].tolist() == [
        "best score of 1 pair with n_params up to 1.59e+10; this pair came first in 100% of the rankings on nine "
        "tenths of the rows",
        "largest gap, 9 points, of 1 pair with n_params up to 1.59e+10; the rule does not look at the rows",
        "mean of 1 pair with n_params up to 1.59e+10: the expected score of a pair drawn at random",
    ]


def test_the_unit_of_the_gap_is_said():
    assert "largest gap, 9 bits per byte, of" in chosen(Wish(gap_unit="bits per byte")).table["why"].iloc[-2]


def test_a_pair_with_a_row_left_out_is_not_chosen():
    assert "s" not in chosen(top=9).table["pair_id"].tolist()


def test_it_says_which_pairs_a_row_keeps_out():
    found = chosen()
    assert found.notes == (
        "Not ranked, as a row is too long for one of their models or its score is not finite: "
        "s (gap 20, larger than any ranked pair's).",
    )
    assert found.words().endswith(found.notes[0])


def test_a_row_left_out_outside_the_section_keeps_no_pair_out():
    correct, rows = sample(gifted(), SIZES, seed=3)
    names = [name for _, name in rows.levels]
    safety = rows.weights[names.index("safety")] > 0
    best = int(np.argmax(plain_accuracy(correct, rows)[names.index("safety")]))
    correct[best, np.flatnonzero(~safety)[:2]] = NAN
    frame = pd.DataFrame(
        {"pair_id": [f"p{i}" for i in range(len(correct))], "gap_points": 1.0 * np.arange(len(correct))}
    )
    frame = frame.assign(n_params=1e9, cost_flop=1e9, licence="mit")
    found = choose(frame, correct, rows, Wish(section="safety"), rng=np.random.default_rng(0))
    assert found.table["pair_id"].iloc[0] == f"p{best}" and not found.notes
    assert found.table["n_candidates"].iloc[0] == len(correct) and found.table["n_rows"].iloc[0] == safety.sum()
    over_all = choose(frame, correct, rows, Wish(), rng=np.random.default_rng(0))
    assert f"p{best}" not in over_all.not_worse and f"p{best}" in over_all.notes[0]


def test_a_row_that_is_judged_several_times_is_one_row():
    examples = [six("chat", number) for number in range(6)]
    rows = rows_of(examples)
    rng = np.random.default_rng(0)
    correct = (rng.random((4, len(rows.subset))) < 0.6).astype(float)
    found = choose(simple_board(), correct, rows, Wish(), rng=rng).table
    assert len(rows.subset) == 54 and (found["n_rows"] == 6).all()


def test_a_cost_that_no_pair_has_is_said_to_be_unknown():
    board = simple_board().assign(cost_flop=NAN)
    with pytest.raises(UsageError) as error:
        choose(board, simple_answers(), plain_rows(10), Wish(budget_flop=1e9), rng=np.random.default_rng(0))
    assert "--budget-flop 1e+09 leaves none of 3 pairs: their cost_flop is not known. " in str(error.value)


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        (Wish(max_params=15e9), ["q"]),
        (Wish(budget_flop=3e12), ["q", "r"]),
        (Wish(licences=("mit",)), ["p"]),
        (Wish(licences=("mit", "apache-2.0")), ["p", "q"]),
        (Wish(licences=("mit", "apache-2.0"), budget_flop=3.5e12), ["q"]),
    ],
)
def test_filters_leave_the_pairs_that_are_known_to_fit(wish, left):
    table = chosen(wish, top=9).table
    assert table.loc[table["rule"] == RULES[0], "pair_id"].tolist() == left
    assert (table["n_candidates"] == len(left)).all()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(section="saftey"), "unknown section 'saftey', did you mean 'safety'?"),
        (Wish(section="prior"), "unknown section 'prior': choose one of chat, chat-hard, safety, reasoning"),
        (
            Wish(max_params=1e9),
            "--max-params 1e+09 leaves none of 3 pairs: the smallest n_params is 1.4e+10. "
            "Relax the option or leave it out",
        ),
        (
            Wish(budget_flop=1e9),
            "--budget-flop 1e+09 leaves none of 3 pairs: the smallest cost_flop is 1e+12. "
            "Relax the option or leave it out",
        ),
        (Wish(licences=("apache",)), "no pair has the licence 'apache', did you mean 'apache-2.0'?"),
        (
            Wish(licences=("apache-2.0",)),
            "--licence apache-2.0 leaves none of 3 pairs: their licences are apache-2.0, mit. "
            "Relax the option or leave it out",
        ),
        (
            Wish(section="safety"),
            "these rows have no safety: at least one of its subsets is missing. "
            "Score all of its subsets, or choose another --section",
        ),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_a_clear_error(wish, message):
    with pytest.raises(UsageError) as error:
        chosen(wish)
    assert str(error.value) == message


def test_at_least_one_pair_is_asked_for():
    with pytest.raises(UsageError, match="--top is 0: choose at least 1 pair"):
        chosen(top=0)


def test_no_pair_scored_on_every_row_is_a_clear_error():
    correct = simple_answers()
    correct[:, 0] = NAN
    with pytest.raises(UsageError, match="no pair is scored on every row"):
        choose(simple_board(), correct, plain_rows(10), Wish(), rng=np.random.default_rng(0))


def test_too_few_rows_to_choose_on_are_one_clear_error():
    for n in (1, 2, 3):
        with pytest.raises(
            PreconditionError, match=f"at least 4 different prompts in every subset .* has {n}. Score more"
        ):
            choose(simple_board(), simple_answers()[:, :n], plain_rows(n), Wish(), rng=np.random.default_rng(0))
    # many rows of three problems are three
    correct = np.tile(simple_answers()[:3, 6:9], 4)
    with pytest.raises(PreconditionError, match="has 3"):
        choose(simple_board().iloc[:3], correct, plain_rows(12, 3), Wish(), rng=np.random.default_rng(0))
    assert len(
        choose(simple_board(), simple_answers()[:, 4:8], plain_rows(4), Wish(), rng=np.random.default_rng(0)).table
    )


def test_few_rows_are_halved_25_times_or_refused():
    examples = load_data("sample", limit_per_subset=4).examples
    rows = rows_of(examples)
    correct = (np.random.default_rng(1).random((4, len(examples))) < 0.5).astype(float)
    found = held_out(correct, sample_of(rows), rng=np.random.default_rng(0), top=2)
    assert all(place.halves.shape == (2, N_SPLITS) and np.isfinite(place.halves).all() for place in found.places)
    # Each subset has four of six problems, so a half of three problems has only one of some subset.
    problem = np.array(list(itertools.combinations(range(6), 4)))
    sample = Sample(np.full(problem.size, 1 / problem.size), np.repeat(np.arange(len(problem)), 4), problem.ravel())
    with pytest.raises(PreconditionError, match="its subsets share prompts"):
        held_out(np.ones((2, problem.size)), sample, rng=np.random.default_rng(0), top=1)


@pytest.mark.parametrize("n_rows", [4, 8, 30])
@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
def test_limits_stay_inside_0_and_1_and_have_a_width(n_rows, share):
    rng = np.random.default_rng([n_rows, int(10 * share)])
    correct = (rng.random((3, n_rows)) < share).astype(float)
    table = choose(simple_board().iloc[:3], correct, plain_rows(n_rows), Wish(), rng=rng).table
    assert (table["held_out_low"] >= 0).all() and (table["held_out_high"] <= 1).all()
    assert (table["held_out_low"] <= table["held_out"]).all() and (table["held_out"] <= table["held_out_high"]).all()
    # no narrower than half of Wilson's interval of rows that are all right
    assert (table["held_out_high"] - table["held_out_low"] > 0.5 * 3.84 / (n_rows + 3.84)).all()
    best = table[table["rule"] == RULES[0]]
    assert (best["over_random_low"] < best["over_random"]).all() and (
        best["over_random"] < best["over_random_high"]
    ).all()


def test_a_place_that_is_never_right_has_limits():
    # the second and third pair are wrong on every row, but the first is not always first
    correct = np.zeros((3, 12))
    correct[0, :2] = correct[1, 2:3] = 1
    best = choose(simple_board().iloc[:3], correct, plain_rows(12), Wish(), rng=np.random.default_rng(0)).table.iloc[:3]
    assert best[["held_out_low", "held_out_high", "over_random_low", "over_gap_high"]].notna().all(axis=None)


def test_equal_pairs_take_turns_and_their_order_in_the_table_does_not_count():
    correct = np.tile(np.arange(20) % 2, (4, 1)).astype(float)
    board = simple_board().iloc[[0, 1, 2, 3]]
    firsts = [
        choose(board, correct, plain_rows(20), Wish(), rng=np.random.default_rng(seed)).table["pair_id"].iloc[0]
        for seed in range(20)
    ]
    assert set(firsts) == {"p", "q", "r", "s"}
    found = held_out(correct, sample_of(plain_rows(20)), rng=np.random.default_rng(0), top=1)
    assert found.first_share == pytest.approx([0.25] * 4, abs=0.1)


def test_few_rows_with_many_ties_do_not_lift_the_estimate():
    # 20 rows, 30 pairs, each right on 13 of 20 on average: halves tie all the time
    found = []
    for sample in range(300):
        rng = np.random.default_rng([77, sample])
        correct = (rng.random((30, 20)) < 0.65).astype(float)
        # less the luck of all pairs together
        found.append(held_out_scores(correct, sample_of(plain_rows(20)), rng=rng)[0] - correct.mean())
    error = np.std(found) / np.sqrt(len(found))
    assert error < 0.011
    # broken in the order of the whole sample, ties would lift it by five points
    assert abs(np.mean(found)) < 3 * error


def test_the_pairs_that_are_not_worse_are_named_and_counted():
    rng = np.random.default_rng(0)
    correct = (rng.random((4, 500)) < np.array([[0.8], [0.79], [0.5], [0.3]])).astype(float)
    found = choose(simple_board(), correct, plain_rows(500), Wish(), rng=rng)
    assert set(found.not_worse) == {"p", "q"}
    assert (found.table["n_not_worse"] == 2).all()
    assert found.table["p_not_worse"].iloc[0] == 1
    assert found.words().endswith("(model confidence set): 2 pairs: " + ", ".join(found.not_worse))


def test_the_pairs_that_are_not_worse_are_so_at_5_percent_and_over_problems(monkeypatch):
    seen = []

    def known(scores, draws, *, n_problems):
        seen.append(n_problems)
        return np.array([1.0, 0.07, 0.04])

    monkeypatch.setattr(module, "confidence_set", known)
    correct = np.array([[1.0] * n + [0.0] * (40 - n) for n in (32, 28, 24)])
    found = choose(simple_board().iloc[:3], correct, plain_rows(40, 20), Wish(), rng=np.random.default_rng(0))
    assert len(found.not_worse) == 2 and seen == [20]


def test_a_random_pair_varies_as_the_mean_of_all_pairs(monkeypatch):
    seen = []

    def noted(place, other, halves, sample):
        seen.append((other, halves))
        return lead_limits(place, other, halves, sample)

    lead_limits = module.lead_limits
    monkeypatch.setattr(module, "lead_limits", noted)
    correct = (np.random.default_rng(1).random((3, 40)) < np.array([[0.9], [0.6], [0.3]])).astype(float)
    choose(simple_board().iloc[:3], correct, plain_rows(40), Wish(), rng=np.random.default_rng(0))
    other, halves = seen[0]
    assert halves.mean() == pytest.approx(other.mean(), abs=0.05)


def test_rows_of_one_problem_are_put_aside_together():
    # four problems of three rows: a pair that is right on one problem alone knows nothing of it when it is aside
    correct = np.repeat(np.eye(4), 3, axis=1)
    rows = plain_rows(12)._replace(cluster=np.arange(12) // 3)
    found = held_out(correct, sample_of(rows), rng=np.random.default_rng(0), top=1)
    # whoever leads without a problem is right on another one, and never on that
    assert found.estimate[0] == 0
    # two problems a half: each pair's own is in one of them
    assert set(np.unique(found.fixed)) == {0, 0.5}
    assert (found.fixed.sum(axis=0) == 0.5).all()


def test_a_seed_changes_the_choice_and_repeats_it():
    rng = np.random.default_rng(1)
    correct = (rng.random((4, 60)) < 0.6).astype(float)
    first, again, other = (
        choose(simple_board(), correct, plain_rows(60), Wish(), rng=np.random.default_rng(seed)).table
        for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert first["held_out"].iloc[0] != other["held_out"].iloc[0]


def test_on_a_planted_world_the_pair_that_is_truly_best_for_the_section_is_chosen():
    correct, rows = sample(gifted(), SIZES, seed=1)
    pairs = all_pairs(gifted()).assign(n_params=16e9, cost_flop=3e12, licence="mit")
    truth = true_safety()
    best = pairs["pair_id"].to_numpy()[np.argmax(truth)]
    # the plant: clear of the second best, and not what the rule "largest gap" takes
    assert np.sort(truth)[-1] - np.sort(truth)[-2] > 0.01
    found = choose(pairs, correct, rows, Wish(section="safety"), rng=np.random.default_rng(0))
    assert found.table["pair_id"].iloc[0] == best
    assert found.table.set_index("rule").loc["largest gap", "pair_id"] != best
    first = found.table.iloc[0]
    assert first["held_out_low"] <= truth.max() <= first["held_out_high"]
    assert first["over_gap_low"] > 0 and first["over_random_low"] > 0
    assert best in found.not_worse and len(found.not_worse) < 20
    chat = choose(pairs, correct, rows, Wish(section="chat"), rng=np.random.default_rng(0))
    assert chat.table["pair_id"].iloc[0] != best


def test_pairs_that_go_together_are_held_out_at_their_truth_and_no_lower_than_a_random_one():
    # thirty equal pairs whose answers correlate by 0.58: halves of each pair's own put the best far below a random one
    rows, over, column, covered = world_rows(limited(8)), [], [], []
    for seed in range(40):
        rng = np.random.default_rng([11, seed])
        correct = draw_answers(np.full((30, len(SIZES)), 0.65), rows, 0.8, 0.75, rng=rng)
        board = pd.DataFrame({"pair_id": [str(n) for n in range(30)], "gap_points": 1.0, "licence": "mit"})
        board = board.assign(n_params=1.0, cost_flop=1.0)
        table = choose(board, correct, rows, Wish(), rng=rng, top=1).table.set_index("rule")
        over.append(table.loc["best score", "over_random"])
        column.append(held_out_scores(correct, sample_of(rows), rng=rng)[0] - correct.mean(axis=0) @ rows.weights[0])
        covered.append([low <= 0.65 <= high for low, high in table[["held_out_low", "held_out_high"]].to_numpy()])
    for values in (over, column):
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values)) < 3 * error < 0.025
    assert (np.mean(covered, axis=0) >= 0.9).all()


def test_the_held_out_estimate_is_unbiased_and_the_score_is_not():
    truth, pair_ids = true_safety(), all_pairs(gifted())["pair_id"].to_numpy()
    pairs = all_pairs(gifted()).assign(n_params=16e9, cost_flop=3e12, licence="mit")
    held, optimism, covered = [], [], []
    for seed in range(20):
        correct, rows = sample(gifted(), SMALL, seed=seed)
        best = choose(pairs, correct, rows, Wish(section="safety"), rng=np.random.default_rng(seed), top=1).table.iloc[
            0
        ]
        worth = truth[pair_ids == best["pair_id"]][0]
        held.append(best["held_out"] - worth)
        optimism.append(best["score"] - worth)
        covered.append(best["held_out_low"] <= worth <= best["held_out_high"])
    error = np.std(held) / np.sqrt(len(held))
    assert abs(np.mean(held)) < 3 * error
    assert np.mean(optimism) > 3 * error
    assert np.mean(covered) >= 0.8
