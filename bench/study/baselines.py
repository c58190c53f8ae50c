"""Is it the gap? What else could make a pair look like a good judge, and how much rests on single models or scores.

Baseline judges are rewards like any other: `correlate` takes them and writes their rows beside the density ratio's.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CORRELATION
from bench.study.bootstrap import Resampling, basic_interval, crossed_bootstrap, estimate
from bench.study.correlate import ALL, Group, describe, groups_of
from bench.study.design import Judged, OnAxis, Rows, Study, gaps, oriented, plain_accuracy
from bench.study.effects import centred, spearman

BASELINES = ("strong-alone", "minus-weak-alone", "longer", "prefers-longer", "chance")
"""Rewards to compare with: the strong model's log-probability alone; minus the weak model's alone; the response's
length, which is one judge for all pairs; how often the pair itself prefers the longer response, right or wrong;
and a coin."""

REGRESSION = ("gap-given-strong", "strong-given-gap", "gap-given-strong-in-family", "strong-given-gap-in-family")
"""Points of accuracy per point of gap, and per point of the strong model's performance, each with the other held;
then the same with an intercept for each family, so that families are not compared with one another."""

LEFT_OUT = ("level", "name", "left_out", "left_out_name", "estimator", "estimate", "n_pairs", "n_models")
"""`left_out` is "model" or "family"."""

GAP_NOISE = (
    "level", "name", "stderr_points", "estimator", "estimate", "low", "high", "n_pairs", "n_uncertain", "share_turned",
)  # fmt: skip
"""What an error of `stderr_points` in every published score would do. `estimate` is rho's mean over draws that add it
to the scores, `low` and `high` hold 95% of the draws: no interval for rho, a measure of how it wears off.
`n_uncertain` counts pairs whose gap is within 1.96 standard errors of 0 (the gap's error is √2 x a score's),
`share_turned` is the mean share of pairs whose order a draw turns round."""

_UNCERTAIN = 1.96 * np.sqrt(2)


class Regression(NamedTuple):
    """Statistic for the bootstrap: REGRESSION on each group's pairs."""

    gap: np.ndarray
    """(pairs,), points, not negative."""
    strong: np.ndarray
    """Performance of the better model, (pairs,), points."""
    family: np.ndarray
    """(pairs,)."""
    groups: tuple[Group, ...]

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, levels, pairs) and (draws, pairs) -> (draws, groups x len(REGRESSION))."""
        columns = []
        for group in self.groups:
            pairs = group.pairs
            y, weight = 100 * answers[:, group.level, pairs], weights[:, pairs]
            for block in (np.zeros(len(pairs)), self.family[pairs]):
                columns.append(two_slopes(self.gap[pairs], self.strong[pairs], y, weight, block))
        return np.hstack(columns)


def baseline_judges(study: Study, model_margins: np.ndarray, length_difference: np.ndarray) -> dict[str, Judged]:
    """Right and wrong of each of BASELINES.

    Args:
        study: Models and pairs.
        model_margins: log-probability of chosen less that of rejected, (models, rows), nats; NaN where not scored.
        length_difference: Bytes of chosen less those of rejected, (rows,). Equal lengths are a tie, so wrong.
    """
    strong, weak = model_margins[study.strong], model_margins[study.weak]
    margins = strong - weak
    longer = np.broadcast_to(np.sign(length_difference), margins.shape)
    coin = np.full(margins.shape, 0.5)
    return {
        "strong-alone": Judged(_positive(strong), _positive(weak)),
        "minus-weak-alone": Judged(_positive(-weak), _positive(-strong)),
        "longer": Judged(_positive(longer), _positive(longer)),
        "prefers-longer": Judged(_positive(margins * longer), _positive(-margins * longer)),
        "chance": Judged(coin, coin),
    }


def two_slopes(
    first: np.ndarray, second: np.ndarray, y: np.ndarray, weights: np.ndarray, block: np.ndarray
) -> np.ndarray:
    """Least-squares slopes of y on two variables, with an intercept for each block.

    Args:
        first: (pairs,).
        second: (pairs,).
        y: (draws, pairs).
        weights: (draws, pairs).
        block: (pairs,).

    Returns:
        (draws, 2); NaN where the two go together perfectly, or one does not vary.
    """
    a, b, c = (_within(values, weights, block) for values in (first, second, y))
    aa, bb, ab = ((weights * u * v).sum(axis=1) for u, v in ((a, a), (b, b), (a, b)))
    ac, bc = (weights * a * c).sum(axis=1), (weights * b * c).sum(axis=1)
    determinant = aa * bb - ab**2
    usable = determinant > 1e-12 * aa * bb
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = np.column_stack([bb * ac - ab * bc, aa * bc - ab * ac]) / determinant[:, None]
    return np.where(usable[:, None], slopes, np.nan)


def regression(axis: OnAxis, rows: Rows, *, resampling: Resampling, rng: np.random.Generator) -> pd.DataFrame:
    """Accuracy on the gap with the strong model's performance in it, level by level and over all families.

    Returns:
        CORRELATION with `estimator` one of REGRESSION; reward and performance are the caller's to fill, p is NaN.
    """
    correct = oriented(axis)
    groups = tuple(g for g in groups_of(axis, rows, plain_accuracy(correct, rows)) if g.family == ALL)
    better = np.maximum(axis.performance[axis.study.strong], axis.performance[axis.study.weak])
    statistic = Regression(np.abs(axis.gap), better, axis.study.family[axis.study.strong], groups)
    values = estimate(correct, axis.study, rows, statistic)
    draws = crossed_bootstrap(correct, axis.study, rows, statistic, resampling=resampling, rng=rng)
    lines = []
    for column, (group, estimator) in enumerate((g, e) for g in groups for e in REGRESSION):
        low, high = basic_interval(values[column], draws[:, column])
        line = describe(group, axis.study, rows) | {"estimator": estimator, "estimate": values[column]}
        lines.append(line | {"low": low, "high": high})
    return pd.DataFrame(lines).reindex(columns=list(CORRELATION))


def leave_one_out(axis: OnAxis, rows: Rows) -> pd.DataFrame:
    """Spearman's rho without each model, and without each family: LEFT_OUT, level by level."""
    answers = plain_accuracy(oriented(axis), rows)
    first, second = axis.study.strong, axis.study.weak
    lines = []
    for group in groups_of(axis, rows, answers):
        if group.family != ALL:
            continue
        without = [("model", name, (first == at) | (second == at)) for at, name in enumerate(axis.study.model_ids)]
        without += [("family", name, axis.study.family[first] == name) for name in np.unique(axis.study.family)]
        for kind, name, gone in without:
            kept = group.pairs[~gone[group.pairs]]
            described = describe(group._replace(pairs=kept), axis.study, rows)
            rho = spearman(np.abs(axis.gap[kept]), answers[group.level, kept][None], np.ones((1, len(kept))))[0]
            line = described | {"left_out": kind, "left_out_name": name, "estimator": "spearman", "estimate": rho}
            lines.append(line)
    return pd.DataFrame(lines)[list(LEFT_OUT)]


def gap_noise(
    axis: OnAxis,
    rows: Rows,
    *,
    rng: np.random.Generator,
    stderr_points: tuple[float, ...] = (0.0, 1.0, 2.0),
    n_draws: int = 1_000,
) -> pd.DataFrame:
    """Spearman's rho when an error is added to every score, and the pairs whose order it makes uncertain.

    The published scores carry an error of their own, which is not published; adding as much again shows which way,
    and about how fast, it pulls.

    Args:
        axis: Models and pairs.
        rows: What counts how.
        rng: Source of the errors; each standard error scales the same draws.
        stderr_points: Standard errors of one model's score.
        n_draws: How many times noise is added.

    Returns:
        GAP_NOISE.
    """
    forward, turned = (plain_accuracy(correct, rows) for correct in axis.answers)
    noise = rng.standard_normal((n_draws, len(axis.performance)))
    lines = []
    for stderr in stderr_points:
        gap = gaps(axis.study, axis.performance + stderr * noise)
        turned_share = (np.sign(gap) * np.sign(axis.gap) < 0).mean()
        for level, (kind, name) in enumerate(rows.levels):
            usable = np.isfinite(forward[level]) & np.isfinite(turned[level])
            answers = np.where(gap < 0, turned[level], forward[level])[:, usable]
            rho = spearman(np.abs(gap[:, usable]), answers, (gap[:, usable] != 0).astype(float))
            low, high = np.quantile(rho, [0.025, 0.975])
            uncertain = (np.abs(axis.gap[usable]) < _UNCERTAIN * stderr) | (axis.gap[usable] == 0)
            counts = (int(usable.sum()), int(uncertain.sum()), turned_share)
            lines.append((kind, name, stderr, "spearman", rho.mean(), low, high, *counts))
    return pd.DataFrame(lines, columns=list(GAP_NOISE))


def _within(values: np.ndarray, weights: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Values less their weighted mean in each block, (draws, pairs)."""
    result = np.empty_like(weights)
    for name in np.unique(block):
        inside = block == name
        result[:, inside] = centred(values[..., inside], weights[:, inside])
    return result


def _positive(values: np.ndarray) -> np.ndarray:
    """1 where above 0, else 0; NaN where missing."""
    return np.where(np.isnan(values), np.nan, values > 0)
