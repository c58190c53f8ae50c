"""Compares the rewards of a policy's responses before and after tuning, with intervals.

The intervals are over prompts: several responses to one prompt are not independent evidence, and neither are equal
prompts.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import t

from bench.schema import OK
from bench.study.interval import plain_sample, share_limits

BEFORE, AFTER = "before", "after"

JUDGED = (
    "pair_id", "annotator", "reward", "measure", "before", "after", "difference", "low", "high",
    "n_prompts", "n_before", "n_after", "n_empty_before", "n_empty_after", "n_excluded",
)  # fmt: skip
"""One row per pair, reward and measure. `annotator` says whether that pair labelled the preferences that the policy was
tuned on. The measures: `reward` is the mean over prompts of the mean reward (nats, nats per token or nats per byte).
`win_rate` is how often a response after tuning gets a larger reward than one before tuning to the same prompt; a tie
counts half, and an empty response loses to one that is not empty; its `difference` is the win rate minus 0.5. `bytes`
is the mean length. `low` and `high` are the 95% limits of the difference over prompts: those of a proportion
(`interval.share_limits`) for a win rate, Student's t for the other measures. Equal prompts count as one there, and the
limits are missing for one prompt. Empty responses have no reward. `n_excluded` counts responses that are too long or
have a score that is not finite."""


def judge(
    rewards: pd.DataFrame, texts: Mapping[str, Mapping[str, list[str]]], problems: Mapping[str, int]
) -> list[list[str | float]]:
    """Compute the measures of one pair, as rows of JUDGED without the first three columns.

    Args:
        rewards: prompt_id, side (BEFORE or AFTER), reward, status; one row per response that is not empty.
        texts: Every response, also the empty ones, by side and then by prompt_id.
        problems: Number of each prompt's problem, by prompt_id (`design.prompt_clusters`).
    """
    scored = rewards[rewards["status"] == OK]
    values = {key: rows["reward"].to_numpy() for key, rows in scored.groupby(["prompt_id", "side"])}
    prompts = [name for name in texts[BEFORE] if (name, BEFORE) in values and (name, AFTER) in values]
    n_empty = {side: {name: texts[side][name].count("") for name in texts[side]} for side in (BEFORE, AFTER)}
    sides = {side: np.array([values[name, side].mean() for name in prompts]) for side in (BEFORE, AFTER)}
    wins = [
        _win_rate(*(_with_losses(values.get((name, side)), n_empty[side][name]) for side in (BEFORE, AFTER)))
        for name in texts[BEFORE]
    ]
    sizes = {
        side: np.array([np.mean([len(t.encode()) for t in texts[side][name]]) for name in texts[BEFORE]])
        for side in sides
    }
    counts = [
        *(sum(map(len, texts[side].values())) for side in sides),
        *(sum(n_empty[side].values()) for side in sides),
        int((rewards["status"] != OK).sum()),
    ]
    every, kept = (np.array([problems[name] for name in names], dtype=int) for names in (texts[BEFORE], prompts))
    even = np.full(len(wins), 0.5)
    found = {
        "reward": _difference(kept, *sides.values()),
        "win_rate": _difference(every, even, np.array(wins), is_share=True),
        "bytes": _difference(every, *sizes.values()),
    }
    return [[name, *numbers, *counts] for name, numbers in found.items()]


def _with_losses(values: np.ndarray | None, n_empty: int) -> np.ndarray:
    """Rewards, with the empty responses below all others."""
    return np.concatenate([np.empty(0) if values is None else values, np.full(n_empty, -np.inf)])


def _win_rate(before: np.ndarray, after: np.ndarray) -> float:
    """Proportion of (before, after) couples that the response after wins, ties half; NaN without a couple."""
    if not len(before) or not len(after):
        return float("nan")
    return float((after[:, None] > before).mean() + 0.5 * (after[:, None] == before).mean())


def _difference(problem: np.ndarray, before: np.ndarray, after: np.ndarray, *, is_share: bool = False) -> list[float]:
    """Both means, their difference, its limits, and the number of prompts."""
    kept = ~np.isnan(before) & ~np.isnan(after)
    before, after, problem = before[kept], after[kept], problem[kept]
    if not len(after):
        return [*[float("nan")] * 5, 0]
    difference = (after - before).mean()
    if is_share:
        # before tuning the win rate is one half on every prompt, so the difference has the interval of the win rate
        limits = [float(end[0]) - 0.5 for end in share_limits(after[None], plain_sample(problem))]
    else:
        half = _half_width(after - before, problem)
        limits = [difference - half, difference + half]
    return [before.mean(), after.mean(), difference, *limits, len(after)]


def _half_width(gaps: np.ndarray, problem: np.ndarray) -> float:
    """Half the width of Student's interval of a mean over prompts, with one number a problem; NaN for one problem."""
    number = np.unique(problem, return_inverse=True)[1]
    sizes = np.bincount(number)
    n = len(sizes)
    if n < 2:
        return float("nan")
    # If all problems have as many prompts, these are the means of their gaps. The mean of the values is always that of
    # all gaps.
    share = n / len(gaps)
    values = np.bincount(number, weights=gaps) * share + (1 - sizes * share) * gaps.mean()
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
