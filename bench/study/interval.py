"""Computes the 95% interval of a proportion: every accuracy, win rate and agreement takes its limits from here.

Wilson's score interval (1927) assumes independent rows of equal weight. Real rows differ: subsets have weights, rows of
one problem (a HumanEvalPack problem in six languages) are correlated, and a subset may have few rows. So the interval
uses the effective number of rows: the number of independent rows of equal weight that would leave the proportion
equally uncertain (Kish 1965; Korn and Graubard 1998). For independent rows of one subset this is their count, and the
interval is Wilson's. Two estimates in it would be too optimistic with few rows, so they are shrunk towards a cautious
value:

- the variance inside a subset: one right and one wrong row are added (that every row is right does not make it
  certain);
- the correlation of rows of one problem: two problems with a correlation of one half are added.

A subset with a single problem gives no estimate of its variance, so there is no interval.
`tests/study/simulation_choose.py` simulates how often the interval contains the true value.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

_Z = float(ndtri(0.975))
_ROUNDING = 1e-12
"""Most by which rounding moves a proportion; a proportion that is not 1 differs from 1 by more."""
_ADDED_ROWS = 1.0
"""Number of right rows, and of wrong rows, added to a subset when its variance is estimated."""
_ADDED_PROBLEMS, _GUESS = 2.0, 0.5
"""Number of problems added, and their correlation, when the correlation of rows of one problem is estimated."""


class Sample(NamedTuple):
    """The rows that a proportion is computed over."""

    weight: np.ndarray
    """Weight of each row, (rows,); equal inside a subset, sum 1."""
    subset: np.ndarray
    """(rows,), int."""
    problem: np.ndarray
    """Problem of each row, (rows,), int. Rows with one number are not independent evidence."""


class Limits(NamedTuple):
    """Both ends of a 95% interval, (k,) each; NaN where there are too few rows."""

    low: np.ndarray
    high: np.ndarray


class _Parts(NamedTuple):
    """Terms that sum to a proportion and its variance, (k, rows) each; 0 where a row is excluded."""

    share: np.ndarray
    """Weight of the row times the difference of its value from the mean of its subset."""
    spread: np.ndarray
    """Weight of the row times the standard deviation of its subset."""
    safe_spread: np.ndarray
    """The spread with rows added, corrected for the bias of a variance from few rows."""
    total: np.ndarray
    """The proportion, (k,)."""
    safe_total: np.ndarray
    """The proportion with rows added, (k,)."""


def plain_sample(problems: np.ndarray) -> Sample:
    """Rows of one subset with equal weights, (rows,)."""
    n = len(problems)
    return Sample(np.full(n, 1 / max(n, 1)), np.zeros(n, dtype=int), np.asarray(problems))


def share_limits(values: np.ndarray, sample: Sample) -> Limits:
    """The interval of each weighted proportion.

    Args:
        values: 1 right, 0 wrong, or between; NaN is excluded, (k, rows).
        sample: Weights, subsets and problems of the rows. The rows of a subset that are not excluded share its weight.
    """
    return wilson(weighted_share(values, sample), effective_rows(values, sample))


def weighted_share(values: np.ndarray, sample: Sample) -> np.ndarray:
    """The weighted proportions, (k,); NaN where a subset has no row."""
    return _parts(*counted(values, sample)).total


def effective_rows(values: np.ndarray, sample: Sample) -> np.ndarray:
    """Number of independent rows of equal weight with the same uncertainty, (k,); NaN for a one-problem subset."""
    values, sample = counted(values, sample)
    if not values.size:
        return np.full(len(values), np.nan)
    parts = _parts(values, sample)
    group = _membership(sample.problem)
    scored = np.isfinite(values)
    variance = (parts.safe_spread**2).sum(axis=1)
    several = group.sum(axis=0) > 1
    if several.any():
        together = _together(parts.safe_spread, group)
        variance = variance + _correlation(parts, group, scored, several) * together
    n, share = scored.sum(axis=1), parts.safe_total
    whole = share * (1 - share) * _unbias(n)
    return np.where(_has_two_problems(scored, sample), whole / np.where(variance > 0, variance, np.nan), np.nan)


def standard_error(values: np.ndarray, sample: Sample) -> np.ndarray:
    """Standard error of each proportion over problems, (k,); binomial where each row is its own problem."""
    values, sample = counted(values, sample)
    parts = _parts(values, sample)
    return np.sqrt(((parts.share @ _membership(sample.problem)) ** 2).sum(axis=1)) + 0 * parts.total


def wilson(share: np.ndarray, n: np.ndarray) -> Limits:
    """Wilson's 95% limits of a proportion of n rows; NaN where one of the two is NaN."""
    n = np.where(np.asarray(n) > 0, n, np.nan)
    share = np.asarray(share, dtype=float)
    # weights of 1 / 6 sum to slightly less than 1; the interval of a proportion of 1 ends at 1
    share = np.where(np.abs(share - 1) < _ROUNDING, 1.0, share)
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    inside = np.clip(share * (1 - share), 0, None)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(inside / n + _Z**2 / (4 * n * n))
    # without the minimum and maximum, rounding could leave a proportion of 0 or 1 just outside its own interval
    return Limits(np.clip(np.minimum(centre - half, share), 0, 1), np.clip(np.maximum(centre + half, share), 0, 1))


def apart(first: float, first_limits: Limits, second: float, second_limits: Limits) -> tuple[float, float]:
    """Limits of the difference of two proportions of different rows (Newcombe 1998, method 10)."""
    low = np.hypot(first - first_limits.low, second_limits.high - second)
    high = np.hypot(first_limits.high - first, second - second_limits.low)
    return float(first - second - low), float(first - second + high)


def difference_limits(values: np.ndarray, sample: Sample, *, variance: float = 0.0) -> Limits:
    """Limits of the mean difference of two judges of the same rows, inside -1 and 1.

    They use the clustered standard error after adding one row that only the first judge has right and one that only the
    second has right (Agresti and Min 2005): two judges that agree on every row are not known to be equal.

    Args:
        values: Difference on each row, -1 to 1, (rows,), without excluded rows.
        sample: Weights, subsets and problems of the rows.
        variance: Variance of the mean, where it is known to be larger than that over the rows.
    """
    values, sample = counted(values[None], sample)
    (mean,) = values @ sample.weight
    n = 1 / (np.bincount(sample.problem, weights=sample.weight) ** 2).sum()
    (error,) = standard_error(values, sample)
    own = error**2 * n / max(n - 1, 1)
    half = _Z * np.sqrt(np.fmax(own, variance) + 1 / (n + 2) ** 2)
    return Limits(np.clip(mean - half, -1, 1), np.clip(mean + half, -1, 1))


def counted(values: np.ndarray, sample: Sample) -> tuple[np.ndarray, Sample]:
    """Only the rows that have a weight, with problems numbered from 0."""
    kept = sample.weight > 0
    problem = np.unique(sample.problem[kept], return_inverse=True)[1]
    return np.asarray(values, dtype=float)[:, kept], Sample(sample.weight[kept], sample.subset[kept], problem)


def _parts(values: np.ndarray, sample: Sample) -> _Parts:
    """The terms of each proportion, subset by subset."""
    scored = np.isfinite(values)
    known = np.where(scored, values, 0.0)
    share, spread, safe = np.zeros((3, *values.shape))
    total, safe_total = np.zeros((2, len(values)))
    for subset in np.unique(sample.subset):
        columns = np.flatnonzero(sample.subset == subset)
        n = scored[:, columns].sum(axis=1)
        n = np.where(n > 0, n, np.nan)
        part, weight = known[:, columns], sample.weight[columns].sum()
        mean, square = part.sum(axis=1) / n, (part**2).sum(axis=1) / n
        safe_mean, safe_square = ((n * m + _ADDED_ROWS) / (n + 2 * _ADDED_ROWS) for m in (mean, square))
        each = scored[:, columns] * (weight / n)[:, None]
        share[:, columns] = each * (part - mean[:, None])
        spread[:, columns] = each * np.sqrt(np.clip(square - mean**2, 0, None))[:, None]
        safe[:, columns] = each * np.sqrt((safe_square - safe_mean**2) * _unbias(n))[:, None]
        total += weight * mean
        safe_total += weight * safe_mean
    return _Parts(share, spread, safe, total, safe_total)


def _unbias(n: np.ndarray) -> np.ndarray:
    """Factor that makes the mean of p (1 - p) unbiased when rows are added to p; n / (n - 1) if none were added."""
    return 1 / (1 - n / (n + 2 * _ADDED_ROWS) ** 2)


def _membership(problem: np.ndarray) -> csr_array:
    """(rows, problems), 1 where the row belongs to the problem."""
    n = len(problem)
    return csr_array((np.ones(n), (np.arange(n), problem)), shape=(n, int(problem.max(initial=-1)) + 1))


def _together(parts: np.ndarray, group: csr_array) -> np.ndarray:
    """Sum over all ordered couples of different rows of one problem, (k,)."""
    return ((parts @ group) ** 2).sum(axis=1) - (parts**2).sum(axis=1)


def _correlation(parts: _Parts, group: csr_array, scored: np.ndarray, several: np.ndarray) -> np.ndarray:
    """Correlation of the rows of one problem, 0 to 1, (k,)."""
    found, most = _together(parts.share, group), _together(parts.spread, group)
    n = ((scored.astype(float) @ group)[:, several] > 1).sum(axis=1)
    # both sums are too small by the same factor, because the mean is estimated from the sample: it cancels
    ratio = np.where(most > 1e-15, found / np.where(most > 1e-15, most, 1), _GUESS)
    return np.clip((n * ratio + _ADDED_PROBLEMS * _GUESS) / (n + _ADDED_PROBLEMS), 0, 1)


def _has_two_problems(scored: np.ndarray, sample: Sample) -> np.ndarray:
    """Whether every subset has rows of at least two problems, (k,)."""
    enough = np.ones(len(scored), dtype=bool)
    for subset in np.unique(sample.subset):
        columns = np.flatnonzero(sample.subset == subset)
        enough &= ((scored[:, columns].astype(float) @ _membership(sample.problem[columns])) > 0).sum(axis=1) > 1
    return enough
