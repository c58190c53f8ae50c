"""Does a larger gap make a better judge? Effect, interval and test, overall, by section and by family.

The pairs share models and all of them share the prompts, so they are not that many observations: the interval comes
from a bootstrap over models crossed with prompts (`bootstrap`), the test from relabelling the models (`qap`).

A study has some 160 tests. One of them is declared in advance: the headline reward's rho on the study's own
performance, over all families, with the labels exchangeable. All others are adjusted together by Holm's method.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from bench.schema import CORRELATION, REWARDS
from bench.study.bootstrap import (
    Resampling,
    basic_interval,
    correlation_interval,
    crossed_bootstrap,
    estimate,
)
from bench.study.compare import holm
from bench.study.design import Judged, OnAxis, Rows, Study, on_axis, oriented, pair_families, plain_accuracy
from bench.study.effects import EFFECTS, effects
from bench.study.qap import QapTest, qap, relabellings

ALL = "all"
"""`family` of an estimate over the pairs of all families."""

SIGN_ONLY = "spearman-sign-only"
"""`estimator` of the row that has rho's second p-value: the null in which the order counts and the size does not."""

Axes = Mapping[str, np.ndarray]
"""Published scores by the name of the performance, (models,) each, points, NaN where a model has none."""

HEADLINE, POOLED = "spearman", "spearman-pooled"
"""`estimator` of the rho inside families, and of the rho that families are pooled for without regard to them."""

MIN_MODELS = 8
"""Models that an interval needs: drawn again, fewer give intervals over most of what is possible."""

TOO_FEW = "too few models"
"""What stands in the place of an interval."""

TITLES = {
    HEADLINE: "Spearman's ρ inside families",
    SIGN_ONLY: "the same, tested against: only the order counts",
    POOLED: "Spearman's ρ, families pooled",
    "kendall": "Kendall's τ inside families",
    "pearson": "Pearson's r inside families",
    "slope": "Slope inside families, points a unit of gap",
    "mean-accuracy": "Mean accuracy",
}
"""Estimators as a reader calls them."""

_CORRELATIONS = (HEADLINE, POOLED, "kendall", "pearson")


class Group(NamedTuple):
    """The pairs that one estimate is made of."""

    level: int
    """Index into Rows.levels."""
    family: str
    pairs: np.ndarray
    """Indices of pairs with a gap and an accuracy."""


class Effects(NamedTuple):
    """Statistic for the bootstrap: the EFFECTS of each group."""

    gap: np.ndarray
    """(pairs,), not negative."""
    family: np.ndarray
    """(pairs,), int from 0."""
    groups: tuple[Group, ...]

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, levels, pairs) and (draws, pairs) -> (draws, groups x effects)."""
        return np.hstack([self._of(group, answers, weights) for group in self.groups])

    def _of(self, group: Group, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, effects) of one group."""
        pairs = group.pairs
        return effects(self.gap[pairs], answers[:, group.level, pairs], weights[:, pairs], self.family[pairs])


def correlate(
    study: Study,
    rows: Rows,
    answers: Mapping[str, Judged],
    axes: Axes,
    *,
    baselines: Mapping[str, Judged] | None = None,
    resampling: Resampling,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Every effect with its interval, and rho with both of its tests.

    On each performance axis a pair is turned so that the better model is the strong one, and models without a score
    take their pairs with them. Pairs of gap 0 are left out. All rewards and axes see the same draws.

    Args:
        study: Models and pairs.
        rows: What counts how, and which rows go together.
        answers: Right and wrong by the name of the reward.
        axes: Published scores of the study's models.
        baselines: More judges, on the first axis alone.
        resampling: Number of bootstrap draws and of relabellings, and of processes; equal seeds give equal results on
            any number of processes.
        rng: Source of both.

    Returns:
        CORRELATION. `estimator` is one of EFFECTS, each with its 95% interval, which is missing where there are under
        MIN_MODELS models; `p_value` of HEADLINE is QAP's under exchangeable labels, that of the row SIGN_ONLY under the
        other null. HEADLINE alone is tested. POOLED stands where there are families to pool.
    """
    seeds = tuple(int(seed) for seed in rng.integers(2**63, size=2))
    judges = [(name, answer, axis) for name, answer in answers.items() for axis in axes]
    judges += [(name, answer, next(iter(axes))) for name, answer in (baselines or {}).items()]
    run, alone = delayed(_effects), resampling._replace(n_jobs=1)
    frames = Parallel(n_jobs=resampling.n_jobs)(
        run(on_axis(study, answer, axes[axis]), rows, resampling=alone, seeds=seeds) for _, answer, axis in judges
    )
    told = zip(frames, judges, strict=True)
    named = [frame.assign(reward=name, performance=axis) for frame, (name, _, axis) in told if len(frame)]
    return declared(pd.concat(named, ignore_index=True), next(iter(axes))) if named else _empty()


def _empty() -> pd.DataFrame:
    """CORRELATION of a study in which nothing can be estimated."""
    return pd.DataFrame(columns=list(CORRELATION))


def declared(table: pd.DataFrame, performance: str) -> pd.DataFrame:
    """CORRELATION with its primary test marked and all others adjusted.

    Args:
        table: CORRELATION but for `p_holm` and `primary`.
        performance: The study's own axis.
    """
    wanted = {"reward": REWARDS[0], "level": "overall", "family": ALL, "performance": performance}
    primary = (table[[*wanted, "estimator"]] == pd.Series(wanted | {"estimator": HEADLINE})).all(axis=1)
    adjusted = table["p_value"].where(primary, holm(table["p_value"].where(~primary)))
    return table.assign(p_holm=adjusted, primary=primary)[list(CORRELATION)]


def groups_of(axis: OnAxis, rows: Rows, answers: np.ndarray) -> tuple[Group, ...]:
    """What is estimated: each level over all families, then the overall score inside each family.

    Args:
        axis: Models and pairs; pairs of gap 0 are left out.
        rows: Its levels.
        answers: Accuracy, (levels, pairs); pairs without one are left out.
    """
    usable = (axis.gap != 0) & np.isfinite(answers)
    found = [Group(level, ALL, np.flatnonzero(usable[level])) for level in range(len(rows.levels))]
    family = axis.study.family[axis.study.strong]
    # Where no level is whole, there is no overall score either.
    for name in np.unique(family) if rows.levels else ():
        found.append(Group(0, str(name), np.flatnonzero(usable[0] & (family == name))))
    return tuple(group for group in found if len(group.pairs))


def interval_of(estimator: str) -> Callable[[float, np.ndarray], tuple[float, float]]:
    """The interval that an estimator gets."""
    return correlation_interval if estimator in _CORRELATIONS else basic_interval


def lacks_models(row: Mapping) -> bool:
    """Whether a row of CORRELATION has an estimate and too few models for an interval."""
    return bool(np.isfinite(row["estimate"]) and not np.isfinite(row["low"]))


def describe(group: Group, study: Study, rows: Rows) -> dict:
    """CORRELATION's columns that say what an estimate is of."""
    level, name = rows.levels[group.level]
    return {
        "level": level,
        "name": name,
        "family": group.family,
        "n_pairs": len(group.pairs),
        "n_models": len(np.union1d(study.strong[group.pairs], study.weak[group.pairs])),
        "n_prompts": int((rows.weights[group.level] > 0).sum()),
    }


def _effects(axis: OnAxis, rows: Rows, *, resampling: Resampling, seeds: tuple[int, int]) -> pd.DataFrame:
    """CORRELATION but for reward and performance."""
    rngs = [np.random.default_rng(seed) for seed in seeds]
    correct = oriented(axis)
    groups = groups_of(axis, rows, plain_accuracy(correct, rows))
    if not groups:
        return pd.DataFrame()
    statistic = Effects(np.abs(axis.gap), pair_families(axis.study), groups)
    shape = (len(groups), len(EFFECTS))
    estimates = estimate(correct, axis.study, rows, statistic).reshape(shape)
    draws = crossed_bootstrap(correct, axis.study, rows, statistic, resampling=resampling, rng=rngs[0])
    tests = _tests(axis, rows, groups, resampling=resampling, rng=rngs[1])
    lines = []
    for group, values, drawn, test in zip(
        groups, estimates, np.moveaxis(draws.reshape(-1, *shape), 0, 2), tests, strict=True
    ):
        for estimator, value, sample in zip(EFFECTS, values, drawn, strict=True):
            if estimator == POOLED and group.family != ALL:
                continue
            line = describe(group, axis.study, rows) | {"estimator": estimator, "estimate": value}
            enough = line["n_models"] >= MIN_MODELS
            low, high = interval_of(estimator)(value, sample) if enough else (np.nan, np.nan)
            line |= {"low": low, "high": high, "p_value": np.nan}
            if estimator == HEADLINE:
                lines.append(line | {"p_value": test.exchangeable})
                lines.append(line | {"estimator": SIGN_ONLY, "p_value": test.sign_only})
            else:
                lines.append(line)
    return pd.DataFrame(lines)


def _tests(
    axis: OnAxis, rows: Rows, groups: tuple[Group, ...], *, resampling: Resampling, rng: np.random.Generator
) -> list[QapTest]:
    """QAP of each group, over its pairs and those that only a relabelling gives a gap."""
    labels = relabellings(axis.study.family, n_draws=resampling.n_draws, rng=rng)
    forward, turned = (plain_accuracy(correct, rows) for correct in axis.answers)
    family = axis.study.family[axis.study.strong]
    found = []
    for group in groups:
        inside = (family == group.family) | (group.family == ALL)
        pairs = axis.study._replace(strong=axis.study.strong[inside], weak=axis.study.weak[inside])
        sides = (forward[group.level, inside], turned[group.level, inside])
        found.append(qap(pairs, axis.performance, *sides, labels))
    return found
