"""Compares pairs that judge the same rows, so every comparison is paired.

The bootstrap resamples problems (`bootstrap`), so its intervals and the model confidence set account for the fact that
six HumanEvalPack rows can be one problem. McNemar's test counts problems too: on how many does the first pair judge
more rows rightly, on how many the second? Where each problem is one row, that is McNemar's exact test of the rows. It
ignores the weights of the subsets.

The bootstrap is anti-conservative where few problems differ. Simulated with equal pairs, its test at 5% rejects in 9%
of samples where 10 to 15 problems differ, and in 5 to 7% from 25 on. It also rejects in 11% where each of RewardBench's
23 subsets has two problems, and in 5 to 7% where it has eight. McNemar's exact test always keeps its level, so where
fewer problems differ the table has McNemar's p alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.study.bootstrap import basic_interval, prompt_bootstrap
from bench.study.design import Rows, plain_accuracy

COMPARISON = (
    "first", "second", "level", "name", "difference", "low", "high", "p_bootstrap", "p_bootstrap_holm",
    "n_first_only", "n_second_only", "p_mcnemar", "p_mcnemar_holm", "n_rows", "n_clusters",
)  # fmt: skip
"""One row per comparison and level. `difference` is the weighted accuracy of the first pair minus that of the second,
with its 95% basic interval. `p_bootstrap` tests a difference of 0; it is at most 0.05 where the interval does not
contain 0. `n_first_only` counts the problems of which the first pair judges more rows rightly than the second, and
`p_mcnemar` is the exact, unweighted test of these counts. Holm's p are adjusted over all comparisons on all levels. The
interval is missing where the pairs differ on fewer than MIN_DIFFERING_INTERVAL problems, `p_bootstrap` where they
differ on fewer than MIN_DIFFERING_TEST, and both where a subset that counts has a single problem."""

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
    """Compute every declared comparison on every level.

    Args:
        correct: 1 right, 0 wrong or tie, NaN excluded, (pairs, rows). A row counts where both pairs have it.
        pair_ids: Names of the pairs in `correct`.
        rows: Levels and weights of the rows, and their problems.
        comparisons: The declared set, (first, second) pair_ids each. Holm's correction covers the whole set on all
            levels.
        rng: Source of the draws.
        n_draws: Number of draws.

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
    """Holm's adjusted p-values of a declared set. A missing p is ignored."""
    # Imported here, because statsmodels takes two seconds to import and most verbs do not need it.
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, dtype=float)
    known = np.isfinite(values)
    adjusted = np.full(len(values), np.nan)
    if known.any():
        _, corrected, _, _ = multipletests(values[known], method="holm")
        adjusted[known] = corrected
    return adjusted


def confidence_set(scores: np.ndarray, draws: np.ndarray, *, n_problems: int) -> np.ndarray:
    """Compute the model confidence set: the pairs that may be the best (Hansen, Lunde and Nason 2011).

    While pairs are left, each pair's t is its shortfall from their mean score, divided by its bootstrap standard error.
    The largest t (T_max) is compared with its draws, and the pair with the largest t is removed. The p of a pair is the
    largest p up to its removal. So the set at 95% contains the pairs with p > 0.05, and it contains the best pair in
    95% of samples. A pair that falls short by the same in every draw, as one that is never right beside one that always
    is, has no standard error; its p is that of a sign test over the problems.

    Args:
        scores: (pairs,), all known; more is better.
        draws: The scores from `prompt_bootstrap` on one level, (draws, pairs).
        n_problems: Number of problems that count on this level.

    Returns:
        p, (pairs,); the last pair left has 1.
    """
    left, p_values, largest = np.arange(len(scores)), np.ones(len(scores)), 0.0
    error = draws - scores
    while len(left) > 1:
        shortfall = scores[left].mean() - scores[left]
        noise = error[:, left].mean(axis=1, keepdims=True) - error[:, left]
        scale = np.sqrt((noise**2).mean(axis=0))
        certain = (scale <= 1e-9) & (shortfall > 1e-9)
        # pairs that are equal in every draw have neither noise nor shortfall
        t = shortfall / np.where(scale > 1e-9, scale, np.inf)
        if certain.any():
            worst, p = int(np.argmax(np.where(certain, shortfall, -np.inf))), min(1.0, 2 * 0.5**n_problems)
        else:
            worst = int(np.argmax(t))
            reached = (noise / np.where(scale > 1e-9, scale, np.inf)).max(axis=1) >= t[worst]
            p = (1 + reached.sum()) / (1 + len(draws))
        largest = max(largest, p)
        p_values[left[worst]] = largest
        left = np.delete(left, worst)
    return p_values


class Paired(NamedTuple):
    """Two pairs on the rows that both judge."""

    both: np.ndarray
    """Their judgements, (2, rows); NaN where one of them has none."""
    accuracy: np.ndarray
    """(levels, 2)."""
    drawn: np.ndarray
    """Bootstrap draws of the difference, (draws, levels)."""
    limits: np.ndarray
    """95% interval of the difference, (levels, 2); NaN where fewer than MIN_DIFFERING_INTERVAL problems differ, or a
    subset has a single problem."""
    n_differing: np.ndarray
    """Problems on which the two differ, (levels,)."""


def paired(both: np.ndarray, rows: Rows, *, rng: np.random.Generator, n_draws: int = 10_000) -> Paired:
    """Compare two pairs on every level, from (2, rows)."""
    both = np.where(np.isfinite(both).all(axis=0), both, np.nan)
    accuracy = plain_accuracy(both, rows)
    draws = prompt_bootstrap(both, rows, n_draws=n_draws, rng=rng)
    drawn = draws[:, :, 0] - draws[:, :, 1]
    differs = np.isfinite(both[0]) & ((both[0] > 0) != (both[1] > 0))
    n_differing = np.array([len(np.unique(rows.cluster[differs & (weights > 0)])) for weights in rows.weights])
    limits = np.full((len(rows.levels), 2), np.nan)
    for level in np.flatnonzero(n_differing >= MIN_DIFFERING_INTERVAL):
        limits[level] = basic_interval(accuracy[level, 0] - accuracy[level, 1], drawn[:, level])
    return Paired(both, accuracy, drawn, limits, n_differing)


def _compared(both: np.ndarray, rows: Rows, n_draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """COMPARISON of two pairs on every level, from (2, rows), without the columns of the whole set."""
    from statsmodels.stats.contingency_tables import mcnemar

    found = paired(both, rows, rng=rng, n_draws=n_draws)
    lines = []
    for number, (level, name) in enumerate(rows.levels):
        difference = found.accuracy[number, 0] - found.accuracy[number, 1]
        inside = (rows.weights[number] > 0) & np.isfinite(found.both[0])
        counted = np.flatnonzero(inside)
        tested = found.n_differing[number] >= MIN_DIFFERING_TEST
        problems, of_row = np.unique(rows.cluster[counted], return_inverse=True)
        verdicts = (found.both[:, counted] > 0).astype(float)  # of RewardBench 2's margins, the sign alone
        lead = np.bincount(of_row, weights=verdicts[0] - verdicts[1], minlength=len(problems))
        n_first, n_second = int((lead > 1e-9).sum()), int((lead < -1e-9).sum())
        lines.append(
            {
                "level": level,
                "name": name,
                "difference": difference,
                "low": found.limits[number, 0],
                "high": found.limits[number, 1],
                "p_bootstrap": _p_of_zero(difference, found.drawn[:, number]) if tested else np.nan,
                "n_first_only": n_first,
                "n_second_only": n_second,
                "p_mcnemar": float(mcnemar([[0, n_first], [n_second, 0]], exact=True).pvalue),
                "n_rows": rows.n_examples(inside),
                "n_clusters": len(problems),
            }
        )
    # With only some of RewardBench's subsets there may be no level: the frame is then empty, with its columns.
    others = ("first", "second", "p_bootstrap_holm", "p_mcnemar_holm")
    return pd.DataFrame(lines, columns=[name for name in COMPARISON if name not in others])


def _p_of_zero(difference: float, draws: np.ndarray) -> float:
    """Two-sided p of a difference: 1 minus the level of the basic interval that ends at 0."""
    if np.isnan(difference) or np.isnan(draws).any():
        return np.nan
    # the limits are mirrored draws, so 0 is outside the interval where few draws are beyond twice the difference
    beyond = min(np.sum(draws >= 2 * difference - 1e-9), np.sum(draws <= 2 * difference + 1e-9))
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(draws))))
