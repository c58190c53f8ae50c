"""Estimates the probability that a pair's label is right from the margin of the label (Platt 1999).

A pair labels a row by the response with the highest reward over the one with the lowest, and the margin of the label is
the difference of the two rewards. On rows whose right responses are known, a logistic regression fits how often labels
are right by their margin x, in units of the median margin:

    log odds = a + b log(1 + x) + c x

Why not isotonic regression: it assumes that a larger margin is surer. That is false for a pair whose largest margins
measure length, and this fit can fall with the margin. On a few hundred rows isotonic regression also jumps to 0 and 1.
Why two terms: sums of log-ratios have heavy tails, so a line in x alone follows a few huge margins.

The fit is cautious with few rows: labels are moved towards 1/2 as Platt does, and both slopes are shrunk (`_RIDGE`).
Beyond the largest margin of the fit, the probability stays what it is there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.schema import Example
from bench.study.benchmarks import Rewards

MIN_PROBLEMS = 10
"""Fewest problems with a label that a calibration needs."""
N_FOLDS = 10

_RIDGE = 3.0
"""Penalty on the squares of both slopes, each for one standard deviation of its term. In units of rows: it decides with
a few dozen rows and does nothing with thousands."""
_STEPS = 100
_CLOSE = 1e-9


class Calibration(NamedTuple):
    """The probability that a label is right, by its margin."""

    scale: float
    """Median margin of the fit, in the unit of the reward, like all margins here."""
    largest: float
    """Largest margin of the fit."""
    centre: np.ndarray
    """Mean of both terms over the rows of the fit, (2,)."""
    spread: np.ndarray
    """Standard deviation of both terms over the rows of the fit, (2,)."""
    odds: np.ndarray
    """Log odds where both terms are at their means, and their change for one standard deviation of each, (3,)."""

    def confidence(self, margin: np.ndarray) -> np.ndarray:
        """Probability that labels with these margins are right, (rows,); NaN where the margin is 0 or NaN: no label."""
        size = np.abs(np.asarray(margin, dtype=float))
        terms = (_terms(np.minimum(size, self.largest) / self.scale) - self.centre) / self.spread
        return np.where(size > 0, _share(self.odds[0] + terms @ self.odds[1:]), np.nan)


def label_margins(examples: Sequence[Example], rewards: Rewards) -> np.ndarray:
    """Margin of the label that each run gives to each example, (runs, examples).

    The label prefers the response with the highest reward to the one with the lowest. Its margin is positive if the
    first is right and the second wrong, and negative if it is the other way round. If the data has scores of the
    responses, the one with the higher score is right. 0 is a tie of the rewards, which is no label. NaN where a
    response is not scored, or where both are right, both wrong, or of the same score: then the label is neither right
    nor wrong. For preferences these are the margins of MARGINS.
    """
    columns = []
    for example, found in zip(examples, rewards, strict=True):
        is_right = [name in example.right for name, _ in example.responses]
        score = np.array(example.scores or is_right, dtype=float)
        gap = found.max(axis=1) - found.min(axis=1)
        side = np.sign(score[found.argmax(axis=1)] - score[found.argmin(axis=1)])
        columns.append(np.where((side == 0) & (gap > 0), np.nan, side * gap))
    return np.stack(columns, axis=1)


def calibrate(margin: np.ndarray) -> Calibration:
    """Fit the probability that a label is right.

    Args:
        margin: Margin of each label, (rows,): positive where it is right, negative where it is wrong. 0 and NaN are no
            labels and are left out; at least one row must be a label.
    """
    labels = margin[np.abs(margin) > 0]
    size, is_right = np.abs(labels), labels > 0
    scale = float(np.median(size))
    terms = _terms(size / scale)
    spread = terms.std(axis=0)
    # equal margins have no slope
    spread = np.where(spread > _CLOSE, spread, 1.0)
    centre = terms.mean(axis=0)
    n_right, n_wrong = is_right.sum(), (~is_right).sum()
    target = np.where(is_right, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    return Calibration(scale, float(size.max()), centre, spread, _fitted((terms - centre) / spread, target))


class CrossFit(NamedTuple):
    """Calibrations that leave out each fold of the problems, and one on all of them."""

    whole: Calibration
    without: tuple[Calibration, ...]
    """The calibration on the labels of the other folds, by fold."""
    fold: np.ndarray
    """Fold of each row, (rows,), int; -1 where the row is no label."""

    def confidence(self, margin: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Probability that labels are right, (rows,), from labels of other problems.

        Args:
            margin: As in `Calibration.confidence`, (rows,).
            fold: Fold of each row's problem, (rows,), int; -1 for a problem that is in no fold.
        """
        found = self.whole.confidence(margin)
        for number, fit in enumerate(self.without):
            found = np.where(fold == number, fit.confidence(margin), found)
        return found


def cross_fit(margin: np.ndarray, problem: np.ndarray, *, rng: np.random.Generator) -> CrossFit:
    """Calibrate without each fold of the problems.

    Args:
        margin: As in `calibrate`, (rows,). Labels of at least MIN_PROBLEMS problems.
        problem: Number of each row's problem, (rows,), int.
        rng: Deals the problems into folds.
    """
    labelled = np.abs(margin) > 0
    fold = np.full(len(margin), -1)
    fold[labelled] = folds(problem[labelled], rng=rng)
    without = tuple(calibrate(margin[labelled & (fold != number)]) for number in range(N_FOLDS))
    return CrossFit(calibrate(margin), without, fold)


def folds(problem: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Deal problems evenly into folds: the fold of each row, (rows,), int. All rows of a problem are in one fold."""
    _, number = np.unique(problem, return_inverse=True)
    return (rng.permutation(number.max() + 1) % N_FOLDS)[number]


def n_problems(margin: np.ndarray, problem: np.ndarray) -> int:
    """Number of problems with a label."""
    return len(np.unique(problem[np.abs(margin) > 0]))


def _terms(size: np.ndarray) -> np.ndarray:
    """Both terms of the log odds, (rows, 2), from margins in units of the scale, (rows,)."""
    return np.stack([np.log1p(size), size], axis=1)


def _share(odds: np.ndarray) -> np.ndarray:
    """Probability of log odds."""
    return 1 / (1 + np.exp(-odds))


def _fitted(terms: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression with a penalty on the slopes, (3,), by Newton's method."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = np.diag([0.0, _RIDGE, _RIDGE])
    odds = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        share = _share(design @ odds)
        curvature = design.T @ (design * (share * (1 - share))[:, None]) + penalty
        step = np.linalg.solve(curvature, design.T @ (target - share) - penalty @ odds)
        # a whole step can overshoot where nearly all labels are right
        odds = odds + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < _CLOSE:
            break
    return odds
