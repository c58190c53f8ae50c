"""How accuracy goes with the gap: effect sizes over weighted pairs, and their dyadic-robust standard error.

Every function takes whole batches of draws, so that ten thousand of them cost seconds. A weight says how often a
pair stands in the sample: with whole numbers each result equals that of the sample written out.
"""

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
    x_below, x_through = _tie_groups(x, weights)
    y_below, y_through = _tie_groups(y, weights)
    rho = correlation((x_below + x_through) / 2, (y_below + y_through) / 2, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        # the weight of the couples that differ in x, and in y
        untied = (weights * x_below).sum(axis=1) * (weights * y_below).sum(axis=1)
        tau = np.clip(_concordance(x, y, weights) / np.sqrt(untied), -1, 1)
        mean = (weights * y).sum(axis=1) / weights.sum(axis=1)
    return np.column_stack([rho, tau, correlation(x, y, weights), slope(x, y, weights), mean])


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
    low, high = _tie_groups(values, weights)
    return (low + high) / 2


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


def _tie_groups(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of all items below each item, and of those below or tied with it, (draws, items) each."""
    values = np.broadcast_to(values, weights.shape)
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    weight = np.take_along_axis(weights, order, axis=1)
    up_to = np.cumsum(weight, axis=1)
    edge = np.ones((len(values), 1), dtype=bool)
    changes = ordered[:, 1:] != ordered[:, :-1]
    begins, ends = np.hstack([edge, changes]), np.hstack([changes, edge])
    low = np.maximum.accumulate(np.where(begins, up_to - weight, 0), axis=1)
    high = np.minimum.accumulate(np.where(ends, up_to, np.inf)[:, ::-1], axis=1)[:, ::-1]
    below, through = np.empty_like(up_to), np.empty_like(up_to)
    np.put_along_axis(below, order, low, axis=1)
    np.put_along_axis(through, order, high, axis=1)
    return below, through


def _concordance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the concordant couples of pairs less that of the discordant ones, (draws,)."""
    result = np.empty(len(y))
    # in a bootstrap draw more than half of the pairs are absent: draws of like size are taken together, the absent
    # pairs put last and cut off
    n_present = (weights > 0).sum(axis=1)
    order, start = np.argsort(-n_present, kind="stable"), 0
    while start < len(order):
        n_most = n_present[order[start]]
        part = order[start : start + max(1, _COUPLES // max(1, n_most) ** 2)]
        present = np.argsort(weights[part] == 0, axis=1, kind="stable")[:, :n_most]
        y_part, weight = (np.take_along_axis(values[part], present, axis=1) for values in (y, weights))
        result[part] = _concordance_of(x[present], y_part, weight)
        start += len(part)
    return result


def _concordance_of(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same, of few draws and all at once, from (draws, pairs) each."""
    # each unordered couple is met once, at the pair with the larger y
    above = y[:, :, None] > y[:, None, :]
    agrees = (above & (x[:, :, None] > x[:, None, :])).view(np.int8)
    agrees -= (above & (x[:, :, None] < x[:, None, :])).view(np.int8)
    # whole-number weights, and the sums of their products, stay exact in single precision up to 2^24
    weights = weights.astype(np.float32)
    return (weights * np.matmul(agrees.astype(np.float32), weights[:, :, None])[:, :, 0]).sum(axis=1)
