"""Checks whether something other than the gap explains the correlation, and how robust the correlation is.

Simple baseline judges are treated as rewards: `correlate` computes their rows as it does for the density ratio. The
other functions repeat the headline estimate with the strong model's performance held fixed, without single models or
families, and with noise added to the published scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CORRELATION, Example
from bench.study.benchmarks import benchmark_of
from bench.study.bootstrap import Resampling, basic_interval, crossed_bootstrap, estimate
from bench.study.correlate import ALL, HEADLINE, MIN_MODELS, Group, describe, groups_of
from bench.study.design import Judged, OnAxis, Rows, Study, gaps, oriented, pair_families, plain_accuracy
from bench.study.effects import spearman, within

REGRESSION = ("gap-given-strong", "strong-given-gap", "gap-given-strong-in-family", "strong-given-gap-in-family")
"""Slopes of a regression of accuracy (in points) on two variables: per point of gap, and per point of the strong
model's performance, each with the other variable held fixed. The last two have an intercept for each family, so that
they do not compare families with one another."""

LEFT_OUT = ("level", "name", "left_out", "left_out_name", "estimator", "estimate", "n_pairs", "n_models")
"""`left_out` is "model" or "family"."""

GAP_NOISE = (
    "level", "name", "stderr", "unit", "estimator", "estimate", "low", "high", "n_pairs", "n_uncertain", "share_turned",
)  # fmt: skip
"""Effect of an error of `stderr` in every published score; `unit` is the unit of the error and of the scores.
`estimate` is the mean of rho over draws that add the error to the scores. `low` and `high` enclose 95% of the draws:
they show how fast rho decreases with noise and are no confidence interval. `n_uncertain` counts pairs whose gap is
within 1.96 standard errors of 0; the error of a gap is √2 times that of a score. `share_turned` is the mean proportion
of pairs whose order a draw reverses."""

_UNCERTAIN = 1.96 * np.sqrt(2)


class Noise(NamedTuple):
    """Assumed error of a published score."""

    stderr: float
    """Standard error of the score of one model."""
    unit: str
    """Unit of the scores and of the error."""


@dataclass(frozen=True)
class Regression:
    """Statistic for the bootstrap: the REGRESSION slopes on the pairs of each group."""

    gap: np.ndarray
    """(pairs,), points, not negative."""
    strong: np.ndarray
    """Performance of the better model, (pairs,), points."""
    family: np.ndarray
    """(pairs,), int from 0."""
    groups: tuple[Group, ...]

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, levels, pairs) and (draws, pairs) -> (draws, groups x len(REGRESSION))."""
        columns = []
        for group in self.groups:
            pairs = group.pairs
            y, weight = 100 * answers[:, group.level, pairs], weights[:, pairs]
            for block in (np.zeros(len(pairs), dtype=int), self.family[pairs]):
                columns.append(two_slopes(self.gap[pairs], self.strong[pairs], y, weight, block))
        return np.hstack(columns)


def baseline_judges(
    study: Study, examples: Sequence[Example], logps: Sequence[np.ndarray], sizes: Sequence[np.ndarray]
) -> dict[str, Judged]:
    """Judgements of five baselines, by name.

    - `strong-alone`: the strong model's log-probability alone.
    - `minus-weak-alone`: minus the weak model's log-probability alone.
    - `longer`: the length of the response; the same judge for all pairs.
    - `prefers-longer`: how often the pair itself prefers the longer response, right or wrong.
    - `chance`: a fair coin.

    Args:
        study: Models and pairs.
        examples: The rows.
        logps: Each model's log-probabilities of the responses of each row, (models, responses) each, nats; NaN where
            not scored.
        sizes: Bytes of the responses of each row, (models, responses) each. Equal lengths are a tie, so they count as
            wrong.
    """
    benchmark = benchmark_of(examples)

    def judged(rewards: Sequence[np.ndarray], turned: Sequence[np.ndarray]) -> Judged:
        return Judged(benchmark.judge(examples, rewards).values, benchmark.judge(examples, turned).values)

    strong, weak = ([each[side] for each in logps] for side in (study.strong, study.weak))
    # Only the order of the lengths counts: they are those of one model, whose template all models share.
    longer = [np.broadcast_to(each[:1], (len(study.strong), each.shape[1])) for each in sizes]
    row, n = benchmark.layout(examples).row, len(study.strong)
    signs = [_agreement(s - w, size) for s, w, size in zip(strong, weak, longer, strict=True)]
    forward, turned = (np.stack([each[side] for each in signs], axis=1)[:, row] for side in (0, 1))
    coin = np.full((n, len(row)), 0.5)
    return {
        "strong-alone": judged(strong, weak),
        "minus-weak-alone": judged([-each for each in weak], [-each for each in strong]),
        "longer": judged(longer, longer),
        "prefers-longer": Judged(forward, turned),
        "chance": Judged(coin, coin),
    }


def _agreement(rewards: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the pairs of responses of a row in which the longer one has the higher, and the lower, reward, (k,)."""
    first, second = np.triu_indices(rewards.shape[1], 1)
    products = (rewards[:, first] - rewards[:, second]) * np.sign(sizes[:, first] - sizes[:, second])
    scored = np.isfinite(rewards).all(axis=1)
    higher, lower = (np.where(scored, (sign * products > 0).mean(axis=1), np.nan) for sign in (1, -1))
    return higher, lower


def two_slopes(
    first: np.ndarray, second: np.ndarray, y: np.ndarray, weights: np.ndarray, block: np.ndarray
) -> np.ndarray:
    """Least-squares slopes of y on two variables, with an intercept for each block.

    Args:
        first: (pairs,).
        second: (pairs,).
        y: (draws, pairs).
        weights: (draws, pairs).
        block: (pairs,), int from 0.

    Returns:
        (draws, 2); NaN where the two variables are perfectly correlated, or one of them is constant.
    """
    a, b, c = (within(values, weights, block) for values in (first, second, y))
    aa, bb, ab = ((weights * u * v).sum(axis=1) for u, v in ((a, a), (b, b), (a, b)))
    ac, bc = (weights * a * c).sum(axis=1), (weights * b * c).sum(axis=1)
    determinant = aa * bb - ab**2
    usable = determinant > 1e-12 * aa * bb
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = np.column_stack([bb * ac - ab * bc, aa * bc - ab * ac]) / determinant[:, None]
    return np.where(usable[:, None], slopes, np.nan)


def regression(axis: OnAxis, rows: Rows, *, resampling: Resampling, rng: np.random.Generator) -> pd.DataFrame:
    """Regress accuracy on the gap and the strong model's performance, on each level over all families.

    Returns:
        CORRELATION with `estimator` one of REGRESSION. The caller adds reward and performance. p is NaN.
    """
    correct = oriented(axis)
    groups = tuple(g for g in groups_of(axis, rows, plain_accuracy(correct, rows)) if g.family == ALL)
    better = np.maximum(axis.performance[axis.study.strong], axis.performance[axis.study.weak])
    statistic = Regression(np.abs(axis.gap), better, pair_families(axis.study), groups)
    values = estimate(correct, axis.study, rows, statistic)
    draws = crossed_bootstrap(correct, axis.study, rows, statistic, resampling=resampling, rng=rng)
    lines = []
    for column, (group, estimator) in enumerate((g, e) for g in groups for e in REGRESSION):
        line = describe(group, axis.study, rows) | {"estimator": estimator, "estimate": values[column]}
        enough = line["n_models"] >= MIN_MODELS
        low, high = basic_interval(values[column], draws[:, column]) if enough else (np.nan, np.nan)
        lines.append(line | {"low": low, "high": high})
    return pd.DataFrame(lines).assign(primary=False).reindex(columns=list(CORRELATION))


def leave_one_out(axis: OnAxis, rows: Rows) -> pd.DataFrame:
    """LEFT_OUT: the headline rho on each level without each model, and without each family."""
    answers = plain_accuracy(oriented(axis), rows)
    first, second, family = axis.study.strong, axis.study.weak, pair_families(axis.study)
    lines = []
    for group in groups_of(axis, rows, answers):
        if group.family != ALL:
            continue
        without = [("model", name, (first == at) | (second == at)) for at, name in enumerate(axis.study.model_ids)]
        without += [("family", name, axis.study.family[first] == name) for name in np.unique(axis.study.family)]
        for kind, name, gone in without:
            kept = group.pairs[~gone[group.pairs]]
            described = describe(group._replace(pairs=kept), axis.study, rows)
            y, once = answers[group.level, kept][None], np.ones((1, len(kept)))
            rho = spearman(np.abs(axis.gap[kept]), y, once, family[kept])[0]
            line = described | {"left_out": kind, "left_out_name": name, "estimator": HEADLINE, "estimate": rho}
            lines.append(line)
    return pd.DataFrame(lines, columns=list(LEFT_OUT))


def gap_noise(
    axis: OnAxis,
    rows: Rows,
    *,
    noise: Noise,
    rng: np.random.Generator,
    n_draws: int = 1_000,
) -> pd.DataFrame:
    """The headline rho after an error is added to every published score, and the pairs whose order becomes uncertain.

    The published scores already contain an error of unpublished size. Adding another error shows in which direction
    errors move rho, and roughly how fast.

    Args:
        axis: Models and pairs.
        rows: Levels and weights of the rows.
        noise: Size of the errors. The table shows no error, this error, and twice this error.
        rng: Source of the errors. Each standard error scales the same draws.
        n_draws: How many times the error is drawn.

    Returns:
        GAP_NOISE.
    """
    forward, turned = (plain_accuracy(correct, rows) for correct in axis.answers)
    errors, family = rng.standard_normal((n_draws, len(axis.performance))), pair_families(axis.study)
    lines = []
    for stderr in (0.0, noise.stderr, 2 * noise.stderr):
        gap = gaps(axis.study, axis.performance + stderr * errors)
        turned_share = (np.sign(gap) * np.sign(axis.gap) < 0).mean()
        for level, (kind, name) in enumerate(rows.levels):
            usable = np.isfinite(forward[level]) & np.isfinite(turned[level])
            answers = np.where(gap < 0, turned[level], forward[level])[:, usable]
            there = (gap[:, usable] != 0).astype(float)
            rho = spearman(np.abs(gap[:, usable]), answers, there, family[usable])
            low, high = np.quantile(rho, [0.025, 0.975])
            uncertain = (np.abs(axis.gap[usable]) < _UNCERTAIN * stderr) | (axis.gap[usable] == 0)
            counts = (int(usable.sum()), int(uncertain.sum()), turned_share)
            lines.append((kind, name, stderr, noise.unit, HEADLINE, rho.mean(), low, high, *counts))
    return pd.DataFrame(lines, columns=list(GAP_NOISE))
