"""Computes the table that answers "is it the gap?": slopes of the strong and of the weak model, checks and a verdict.

`apart` explains the slopes and their tests, `partial` the rho given length preference, `mixed` the mixed model, and
`verdict` how a verdict follows from them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.study.apart import SLOPES, Labelled, labelled, slope_of, slope_tests, slopes
from bench.study.bootstrap import Resampling, basic_interval, correlation_interval, crossed_bootstrap, estimate
from bench.study.compare import holm
from bench.study.design import Judged, OnAxis, Rows, Study, on_axis, oriented, pair_families, plain_accuracy
from bench.study.effects import spearman
from bench.study.mixed import mixed_slopes
from bench.study.partial import partial_spearman, partial_test
from bench.study.qap import qap, relabellings
from bench.study.verdict import CHECKS, EITHER, GIVEN_LENGTH, MIN_MODELS, MIXED, WITHOUT_STARTS, verdict

DECOMPOSITION = (
    "estimator", "estimate", "low", "high", "p_value", "p_holm", "primary", "n_pairs", "n_models", "n_prompts", "world",
)  # fmt: skip
"""One row for each estimator of TITLES, on the overall score. `world` is the verdict's, the same in all rows."""


class Measured(NamedTuple):
    """What each pair does over all rows, (pairs,) each way, NaN where rows are left out."""

    accuracy: Judged
    length: Judged
    """How often it prefers the longer response."""


@dataclass(frozen=True)
class Parts:
    """Statistic for the bootstrap: the slopes, and CHECKS. The pairs come twice: their accuracy, their length rate."""

    pairs: Labelled
    """The used pairs, (1, used) each."""
    family: np.ndarray
    """(used,), int from 0."""
    kept: np.ndarray
    """Whether no model of the pair is its family's start, (used,)."""
    used: np.ndarray
    """Indices of the pairs with a gap, (used,)."""
    n_all: int
    """Number of all pairs."""

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, levels, 2 x pairs) and (draws, 2 x pairs) -> (draws, 6): SLOPES, CHECKS."""
        y, length, weight = answers[:, 0, self.used], answers[:, 0, self.n_all + self.used], weights[:, self.used]
        better, worse, kept = self.pairs.better[0], self.pairs.worse[0], self.kept
        gap = np.round(better - worse, 9)
        return np.column_stack(
            [
                slopes(better, worse, 100 * y, weight, self.family),
                slope_of(gap, 100 * y, weight, self.pairs.leader[0]),
                spearman(gap[kept], y[:, kept], weight[:, kept], self.family[kept]),
                partial_spearman(gap, y, length, weight, self.family),
            ]
        )


def decompose(
    axis: OnAxis,
    length: Judged,
    rows: Rows,
    *,
    starts: Collection[str],
    resampling: Resampling,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Take the effect of the gap on the overall score apart.

    Args:
        axis: Models, pairs and their judgements.
        length: Whether each pair prefers the longer response, (pairs, rows) each, as `baselines` computes it.
        rows: Levels and weights of the rows.
        starts: model_ids that their families' tuning began with.
        resampling: Number of bootstrap draws, of relabellings, and of processes.
        rng: Source of the draws and relabellings.

    Returns:
        DECOMPOSITION; empty without an overall score or without a pair that has a gap.
    """
    empty = pd.DataFrame(columns=list(DECOMPOSITION))
    if not rows.levels or rows.levels[0][0] != "overall":
        return empty
    measured = measured_of(axis.answers, length, rows)
    parts = parts_of(axis, measured, starts)
    if not len(parts.used):
        return empty
    rngs = rng.spawn(2)
    both, study = doubled(axis, length)
    values = estimate(both, study, rows, parts)
    draws = crossed_bootstrap(both, study, rows, parts, resampling=resampling, rng=rngs[0])
    p_values = _tests(axis, measured, starts, n_draws=resampling.n_draws, rng=rngs[1])
    lines = [{"estimator": EITHER} | _counts(axis, rows, parts.used)]
    for name, value, drawn in zip((*SLOPES, *CHECKS), values, draws.T, strict=True):
        used = parts.used[parts.kept] if name == WITHOUT_STARTS else parts.used
        lines.append(_line(name, value, drawn) | _counts(axis, rows, used))
    lines = [line | {"p_value": p_values[line["estimator"]]} for line in lines] + _mixed(axis, measured, rows, parts)
    return _table(lines, parts)


def _table(lines: list[dict[str, Any]], parts: Parts) -> pd.DataFrame:
    """DECOMPOSITION with adjusted p and verdict. Under MIN_MODELS models there is no bootstrap interval."""
    table = adjusted(pd.DataFrame(lines).reindex(columns=list(DECOMPOSITION)))
    table.loc[(table["n_models"] < MIN_MODELS) & ~table["estimator"].isin(MIXED), ["low", "high"]] = np.nan
    if parts.kept.all():
        # No family of the study names its start.
        table = table[table["estimator"] != WITHOUT_STARTS].reset_index(drop=True)
    return table.assign(world=verdict(table).world)


def _line(name: str, value: float, draws: np.ndarray) -> dict[str, Any]:
    """An estimator's name, estimate and interval."""
    low, high = (correlation_interval if name.startswith("spearman") else basic_interval)(value, draws)
    return {"estimator": name, "estimate": value, "low": low, "high": high}


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """DECOMPOSITION with `primary`, and with `p_holm`: of SLOPES together, and of CHECKS together.

    Two of the three hypotheses about SLOPES can only be true if all are, which the declared test excludes. So Holm's
    method in Shaffer's form (1986) needs no factor: p is the larger of the slope's and the declared test's.
    """
    first, slopes, checks = (table["estimator"].isin(names) for names in ((EITHER,), SLOPES, CHECKS))
    table = table.assign(primary=first, p_holm=table["p_value"].where(first | slopes))
    table.loc[slopes, "p_holm"] = np.maximum(table.loc[slopes, "p_value"], table.loc[first, "p_value"].iloc[0])
    table.loc[checks, "p_holm"] = holm(table.loc[checks, "p_value"])
    return table


def measured_of(answers: Judged, length: Judged, rows: Rows) -> Measured:
    """The overall score and the length preference of each pair, from its judgements."""
    return Measured(*(Judged(*(plain_accuracy(side, rows)[0] for side in each)) for each in (answers, length)))


def doubled(axis: OnAxis, length: Judged) -> tuple[np.ndarray, Study]:
    """Judgements and study with every pair twice, so that the bootstrap draws accuracy and length preference together.

    Returns:
        (2 x pairs, rows): judgements, then whether each pair prefers the longer response; and the study.
    """
    study = axis.study
    both = np.vstack([oriented(axis), oriented(axis._replace(answers=length))])
    return both, study._replace(strong=np.tile(study.strong, 2), weak=np.tile(study.weak, 2))


def parts_of(axis: OnAxis, measured: Measured, starts: Collection[str]) -> Parts:
    """The statistic of the pairs that have a gap, an accuracy and a length preference."""
    used = np.flatnonzero((axis.gap != 0) & np.isfinite(np.stack([*measured.accuracy, *measured.length])).all(axis=0))
    study = axis.study._replace(strong=axis.study.strong[used], weak=axis.study.weak[used])
    start = _named(axis, starts)
    pairs = labelled(study, axis.performance, np.arange(len(axis.performance))[None])
    kept = ~(start[study.strong] | start[study.weak])
    return Parts(pairs, pair_families(axis.study)[used], kept, used, len(axis.gap))


def _named(axis: OnAxis, starts: Collection[str]) -> np.ndarray:
    """Whether each model is a start, (models,)."""
    return np.isin(axis.study.model_ids, list(starts))


def _tests(
    axis: OnAxis, measured: Measured, starts: Collection[str], *, n_draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """The p of every estimator but the mixed model's."""
    rngs = rng.spawn(2)
    labels = relabellings(axis.study.family, n_draws=n_draws, rng=rngs[0])
    found = slope_tests(axis.study, axis.performance, *measured.accuracy, labels)
    found[GIVEN_LENGTH] = partial_test(axis.study, axis.performance, *measured, labels).p_value
    without = np.where(_named(axis, starts), np.nan, axis.performance)
    rest = on_axis(axis.study, Judged(*(side[:, None] for side in measured.accuracy)), without)
    found[WITHOUT_STARTS] = np.nan
    if len(rest.gap):
        labels = relabellings(rest.study.family, n_draws=n_draws, rng=rngs[1])
        forward, turned = (side[:, 0] for side in rest.answers)
        found[WITHOUT_STARTS] = qap(rest.study, rest.performance, forward, turned, labels).exchangeable
    return found


def _mixed(axis: OnAxis, measured: Measured, rows: Rows, parts: Parts) -> list[dict[str, Any]]:
    """The rows of MIXED."""
    study, pairs, used = axis.study, parts.pairs, parts.used
    y = 100 * np.where(axis.gap < 0, measured.accuracy.turned, measured.accuracy.forward)[used]
    leader = pairs.leader[0]
    other = study.strong[used] + study.weak[used] - leader
    fit = mixed_slopes(y, pairs.better[0], pairs.worse[0], (leader, other), parts.family)
    return [
        {"estimator": name, "estimate": value, "low": low, "high": high, "p_value": p} | _counts(axis, rows, used)
        for name, value, low, high, p in zip(MIXED, *fit, strict=True)
    ]


def _counts(axis: OnAxis, rows: Rows, used: np.ndarray) -> dict[str, Any]:
    """The counts behind an estimate from the pairs with these indices."""
    n_models = len(np.union1d(axis.study.strong[used], axis.study.weak[used]))
    return {"n_pairs": len(used), "n_models": n_models, "n_prompts": rows.n_examples(rows.weights[0] > 0)}
