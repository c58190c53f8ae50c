"""The probability that a label is right: planted margins, cross-fitting, and the tables on it."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import Example
from bench.study.confidence import MIN_PROBLEMS, N_FOLDS, calibrate, cross_fit, folds, label_margins
from bench.study.interval import plain_sample, share_limits
from bench.study.reliability import COVERAGE, RELIABILITY, calibration_error, sureness, too_few

NAN = float("nan")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(n: int, truth, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins whose sizes are drawn, right with the probability truth(size); and that probability."""
    size = rng(seed).exponential(2.0, n)
    chance = truth(size)
    return np.where(rng(seed + 1).random(n) < chance, size, -size), chance


def cross_fitted(margin: np.ndarray, problem: np.ndarray) -> np.ndarray:
    """Probability that each label is right, from labels of other problems, (rows,)."""
    fit = cross_fit(margin, problem, rng=rng())
    return fit.confidence(margin, fit.fold)


WORLDS = {
    "sure where large": lambda size: 1 / (1 + np.exp(-size)),
    "never sure": lambda size: np.full(len(size), 0.6),
    "wrong where large": lambda size: 1 / (1 + np.exp(size - 2)),
}


@pytest.mark.parametrize("name", WORLDS)
def test_planted_margins_get_their_probability_within_the_interval(name):
    margin, chance = planted(4000, WORLDS[name])
    found = sureness(margin, np.arange(4000), rng=rng())
    assert found.calibration["error_low"] == 0
    assert found.calibration["error"] < found.calibration["error_high"] < 0.05
    # in every bin the interval of the accuracy has the true mean probability, and the confidence is near it
    confidence = cross_fitted(margin, np.arange(4000))
    assert np.abs(confidence - chance).mean() < 0.02
    for low, high, at_least, at_most in found.reliability[["low", "high", "confidence_low", "confidence_high"]].values:
        inside = (confidence >= at_least) & (confidence <= at_most)
        assert low - 0.03 < chance[inside].mean() < high + 0.03


def test_the_confidence_falls_where_large_margins_are_wrong():
    fit = calibrate(planted(2000, WORLDS["wrong where large"])[0])
    small, large = fit.confidence(np.array([0.5, 6.0]))
    assert small > 0.75 and large < 0.2


def test_beyond_the_largest_margin_of_the_fit_the_confidence_stays():
    fit = calibrate(np.array([1.0, -1.0, 2.0, 3.0, -0.5, 4.0]))
    assert fit.confidence(np.array([4.0]))[0] == fit.confidence(np.array([400.0]))[0]
    # the side of the margin says who is preferred, not how surely
    assert fit.confidence(np.array([-2.0]))[0] == fit.confidence(np.array([2.0]))[0]


def test_a_tie_and_a_missing_margin_have_no_confidence():
    fit = calibrate(np.array([1.0, -1.0, 2.0]))
    assert np.isnan(fit.confidence(np.array([0.0, NAN]))).all()


def test_equal_margins_have_the_share_of_right_labels_moved_towards_one_half():
    # 3 of 4 right: Platt's targets are 4/5 for right and 1/3 for wrong ones
    fit = calibrate(np.array([2.0, 2.0, 2.0, -2.0]))
    assert fit.confidence(np.array([2.0]))[0] == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)


def test_labels_that_are_all_right_are_not_called_certain():
    fit = calibrate(np.linspace(1, 5, 50))
    assert (fit.confidence(np.linspace(1, 5, 50)) < 0.99).all()
    assert (fit.confidence(np.linspace(1, 5, 50)) > 0.95).all()


def test_no_problem_is_in_two_folds_and_every_fold_has_its_share():
    problem = np.repeat(np.arange(25), 4)
    fold = folds(problem, rng=rng())
    assert pd.Series(fold).groupby(problem).nunique().eq(1).all()
    assert sorted(np.bincount(fold)) == [8] * 5 + [12] * 5 and len(np.bincount(fold)) == N_FOLDS


@pytest.mark.parametrize("problem", range(0, 30, 7))
def test_the_labels_of_a_problem_do_not_touch_its_own_confidences(problem):
    # Fails if any row of a problem is among those that fit its confidence: then turning the labels round changes it.
    problems = np.repeat(np.arange(30), 3)
    margin, _ = planted(90, WORLDS["sure where large"])
    mine = problems == problem
    turned = np.where(mine, -margin * 7, margin)
    before, after = (cross_fitted(each, problems) for each in (margin, np.where(mine, -margin, margin)))
    assert before[mine].tolist() == after[mine].tolist()
    assert not np.allclose(before[~mine], after[~mine])
    assert cross_fitted(turned, problems)[~mine].tolist() != before[~mine].tolist()


def test_too_few_problems_give_no_confidence_and_say_so():
    margin = planted(9 * 5, WORLDS["never sure"])[0]
    found = sureness(margin, np.repeat(np.arange(9), 5), rng=rng())
    assert np.isnan([found.calibration[name] for name in ("confidence", "error", "error_low", "error_high")]).all()
    assert found.reliability.empty and set(found.coverage["by"]) == {"margin"}
    assert found.calibration["n_problems"] == 9 == MIN_PROBLEMS - 1
    assert "labels of 9 different prompts, and a calibration needs at least 10" in too_few(9)


def test_the_error_is_the_mean_distance_of_confidence_and_accuracy_over_the_bins():
    # bin 0: accuracy 1/2, confidence 0.6; bin 1: accuracy 1, confidence 0.8; half of the rows each
    is_right, confidence = np.array([1.0, 0, 1, 1]), np.array([0.6, 0.6, 0.7, 0.9])
    found = calibration_error(is_right, confidence, np.array([0, 0, 1, 1]), np.arange(4), rng=rng())
    assert found["error"] == pytest.approx((0.1 + 0.2) / 2)
    assert 0 <= found["error_low"] <= found["error"] <= found["error_high"] <= 1


def test_rows_of_one_problem_make_the_interval_of_the_error_wider():
    margin = np.repeat(planted(200, WORLDS["sure where large"])[0], 4)
    bins = np.zeros(800, dtype=int)
    shared = [(margin > 0) * 1.0, np.full(800, 0.7), bins]
    alone, together = (
        calibration_error(*shared, problems, rng=rng()) for problems in (np.arange(800), np.repeat(np.arange(200), 4))
    )
    width = [each["error_high"] - each["error"] for each in (alone, together)]
    # four equal rows are one: the standard error doubles
    assert width[1] == pytest.approx(2 * width[0], rel=0.1)


def test_the_surest_labels_are_kept_first_and_equal_margins_together():
    margin = np.array([4.0, -3.0, 3.0, 1.0, 0.0, NAN, -0.5])
    found = sureness(margin, np.arange(7), rng=rng())
    rows = found.coverage[found.coverage["by"] == "margin"]
    assert rows[["coverage", "least", "accuracy", "n_examples"]].to_numpy().tolist() == [
        [1 / 5, 4.0, 1.0, 1],
        [3 / 5, 3.0, 2 / 3, 3],
        [4 / 5, 1.0, 3 / 4, 4],
        [5 / 5, 0.5, 3 / 5, 5],
    ]
    limits = share_limits(np.array([[1.0, 0, 1]]), plain_sample(np.arange(3)))
    assert rows[["low", "high"]].iloc[1].tolist() == [limits.low[0], limits.high[0]]
    assert [found.calibration[name] for name in ("n_examples", "n_ties", "n_excluded")] == [5, 1, 1]


def test_keeping_sure_labels_beats_keeping_large_margins_where_large_ones_are_wrong():
    margin, _ = planted(2000, WORLDS["wrong where large"])
    rows = sureness(margin, np.arange(2000), rng=rng()).coverage
    half = rows[rows["coverage"].between(0.49, 0.51)].set_index("by")["accuracy"]
    assert half["confidence"] > 0.75 > 0.4 > half["margin"]
    assert tuple(rows.columns) == COVERAGE[2:]


def test_where_margins_say_nothing_the_surest_labels_are_as_right_as_the_others():
    # Over all folds, the surest would be those of the folds with the fewest right labels.
    found = [
        sureness(planted(184, lambda s: 0 * s + 0.5, seed=2 * i)[0], np.arange(184), rng=rng(i)) for i in range(25)
    ]
    rows = [each.coverage[each.coverage["by"] == "confidence"] for each in found]
    fifth = [each.loc[each["coverage"].between(0.19, 0.25), "accuracy"].iloc[0] for each in rows]
    # 25 worlds with a fifth of 184 labels each: the standard error is 1.6 points
    assert np.mean(fifth) == pytest.approx(0.5, abs=0.05)
    assert np.mean([each.calibration["error_low"] == 0 for each in found]) >= 0.9


def test_bins_hold_about_equally_many_labels_and_no_label_is_lost():
    bins = sureness(planted(1000, WORLDS["sure where large"])[0], np.arange(1000), rng=rng()).reliability
    assert tuple(bins.columns) == RELIABILITY[2:]
    assert len(bins) == 10 and bins["n_examples"].sum() == 1000 and bins["n_examples"].between(90, 110).all()


def test_the_same_generator_gives_the_same_tables():
    margin = planted(100, WORLDS["never sure"])[0]
    once, again = (sureness(margin, np.arange(100), rng=rng(4)) for _ in range(2))
    assert once.calibration == again.calibration and once.coverage.equals(again.coverage)


def example(right: tuple[str, ...], n: int) -> Example:
    return Example("a", "", (), tuple((str(i), "x") for i in range(n)), right)


@pytest.mark.parametrize(
    ("rewards", "margin"),
    [
        ([5.0, 1.0, 2.0], 4.0),  # the best is right and the worst wrong
        ([1.0, 5.0, 2.0], -4.0),  # the best is wrong and the worst right
        ([3.0, 5.0, 2.0], NAN),  # both are wrong: no label about a right one
        ([2.0, 2.0, 2.0], 0.0),  # a tie
        ([5.0, NAN, 2.0], NAN),
    ],
)
def test_a_label_prefers_the_best_to_the_worst_response(rewards, margin):
    found = label_margins([example(("0",), 3)], [np.array([rewards])])
    np.testing.assert_array_equal(found, [[margin]])


@pytest.mark.parametrize("n", [12, 20, 60])
def test_the_calibration_error_of_labels_that_are_nearly_all_right_has_an_interval(n):
    draws, hits = rng(), 0
    for _ in range(100):
        is_right = (draws.random(n) < 0.97).astype(float)
        found = calibration_error(is_right, np.full(n, 0.9), np.zeros(n, dtype=int), np.arange(n), rng=draws)
        hits += found["error_low"] <= 0.07 <= found["error_high"]
    assert hits >= 90
