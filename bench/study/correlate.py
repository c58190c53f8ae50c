"""Does a larger gap make a better judge? Effect, interval and test, overall, by section and by family.

The pairs share models and all of them share the prompts, so they are not that many observations: the interval comes
from a bootstrap over models crossed with prompts (`bootstrap`), the test from relabelling the models (`qap`).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from bench.schema import CORRELATION
from bench.study.bootstrap import (
    Resampling,
    basic_interval,
    correlation_interval,
    crossed_bootstrap,
    estimate,
)
from bench.study.design import Judged, Rows, Study, accuracy, gaps, once, oriented, with_scores
from bench.study.effects import EFFECTS, effects
from bench.study.qap import QapTest, qap, relabellings

ALL = "all"
"""`family` of an estimate over the pairs of all families."""

SIGN_ONLY = "spearman-sign-only"
"""`estimator` of the row that has rho's second p-value: the null in which the order counts and the size does not."""

Axes = Mapping[str, np.ndarray]
"""Published scores by the name of the performance, (models,) each, points, NaN where a model has none."""

_CORRELATIONS = ("spearman", "kendall", "pearson")


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
    """(pairs,), points, not negative."""
    groups: tuple[Group, ...]

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(draws, levels, pairs) and (draws, pairs) -> (draws, groups x effects)."""
        return np.hstack(
            [
                effects(self.gap[group.pairs], answers[:, group.level, group.pairs], weights[:, group.pairs])
                for group in self.groups
            ]
        )


def correlate(
    study: Study,
    rows: Rows,
    answers: Mapping[str, Judged],
    axes: Axes,
    *,
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
        resampling: Number of bootstrap draws and of relabellings, and of processes.
        rng: Source of both.

    Returns:
        CORRELATION. `estimator` is one of EFFECTS, each with its 95% interval; `p_value` of `spearman` is QAP's under
        exchangeable labels, that of the row SIGN_ONLY under the other null. The primary effect alone is tested.
    """
    boot_seed, label_seed = (int(seed) for seed in rng.integers(2**63, size=2))
    frames = []
    for reward, answer in answers.items():
        for axis, performance in axes.items():
            scored, kept = with_scores(study, performance)
            known = performance[np.isfinite(performance)]
            part = Judged(answer.forward[kept], answer.turned[kept])
            rngs = (np.random.default_rng(boot_seed), np.random.default_rng(label_seed))
            frame = _on_axis(scored, rows, part, known, resampling=resampling, rngs=rngs)
            frames.append(frame.assign(reward=reward, performance=axis))
    return pd.concat(frames, ignore_index=True)[list(CORRELATION)]


def groups_of(study: Study, rows: Rows, gap: np.ndarray, answers: np.ndarray) -> tuple[Group, ...]:
    """What is estimated: each level over all families, then the overall score inside each family.

    Args:
        study: Models and pairs.
        rows: Its levels.
        gap: (pairs,), points; pairs of gap 0 are left out.
        answers: Accuracy, (levels, pairs); pairs without one are left out.
    """
    usable = (gap != 0) & np.isfinite(answers)
    found = [Group(level, ALL, np.flatnonzero(usable[level])) for level in range(len(rows.levels))]
    family = study.family[study.strong]
    for name in np.unique(family):
        found.append(Group(0, str(name), np.flatnonzero(usable[0] & (family == name))))
    return tuple(group for group in found if len(group.pairs))


def interval_of(estimator: str) -> Callable[[float, np.ndarray], tuple[float, float]]:
    """The interval that an estimator gets."""
    return correlation_interval if estimator in _CORRELATIONS else basic_interval


def _on_axis(
    study: Study, rows: Rows, answer: Judged, performance: np.ndarray, *, resampling: Resampling, rngs: tuple
) -> pd.DataFrame:
    """CORRELATION but for reward and performance, of models that all have a score."""
    gap = gaps(study, performance)
    correct = oriented(answer, gap)
    groups = groups_of(study, rows, gap, accuracy(correct, rows, once(rows))[0])
    statistic = Effects(np.abs(gap), groups)
    shape = (len(groups), len(EFFECTS))
    estimates = estimate(correct, study, rows, statistic).reshape(shape)
    draws = crossed_bootstrap(correct, study, rows, statistic, resampling=resampling, rng=rngs[0])
    labels = relabellings(study.family, n_draws=resampling.n_draws, rng=rngs[1])
    tests = Parallel(n_jobs=resampling.n_jobs)(
        delayed(_test)(study, performance, group, _both(answer, rows, group), labels) for group in groups
    )
    lines = []
    for group, values, drawn, test in zip(
        groups, estimates, np.moveaxis(draws.reshape(-1, *shape), 0, 2), tests, strict=True
    ):
        for estimator, value, sample in zip(EFFECTS, values, drawn, strict=True):
            low, high = interval_of(estimator)(value, sample)
            line = describe(group, study, rows) | {"estimator": estimator, "estimate": value, "low": low, "high": high}
            lines.append(line | {"p_value": test.exchangeable if estimator == "spearman" else np.nan})
            if estimator == "spearman":
                lines.append(line | {"estimator": SIGN_ONLY, "p_value": test.sign_only})
    return pd.DataFrame(lines)


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


def _both(answer: Judged, rows: Rows, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of every pair on the group's level, forward and turned, (pairs,) each."""
    forward, turned = (accuracy(correct, rows, once(rows))[0, group.level] for correct in answer)
    return forward, turned


def _test(
    study: Study, performance: np.ndarray, group: Group, both: tuple[np.ndarray, np.ndarray], labels: np.ndarray
) -> QapTest:
    """QAP over a group's pairs and those that a relabelling gives a gap."""
    inside = np.full(len(study.strong), group.family == ALL) | (study.family[study.strong] == group.family)
    pairs = study._replace(strong=study.strong[inside], weak=study.weak[inside])
    return qap(pairs, performance, both[0][inside], both[1][inside], labels)
