"""Rewards and margins from two models' scores."""

import time

import numpy as np
import pandas as pd
import pytest

from bench.schema import MARGINS, REWARDS, SCORES, Example
from bench.study.reward import margins, reward_matrix, rewards


def scores(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SCORES))


STRONG = scores(
    ("chat/1", "chosen", -10.0, -1.0, 5, 20, "ok"),
    ("chat/1", "rejected", -20.0, -2.0, 8, 40, "ok"),
    ("chat/2", "chosen", -6.0, 0.0, 3, 12, "ok"),
    ("chat/2", "rejected", -9.0, -1.0, 4, 16, "ok"),
)
WEAK = scores(
    ("chat/1", "chosen", -19.0, -2.0, 4, 20, "ok"),
    ("chat/1", "rejected", -25.0, -1.0, 9, 40, "ok"),
    ("chat/2", "chosen", -6.0, 0.0, 3, 12, "ok"),
    ("chat/2", "rejected", -9.0, -1.0, 4, 16, "ok"),
)
SUBSETS = pd.Series({"chat/1": "chat", "chat/2": "chat"})


def set_status(frame: pd.DataFrame, row: int, status: str) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[row, "status"] = status
    if status == "too_long":
        frame.loc[row, ["logp_sum_nats", "logp_end_nats"]] = np.nan
    return frame


def test_sum_is_the_difference_of_the_sums_with_the_end_of_turn():
    # chat/1 chosen: (-10 - 1) - (-19 - 2) = 10; rejected: -22 + 26 = 4
    assert rewards(STRONG, WEAK, reward="sum")["reward"].tolist() == [10.0, 4.0, 0.0, 0.0]


def test_mean_divides_by_the_strong_models_tokens():
    assert rewards(STRONG, WEAK, reward="mean")["reward"].tolist() == [10 / 5, 4 / 8, 0.0, 0.0]


def test_per_byte_divides_by_the_strong_models_bytes():
    weak = WEAK.assign(n_bytes=WEAK["n_bytes"] + 7)
    assert rewards(STRONG, weak, reward="per-byte")["reward"].tolist() == [10 / 20, 4 / 40, 0.0, 0.0]


def test_an_unknown_reward_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="unknown reward 'total': choose one of sum, mean, per-byte"):
        rewards(STRONG, WEAK, reward="total")


def test_rewards_keep_the_strong_models_order():
    shuffled = WEAK.iloc[[3, 1, 0, 2]]
    pd.testing.assert_frame_equal(
        rewards(STRONG, shuffled, reward="sum"), rewards(STRONG, WEAK, reward="sum"), check_like=False
    )


@pytest.mark.parametrize("side", ["strong", "weak"])
def test_a_response_that_one_model_lacks_is_an_error_that_names_it(side):
    frames = (STRONG, WEAK.iloc[:3]) if side == "strong" else (STRONG.iloc[:3], WEAK)
    with pytest.raises(ValueError, match=f"chat/2, response rejected: only the {side} model scored it"):
        rewards(*frames, reward="sum")


def test_a_response_scored_twice_is_an_error():
    with pytest.raises(ValueError, match="unique"):
        rewards(pd.concat([STRONG, STRONG.iloc[:1]]), WEAK, reward="sum")


@pytest.mark.parametrize(
    ("strong", "weak", "expected"),
    [
        ("ok", "ok", "ok"),
        ("ok", "nonfinite", "nonfinite"),
        ("too_long", "ok", "too_long"),
        ("too_long", "nonfinite", "too_long"),
        ("nonfinite", "too_long", "too_long"),
    ],
)
def test_a_reward_has_the_worse_status_and_a_number_only_when_ok(strong, weak, expected):
    row = rewards(set_status(STRONG, 0, strong), set_status(WEAK, 0, weak), reward="sum").iloc[0]
    assert row["status"] == expected
    assert np.isnan(row["reward"]) == (expected != "ok")


def test_a_margin_is_chosen_minus_rejected_under_each_reward():
    frame = margins(STRONG, WEAK, SUBSETS, pair_id="p")
    assert tuple(frame.columns) == MARGINS
    assert frame["reward"].tolist() == ["sum", "sum", "mean", "mean", "per-byte", "per-byte"]
    assert frame["margin_nats"].tolist() == [6.0, 0.0, 1.5, 0.0, 0.4, 0.0]
    assert frame["pair_id"].unique().tolist() == ["p"]


def test_a_margin_is_missing_when_either_response_is():
    frame = margins(set_status(STRONG, 1, "nonfinite"), set_status(WEAK, 0, "too_long"), SUBSETS, pair_id="p")
    first = frame[frame["example_id"] == "chat/1"]
    assert first["status"].tolist() == ["too_long"] * 3
    assert first["margin_nats"].isna().all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2, 3], "chat/1: p scored only one of the two responses"),
        ([0, 2], "p: it scored no rejected response"),
    ],
)
def test_a_margin_needs_both_responses(rows, message):
    with pytest.raises(ValueError, match=message):
        margins(STRONG.iloc[rows], WEAK.iloc[rows], SUBSETS, pair_id="p")


def test_candidates_have_rewards_but_no_margins():
    candidates = [frame.assign(response_id=["0", "1", "0", "1"]) for frame in (STRONG, WEAK)]
    assert len(rewards(*candidates, reward="sum")) == 4
    with pytest.raises(ValueError, match="chat/1: a margin needs chosen and rejected, but p has '0'"):
        margins(*candidates, SUBSETS, pair_id="p")


def test_an_example_without_a_subset_is_an_error():
    with pytest.raises(ValueError, match="chat/2: p has scores of this example, but the data set does not contain it"):
        margins(STRONG, WEAK, SUBSETS.iloc[:1], pair_id="p")


def random_scores(n_models: int, n_examples: int, *, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    ids = np.repeat([f"s/{row}" for row in range(n_examples)], 2)
    n = len(ids)
    return {
        f"m{model}": pd.DataFrame(
            {
                "example_id": ids,
                "response_id": np.tile(["chosen", "rejected"], n_examples),
                "logp_sum_nats": rng.normal(-200, 50, n),
                "logp_end_nats": rng.normal(-1, 0.1, n),
                "n_tokens": rng.integers(1, 500, n),
                "n_bytes": rng.integers(1, 2000, n),
                "status": rng.choice(["ok", "too_long", "nonfinite"], n, p=[0.9, 0.05, 0.05]),
            }
        )
        for model in range(n_models)
    }


@pytest.mark.parametrize("reward", REWARDS)
def test_the_matrix_equals_the_rewards_pair_by_pair(reward):
    models = random_scores(3, 50, rng=np.random.default_rng(1))
    models["m2"] = models["m2"].sample(frac=1, random_state=1)
    pairs = pd.DataFrame({"pair_id": ["a", "b", "c"], "strong": ["m0", "m2", "m1"], "weak": ["m1", "m0", "m2"]})
    matrix = reward_matrix(models, pairs, reward=reward)
    for row, pair in enumerate(pairs.itertuples()):
        frame = rewards(models[pair.strong], models[pair.weak], reward=reward)
        expected = frame.set_index(["example_id", "response_id"])["reward"]
        assert 0 < expected.isna().sum() < len(expected)
        np.testing.assert_array_equal(matrix.values[row], expected.loc[matrix.responses])


def test_the_matrix_is_split_by_example_in_the_examples_order_of_responses():
    pairs = pd.DataFrame({"strong": ["strong"], "weak": ["weak"]})
    matrix = reward_matrix({"strong": STRONG, "weak": WEAK}, pairs, reward="sum")
    turned = {name: Example(name, "chat", (), (("rejected", "b"), ("chosen", "a"))) for name in ("chat/2", "chat/1")}
    examples, found = matrix.by_example(turned)
    assert [example.example_id for example in examples] == ["chat/1", "chat/2"]
    assert [each.tolist() for each in found] == [[[4.0, 10.0]], [[0.0, 0.0]]]
    with pytest.raises(ValueError, match="chat/2: this example has scores, but the data set does not contain it"):
        matrix.by_example({"chat/1": turned["chat/1"]})
    more = turned["chat/1"]._replace(responses=(("chosen", "a"), ("other", "c")))
    with pytest.raises(ValueError, match="chat/1: response other is not scored"):
        matrix.by_example(turned | {"chat/1": more})


def test_the_matrix_refuses_models_that_were_scored_on_other_responses():
    models = {"strong": STRONG, "weak": WEAK.iloc[:2]}
    pairs = pd.DataFrame({"strong": ["strong"], "weak": ["weak"]})
    message = "chat/2: strong scored response (chosen|rejected) of this example, but weak did not"
    with pytest.raises(ValueError, match=message):
        reward_matrix(models, pairs, reward="sum")


def test_the_whole_study_is_subtracted_in_seconds():
    models = random_scores(44, 2985, rng=np.random.default_rng(2))
    chosen = np.random.default_rng(3).integers(0, 44, (221, 2))
    pairs = pd.DataFrame({"strong": [f"m{i}" for i, _ in chosen], "weak": [f"m{i}" for _, i in chosen]})
    start = time.perf_counter()
    assert reward_matrix(models, pairs, reward="mean").values.shape == (221, 2 * 2985)
    assert time.perf_counter() - start < 5


def test_the_margin_of_several_candidates_is_the_best_right_reward_less_the_best_wrong_one():
    names = ["0", "1", "2", "3"]
    frames = [
        scores(*(("q", name, value, 0.0, 2, 4, "ok") for name, value in zip(names, values, strict=True)))
        for values in ([-1.0, -4.0, -3.0, -9.0], [-2.0, -2.0, -2.0, -2.0])
    ]
    # Rewards 1, -2, -1, -7.
    for right, margin in ((["0"], 2.0), (["1", "2"], -2.0), (["3", "0"], 2.0), (["3"], -8.0)):
        found = margins(*frames, pd.Series({"q": "mine"}), pair_id="p", right={"q": right})
        assert found.set_index("reward")["margin_nats"].to_dict() == {
            "sum": margin, "mean": margin / 2, "per-byte": margin / 4,
        }  # fmt: skip
    found = margins(
        set_status(frames[0], 3, "too_long"), frames[1], pd.Series({"q": ""}), pair_id="p", right={"q": ["0"]}
    )
    assert found["status"].tolist() == ["too_long"] * 3 and found["margin_nats"].isna().all()
    with pytest.raises(ValueError, match="q: a margin needs a right and a wrong response, but p scored only one kind"):
        margins(*frames, pd.Series({"q": ""}), pair_id="p", right={"q": names})
