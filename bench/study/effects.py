"""How accuracy goes with the gap: effect sizes over weighted pairs, and their dyadic-robust standard error.

Every function takes whole batches of draws, so that ten thousand of them cost seconds. A weight says how often a
pair stands in the sample: with whole numbers each result equals that of the sample written out.
"""

import numpy as np

EFFECTS = ("spearman", "kendall", "pearson", "slope", "mean-accuracy")
"""Spearman's rho (primary), Kendall's tau-b, Pearson's r, the least-squares slope in points of accuracy per point
of gap, and the mean accuracy (0 to 1) that they vary around."""

_KENDALL_CELLS = 4_000_000
"""Pairs of pairs handled at once: 16 MB."""


def effects(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The EFFECTS of each draw.

    Args:
        x: Gap of each pair, (pairs,), points.
        y: Accuracy of each pair, (draws, pairs), 0 to 1.
        weights: How often each pair stands in a draw, (draws, pairs); 0 leaves it out.

    Returns:
        (draws, len(EFFECTS)), float64; NaN where x or y do not vary.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights * y).sum(axis=1) / total
    return np.column_stack(
        [spearman(x, y, weights), kendall(x, y, weights), correlation(x, y, weights), slope(x, y, weights), mean]
    )


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


def kendall(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Kendall's tau-b, (draws,); arguments as in `effects`."""
    result = np.empty(len(y))
    step = max(1, _KENDALL_CELLS // len(x) ** 2)
    x_sign = np.sign(x[:, None] - x[None, :]).astype(np.float32)
    x_differs = np.abs(x_sign)
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        # whole-number weights stay exact in single precision up to 2^24
        weight = weights[part].astype(np.float32)
        # ranks keep every order in single precision, the accuracies themselves would not
        rank = midranks(y[part], np.ones_like(y[part])).astype(np.float32)
        sign = np.sign(rank[:, :, None] - rank[:, None, :])
        concordant = np.einsum("dp,dp->d", weight, np.matmul(sign * x_sign, weight[:, :, None])[:, :, 0])
        x_total = np.einsum("dp,dp->d", weight @ x_differs, weight)
        y_total = np.einsum("dp,dp->d", weight, np.matmul(np.abs(sign), weight[:, :, None])[:, :, 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            tau = concordant / np.sqrt(x_total.astype(float) * y_total)
        result[part] = np.clip(tau, -1, 1)
    return result


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each item among the items as often as their weights say, less one half.

    Args:
        values: (items,) or (draws, items), finite.
        weights: (draws, items).

    Returns:
        (draws, items), float64.
    """
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
    ranks = np.empty_like(up_to)
    np.put_along_axis(ranks, order, (low + high) / 2, axis=1)
    return ranks


def centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values less their weighted mean, (draws, items); all 0 where they do not vary but for rounding."""
    values = np.broadcast_to(values, weights.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    rest = values - mean
    varies = (weights * rest**2).sum(axis=1) > 1e-18 * (weights * values**2).sum(axis=1)
    return np.where(varies[:, None], rest, 0.0)


def dyadic_t(x: np.ndarray, y: np.ndarray, weights: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Correlation over its dyadic-robust standard error, which knows that pairs share models.

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
        (draws,); infinite where the correlation is 1 or -1, NaN where x or y do not vary.
    """
    n_pairs = weights.sum(axis=1, keepdims=True)
    x, y = centred(x, weights), centred(y, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.sqrt((weights * x * x).sum(axis=1, keepdims=True) / n_pairs)
        y = y / np.sqrt((weights * y * y).sum(axis=1, keepdims=True) / n_pairs)
        r = (weights * x * y).sum(axis=1, keepdims=True) / n_pairs
        scores = weights * x * (y - r * x)
        alone = (scores**2).sum(axis=1)
        together = ((scores @ membership) ** 2).sum(axis=1) - alone
        error = np.sqrt(np.maximum(together, alone)) / n_pairs[:, 0]
        t = r[:, 0] / np.where(error > 1e-12, error, 0.0)
    return np.where(np.isnan(r[:, 0]), np.nan, t)


def membership(first: np.ndarray, second: np.ndarray, n_models: int) -> np.ndarray:
    """(pairs, models), 1 where the model is one of the pair's two, from their indices."""
    result = np.zeros((len(first), n_models))
    result[np.arange(len(first)), first] = 1
    result[np.arange(len(second)), second] = 1
    return result
