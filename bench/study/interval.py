"""The 95% interval of a share: every accuracy, win rate and agreement takes its limits from here.

Wilson's score interval (1927) asks for a number of independent rows that count alike. Real rows differ: subsets have
weights, rows of one problem (a HumanEvalPack problem in six languages) go together, a subset has few rows. So the
number is replaced by the effective one: as many independent rows of equal weight as would leave the share as uncertain
as it is (Kish 1965; Korn and Graubard 1998). For independent rows of one subset it is their count, and the interval is
Wilson's own. Two estimates in it would be too sure with few rows, and are drawn towards a cautious value:

- the variance inside a subset, by one right and one wrong row added to it (every row right is not certain);
- the correlation of rows of one problem, towards one half, by two more problems.

A subset with a single problem says nothing of its own variance: then there is no interval. How often the interval holds
the truth is simulated in `tests/study/simulation_choose.py`.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm

_Z = float(norm.ppf(0.975))
_ADDED_ROWS = 1.0
"""Right rows, and as many wrong ones, added to a subset when its variance is estimated."""
_ADDED_PROBLEMS, _GUESS = 2.0, 0.5
"""Problems added, and their correlation, when that of rows of one problem is estimated."""


class Sample(NamedTuple):
    """The rows that a share is taken over."""

    weight: np.ndarray
    """What each row counts, (rows,); equal inside a subset, and 1 in all."""
    subset: np.ndarray
    """(rows,), int."""
    problem: np.ndarray
    """The problem under each row, (rows,), int: rows with one number are no independent evidence."""


class Limits(NamedTuple):
    """Both ends of a 95% interval, (k,) each; NaN where there are too few rows for one."""

    low: np.ndarray
    high: np.ndarray


class _Parts(NamedTuple):
    """What a share and its variance are summed from, (k, rows) each; 0 where a row is left out."""

    share: np.ndarray
    """What the row counts times the distance of its value from the mean of its subset."""
    spread: np.ndarray
    """What the row counts times the standard deviation of its subset."""
    safe_spread: np.ndarray
    """The same with rows added, and corrected for what a mean of few rows takes up."""
    total: np.ndarray
    """The share, and what it is with rows added, (2, k)."""


def plain_sample(problems: np.ndarray) -> Sample:
    """Rows of one subset that count alike, (rows,)."""
    n = len(problems)
    return Sample(np.full(n, 1 / max(n, 1)), np.zeros(n, dtype=int), np.asarray(problems))


def share_limits(values: np.ndarray, sample: Sample) -> Limits:
    """The interval of each weighted share.

    Args:
        values: 1 right, 0 wrong, or between; NaN is left out, (k, rows).
        sample: What counts how, and which rows go together. A subset's weight is shared by its rows
            that are not left out.
    """
    return wilson(weighted_share(values, sample), effective_rows(values, sample))


def weighted_share(values: np.ndarray, sample: Sample) -> np.ndarray:
    """The shares themselves, (k,); NaN where a subset has no row."""
    return _parts(*_counted(values, sample)).total[0]


def effective_rows(values: np.ndarray, sample: Sample) -> np.ndarray:
    """How many independent rows of equal weight would be worth as much, (k,); NaN where a subset has one problem."""
    values, sample = _counted(values, sample)
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
    n, share = scored.sum(axis=1), parts.total[1]
    whole = share * (1 - share) * _unbias(n)
    return np.where(_has_two_problems(scored, sample), whole / np.where(variance > 0, variance, np.nan), np.nan)


def standard_error(values: np.ndarray, sample: Sample) -> np.ndarray:
    """Standard error of each share over problems, (k,): the binomial one where each row is a problem of its own."""
    values, sample = _counted(values, sample)
    parts = _parts(values, sample)
    return np.sqrt(((parts.share @ _membership(sample.problem)) ** 2).sum(axis=1)) + 0 * parts.total[0]


def wilson(share: np.ndarray, n: np.ndarray) -> Limits:
    """Wilson's 95% limits of a share of n rows; NaN where either is."""
    n = np.where(np.asarray(n) > 0, n, np.nan)
    share = np.asarray(share, dtype=float)
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    inside = np.clip(share * (1 - share), 0, None)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(inside / n + _Z**2 / (4 * n * n))
    # rounding would leave a limit a hair inside a share of 0 or 1
    return Limits(np.clip(np.minimum(centre - half, share), 0, 1), np.clip(np.maximum(centre + half, share), 0, 1))


def apart(first: float, first_limits: Limits, second: float, second_limits: Limits) -> tuple[float, float]:
    """Limits of the difference of two shares of different rows, from the limits of each (Newcombe 1998, method 10)."""
    low = np.hypot(first - first_limits.low, second_limits.high - second)
    high = np.hypot(first_limits.high - first, second - second_limits.low)
    return float(first - second - low), float(first - second + high)


def difference_limits(values: np.ndarray, sample: Sample, *, variance: float = 0.0) -> Limits:
    """Limits of the mean difference of two judges of the same rows, inside -1 and 1.

    The clustered standard error, after one row that only the first judge has right and one that only the second has
    (Agresti and Min 2005): judges that differ on no row are not known to be equal.

    Args:
        values: Difference on each row, -1 to 1, (rows,); none is left out.
        sample: What counts how, and which rows go together.
        variance: Of the mean, where it is known to be larger than that of its rows.
    """
    values, sample = _counted(values[None], sample)
    mean = (values @ sample.weight)[0]
    n = 1 / (np.bincount(sample.problem, weights=sample.weight) ** 2).sum()
    own = standard_error(values, sample)[0] ** 2 * n / max(n - 1, 1)
    half = _Z * np.sqrt(np.fmax(own, variance) + 1 / (n + 2) ** 2)
    return Limits(np.clip(mean - half, -1, 1), np.clip(mean + half, -1, 1))


def _counted(values: np.ndarray, sample: Sample) -> tuple[np.ndarray, Sample]:
    """Without the rows that count nothing, problems numbered from 0."""
    kept = sample.weight > 0
    problem = np.unique(sample.problem[kept], return_inverse=True)[1]
    return np.asarray(values, dtype=float)[:, kept], Sample(sample.weight[kept], sample.subset[kept], problem)


def _parts(values: np.ndarray, sample: Sample) -> _Parts:
    scored = np.isfinite(values)
    known = np.where(scored, values, 0.0)
    share, spread, safe = np.zeros((3, *values.shape))
    total = np.zeros((2, len(values)))
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
        total += weight * np.stack([mean, safe_mean])
    return _Parts(share, spread, safe, total)


def _unbias(n: np.ndarray) -> np.ndarray:
    """Factor that makes p (1 - p) of a share with rows added right in the mean; n / (n - 1) if none were added."""
    return 1 / (1 - n / (n + 2 * _ADDED_ROWS) ** 2)


def _membership(problem: np.ndarray) -> csr_array:
    """(rows, problems), 1 where the row is of the problem."""
    n = len(problem)
    return csr_array((np.ones(n), (np.arange(n), problem)), shape=(n, int(problem.max(initial=-1)) + 1))


def _together(parts: np.ndarray, group: csr_array) -> np.ndarray:
    """Sum over all ordered pairs of different rows of one problem, (k,)."""
    return ((parts @ group) ** 2).sum(axis=1) - (parts**2).sum(axis=1)


def _correlation(parts: _Parts, group: csr_array, scored: np.ndarray, several: np.ndarray) -> np.ndarray:
    """How alike the rows of one problem are, 0 to 1, (k,)."""
    found, most = _together(parts.share, group), _together(parts.spread, group)
    n = ((scored.astype(float) @ group)[:, several] > 1).sum(axis=1)
    # both are too small by the same factor, because the mean is the sample's own: it cancels
    ratio = np.where(most > 1e-15, found / np.where(most > 1e-15, most, 1), _GUESS)
    return np.clip((n * ratio + _ADDED_PROBLEMS * _GUESS) / (n + _ADDED_PROBLEMS), 0, 1)


def _has_two_problems(scored: np.ndarray, sample: Sample) -> np.ndarray:
    """Whether every subset has rows of two problems, (k,)."""
    enough = np.ones(len(scored), dtype=bool)
    for subset in np.unique(sample.subset):
        columns = np.flatnonzero(sample.subset == subset)
        enough &= ((scored[:, columns].astype(float) @ _membership(sample.problem[columns])) > 0).sum(axis=1) > 1
    return enough
