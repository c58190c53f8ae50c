"""Checks how well the confidences of a pair's labels fit the labels, and what is gained by keeping only sure labels.

The expected calibration error is the mean difference between confidence and accuracy over bins of confidence, weighted
by their numbers of rows. It is above 0 for perfect confidences too, because the accuracy of a bin is noisy. So its
interval is made of that noise: the bootstrap draws problems again and finds how far the differences of all bins
together move (the 95% quantile). By the triangle inequality the true error is no farther from the measured one. The
interval begins at 0 where noise alone explains the error; where the true error is large, the interval is wider than it
would need to be.

Labels are ordered by confidence inside their fold, not over all folds. The labels of a fold with few right ones get
higher confidences, because the other folds have more right ones: over all folds, the surest labels of a pair whose
margins say nothing would be its worst.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.study.confidence import MIN_PROBLEMS, cross_fit, n_problems
from bench.study.interval import plain_sample, share_limits

CALIBRATION = (
    "pair_id", "reward", "accuracy", "confidence", "error", "error_low", "error_high",
    "n_examples", "n_ties", "n_excluded", "n_problems",
)  # fmt: skip
"""One row per pair. `accuracy` is the share of labels that are right, `confidence` the mean probability that the labels
of other problems give them, and `error` the expected calibration error with its 95% interval; fractions, 0 to 1.
`n_examples` counts the labels. A tie is no label. Rows of several responses are left out (`n_excluded`) where the best
and the worst are both right or both wrong."""

RELIABILITY = (
    "pair_id", "reward", "confidence_low", "confidence_high", "confidence", "accuracy", "low", "high", "n_examples",
)  # fmt: skip
"""One row per pair and bin of about equally many labels. `confidence_low` and `confidence_high` are the smallest and
the largest confidence of the bin, `confidence` is their mean."""

COVERAGE = (
    "pair_id", "reward", "by", "coverage", "least", "accuracy", "low", "high", "confidence", "n_examples",
)  # fmt: skip
"""One row per pair and share of labels kept: `accuracy` and mean `confidence` of the labels with the largest margins
(`by` is "margin") or confidences (`by` is "confidence"). `least` is the smallest margin, in the unit of the reward, or
the smallest confidence among them. `coverage` is their share of all labels, 0 to 1."""

MARGIN, CONFIDENCE = "margin", "confidence"
"""Values of `by`."""

N_DRAWS = 2_000
_MAX_BINS = 10
_PROBLEMS_PER_BIN = 20
_SHARES = np.arange(0.05, 1.01, 0.05)


class Sureness(NamedTuple):
    """What is known about the confidences of one pair."""

    calibration: dict[str, float]
    """CALIBRATION without the names."""
    reliability: pd.DataFrame
    """RELIABILITY without the names."""
    coverage: pd.DataFrame
    """COVERAGE without the names."""


def sureness(margin: np.ndarray, problem: np.ndarray, *, rng: np.random.Generator) -> Sureness:
    """Calibrate a pair's labels on other problems, and compare the confidences with the labels.

    Args:
        margin: Margins of the labels, (rows,), as in `confidence.label_margins`.
        problem: Number of each row's problem, (rows,), int.
        rng: Deals the folds and draws the bootstrap.
    """
    counts = {"n_ties": int((margin == 0).sum()), "n_excluded": int(np.isnan(margin).sum())}
    labelled = np.abs(margin) > 0
    margin, problem = margin[labelled], problem[labelled]
    confidence, order = _ordered(margin, problem, rng=rng)
    is_right = (margin > 0).astype(float)
    bins = _bins(order, n_problems(margin, problem))
    error = calibration_error(is_right, confidence, bins, problem, rng=rng)
    known = {"accuracy": _mean(is_right), "confidence": _mean(confidence), **error, "n_examples": len(margin)}
    return Sureness(
        known | counts | {"n_problems": n_problems(margin, problem)},
        _reliability(is_right, confidence, bins, problem),
        pd.concat(
            [
                _coverage(np.abs(margin), np.abs(margin), is_right, confidence, problem).assign(by=MARGIN),
                _coverage(order, confidence, is_right, confidence, problem).assign(by=CONFIDENCE),
            ],
            ignore_index=True,
        )[list(COVERAGE[2:])],
    )


def calibration_error(
    is_right: np.ndarray, confidence: np.ndarray, bins: np.ndarray, problem: np.ndarray, *, rng: np.random.Generator
) -> dict[str, float]:
    """The expected calibration error with its 95% interval.

    Args:
        is_right: 1 or 0, (rows,).
        confidence: Probability that each label is right, (rows,).
        bins: Bin of each row, (rows,), int from 0.
        problem: Number of each row's problem, (rows,), int.
        rng: Draws problems again.

    Returns:
        `error`, `error_low`, `error_high`, 0 to 1; NaN without rows, or where the confidence is missing.
    """
    if not len(bins) or np.isnan(confidence).any():
        return dict.fromkeys(("error", "error_low", "error_high"), float("nan"))
    inside = (bins[:, None] == np.arange(bins.max() + 1)).astype(float)
    share = inside.mean(axis=0)
    n = inside.sum(axis=0)
    gap, sure = inside.T @ (is_right - confidence) / n, inside.T @ confidence / n
    _, number = np.unique(problem, return_inverse=True)
    together = np.zeros((2, number.max() + 1, inside.shape[1]))
    for sums, values in zip(together, (np.ones_like(is_right), is_right - confidence), strict=True):
        np.add.at(sums, number, inside * values[:, None])
    times = rng.standard_exponential((N_DRAWS, together.shape[1]))
    # One right and one wrong label more in each bin: that all its labels are right does not make it certain.
    right, wrong = rng.standard_exponential((2, N_DRAWS, len(n)))
    counted = times @ together[0] + right + wrong
    difference = times @ together[1] + right * (1 - sure) - wrong * sure
    moved = np.abs(difference / counted - (n * gap + 1 - 2 * sure) / (n + 2)) @ (share * (n + 2) / n)
    error, noise = float(np.abs(gap) @ share), float(np.quantile(moved, 0.95))
    return {"error": error, "error_low": max(0.0, error - noise), "error_high": min(1.0, error + noise)}


def _ordered(margin: np.ndarray, problem: np.ndarray, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of each label, and its rank inside its fold as a share, 0 to 1; NaN for too few problems."""
    if n_problems(margin, problem) < MIN_PROBLEMS:
        return np.full(len(margin), np.nan), np.full(len(margin), np.nan)
    fit = cross_fit(margin, problem, rng=rng)
    confidence = fit.confidence(margin, fit.fold)
    return confidence, pd.Series(confidence).groupby(fit.fold).rank(pct=True).to_numpy()


def _bins(order: np.ndarray, n: int) -> np.ndarray:
    """Number of each label's bin, (rows,). Equal ranks share a bin, and a bin has about 20 problems or more."""
    if not len(order) or np.isnan(order).any() or len(np.unique(order)) < 2:
        return np.zeros(len(order), dtype=int)
    n_bins = min(_MAX_BINS, max(1, n // _PROBLEMS_PER_BIN))
    codes = pd.qcut(order, n_bins, labels=False, duplicates="drop")
    return np.unique(codes, return_inverse=True)[1]


def _reliability(is_right: np.ndarray, confidence: np.ndarray, bins: np.ndarray, problem: np.ndarray) -> pd.DataFrame:
    """RELIABILITY without the names; empty where there is no confidence."""
    rows = []
    for number in np.unique(bins[np.isfinite(confidence)]):
        mine = bins == number
        sure = confidence[mine]
        rows.append((sure.min(), sure.max(), sure.mean(), *_accuracy(is_right[mine], problem[mine])))
    return pd.DataFrame(rows, columns=list(RELIABILITY[2:]))


def _coverage(
    order: np.ndarray, value: np.ndarray, is_right: np.ndarray, confidence: np.ndarray, problem: np.ndarray
) -> pd.DataFrame:
    """COVERAGE without names, labels of the largest order first. Labels of equal order are kept or left out together.

    Args:
        order: Decides which labels are kept, (rows,).
        value: Margin or confidence whose smallest value is reported, (rows,).
        is_right: 1 or 0, (rows,).
        confidence: Probability that each label is right, (rows,).
        problem: Number of each row's problem, (rows,), int.
    """
    largest = np.sort(order[np.isfinite(order)])[::-1]
    n = len(largest)
    limits = [largest[int(np.ceil(share * n - 1e-9)) - 1] for share in _SHARES] if n else []
    rows = []
    for limit in dict.fromkeys(limits):
        kept = order >= limit
        share, low, high, n_kept = _accuracy(is_right[kept], problem[kept])
        rows.append((kept.mean(), value[kept].min(), share, low, high, _mean(confidence[kept]), n_kept))
    frame = pd.DataFrame(rows, columns=list(COVERAGE[3:]))
    return frame.astype(dict.fromkeys(COVERAGE[3:-1], float) | {"n_examples": int})


def _accuracy(is_right: np.ndarray, problem: np.ndarray) -> tuple[float, float, float, int]:
    """Share of right labels, its limits, and the number of labels."""
    limits = share_limits(is_right[None], plain_sample(problem))
    return float(is_right.mean()), float(limits.low[0]), float(limits.high[0]), len(is_right)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def too_few(n: int) -> str:
    """Why there is no calibration, for a message about data with labels of `n` problems."""
    return f"it has labels of {n} different prompts, and a calibration needs at least {MIN_PROBLEMS}"
