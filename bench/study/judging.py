"""Rewards of a policy's responses before and after tuning -> what the tuning brought, with intervals.

Prompts are what is drawn again: responses to one prompt are no separate evidence.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.schema import OK

BEFORE, AFTER = "before", "after"

DRAWS = 10_000

JUDGED = (
    "pair_id", "annotator", "reward", "measure", "before", "after", "difference", "low", "high",
    "n_prompts", "n_before", "n_after", "n_empty_before", "n_empty_after", "n_excluded",
)  # fmt: skip
"""One row a pair, reward and measure. `annotator` says whether that pair labelled what the policy was tuned on.
Measures: `reward`, the mean over prompts of the mean reward (nats, nats a token or a byte); `win_rate`, how often a
response after is rewarded above one before to the same prompt (ties half, an empty response loses to one that is not;
`difference` is that less 0.5); `bytes`, mean length. `low` and `high` are the limits of the difference's 95% interval,
prompts drawn again. Empty responses have no reward; `n_excluded` counts those too long or not finite."""


def judge(rewards: pd.DataFrame, texts: Mapping[str, Mapping[str, list[str]]], *, rng: np.random.Generator) -> list:
    """Measures of one pair, as rows of JUDGED without its first three columns.

    Args:
        rewards: prompt_id, side (BEFORE or AFTER), reward, status, one row a response that is not empty.
        texts: side -> prompt_id -> every response, empty ones too.
        rng: Draws the prompts again.
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
    even = np.full(len(wins), 0.5)
    found = {
        "reward": sides.values(),
        "win_rate": (even, np.array(wins)),
        "bytes": sizes.values(),
    }
    draws = rng.integers(0, 2**31, size=(DRAWS, len(wins)))
    return [[name, *_difference(*both, draws), *counts] for name, both in found.items()]


def _with_losses(values: np.ndarray | None, n_empty: int) -> np.ndarray:
    """Rewards with the empty responses below all others."""
    return np.concatenate([np.empty(0) if values is None else values, np.full(n_empty, -np.inf)])


def _win_rate(before: np.ndarray, after: np.ndarray) -> float:
    """Share of pairs (one before, one after) that the one after wins, ties half; NaN where a side has none."""
    if not len(before) or not len(after):
        return float("nan")
    return float((after[:, None] > before).mean() + 0.5 * (after[:, None] == before).mean())


def _difference(before: np.ndarray, after: np.ndarray, draws: np.ndarray) -> list[float]:
    """Means, their difference, its percentile interval, and prompts; `draws` are whole numbers, (DRAWS, prompts)."""
    kept = ~np.isnan(before) & ~np.isnan(after)
    differences = (after - before)[kept]
    n = len(differences)
    if not n:
        return [*[float("nan")] * 5, 0]
    means = differences[draws[:, :n] % n].mean(axis=1)
    return [before[kept].mean(), after[kept].mean(), differences.mean(), *np.quantile(means, [0.025, 0.975]), n]
