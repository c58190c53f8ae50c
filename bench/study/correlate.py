"""Estimates and tests whether a larger gap makes a better judge: overall, by section and by family.

The pairs share models, and all pairs share the prompts, so pairs are not independent observations. The interval
therefore comes from a bootstrap over models and prompts (`bootstrap`), and the test relabels the models (`qap`).

A study has some 160 tests. One of them is declared in advance: rho under the headline reward, on the study's own
performance, over all families, with exchangeable labels. Holm's method adjusts all others together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
"""`estimator` of the row with rho's second p-value. Its null says that the order of the models matters and the size of
the gap does not."""

Axes = Mapping[str, np.ndarray]
"""Published scores by performance_id, (models,) each, points; NaN where a model has none."""

HEADLINE, POOLED = "spearman", "spearman-pooled"
"""`estimator` of the rho inside families, and of the rho over all pairs, which ignores families."""

MIN_MODELS = 8
"""Number of models that an interval needs. With fewer, the resampled intervals cover most of the possible range."""

TOO_FEW = "too few models"
"""What a table shows instead of an interval."""

TITLES = {
    HEADLINE: "Spearman's ρ inside families",
    SIGN_ONLY: "the same, under the null that only the order matters",
    POOLED: "Spearman's ρ, families pooled",
    "kendall": "Kendall's τ inside families",
    "pearson": "Pearson's r inside families",
    "slope": "Slope inside families, points per unit of gap",
    "mean-accuracy": "Mean accuracy",
}
"""Names of the estimators in tables and in the report."""

_CORRELATIONS = (HEADLINE, POOLED, "kendall", "pearson")


class Group(NamedTuple):
    """The pairs behind one estimate."""

    level: int
    """Index into Rows.levels."""
    family: str
    pairs: np.ndarray
    """Indices of the pairs that have a gap and an accuracy."""


@dataclass(frozen=True)
class Effects:
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
    """Estimate every effect with its interval, and test rho in both ways.

    On each performance axis the better model of a pair is its strong model. Models without a score are left out with
    their pairs, and so are pairs with a gap of 0. All rewards and axes use the same draws.

    Args:
        study: Models and pairs.
        rows: Levels and weights of the rows, and their problems.
        answers: Right and wrong, by the name of the reward.
        axes: Published scores of the study's models.
        baselines: More judges, for the first axis alone.
        resampling: Number of bootstrap draws, of relabellings, and of processes.
        rng: Source of the draws and relabellings.

    Returns:
        CORRELATION. `estimator` is one of EFFECTS, each with its 95% interval; the interval is missing where there are
        fewer than MIN_MODELS models. Only HEADLINE is tested: its `p_value` is QAP's under exchangeable labels, and the
        row SIGN_ONLY has the p of the other null. POOLED is given over all families only.
    """
    first, second = rng.integers(2**63, size=2)
    seeds = (int(first), int(second))
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
    """CORRELATION with its primary test marked and all other tests adjusted.

    Args:
        table: CORRELATION without `p_holm` and `primary`.
        performance: performance_id of the study's own axis.
    """
    wanted = {"reward": REWARDS[0], "level": "overall", "family": ALL, "performance": performance}
    primary = (table[[*wanted, "estimator"]] == pd.Series(wanted | {"estimator": HEADLINE})).all(axis=1)
    adjusted = table["p_value"].where(primary, holm(table["p_value"].where(~primary)))
    return table.assign(p_holm=adjusted, primary=primary)[list(CORRELATION)]


def groups_of(axis: OnAxis, rows: Rows, answers: np.ndarray) -> tuple[Group, ...]:
    """List what is estimated: each level over all families, then the overall score inside each family.

    Args:
        axis: Models and pairs. Pairs with a gap of 0 are left out.
        rows: Levels of the rows.
        answers: Accuracy, (levels, pairs). Pairs without one are left out.
    """
    usable = (axis.gap != 0) & np.isfinite(answers)
    found = [Group(level, ALL, np.flatnonzero(usable[level])) for level in range(len(rows.levels))]
    family = axis.study.family[axis.study.strong]
    # Without a complete level there is no overall score either.
    for name in np.unique(family) if rows.levels else ():
        found.append(Group(0, str(name), np.flatnonzero(usable[0] & (family == name))))
    return tuple(group for group in found if len(group.pairs))


def interval_of(estimator: str) -> Callable[[float, np.ndarray], tuple[float, float]]:
    """The function that computes the interval of an estimator."""
    return correlation_interval if estimator in _CORRELATIONS else basic_interval


def lacks_models(row: Mapping[str, float]) -> bool:
    """Whether a row of CORRELATION has an estimate but too few models for an interval."""
    return bool(np.isfinite(row["estimate"]) and not np.isfinite(row["low"]))


def describe(group: Group, study: Study, rows: Rows) -> dict[str, Any]:
    """The columns of CORRELATION that say what an estimate is about."""
    level, name = rows.levels[group.level]
    return {
        "level": level,
        "name": name,
        "family": group.family,
        "n_pairs": len(group.pairs),
        "n_models": len(np.union1d(study.strong[group.pairs], study.weak[group.pairs])),
        "n_prompts": rows.n_examples(rows.weights[group.level] > 0),
    }


def _effects(axis: OnAxis, rows: Rows, *, resampling: Resampling, seeds: tuple[int, int]) -> pd.DataFrame:
    """CORRELATION of one judge on one axis, without reward and performance."""
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
    """QAP of each group. It also needs the pairs that have a gap only after a relabelling."""
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
