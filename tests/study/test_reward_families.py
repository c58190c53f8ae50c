"""Every reward on responses that a person can work out; what is said where a reward's numbers were not stored."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.nonparametric.smoothers_lowess import lowess

from bench.cli.options import Reward
from bench.schema import REWARDS, SCORES, TOKEN_REWARDS, DrsowError, PreconditionError
from bench.study.reward import margins, reward_matrix, rewards
from bench.study.rewards import by_length, contrastive, prefix, robust
from bench.study.rewards.known import KNOWN

LOG = math.log


def scored(*rows: tuple[str, str, float, int]) -> pd.DataFrame:
    """SCORES from example_id, response_id, sum and bytes; the end of turn costs nothing, four tokens each."""
    lines = [(example, response, total, 0.0, 4, size, "ok") for example, response, total, size in rows]
    return pd.DataFrame(lines, columns=list(SCORES))


def told(
    logps: list[float], *, tops: list[float] | None = None, ends: list[int] | None = None, status: str = "ok"
) -> pd.DataFrame:
    """One response with the scores of its tokens."""
    ends = [*range(1, len(logps)), len(logps) - 1] if ends is None else ends
    lists = {"logp_nats": [logps], "logsumexp_nats": [logps], "top_logp_nats": [tops or logps], "byte_end": [ends]}
    row = ("a", "chosen", sum(logps[:-1]), logps[-1], len(logps), len(logps) - 1, status)
    return pd.DataFrame([row], columns=list(SCORES)).assign(**lists)


def reward_of(strong: pd.DataFrame, weak: pd.DataFrame, name: str) -> float:
    return rewards(strong, weak, reward=name)["reward"].iloc[0]


def test_every_list_of_rewards_has_the_same_names():
    assert tuple(KNOWN) == tuple(Reward)
    assert tuple(KNOWN)[-len(TOKEN_REWARDS) :] == TOKEN_REWARDS
    assert tuple(KNOWN)[: len(REWARDS)] == REWARDS
    assert all(each.unit and each.source and each.function.__doc__ for each in KNOWN.values())


def test_the_strong_model_alone_ignores_the_weak_one():
    strong, weak = scored(("a", "0", -8.0, 9)), scored(("a", "0", -3.0, 9))
    assert reward_of(strong, weak, "strong") == -8.0
    assert reward_of(strong, weak, "strong-mean") == -2.0


RATIOS = [1.0, -3.0, 4.0, -1.0]
"""Prefix sums: 1, -2, 2, 1."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sum", 1.0),
        ("peak", 2.0),
        ("prefix-min", -2.0),
        ("prefix-mean", 0.5),
        ("last", 1.0),
        ("clipped", 1 - 1 + 1 - 1),
        ("trimmed", 0.25),
    ],
)
def test_a_reward_of_tokens_is_that_of_the_hand(name, value):
    weak = [-5.0, -2.0, -6.0, -1.0]
    strong = [w + r for w, r in zip(weak, RATIOS, strict=True)]
    assert reward_of(told(strong), told(weak), name) == pytest.approx(value)


def test_the_last_tokens_are_the_last_32_end_of_turn_included():
    strong = [-2.0] * 8 + [-1.0] * prefix.LAST
    assert prefix.LAST == 32
    assert reward_of(told(strong), told([-2.0] * 40), "last") == 32.0


def test_the_trimmed_mean_leaves_out_a_tenth_at_each_end():
    ratios = [-100.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 500.0]
    assert robust.TRIMMED == 0.1
    assert reward_of(told([r - 600 for r in ratios]), told([-600.0] * 10), "trimmed") == pytest.approx(9 / 8)


def test_contrastive_counts_tokens_within_a_tenth_of_the_likeliest():
    assert contrastive.PLAUSIBLE == 0.1
    strong = [LOG(0.2), LOG(0.05), LOG(0.04)]
    tops = [LOG(0.5), LOG(0.4), LOG(0.5)]
    # 0.2 / 0.5 and 0.05 / 0.4 are over a tenth, 0.04 / 0.5 is not.
    weak = told([LOG(0.1), LOG(0.1), LOG(0.001)])
    assert reward_of(told(strong, tops=tops), weak, "contrastive") == pytest.approx(LOG(2) + LOG(0.5))


def test_models_with_other_tokens_are_compared_where_both_end_one():
    # Five bytes: the strong model reads 2 + 3, the weak one 1 + 1 + 3. They share the ends 2 and 5.
    strong = told([-1.0, -4.0, -0.5], ends=[2, 5, 5])
    weak = told([-1.0, -2.0, -3.0, -0.25], ends=[1, 2, 5, 5])
    # Stretches: -1 + 3 = 2, -4 + 3 = -1, end of turn -0.25; prefix sums 2, 1, 0.75.
    assert reward_of(strong, weak, "peak") == 2.0
    assert reward_of(strong, weak, "prefix-min") == 0.75
    assert reward_of(strong, weak, "clipped") == 1 - 1 - 0.25
    assert reward_of(strong, weak, "sum") == reward_of(strong, weak, "last") == 0.75


def test_tokens_without_places_are_compared_only_if_all_responses_have_as_many_under_both_models():
    two, three = told([-1.0, -1.0]), told([-1.0, -1.0, -1.0]).assign(example_id="b")
    strong = pd.concat([two, three], ignore_index=True).assign(byte_end=None)
    assert rewards(strong, strong, reward="peak")["reward"].tolist() == [0.0, 0.0]
    weak = pd.concat([two, two.assign(example_id="b")], ignore_index=True).assign(byte_end=None)
    with pytest.raises(DrsowError, match=r"^reward peak: a, response chosen: its tokens' places in the text are not"):
        rewards(strong, weak, reward="peak")


def test_a_stretch_is_plausible_if_all_of_the_strong_models_tokens_in_it_are():
    strong = told([LOG(0.5), LOG(0.01), LOG(0.5)], tops=[LOG(0.5)] * 3, ends=[1, 2, 2])
    weak = told([LOG(0.25), LOG(0.25)], ends=[2, 2])
    assert reward_of(strong, weak, "contrastive") == pytest.approx(LOG(2))


def test_models_that_read_different_texts_are_an_error_with_the_response_named():
    strong, weak = told([-1.0, -1.0], ends=[2, 2]), told([-1.0, -1.0, -1.0], ends=[1, 3, 3])
    with pytest.raises(DrsowError, match=r"^reward peak: a, response chosen: the two models read different texts"):
        reward_of(strong, weak, "peak")


@pytest.mark.parametrize("name", TOKEN_REWARDS)
def test_a_reward_without_its_tokens_names_the_command_that_stores_them(name):
    frame = scored(("a", "0", -1.0, 9))
    with pytest.raises(PreconditionError, match=rf"^reward {name}: .* `drsow run --tokens` stores them$"):
        reward_of(frame, frame, name)


def test_contrastive_without_the_largest_log_probabilities_says_so():
    strong = told([-1.0, -1.0])
    strong.at[0, "top_logp_nats"] = None
    with pytest.raises(PreconditionError, match=r"^reward contrastive: a: .* largest log-probability .* --tokens"):
        reward_of(strong, told([-1.0, -1.0]), "contrastive")


@pytest.mark.parametrize("name", KNOWN)
def test_a_response_that_is_too_long_has_no_reward_and_disturbs_no_other(name):
    lists = ["logp_nats", "logsumexp_nats", "top_logp_nats", "byte_end"]
    strong = pd.concat([told([-1.0, -3.0]), told([-2.0, -2.0])], ignore_index=True).assign(response_id=["0", "1"])
    weak = strong.assign(logp_sum_nats=-9.0, logp_nats=[[-9.0, -3.0], [-9.0, -2.0]])
    alone = rewards(strong.head(1), weak.head(1), reward=name)["reward"].iloc[0]
    broken = strong.astype(object)
    broken.loc[1, ["logp_sum_nats", "logp_end_nats"]] = np.nan
    broken.loc[1, "status"] = "too_long"
    broken.loc[1, lists] = None
    broken = broken.astype({"logp_sum_nats": float, "logp_end_nats": float, "n_tokens": int, "n_bytes": int})
    found = rewards(broken, weak, reward=name)
    assert found["reward"].iloc[0] == pytest.approx(alone) and math.isnan(found["reward"].iloc[1])


def test_length_regularised_takes_off_the_price_at_which_labels_are_equally_long():
    # Differences of reward and bytes: 6 for 2 (3 a byte), 4 for 4 (1 a byte), -2 for 4 (-0.5 a byte).
    chosen = scored(("a", "chosen", 6.0, 12), ("b", "chosen", 4.0, 14), ("c", "chosen", -2.0, 14))
    rejected = scored(("a", "rejected", 0.0, 10), ("b", "rejected", 0.0, 10), ("c", "rejected", 0.0, 10))
    strong = pd.concat([chosen, rejected], ignore_index=True)
    weak = strong.assign(logp_sum_nats=0.0)
    # Between -0.5 and 1 the labels of a and b are 2 + 4 longer, that of c 4 shorter: +2; between 1 and 3: -6.
    found = rewards(strong, weak, reward="length-regularised").set_index(["example_id", "response_id"])["reward"]
    assert found["a", "chosen"] - found["a", "rejected"] == pytest.approx(6 - 2 * 0.25)
    assert found["b", "chosen"] - found["b", "rejected"] == pytest.approx(4 - 4 * 0.25)


def test_the_price_of_length_counts_a_preference_by_its_difference_of_bytes():
    # 1 a byte for 1 byte, 2 for 1, 3 for 10: between 2 and 3 the preferred responses are 10 bytes longer and 2 shorter
    rows = [("a", 1.0, 1), ("a", 0.0, 0), ("b", 2.0, 1), ("b", 0.0, 0), ("c", 30.0, 10), ("c", 0.0, 0)]
    assert by_length.price_of_length(*(pd.Series(column) for column in zip(*rows, strict=True))) == 2.5


def test_equal_lengths_have_no_price():
    frame = scored(("a", "0", -1.0, 9), ("a", "1", -2.0, 9))
    assert by_length.price_of_length(frame["example_id"], frame["logp_sum_nats"], frame["n_bytes"]) == 0.0


def test_calibration_leaves_nothing_of_a_reward_that_is_length_alone():
    sizes = range(20, 60)
    strong = scored(*((f"{n}", "0", 3.0 * n, n) for n in sizes))
    weak = strong.assign(logp_sum_nats=0.0)
    found = rewards(strong, weak, reward="calibrated")["reward"]
    np.testing.assert_allclose(found, 0, atol=1e-6)
    plus = strong.assign(logp_sum_nats=strong["logp_sum_nats"] + np.where(np.arange(len(strong)) == 7, 5.0, 0.0))
    assert rewards(plus, weak, reward="calibrated")["reward"].idxmax() == 7


def test_calibration_is_robust_lowess_over_nine_tenths_of_the_responses():
    rng = np.random.default_rng(0)
    size = np.sort(rng.permutation(400)[:40] + 1)
    values = 0.01 * size**1.5 + rng.standard_normal(40)
    values[7] += 100
    strong = scored(*((str(n), "0", value, int(s)) for n, (value, s) in enumerate(zip(values, size, strict=True))))
    found = rewards(strong, strong.assign(logp_sum_nats=0.0), reward="calibrated")["reward"]
    curve = lowess(values, size, frac=0.9, it=3, return_sorted=False)
    np.testing.assert_allclose(values - found, curve, atol=0.02 * np.ptp(curve))


def test_few_lengths_are_calibrated_by_their_mean():
    strong = scored(("a", "0", 4.0, 5), ("a", "1", 2.0, 9))
    found = rewards(strong, strong.assign(logp_sum_nats=0.0), reward="calibrated")["reward"]
    assert found.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("name", KNOWN)
def test_margins_and_the_matrix_are_differences_and_rows_of_the_rewards(name):
    chosen, rejected = told([-1.0, -2.0, -0.5]), told([-3.0, -1.0, -1.5]).assign(response_id="rejected")
    strong = pd.concat([chosen, rejected], ignore_index=True)
    weak = strong.assign(logp_nats=[[-2.0, -2.0, -0.5], [-3.0, -2.5, -1.5]], logp_sum_nats=[-4.0, -5.5])
    single = rewards(strong, weak, reward=name)["reward"].to_numpy()
    found = margins(strong, weak, pd.Series({"a": "s"}), pair_id="p", names=(name,))
    assert found["margin_nats"].tolist() == [single[0] - single[1]]
    pairs = pd.DataFrame({"strong": ["x"], "weak": ["y"]})
    np.testing.assert_array_equal(reward_matrix({"x": strong, "y": weak}, pairs, reward=name).values, [single])
