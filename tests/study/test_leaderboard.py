"""Order, intervals and provenance of the pairs."""

import time

import numpy as np
import pandas as pd
import pytest

from bench.schema import LEADERBOARD, MARGINS, SUBSET_WEIGHTS
from bench.study.leaderboard import bootstrap_scores, frontier, leaderboard
from bench.study.metrics import accuracy, weights_vector

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


def board(values: np.ndarray = MARGINS_OF, subsets: pd.Series = SUBSETS, *, seed: int = 0) -> pd.DataFrame:
    draws = bootstrap_scores(values, subsets, rng=np.random.default_rng(seed))
    return leaderboard(accuracy(margins_frame(values, subsets)), draws, PAIRS, MODELS)


def test_columns_are_the_schemas():
    assert tuple(board().columns) == LEADERBOARD


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
    assert frame.loc[2, "score_low"] == 1.0


def test_a_pair_without_a_score_is_not_ranked():
    subsets = pd.Series(["hep-js"] * 4)
    frame = board(MARGINS_OF, subsets)
    assert frame["score"].isna().all()
    assert frame["rank"].isna().all()
    assert frame["score_low"].isna().all()


def test_other_data_have_no_sections():
    assert board()[["chat", "chat_hard", "safety", "reasoning"]].isna().all(axis=None)


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
    with pytest.raises(ValueError, match="same: no overall accuracy"):
        leaderboard(scored[scored["pair_id"] != "same"], np.zeros((2, 3)), PAIRS, MODELS)
    with pytest.raises(ValueError, match="c: in a pair, but nothing is known of the model"):
        leaderboard(scored, np.zeros((2, 3)), PAIRS, MODELS.iloc[:2])


def test_the_draws_of_a_plain_share_spread_as_the_binomial():
    rng = np.random.default_rng(3)
    values = np.where(np.arange(400) < 100, 1.0, -1.0)[None]
    draws = bootstrap_scores(values, pd.Series(["mine"] * 400), rng=rng, draws=4000)[:, 0]
    assert draws.mean() == pytest.approx(0.25, abs=0.002)
    assert draws.std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.05)


def test_the_draws_of_the_score_centre_on_it_and_spread_as_its_standard_error():
    rng = np.random.default_rng(4)
    subsets = pd.Series(np.repeat(list(SUBSET_WEIGHTS), 40))
    values = rng.normal(0.4, 1, (3, len(subsets)))
    table = accuracy(margins_frame(values, subsets))
    overall = table[table["level"] == "overall"].set_index("pair_id").loc[PAIRS["pair_id"]]
    draws = bootstrap_scores(values, subsets, rng=rng, draws=4000)
    np.testing.assert_allclose(overall["accuracy"], (values > 0) @ weights_vector(subsets), atol=1e-12)
    np.testing.assert_allclose(draws.mean(axis=0), overall["accuracy"], atol=0.002)
    np.testing.assert_allclose(draws.std(axis=0), overall["stderr"], rtol=0.06)


def test_pairs_share_their_draws():
    values = np.tile(np.random.default_rng(5).normal(size=60), (2, 1))
    draws = bootstrap_scores(values, pd.Series(["mine"] * 60), rng=np.random.default_rng(6))
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])


def test_a_seed_repeats_the_draws_and_another_changes_them():
    first, again, other = (bootstrap_scores(MARGINS_OF, SUBSETS, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
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


def test_the_whole_study_is_drawn_in_seconds():
    subsets = pd.Series(np.repeat(list(SUBSET_WEIGHTS), 130))
    values = np.random.default_rng(9).normal(size=(221, len(subsets)))
    start = time.perf_counter()
    bootstrap_scores(values, subsets, rng=np.random.default_rng(10))
    assert time.perf_counter() - start < 20
