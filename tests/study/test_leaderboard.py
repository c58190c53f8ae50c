"""Order, intervals and provenance of the pairs."""

import time

import numpy as np
import pandas as pd
import pytest
from part_weights import weights_vector
from scipy.special import ndtri

from bench.contrast import _AT
from bench.schema import LEADERBOARD, MARGINS, SUBSET_WEIGHTS
from bench.study.benchmarks.plain import PLAIN
from bench.study.design import Rows, judged
from bench.study.held_out import held_out_scores
from bench.study.interval import Sample
from bench.study.leaderboard import (
    bootstrap_scores,
    columns_of,
    described,
    frontier,
    leader_note,
    leaderboard,
    rank_limits,
)
from bench.study.metrics import accuracy

NAN = float("nan")
SUBSETS = pd.Series(["mine"] * 4)
PAIRS = pd.DataFrame(
    {
        "pair_id": ["low", "high", "same"],
        "strong": ["a", "b", "b"],
        "weak": ["c", "c", "a"],
        "family": "f",
        "gap_points": [3.0, 1.5, NAN],
    }
)
MODELS = pd.DataFrame(
    {
        "model_id": ["a", "b", "c"],
        "revision": ["ra", "rb", "rc"],
        "dtype": ["float32", "float32", "bfloat16"],
        "n_params": [10.0, 20.0, NAN],
        "n_params_active": [NAN, 5.0, NAN],
        "licence": ["mit", "mit", None],
        "n_tokens_row": [100.0, 200.0, 300.0],
    }
)
MARGINS_OF = np.array([[1.0, -1, -1, -1], [1, 1, 1, -1], [1, 1, 1, 0]])


def margins_frame(values: np.ndarray, subsets: pd.Series, *, reward: str = "sum") -> pd.DataFrame:
    rows = [
        (pair_id, reward, f"e{column}", subset, value, "ok" if np.isfinite(value) else "too_long")
        for pair_id, line in zip(PAIRS["pair_id"], values, strict=True)
        for column, (subset, value) in enumerate(zip(subsets, line, strict=True))
    ]
    return pd.DataFrame(rows, columns=list(MARGINS))


def rows_of(subsets: pd.Series, cluster: np.ndarray | None = None) -> Rows:
    """The score's level over rows that are each a problem of its own, or not."""
    weights = weights_vector(subsets)
    strata = subsets.factorize()[0] if set(subsets) <= set(SUBSET_WEIGHTS) else np.zeros(len(subsets), dtype=int)
    cluster = np.arange(len(subsets)) if cluster is None else cluster
    whole = int(np.isfinite(weights).all())
    return Rows((("overall", "score"),)[:whole], weights[None][:whole], strata, cluster)


def sample_of(rows: Rows) -> Sample:
    return Sample(rows.weights[0], rows.subset, rows.cluster)


def drawn(values: np.ndarray, subsets: pd.Series, *, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    return bootstrap_scores(judged(values).forward, rows_of(subsets), rng=rng, draws=draws)


def board(values: np.ndarray = MARGINS_OF, subsets: pd.Series = SUBSETS, *, seed: int = 0) -> pd.DataFrame:
    draws = drawn(values, subsets, rng=np.random.default_rng(seed))
    return leaderboard(accuracy(margins_frame(values, subsets)), draws, PAIRS, MODELS)


def test_columns_are_the_schemas():
    subsets = pd.Series(list(SUBSET_WEIGHTS))
    assert tuple(board(np.ones((3, len(subsets))), subsets).columns) == LEADERBOARD
    assert tuple(board().columns) == columns_of(PLAIN)


def test_the_best_score_comes_first_and_equal_scores_share_a_rank():
    frame = board()
    assert frame["pair_id"].tolist() == ["high", "same", "low"]
    assert frame["rank"].tolist() == [1, 1, 3]
    assert frame["score"].tolist() == [0.75, 0.75, 0.25]
    assert frame["n_examples"].tolist() == [4, 4, 4]


def test_a_pair_with_a_row_left_out_is_listed_last_and_not_ranked():
    values = MARGINS_OF.copy()
    values[1] = [1, 1, 1, NAN]
    frame = board(values)
    assert frame["pair_id"].tolist() == ["same", "low", "high"]
    assert frame["rank"].tolist()[:2] == [1, 2]
    assert frame.loc[2, ["rank", "rank_low", "rank_high"]].isna().all()
    assert (frame.loc[2, "score"], frame.loc[2, "n_excluded"]) == (1.0, 1)
    assert frame.loc[2, "score_low"] == pytest.approx(3 / (3 + 1.959964**2))


def test_a_pair_without_a_score_is_not_ranked():
    subsets = pd.Series(["hep-js"] * 4)
    frame = board(MARGINS_OF, subsets)
    assert frame["score"].isna().all()
    assert frame["rank"].isna().all()
    assert frame["score_low"].isna().all()


def test_other_data_have_no_sections():
    assert set(LEADERBOARD) - set(board().columns) == {"chat", "chat_hard", "safety", "reasoning"}


def test_rewardbench_data_have_sections():
    subsets = pd.Series(list(SUBSET_WEIGHTS))
    values = np.tile(subsets.isin(["math-prm", "donotanswer"]).to_numpy() * 2.0 - 1, (3, 1))
    row = board(values, subsets).iloc[0]
    assert row["reasoning"] == pytest.approx(0.5)
    assert row["safety"] == pytest.approx(136 / 740)
    assert row["chat"] == 0.0
    assert row["score"] == pytest.approx((0.5 + 136 / 740) / 4)


def test_cost_is_two_flop_a_parameter_and_token_over_both_models():
    row = board().set_index("pair_id").loc["same"]
    assert row["cost_flop"] == 2 * 5 * 200 + 2 * 10 * 100
    assert row["n_params"] == 30
    assert (row["strong_revision"], row["weak_revision"]) == ("rb", "ra")
    assert (row["dtype"], row["licence"]) == ("float32", "mit")


def test_the_parameters_of_a_pair_of_one_model_count_once_and_its_cost_twice():
    sides = [f"b{_AT}one", f"b{_AT}other"]
    models = MODELS[MODELS["model_id"] == "b"]
    models = pd.concat([models.assign(model_id=side) for side in sides])
    found = described(pd.DataFrame({"strong": sides[:1], "weak": sides[1:]}), models).iloc[0]
    assert found["n_params"] == models["n_params"].iloc[0]
    assert found["cost_flop"] == 2 * 2 * models["n_params_active"].iloc[0] * models["n_tokens_row"].iloc[0]


def test_what_is_unknown_of_one_model_is_missing_for_the_pair():
    row = board().set_index("pair_id").loc["low"]
    assert row[["cost_flop", "n_params", "licence"]].isna().all()
    assert row["dtype"] == "float32 + bfloat16"


def test_two_rewards_in_one_leaderboard_are_an_error():
    both = pd.concat([accuracy(margins_frame(MARGINS_OF, SUBSETS, reward=name)) for name in ("sum", "mean")])
    with pytest.raises(ValueError, match="one reward, not sum, mean"):
        leaderboard(both, np.zeros((2, 3)), PAIRS, MODELS)


def test_a_pair_without_accuracy_or_model_is_an_error_that_names_it():
    scored = accuracy(margins_frame(MARGINS_OF, SUBSETS))
    with pytest.raises(ValueError, match="same: this pair has no overall accuracy"):
        leaderboard(scored[scored["pair_id"] != "same"], np.zeros((2, 3)), PAIRS, MODELS)
    with pytest.raises(ValueError, match="c: this model is in a pair, but the table of models does not have it"):
        leaderboard(scored, np.zeros((2, 3)), PAIRS, MODELS.iloc[:2])


def test_the_draws_of_a_plain_share_spread_as_the_binomial():
    rng = np.random.default_rng(3)
    values = np.where(np.arange(400) < 100, 1.0, -1.0)[None]
    draws = drawn(values, pd.Series(["mine"] * 400), rng=rng, draws=4000)[:, 0]
    assert draws.mean() == pytest.approx(0.25, abs=0.002)
    assert draws.std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.05)


def test_the_draws_of_the_score_centre_on_it_and_spread_as_its_standard_error():
    rng = np.random.default_rng(4)
    subsets = pd.Series(np.repeat(list(SUBSET_WEIGHTS), 40))
    values = rng.normal(0.4, 1, (3, len(subsets)))
    table = accuracy(margins_frame(values, subsets))
    overall = table[table["level"] == "overall"].set_index("pair_id").loc[PAIRS["pair_id"]]
    draws = drawn(values, subsets, rng=rng, draws=4000)
    np.testing.assert_allclose(overall["accuracy"], (values > 0) @ weights_vector(subsets), atol=1e-12)
    np.testing.assert_allclose(draws.mean(axis=0), overall["accuracy"], atol=0.002)
    np.testing.assert_allclose(draws.std(axis=0), overall["stderr"], rtol=0.06)


def test_pairs_share_their_draws():
    values = np.tile(np.random.default_rng(5).normal(size=60), (2, 1))
    draws = drawn(values, pd.Series(["mine"] * 60), rng=np.random.default_rng(6))
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])


def test_a_seed_repeats_the_draws_and_another_changes_them():
    first, again, other = (drawn(MARGINS_OF, SUBSETS, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_rank_lies_in_its_interval_and_a_clear_winner_has_a_narrow_one():
    rng = np.random.default_rng(8)
    values = np.stack([rng.normal(mean, 1, 300) for mean in (3.0, 0.0, 0.02)])
    frame = board(values, pd.Series(["mine"] * 300))
    assert (frame["rank_low"] <= frame["rank"]).all()
    assert (frame["rank"] <= frame["rank_high"]).all()
    assert frame.loc[0, ["pair_id", "rank_low", "rank_high"]].tolist() == ["low", 1, 1]
    assert frame.loc[1:, ["rank_low", "rank_high"]].to_numpy().tolist() == [[2, 3], [2, 3]]


def test_the_scores_interval_is_that_of_the_accuracy_table():
    table = accuracy(margins_frame(MARGINS_OF, SUBSETS)).query("level == 'overall'").set_index("pair_id")
    frame = board().set_index("pair_id")
    assert (frame["score_low"] == table["low"].loc[frame.index]).all()
    assert (frame["score_high"] == table["high"].loc[frame.index]).all()


def test_all_right_rows_leave_room_and_one_row_says_nothing():
    eight = board(np.ones((3, 8)), pd.Series(["mine"] * 8))
    assert (eight["score_high"] == 1).all()
    assert eight["score_low"].tolist() == pytest.approx([8 / (8 + 1.959964**2)] * 3)
    one = board(np.array([[1.0], [-1.0], [1.0]]), pd.Series(["mine"]))
    assert one[["score_low", "score_high"]].isna().all(axis=None)
    # nothing is known of who is better
    assert one[["rank_low", "rank_high"]].to_numpy().tolist() == [[1, 3]] * 3


def test_rows_of_one_problem_are_drawn_together():
    values = np.tile(np.where(np.arange(30) < 20, 1.0, -1.0), 6)[None]
    subsets = pd.Series(["mine"] * 180)
    apart = drawn(values, subsets, rng=np.random.default_rng(0), draws=4000)
    rows = rows_of(subsets, np.tile(np.arange(30), 6))
    together = bootstrap_scores(judged(values).forward, rows, rng=np.random.default_rng(0), draws=4000)
    # thirty problems, not 180: with 1 / (n - 1), which does not underrate few
    assert together.std() == pytest.approx(np.sqrt(2 / 9 / 29), rel=0.05)
    assert apart.std() == pytest.approx(np.sqrt(2 / 9 / 179), rel=0.05)


def test_few_rows_are_drawn_as_widely_as_they_spread():
    values = np.array([[1.0, -1.0]])
    draws = drawn(values, pd.Series(["mine"] * 2), rng=np.random.default_rng(0), draws=20_000)
    # an unbiased variance of two rows: 0.25 / (2 - 1)
    assert draws.std() == pytest.approx(0.5, rel=0.03)


def test_a_sure_lead_narrows_both_ranks_and_an_unsure_one_none():
    draws = np.random.default_rng(0).normal([0.9, 0.5, 0.49], 0.01, (4000, 3))
    low, high = rank_limits(np.array([0.9, 0.5, 0.49]), draws)
    assert (low.tolist(), high.tolist()) == ([1, 2, 2], [1, 3, 3])


def test_a_lead_of_1_8_standard_errors_is_not_sure_at_95_percent():
    spread = ndtri((np.arange(4000) + 0.5) / 4000)
    scores = np.array([0.0, 1.8])
    low, high = rank_limits(scores, scores + np.stack([0 * spread, spread], axis=1))
    assert low.tolist() == [1, 1] and high.tolist() == [2, 2]


def test_the_best_of_many_alike_keeps_its_rank_in_95_of_100_samples():
    held = 0
    for sample in range(100):
        rng = np.random.default_rng([3, sample])
        correct = (rng.random((40, 200)) < 0.65).astype(float)
        rows = rows_of(pd.Series(["mine"] * 200))
        low, _ = rank_limits(correct.mean(axis=1), bootstrap_scores(correct, rows, rng=rng, draws=300))
        # all are equally good, so any of them has rank 1
        held += low[0] == 1
    assert held >= 90


def test_a_place_is_worth_what_its_pair_scored_on_rows_that_did_not_rank_it():
    accuracies, draws = accuracy(margins_frame(MARGINS_OF, SUBSETS)), np.zeros((2, 3))
    frame = leaderboard(accuracies, draws, PAIRS, MODELS, held_out=np.array([0.7, 0.6, 0.2]))
    # the first two share rank 1, and with it the mean of both places
    assert frame["score_held_out"].tolist() == pytest.approx([0.65, 0.65, 0.2])
    assert board()["score_held_out"].isna().all()


def test_a_pair_that_is_not_ranked_has_no_place():
    values = MARGINS_OF.copy()
    values[1] = [1, 1, 1, NAN]
    accuracies, draws = accuracy(margins_frame(values, SUBSETS)), np.zeros((2, 3))
    frame = leaderboard(accuracies, draws, PAIRS, MODELS, held_out=np.array([0.7, 0.2]))
    assert frame["score_held_out"].tolist()[:2] == [0.7, 0.2]
    assert np.isnan(frame["score_held_out"].iloc[2])


def test_the_leaders_note_says_both_numbers_and_one_pair_needs_none():
    accuracies, draws = accuracy(margins_frame(MARGINS_OF, SUBSETS)), np.zeros((2, 3))
    frame = leaderboard(accuracies, draws, PAIRS, MODELS, held_out=np.array([0.7, 0.6, 0.2]))
    assert leader_note(frame) == (
        "The best of 3 pairs scores 75.0% on the prompts that ranked it. On other prompts, the pair in first "
        "place is expected to score 65.0% (score_held_out)."
    )
    assert leader_note(board()) == ""


def test_the_frontier_leaves_out_what_is_dearer_and_no_better():
    frame = pd.DataFrame(
        {
            "rank": pd.array([1, 2, 3, 4, None], dtype="Int64"),
            "pair_id": ["dear", "middle", "wasted", "cheap", "unranked"],
            "score": [0.8, 0.7, 0.7, 0.6, 0.9],
            "cost_flop": [9.0, 3.0, 5.0, 1.0, 0.5],
        }
    )
    assert frontier(frame)["pair_id"].tolist() == ["cheap", "middle", "dear"]


def test_of_two_pairs_of_one_cost_the_better_one_alone_is_on_the_frontier():
    costs = pd.DataFrame({"pair_id": ["a", "b"], "rank": [1, 2], "score": [0.7, 0.6], "cost_flop": [1.0, 1.0]})
    assert frontier(costs)["pair_id"].tolist() == ["a"]


def test_the_whole_study_is_drawn_in_seconds():
    subsets = pd.Series(np.repeat(list(SUBSET_WEIGHTS), 130))
    values = np.random.default_rng(9).normal(size=(221, len(subsets)))
    start = time.perf_counter()
    draws = drawn(values, subsets, rng=np.random.default_rng(10))
    rank_limits((values > 0) @ weights_vector(subsets), draws)
    held_out_scores(judged(values).forward, sample_of(rows_of(subsets)), rng=np.random.default_rng(11))
    assert time.perf_counter() - start < 20
