"""How accuracy goes with the gap: effect sizes over weighted pairs, and their dyadic-robust standard error.

Every function takes whole batches of draws, so that ten thousand of them cost seconds. A weight says how often a
pair stands in the sample: with whole numbers each result equals that of the sample written out.
"""

from typing import NamedTuple

import numpy as np

EFFECTS = ("spearman", "kendall", "pearson", "slope", "mean-accuracy")
"""Spearman's rho (primary), Kendall's tau-b, Pearson's r, the least-squares slope in points of accuracy per point
of gap, and the mean accuracy (0 to 1) that they vary around."""

_COUPLES = 250_000
"""Couples of pairs handled at once: 1 MB, which a processor's cache holds."""


def effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The EFFECTS of each draw.

    Args:
        x: Gap of each pair, (pairs,), points.
        y: Accuracy of each pair, (draws, pairs), 0 to 1.
        weights: How often each pair stands in a draw, (draws, pairs); 0 leaves it out.

    Returns:
        (draws, len(EFFECTS)), float64; NaN where x or y do not vary.
    """
    result = np.empty((len(y), len(EFFECTS)))
    order = np.argsort(x, kind="stable")
    x, y, weights = x[order], y[:, order], weights[:, order]
    # in a bootstrap draw more than half of the pairs are absent: draws of like size are taken together, the absent
    # pairs put last and cut off
    n_present = (weights > 0).sum(axis=1)
    by_size, start = np.argsort(-n_present, kind="stable"), 0
    while start < len(by_size):
        n_most = max(1, n_present[by_size[start]])
        part = by_size[start : start + max(1, _COUPLES // n_most**2)]
        present = np.argsort(weights[part] == 0, axis=1, kind="stable")[:, :n_most]
        weight, y_part = (np.take_along_axis(values[part], present, axis=1) for values in (weights, y))
        result[part] = _effects(np.where(weight > 0, x[present], x[-1]), y_part, weight)
        start += len(part)
    return result


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rho, ties at their mean rank, (draws,); arguments as in `effects`, x also (draws, pairs)."""
    return correlation(midranks(x, weights), midranks(y, weights), weights)


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r, (draws,); x and y (pairs,) or (draws, pairs); NaN where one does not vary."""
    x, y = centred(x, weights), centred(y, weights)
    scale = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((weights * x * y).sum(axis=1) / scale, -1, 1)


def slope(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Points of accuracy per point of gap by least squares, (draws,); arguments as in `effects`."""
    x = centred(x, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * (weights * x * y).sum(axis=1) / (weights * x * x).sum(axis=1)


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each item among the items as often as their weights say, less one half.

    Args:
        values: (items,) or (draws, items), finite.
        weights: (draws, items).

    Returns:
        (draws, items), float64.
    """
    ties = _tie_groups(values, weights)
    return (ties.below + ties.through) / 2


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


def _effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The EFFECTS of few draws, from (draws, pairs) each, x rising in every draw."""
    x_ties, y_ties = _sorted_tie_groups(x, weights), _tie_groups(y, weights)
    rho = correlation((x_ties.below + x_ties.through) / 2, (y_ties.below + y_ties.through) / 2, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        # the weight of the couples that differ in x, and in y
        untied = (weights * x_ties.below).sum(axis=1) * (weights * y_ties.below).sum(axis=1)
        tau = np.clip(_concordance(x_ties.number, y_ties.number, weights) / np.sqrt(untied), -1, 1)
        mean = (weights * y).sum(axis=1) / weights.sum(axis=1)
    return np.column_stack([rho, tau, correlation(x, y, weights), slope(x, y, weights), mean])


class _Ties(NamedTuple):
    """How items stand among each other, (draws, items) each."""

    below: np.ndarray
    """Weight of all items below."""
    through: np.ndarray
    """Weight of those below or tied with it, itself included."""
    number: np.ndarray
    """Which of the distinct values it has, counted upwards; small whole numbers are compared four times as fast."""


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
