"""How accuracy goes with the gap: effect sizes over weighted pairs, and their dyadic-robust standard error.

A study compares models of one family only, and its families differ in size of gap and in accuracy for reasons of
their own. An effect over all pairs would take a family with large gaps and good judges for evidence that the gap
counts (Simpson's paradox). So effects compare pairs of one family only, and the families' answers are pooled.

Every function takes whole batches of draws, so that ten thousand of them cost seconds. A weight says how often a
pair stands in the sample: with whole numbers each result equals that of the sample written out.
"""

from typing import NamedTuple

import numpy as np

EFFECTS = ("spearman", "spearman-pooled", "kendall", "pearson", "slope", "mean-accuracy")
"""All inside families but for the second and the last. Spearman's rho (primary): the mean of the families' own rhos,
each weighted by its number of pairs. Spearman's rho over all pairs, differences between families included. Kendall's
tau-b over the couples of pairs of one family. Pearson's r and the least-squares slope, in points of accuracy per point
of gap, after each family's means are taken off. The mean accuracy (0 to 1) that they vary around."""

_COUPLES = 250_000
"""Couples of pairs handled at once: 1 MB, which a processor's cache holds."""


def effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """The EFFECTS of each draw.

    Args:
        x: Gap of each pair, (pairs,).
        y: Accuracy of each pair, (draws, pairs), 0 to 1.
        weights: How often each pair stands in a draw, (draws, pairs); 0 leaves it out.
        family: Family of each pair, (pairs,), int from 0.

    Returns:
        (draws, len(EFFECTS)), float64; NaN where x or y do not vary.
    """
    result = np.empty((len(y), len(EFFECTS)))
    order = np.lexsort((x, family))
    x, y, weights, family = x[order], y[:, order], weights[:, order], family[order]
    # in a bootstrap draw more than half of the pairs are absent: draws of like size are taken together, the absent
    # pairs put last and cut off
    n_present = (weights > 0).sum(axis=1)
    by_size, start = np.argsort(-n_present, kind="stable"), 0
    while start < len(by_size):
        n_most = max(1, n_present[by_size[start]])
        part = by_size[start : start + max(1, _COUPLES // n_most**2)]
        present = np.argsort(weights[part] == 0, axis=1, kind="stable")[:, :n_most]
        weight, y_part = (np.take_along_axis(values[part], present, axis=1) for values in (weights, y))
        # an absent pair stands with the last one, so that families and gaps still rise
        stands = np.where(weight > 0, present, len(x) - 1)
        result[part] = _effects(x[stands], y_part, weight, family[stands])
        start += len(part)
    return result


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """The mean of the families' Spearman's rhos, ties at their mean rank, (draws,).

    Arguments as in `effects`, x also (draws, pairs).
    """
    ranks = [midranks(family_by_family(values, family), weights) for values in (x, y)]
    return mean_product(*comparable(*ranks, weights, family))


def comparable(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values that can be pooled over families: standardised in each, with weight 0 where one of them does not vary.

    Args:
        x: (draws, pairs) or (pairs,).
        y: Likewise.
        weights: (draws, pairs).
        family: (pairs,) or (draws, pairs), int from 0.

    Returns:
        x, y and weights, (draws, pairs) each. In a family that keeps its weight, x and y have mean 0 and variance 1.
    """
    sides = []
    for values in (x, y):
        rest = within(values, weights, family)
        squares = _family_sums(weights * rest**2, family)
        weights = np.where(squares > 0, weights, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            sides.append(np.nan_to_num(rest * np.sqrt(_family_sums(weights, family) / squares), posinf=0, neginf=0))
    return sides[0], sides[1], weights


def mean_product(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of x times y, (draws,): of `comparable` values the mean of the families' correlations."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((weights * x * y).sum(axis=1) / weights.sum(axis=1), -1, 1)


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r of centred values, (draws,), from (draws, pairs) each; NaN where one is 0 throughout."""
    scale = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((weights * x * y).sum(axis=1) / scale, -1, 1)


def within(values: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Values less their family's weighted mean, (draws, pairs); all 0 where a family's do not vary but for rounding.

    Args:
        values: (pairs,) or (draws, pairs).
        weights: (draws, pairs).
        family: (pairs,) or (draws, pairs), int from 0.
    """
    values = np.broadcast_to(values, weights.shape)
    total = _family_sums(weights, family)
    # a family that is absent from a draw has no mean
    rest = values - _family_sums(weights * values, family) / np.where(total > 0, total, 1.0)
    varies = _family_sums(weights * rest**2, family) > 1e-18 * _family_sums(weights * values**2, family)
    return np.where(varies, rest, 0.0)


def family_by_family(values: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Values moved apart, so that all of one family are below all of the next; equal ones of a family stay equal."""
    spread = np.ptp(values) if values.size else 0.0
    return values + (1 + spread) * family


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each item among the items as often as their weights say, less one half.

    Args:
        values: (items,) or (draws, items), finite.
        weights: (draws, items).

    Returns:
        (draws, items), float64.
    """
    return _tie_groups(values, weights).middle()


def centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values less their weighted mean, (draws, items); all 0 where they do not vary but for rounding."""
    values = np.broadcast_to(values, weights.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    rest = values - mean
    varies = (weights * rest**2).sum(axis=1) > 1e-18 * (weights * values**2).sum(axis=1)
    return np.where(varies[:, None], rest, 0.0)


def dyadic_test(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, membership: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation, and it over its dyadic-robust standard error, which knows that pairs share models.

    With x and y standardised, r is a least-squares slope with residuals e = y - r x and scores u = x e. The
    covariances of all pairs of pairs with a model in common are added up (Fafchamps and Gubert 2007):
    sum over models of (sum of the model's u)², less the u² that both models of a pair have counted. Where that
    falls below the heteroskedasticity-robust sum of u², which it may in small samples, the latter is taken.

    Args:
        x: (draws, pairs), ranks for Spearman's rho.
        y: (draws, pairs), likewise.
        weights: (draws, pairs), 1 for pairs in the sample and 0 for others.
        membership: (pairs, models), 1 where the model is one of the pair's two.

    Returns:
        r and t, (draws,) each; t is infinite where r is 1 or -1; both are NaN where x or y do not vary.
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


def _effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """The EFFECTS of few draws, from (draws, pairs) each, family and in it x rising in every draw."""
    x_ties = _sorted_tie_groups(family_by_family(x, family), weights)
    y_ties = _tie_groups(family_by_family(y, family), weights)
    rho = mean_product(*comparable(x_ties.middle(), y_ties.middle(), weights, family))
    pooled = (centred(_tie_groups(values, weights).middle(), weights) for values in (x, y))
    rest = [within(values, weights, family) for values in (x, y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = 100 * (weights * rest[0] * rest[1]).sum(axis=1) / (weights * rest[0] ** 2).sum(axis=1)
        mean = (weights * y).sum(axis=1) / weights.sum(axis=1)
    tau = _kendall(x_ties, y_ties, weights, family)
    return np.column_stack([rho, correlation(*pooled, weights), tau, correlation(*rest, weights), slope, mean])


def _kendall(x: "_Ties", y: "_Ties", weights: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Tau-b over the couples of one family, (draws,), from places that rise family by family."""
    # those of two families all count as concordant and untied, in x as in y: they are taken off again
    inside = _family_sums(weights, family)
    between = (weights * (weights.sum(axis=1, keepdims=True) - inside)).sum(axis=1) / 2
    untied = [(weights * ties.below).sum(axis=1) - between for ties in (x, y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = _concordance(x.number, y.number, weights) - between
        return np.clip(agreement / np.sqrt(untied[0] * untied[1]), -1, 1)


def _family_sums(values: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Sum over each item's family, (draws, pairs), from (draws, pairs) and a family that is either."""
    if family.ndim == 1:
        # a product is some five times faster than counting
        return (values @ (family[:, None] == np.arange(family.max(initial=0) + 1)))[:, family]
    cells = family + (family.max(initial=0) + 1) * np.arange(len(values))[:, None]
    return np.bincount(cells.ravel(), values.ravel())[cells]


class _Ties(NamedTuple):
    """How items stand among each other, (draws, items) each."""

    below: np.ndarray
    """Weight of all items below."""
    through: np.ndarray
    """Weight of those below or tied with it, itself included."""
    number: np.ndarray
    """Which of the distinct values it has, counted upwards; small whole numbers are compared four times as fast."""

    def middle(self) -> np.ndarray:
        """Mean ranks, less one half."""
        return (self.below + self.through) / 2


def _tie_groups(values: np.ndarray, weights: np.ndarray) -> _Ties:
    """Each item's place among the values of its draw."""
    values = np.broadcast_to(values, weights.shape)
    order = np.argsort(values, axis=1, kind="stable")
    ordered = (np.take_along_axis(part, order, axis=1) for part in (values, weights))
    result = _Ties(*(np.empty(weights.shape, dtype) for dtype in (float, float, np.int32)))
    for whole, part in zip(result, _sorted_tie_groups(*ordered), strict=True):
        np.put_along_axis(whole, order, part, axis=1)
    return result


def _sorted_tie_groups(values: np.ndarray, weights: np.ndarray) -> _Ties:
    """The same of values that rise in every draw."""
    up_to = np.cumsum(weights, axis=1)
    edge = np.ones((len(values), 1), dtype=bool)
    changes = values[:, 1:] != values[:, :-1]
    begins, ends = np.hstack([edge, changes]), np.hstack([changes, edge])
    below = np.maximum.accumulate(np.where(begins, up_to - weights, 0), axis=1)
    through = np.minimum.accumulate(np.where(ends, up_to, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return _Ties(below, through, np.cumsum(begins, axis=1, dtype=np.int32))


def _concordance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the concordant couples of pairs less that of the discordant ones, (draws,), from (draws, pairs)."""
    if max(x.max(initial=0), y.max(initial=0)) < 2**15:
        x, y = x.astype(np.int16), y.astype(np.int16)
    # each unordered couple is met once, at the pair with the larger y
    above = y[:, :, None] > y[:, None, :]
    agrees = (above & (x[:, :, None] > x[:, None, :])).view(np.int8)
    agrees -= (above & (x[:, :, None] < x[:, None, :])).view(np.int8)
    # whole-number weights, and the sums of their products, stay exact in single precision up to 2^24
    weights = weights.astype(np.float32)
    return (weights * np.matmul(agrees.astype(np.float32), weights[:, :, None])[:, :, 0]).sum(axis=1)
