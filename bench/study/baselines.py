"""Checks whether something other than the gap explains the correlation, and how robust the correlation is.

Simple baseline judges are treated as rewards: `correlate` computes their rows as it does for the density ratio. The
other functions repeat the headline estimate without single models or families, and with noise added to the published
scores. `decompose` takes the strong and the weak model's performance apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import Example
from bench.study.benchmarks import benchmark_of
from bench.study.correlate import ALL, HEADLINE, describe, groups_of
from bench.study.design import Judged, OnAxis, Rows, Study, gaps, oriented, pair_families, plain_accuracy
from bench.study.effects import spearman

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


def baseline_judges(
    study: Study, examples: Sequence[Example], logps: Sequence[np.ndarray], sizes: Sequence[np.ndarray]
) -> dict[str, Judged]:
    """Judgements of five baselines, by name.

    - `strong-alone`: the strong model's log-probability alone.
    - `minus-weak-alone`: minus the weak model's log-probability alone.
    - `longer`: the length of the response, as the pair's chat template renders it.
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
    # Families have templates of their own, and under --template native so have models: the strong one's counts.
    longer = [each[study.strong] for each in sizes]
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
        turned_share = (np.sign(gap) * np.sign(axis.gap) < 0)[:, axis.gap != 0].mean()
        for level, (kind, name) in enumerate(rows.levels):
            # A pair without a gap has no order that an error could change, so no line of the table counts it.
            usable = np.isfinite(forward[level]) & np.isfinite(turned[level]) & (axis.gap != 0)
            answers = np.where(gap < 0, turned[level], forward[level])[:, usable]
            there = (gap[:, usable] != 0).astype(float)
            rho = spearman(np.abs(gap[:, usable]), answers, there, family[usable])
            low, high = np.quantile(rho, [0.025, 0.975])
            uncertain = np.abs(axis.gap[usable]) < _UNCERTAIN * stderr
            counts = (int(usable.sum()), int(uncertain.sum()), turned_share)
            lines.append((kind, name, stderr, noise.unit, HEADLINE, rho.mean(), low, high, *counts))
    return pd.DataFrame(lines, columns=list(GAP_NOISE))
