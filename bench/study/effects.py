"""Effect sizes of the gap on accuracy over weighted pairs, and the dyadic-robust standard error of a correlation.

A study compares models inside a family only, and families differ in the size of their gaps and in accuracy for other
reasons. An effect over all pairs would mistake a family with large gaps and good judges for evidence that the gap
matters (Simpson's paradox). So effects compare pairs of one family only, and pool the families' results.

Every function takes a whole batch of draws, so that ten thousand draws take seconds. A weight says how often a pair is
in the sample: with whole-number weights every result equals that of a sample in which the pairs are repeated.
"""

from typing import NamedTuple

import numpy as np

EFFECTS = ("spearman", "spearman-pooled", "kendall", "pearson", "slope", "mean-accuracy")
"""Spearman's rho (primary): the mean of the families' rhos, each weighted by its number of pairs. Pooled Spearman's
rho: over all pairs, including the differences between families. Kendall's tau-b: over the couples of pairs of one
family. Pearson's r and the least-squares slope, in points of accuracy per point of gap: after each family's means are
subtracted. The mean accuracy, 0 to 1. All but the pooled rho and the mean accuracy are computed inside families."""

_COUPLES = 250_000
"""Number of couples of pairs in one batch: 1 MB, which fits into a processor's cache."""


def effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Compute the EFFECTS of each draw.

    Args:
        x: Gap of each pair, (pairs,).
        y: Accuracy of each pair, (draws, pairs), 0 to 1.
        weights: How often each pair is in a draw, (draws, pairs); 0 leaves it out.
        family: Family of each pair, (pairs,), int from 0.

    Returns:
        (draws, len(EFFECTS)), float64; NaN where x or y do not vary.
    """
    order = np.argsort(x, kind="stable")
    x, y, weights, family = x[order], y[:, order], weights[:, order], family[order]
    inside = [family == name for name in np.unique(family)]
    sums = np.sum([_sums(x[of], y[:, of], weights[:, of]) for of in inside], axis=0)
    n_compared, rhos, xy, xx, yy, agreement, untied_x, untied_y = sums.T
    ranks = (_sorted_tie_groups(np.broadcast_to(x, weights.shape), weights), _tie_groups(y, weights))
    x_ranks, y_ranks = (centred(each.middle(), weights) for each in ranks)
    pooled = correlation(x_ranks, y_ranks, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho, tau, r = rhos / n_compared, agreement / np.sqrt(untied_x * untied_y), xy / np.sqrt(xx * yy)
        mean = (weights * y).sum(axis=1) / weights.sum(axis=1)
        columns = [rho, pooled, tau, r]
        return np.column_stack([*(np.clip(column, -1, 1) for column in columns), 100 * xy / xx, mean])


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """The mean of the families' Spearman's rhos, (draws,). Tied values get their mean rank.

    Arguments as in `effects`; x may also be (draws, pairs).
    """
    x, result, n_compared = np.broadcast_to(x, weights.shape), np.zeros(len(y)), np.zeros(len(y))
    for name in np.unique(family):
        of = family == name
        weight = weights[:, of]
        x_ranks, y_ranks = (centred(midranks(values[:, of], weight), weight) for values in (x, y))
        rho = correlation(x_ranks, y_ranks, weight)
        n_pairs = np.where(np.isnan(rho), 0.0, weight.sum(axis=1))
        result, n_compared = result + n_pairs * np.nan_to_num(rho), n_compared + n_pairs
    with np.errstate(invalid="ignore", divide="ignore"):
        return result / n_compared


class Standardised(NamedTuple):
    """Values with mean 0 and variance 1 in each family, (draws, pairs) each."""

    values: np.ndarray
    """0 in a family whose values do not vary."""
    varies: np.ndarray
    """Whether the values of the pair's family vary, bool."""


def standardised(values: np.ndarray, weights: np.ndarray, family: np.ndarray) -> Standardised:
    """Standardise values inside each family, so that all families can be pooled.

    Args:
        values: (pairs,) or (draws, pairs).
        weights: (draws, pairs).
        family: (pairs,), int from 0.
    """
    rest, squares, total = _within(values, weights, family)
    return Standardised(rest * np.sqrt(total / np.where(squares > 0, squares, np.inf)), squares > 0)


def comparable(x: Standardised, y: Standardised, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and weights, (draws, pairs) each. A family in which x or y does not vary gets weight 0."""
    return x.values, y.values, np.where(x.varies & y.varies, weights, 0.0)


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r of centred values, (draws,), from (draws, pairs) each; NaN where one of them is all 0."""
    scale = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((weights * x * y).sum(axis=1) / scale, -1, 1)


def family_by_family(values: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Shift values so that all values of one family are below all of the next. Equal values of a family stay equal."""
    spread = np.ptp(values) if values.size else 0.0
    return values + (1 + spread) * family


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each item, minus one half, where each item is repeated as often as its weight says.

    Args:
        values: (items,) or (draws, items), finite.
        weights: (draws, items).

    Returns:
        (draws, items), float64.
    """
    return _tie_groups(values, weights).middle()


def centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values minus their weighted mean, (draws, items); all 0 where they vary only by rounding."""
    values = np.broadcast_to(values, weights.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    rest = values - mean
    varies = (weights * rest**2).sum(axis=1) > 1e-18 * (weights * values**2).sum(axis=1)
    return np.where(varies[:, None], rest, 0.0)


def dyadic_test(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, membership: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a correlation, and its ratio to a dyadic-robust standard error, which accounts for shared models.

    With x and y standardised, r is a least-squares slope with residuals e = y - r x and scores u = x e. The variance is
    the sum of u u' over all ordered couples of pairs with a model in common (Fafchamps and Gubert 2007). It equals the
    sum over models of (sum of the model's u)², minus the sum of u², because both models of a pair count its u². In
    small samples this may be less than the heteroskedasticity-robust sum of u²; then the latter is used.

    Args:
        x: (draws, pairs), ranks for Spearman's rho.
        y: (draws, pairs), likewise.
        weights: (draws, pairs), 1 for pairs in the sample and 0 for others.
        membership: (pairs, models), 1 where the model is one of the pair's two.

    Returns:
        r and t, (draws,) each. t is infinite where r is 1 or -1. Both are NaN where x or y do not vary.
    """
    n_pairs = weights.sum(axis=1, keepdims=True)
    x, y = centred(x, weights), centred(y, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.sqrt((weights * x * x).sum(axis=1, keepdims=True) / n_pairs)
        y = y / np.sqrt((weights * y * y).sum(axis=1, keepdims=True) / n_pairs)
        products = weights * x
        r = (products * y).sum(axis=1) / n_pairs[:, 0]
        scores = products * (y - r[:, None] * x)
        alone = (scores**2).sum(axis=1)
        together = ((scores @ membership) ** 2).sum(axis=1) - alone
        error = np.sqrt(np.maximum(together, alone)) / n_pairs[:, 0]
        return r, r / np.where(error < 1e-12, 0.0, error)


def membership(first: np.ndarray, second: np.ndarray, n_models: int) -> np.ndarray:
    """(pairs, models), 1 where the model is one of the pair's two, from their indices."""
    result = np.zeros((len(first), n_models))
    result[np.arange(len(first)), first] = 1
    result[np.arange(len(second)), second] = 1
    return result


def _within(values: np.ndarray, weights: np.ndarray, family: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The result of `within`, and each family's sum of its squares and of its weights, (draws, pairs) each."""
    values, members = np.broadcast_to(values, weights.shape), family[:, None] == np.arange(family.max(initial=0) + 1)

    def total(of: np.ndarray) -> np.ndarray:
        return (of @ members)[:, family]

    n = total(weights)
    # a family that is not in a draw has no mean; 1 avoids a division by 0
    rest = values - total(weights * values) / np.where(n > 0, n, 1.0)
    squares = total(weights * rest**2)
    varies = squares > 1e-18 * total(weights * values**2)
    return np.where(varies, rest, 0.0), np.where(varies, squares, 0.0), n


def _sums(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums from which EFFECTS computes its values, for the pairs of one family; x (pairs,) is ascending.

    Returns:
        (draws, 8): total weight of the pairs, 0 where there is no rho; that weight times rho; sums of x y, x x and y y
        of the centred values; weight of concordant minus discordant couples; weight of the couples that differ in x,
        and in y.
    """
    result = np.empty((len(y), 8))
    # More than half of the pairs are absent from a bootstrap draw. So draws of similar size are computed together:
    # their absent pairs are moved to the end and cut off.
    n_present = (weights > 0).sum(axis=1)
    by_size, start = np.argsort(-n_present, kind="stable"), 0
    while start < len(by_size):
        n_most = max(1, n_present[by_size[start]])
        part = by_size[start : start + max(1, _COUPLES // n_most**2)]
        present = np.argsort(weights[part] == 0, axis=1, kind="stable")[:, :n_most]
        weight, y_part = (np.take_along_axis(values[part], present, axis=1) for values in (weights, y))
        result[part] = _sums_of_few(np.where(weight > 0, x[present], x[-1]), y_part, weight)
        start += len(part)
    return result


def _sums_of_few(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums for a batch of draws, from (draws, pairs) each, x ascending in every draw."""
    x_ties, y_ties = ties = (_sorted_tie_groups(x, weights), _tie_groups(y, weights))
    x_ranks, y_ranks = (centred(each.middle(), weights) for each in ties)
    rho = correlation(x_ranks, y_ranks, weights)
    n_pairs = np.where(np.isnan(rho), 0.0, weights.sum(axis=1))
    x, y = centred(x, weights), centred(y, weights)
    products = [(weights * first * second).sum(axis=1) for first, second in ((x, y), (x, x), (y, y))]
    untied = [(weights * each.below).sum(axis=1) for each in ties]
    agreement = _concordance(x_ties.number, y_ties.number, weights)
    return np.column_stack([n_pairs, n_pairs * np.nan_to_num(rho), *products, agreement, *untied])


class _Ties(NamedTuple):
    """Ranks and ties of items, (draws, items) each."""

    below: np.ndarray
    """Weight of all items with a smaller value."""
    through: np.ndarray
    """Weight of all items with a smaller or equal value, the item itself included."""
    number: np.ndarray
    """Number of the item's distinct value, ascending. Small whole numbers are compared four times as fast."""

    def middle(self) -> np.ndarray:
        """Mean ranks, minus one half."""
        return (self.below + self.through) / 2


def _tie_groups(values: np.ndarray, weights: np.ndarray) -> _Ties:
    """The `_Ties` of values in any order."""
    values = np.broadcast_to(values, weights.shape)
    order = np.argsort(values, axis=1, kind="stable")
    ordered = (np.take_along_axis(part, order, axis=1) for part in (values, weights))
    result = _Ties(*(np.empty(weights.shape, dtype) for dtype in (float, float, np.int32)))
    for whole, part in zip(result, _sorted_tie_groups(*ordered), strict=True):
        np.put_along_axis(whole, order, part, axis=1)
    return result


def _sorted_tie_groups(values: np.ndarray, weights: np.ndarray) -> _Ties:
    """The `_Ties` of values that are ascending in every draw."""
    up_to = np.cumsum(weights, axis=1)
    edge = np.ones((len(values), 1), dtype=bool)
    changes = values[:, 1:] != values[:, :-1]
    begins, ends = np.hstack([edge, changes]), np.hstack([changes, edge])
    below = np.maximum.accumulate(np.where(begins, up_to - weights, 0), axis=1)
    through = np.minimum.accumulate(np.where(ends, up_to, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return _Ties(below, through, np.cumsum(begins, axis=1, dtype=np.int32))


def _concordance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the concordant minus the discordant couples of pairs, (draws,), from (draws, pairs) each."""
    if max(x.max(initial=0), y.max(initial=0)) < 2**15:
        x, y = x.astype(np.int16), y.astype(np.int16)
    # each unordered couple is counted once, at the pair with the larger y
    above = y[:, :, None] > y[:, None, :]
    agrees = (above & (x[:, :, None] > x[:, None, :])).view(np.int8)
    agrees -= (above & (x[:, :, None] < x[:, None, :])).view(np.int8)
    # single precision is exact for whole-number weights and for sums of their products up to 2^24
    weights = weights.astype(np.float32)
    return (weights * np.matmul(agrees.astype(np.float32), weights[:, :, None])[:, :, 0]).sum(axis=1)
