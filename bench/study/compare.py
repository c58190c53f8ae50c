"""Pair against pair: they judge the same rows, so every comparison is paired.

Prompts are drawn again with the problem under them (`bootstrap`), so the intervals and the confidence set know that
six HumanEvalPack rows are one problem. McNemar's test does not: it takes rows for independent, and is for comparison
with other work.

A bootstrap of few rows is too sure of itself. Simulated with equal pairs, its test at 5% rejects in up to 25% where
fewer than ten rows differ, and in up to 12% where 20 rows are judged and 15 differ; from 25 on it keeps its level.
McNemar's exact test keeps it everywhere, so below these numbers it stands alone.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from bench.study.bootstrap import basic_interval, prompt_bootstrap
from bench.study.design import Rows, plain_accuracy

COMPARISON = (
    "first", "second", "level", "name", "difference", "low", "high", "p_bootstrap", "p_bootstrap_holm",
    "n_first_only", "n_second_only", "p_mcnemar", "p_mcnemar_holm", "n_rows", "n_clusters",
)  # fmt: skip
"""One row a comparison and level. `difference` is the first pair's weighted accuracy less the second's, with its 95%
basic interval and the p of its being 0, which is at most 0.05 where the interval leaves 0 out; `n_first_only` counts
rows that the first pair alone judges rightly, and `p_mcnemar` is the exact test of those counts, unweighted. Holm's p
are over all comparisons on all levels. The interval is missing where the pairs differ on fewer than
MIN_DIFFERING_INTERVAL problems, `p_bootstrap` where they differ on fewer than MIN_DIFFERING_TEST."""

MIN_DIFFERING_INTERVAL, MIN_DIFFERING_TEST = 10, 25


def compare(
    correct: np.ndarray,
    pair_ids: Sequence[str],
    rows: Rows,
    comparisons: Sequence[tuple[str, str]],
    *,
    rng: np.random.Generator,
    n_draws: int = 10_000,
) -> pd.DataFrame:
    """Every declared comparison on every level.

    Args:
        correct: 1 right, 0 wrong or tie, NaN left out, (pairs, rows). A row counts where both pairs have it.
        pair_ids: Names of its lines.
        rows: What counts how, and which rows go together.
        comparisons: The declared set, (first, second) pair_ids each; Holm's correction is over all of it, and over all
            levels.
        rng: Source of the draws.
        n_draws: How many.

    Returns:
        COMPARISON.
    """
    place = {pair_id: position for position, pair_id in enumerate(pair_ids)}
    seeds = rng.integers(2**63, size=1)
    frames = [
        _compared(correct[[place[first], place[second]]], rows, n_draws, np.random.default_rng(seeds)).assign(
            first=first, second=second
        )
        for first, second in comparisons
    ]
    frame = pd.concat(frames, ignore_index=True)
    for column in ("p_bootstrap", "p_mcnemar"):
        frame[f"{column}_holm"] = holm(frame[column])
    return frame[list(COMPARISON)]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values of a declared set; comparisons without a p are not of the set."""
    p_values = np.asarray(p_values, dtype=float)
    known = np.isfinite(p_values)
    adjusted = np.full(len(p_values), np.nan)
    if known.any():
        adjusted[known] = multipletests(p_values[known], method="holm")[1]
    return adjusted


def confidence_set(scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Which pairs are not worse than the best: the model confidence set (Hansen, Lunde and Nason 2011).

    While pairs are left, the largest of their t, each pair's shortfall from the mean of those left over its bootstrap
    standard error (T_max), is compared with its draws; then the pair with the largest t goes. A pair's p is the
    largest p up to its going, so the set at 95% holds the pairs with p > 0.05, and with it the best pair in 95% of
    samples.

    Args:
        scores: (pairs,), all known; more is better.
        draws: The same from `prompt_bootstrap` on one level, (draws, pairs).

    Returns:
        p, (pairs,); the last pair left has 1.
    """
    left, p_values, largest = np.arange(len(scores)), np.ones(len(scores)), 0.0
    error = draws - scores
    while len(left) > 1:
        shortfall = scores[left].mean() - scores[left]
        noise = error[:, left].mean(axis=1, keepdims=True) - error[:, left]
        scale = np.sqrt((noise**2).mean(axis=0))
        # pairs that cannot be told apart in any draw have no noise and no shortfall
        scale = np.where(scale > 1e-9, scale, np.inf)
        t = shortfall / scale
        reached = (noise / scale).max(axis=1) >= t.max()
        largest = max(largest, (1 + reached.sum()) / (1 + len(draws)))
        worst = int(np.argmax(t))
        p_values[left[worst]] = largest
        left = np.delete(left, worst)
    return p_values


def _compared(both: np.ndarray, rows: Rows, n_draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Two pairs on every level, from (2, rows)."""
    both = np.where(np.isfinite(both).all(axis=0), both, np.nan)
    estimate = plain_accuracy(both, rows)
    draws = prompt_bootstrap(both, rows, n_draws=n_draws, rng=rng)
    lines = []
    for number, (level, name) in enumerate(rows.levels):
        difference = estimate[number, 0] - estimate[number, 1]
        drawn = draws[:, number, 0] - draws[:, number, 1]
        counted = np.flatnonzero((rows.weights[number] > 0) & np.isfinite(both[0]))
        first, second = both[:, counted] > 0
        n_differing = len(np.unique(rows.cluster[counted[first != second]]))
        enough = n_differing >= MIN_DIFFERING_INTERVAL
        low, high = basic_interval(difference, drawn) if enough else (np.nan, np.nan)
        table = [[int((first & second).sum()), int((first & ~second).sum())]]
        table += [[int((second & ~first).sum()), int((~first & ~second).sum())]]
        lines.append(
            {
                "level": level,
                "name": name,
                "difference": difference,
                "low": low,
                "high": high,
                "p_bootstrap": _p_of_zero(difference, drawn) if n_differing >= MIN_DIFFERING_TEST else np.nan,
                "n_first_only": table[0][1],
                "n_second_only": table[1][0],
                "p_mcnemar": float(mcnemar(table, exact=True).pvalue),
                "n_rows": len(counted),
                "n_clusters": len(np.unique(rows.cluster[counted])),
            }
        )
    # Part of RewardBench's subsets have no level, and no comparison.
    return pd.DataFrame(lines, columns=[name for name in COMPARISON[2:] if not name.endswith("_holm")])


def _p_of_zero(difference: float, draws: np.ndarray) -> float:
    """Two-sided p of a difference: 1 less the level of the basic interval that ends at 0."""
    if np.isnan(difference):
        return np.nan
    # the interval's ends are mirrored draws: 0 is beyond one where few draws are beyond twice the difference
    beyond = min(np.sum(draws >= 2 * difference - 1e-9), np.sum(draws <= 2 * difference + 1e-9))
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(draws))))
