"""Choosing a pair, and what is promised of it."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from worlds import SIZES, Models, all_pairs, dataset, difference, draw_models, draw_rows, model_margins

from bench.schema import ACCURACY, LEADERBOARD, SECTIONS, PreconditionError, UsageError
from bench.study.choose import CHOICE, RULES, Halves, Wish, choose, count_halves, row_halves
from bench.study.design import Rows, judged, plain_accuracy, rows_of

NAN = float("nan")
SMALL = dict.fromkeys(SIZES, 12)
"""12 rows a subset: enough noise for a winner to owe much to luck."""


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


def board_of(correct: np.ndarray, rows: Rows) -> pd.DataFrame:
    """LEADERBOARD of the gifted world's pairs; each model has 8e9 parameters."""
    pairs = all_pairs(gifted())
    scores = plain_accuracy(correct, rows)
    columns = [name.replace("-", "_") for _, name in rows.levels]
    frame = pairs.assign(**dict(zip(columns, scores, strict=True)), n_params=16e9, cost_flop=3e12, licence="mit")
    return frame.assign(rank=frame["score"].rank(ascending=False)).reindex(columns=list(LEADERBOARD))


def simple_board() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "pair_id": ["p", "q", "r", "s"],
            "rank": [1, 2, 3, NAN],
            "gap_points": [3.0, 9.0, NAN, 20.0],
            "score": [0.8, 0.7, 0.6, 0.9],
            "chat_hard": [0.5, 0.6, NAN, 0.9],
            "n_params": [16e9, 14e9, NAN, 1e9],
            "cost_flop": [4e12, 3e12, 1e12, 1e12],
            "licence": ["mit", "mit + apache-2.0", None, "mit"],
        }
    )
    return frame.reindex(columns=list(LEADERBOARD))


def simple_halves() -> Halves:
    first = np.array([[0.82, 0.70, 0.60, 0.9], [0.70, 0.74, 0.6, 0.9]])
    second = np.array([[0.78, 0.70, 0.60, 0.9], [0.90, 0.66, 0.6, 0.9]])
    return Halves(np.array(["p", "q", "r", "s"]), first, second)


def test_columns_are_the_declared_ones_and_rules_stand_in_order():
    table = choose(simple_board(), simple_halves(), Wish(), top=2)
    assert tuple(table.columns) == CHOICE
    assert table["rule"].tolist() == [RULES[0], RULES[0], RULES[1], RULES[2]]
    assert table["pair_id"].tolist() == ["p", "q", "q", ""]


def test_each_half_chooses_and_the_other_reports():
    best, second = (choose(simple_board(), simple_halves(), Wish(), top=2).iloc[i] for i in (0, 1))
    # p leads three of the four halves: 0.82 -> 0.78, 0.78 -> 0.82, 0.90 -> 0.70; q leads 0.74 -> 0.66
    assert best["held_out"] == pytest.approx((0.78 + 0.82 + 0.70 + 0.66) / 4)
    assert best["optimism"] == pytest.approx(0.8 - 0.74)
    assert (best["best_share"], second["best_share"]) == (0.75, 0.25)
    # then q comes second three times: 0.70, 0.70, 0.74; p once: 0.90
    assert second["held_out"] == pytest.approx((0.70 + 0.70 + 0.74 + 0.90) / 4)


def test_the_interval_is_that_of_the_halves_differences():
    gap = choose(simple_board(), simple_halves(), Wish(), top=1).iloc[1]
    # q's halves differ by 0 and by 0.08: sqrt((0 + 0.0064) / 2) / 2 = 0.02828
    assert gap["held_out"] == 0.7
    assert gap["held_out_high"] - gap["held_out"] == pytest.approx(1.95996 * 0.028284, rel=1e-4)


def test_rules_that_look_at_no_rows_have_no_optimism():
    table = choose(simple_board(), simple_halves(), Wish()).set_index("rule")
    assert table.loc["largest gap", ["score", "optimism", "gap_points"]].tolist() == [0.7, 0, 9]
    assert table.loc["random pair", "score"] == pytest.approx(0.7)
    assert table.loc["random pair", "optimism"] == 0
    assert np.isnan(table.loc["random pair", "gap_points"])


def test_each_row_says_why():
    why = choose(simple_board(), simple_halves(), Wish(max_params=15.9e9), top=1)["why"].tolist()
    assert why == [
        "best score of 1 pair with n_params up to 1.59e+10; first in 100% of the halves",
        "largest gap, 9 points, of 1 pair with n_params up to 1.59e+10; chosen without these rows",
        "mean of 1 pair with n_params up to 1.59e+10: what to expect of one drawn at random",
    ]


def test_a_pair_that_is_not_ranked_is_not_chosen():
    assert "s" not in choose(simple_board(), simple_halves(), Wish(), top=9)["pair_id"].tolist()


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        (Wish(section="chat-hard"), ["q", "p"]),
        (Wish(max_params=15e9), ["q"]),
        (Wish(budget_flop=3e12), ["q", "r"]),
        (Wish(licences=("mit",)), ["p"]),
        (Wish(licences=("mit", "apache-2.0")), ["p", "q"]),
        (Wish(licences=("mit", "apache-2.0"), budget_flop=3.5e12), ["q"]),
    ],
)
def test_filters_leave_the_pairs_that_are_known_to_fit(wish, left):
    table = choose(simple_board(), simple_halves(), wish, top=9)
    assert table.loc[table["rule"] == RULES[0], "pair_id"].tolist() == left
    assert (table["n_candidates"] == len(left)).all()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(section="saftey"), "unknown section 'saftey', did you mean 'safety'?"),
        (Wish(section="prior"), "unknown section 'prior': one of chat, chat-hard, safety, reasoning"),
        (Wish(max_params=1e9), "--max-params 1e+09 leaves none of 3 pairs: the least is 1.4e+10"),
        (Wish(budget_flop=1e9), "--budget-flop 1e+09 leaves none of 3 pairs: the least is 1e+12"),
        (Wish(licences=("apache",)), "no pair has the licence 'apache', did you mean 'apache-2.0'?"),
        (Wish(licences=("apache-2.0",)), "--licence apache-2.0 leaves none of 3 pairs: licences are apache-2.0, mit"),
        (Wish(section="safety"), "the leaderboard has no ranked pair with a score for this section"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_a_clear_error(wish, message):
    with pytest.raises(UsageError) as error:
        choose(simple_board(), simple_halves(), wish)
    assert str(error.value) == message


def test_at_least_one_pair_is_asked_for():
    with pytest.raises(UsageError, match="--top 0: at least 1"):
        choose(simple_board(), simple_halves(), Wish(), top=0)


def test_a_pair_without_halves_is_an_error():
    halves = simple_halves()
    with pytest.raises(ValueError, match="q: on the leaderboard, not in the halves"):
        choose(simple_board(), Halves(np.array(["p", "x", "r", "s"]), halves.first, halves.second), Wish())


def test_halves_are_halves_of_the_problems_and_together_the_whole():
    correct, rows = sample(gifted(), SMALL, seed=0)
    halves = row_halves(correct, np.arange(len(correct)), rows, "score", rng=np.random.default_rng(0), n_splits=400)
    assert halves.first.shape == (400, 221)
    whole = plain_accuracy(correct, rows)[0]
    np.testing.assert_allclose(halves.first.mean(axis=0), whole, atol=0.01)
    # twelve problems under each subset: halves are equal in size, so their mean is the whole
    chat = row_halves(correct, np.arange(len(correct)), rows, "safety", rng=np.random.default_rng(0), n_splits=5)
    mean = (chat.first + chat.second) / 2
    np.testing.assert_allclose(mean, np.tile(plain_accuracy(correct, rows)[3], (5, 1)), atol=1e-9)


def test_rows_of_one_problem_stay_on_one_side():
    rows = Rows((("overall", "score"),), np.full((1, 12), 1 / 12), np.zeros(12, dtype=int), np.arange(12) // 3)
    correct = np.repeat(np.eye(4), 3, axis=1)
    halves = row_halves(correct, np.arange(4), rows, "score", rng=np.random.default_rng(0), n_splits=30)
    assert set(np.unique(halves.first)) == {0, 0.5}
    assert (halves.first + halves.second == 0.5).all()


def test_a_seed_changes_the_halves_and_repeats_them():
    correct, rows = sample(gifted(), SMALL, seed=0)
    first, again, other = (
        row_halves(correct, np.arange(221), rows, "score", rng=np.random.default_rng(seed), n_splits=3).first
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_too_few_rows_to_halve_are_an_error():
    sizes = dict.fromkeys(SIZES, 1)
    correct, rows = sample(gifted(), sizes, seed=0)
    with pytest.raises(PreconditionError, match="safety: a subset has too few prompts to be halved"):
        row_halves(correct, np.arange(221), rows, "safety", rng=np.random.default_rng(0))


def test_on_a_planted_world_the_pair_that_is_truly_best_for_the_section_is_chosen():
    correct, rows = sample(gifted(), SIZES, seed=1)
    pair_ids = all_pairs(gifted())["pair_id"].to_numpy()
    truth = true_safety()
    best = pair_ids[np.argmax(truth)]
    # the plant: clear of the second best, and not what the rule "largest gap" takes
    assert np.sort(truth)[-1] - np.sort(truth)[-2] > 0.01
    halves = row_halves(correct, pair_ids, rows, "safety", rng=np.random.default_rng(0))
    table = choose(board_of(correct, rows), halves, Wish(section="safety"))
    assert table["pair_id"].iloc[0] == best
    assert table.set_index("rule").loc["largest gap", "pair_id"] != best
    first = table.iloc[0]
    assert first["held_out_low"] <= truth.max() <= first["held_out_high"]
    chat = row_halves(correct, pair_ids, rows, "chat", rng=np.random.default_rng(0))
    assert choose(board_of(correct, rows), chat, Wish(section="chat"))["pair_id"].iloc[0] != best


def test_the_held_out_estimate_is_unbiased_and_the_score_is_not():
    pair_ids = all_pairs(gifted())["pair_id"].to_numpy()
    truth = true_safety()
    held_out, optimism, covered = [], [], []
    for seed in range(40):
        correct, rows = sample(gifted(), SMALL, seed=seed)
        halves = row_halves(correct, pair_ids, rows, "safety", rng=np.random.default_rng(seed), n_splits=50)
        best = choose(board_of(correct, rows), halves, Wish(section="safety"), top=1).iloc[0]
        chosen = np.argmax(np.concatenate([halves.first, halves.second]), axis=1)
        expected = truth[chosen].mean()
        held_out.append(best["held_out"] - expected)
        optimism.append(best["score"] - truth[pair_ids == best["pair_id"]][0])
        covered.append(best["held_out_low"] <= expected <= best["held_out_high"])
    error = np.std(held_out) / np.sqrt(len(held_out))
    assert abs(np.mean(held_out)) < 2.5 * error
    assert np.mean(optimism) > 5 * error
    assert np.mean(covered) >= 0.88


def accuracy_table(n_examples: int, right: list[int]) -> pd.DataFrame:
    frame = pd.DataFrame({"pair_id": ["p", "q"], "n_examples": n_examples, "accuracy": np.array(right) / n_examples})
    return frame.assign(level="subset", name="mine").reindex(columns=list(ACCURACY))


def test_halves_from_counts_have_the_right_mean_and_spread():
    halves = count_halves(accuracy_table(200, [120, 50]), "score", rng=np.random.default_rng(0), n_splits=4_000)
    assert halves.pair_ids.tolist() == ["p", "q"]
    np.testing.assert_allclose((halves.first + halves.second) / 2, np.tile([0.6, 0.25], (4000, 1)))
    # the difference of two halves of 100 without replacement: 4 p (1 - p) / 199
    assert (halves.first - halves.second).std(axis=0) == pytest.approx(
        [np.sqrt(4 * 0.24 / 199), np.sqrt(4 * 0.1875 / 199)], rel=0.05
    )


def test_halves_from_counts_of_a_section_weigh_its_subsets():
    rows = [("p", name, 40, 1.0 if name == "donotanswer" else 0.0) for name in SECTIONS["safety"]]
    frame = pd.DataFrame(rows, columns=["pair_id", "name", "n_examples", "accuracy"]).assign(level="subset")
    halves = count_halves(frame, "safety", rng=np.random.default_rng(0), n_splits=2)
    assert halves.first[:, 0] == pytest.approx([136 / 740] * 2)


def test_one_row_cannot_be_halved():
    with pytest.raises(PreconditionError, match="mine: too few prompts to be halved"):
        count_halves(accuracy_table(1, [1, 0]), "score", rng=np.random.default_rng(0))
