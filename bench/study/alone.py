"""Compares a pair with its strong model alone: does the weak model's log-probability help?

The strong model's log-probability is itself a reward (arXiv 2506.23235), and it costs one pass instead of two. A pair
that is no better than it gains nothing from the density ratio.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.schema import Dataset
from bench.study.analysis import correctness
from bench.study.compare import paired
from bench.study.measure import Scores, pair_table
from bench.study.rewards.known import KNOWN
from bench.subject import Subject

ALONE_FILE = "alone.csv"

ALONE = ("pair_id", "reward", "alone", "level", "name", "accuracy", "accuracy_alone", "difference", "low", "high")
"""One row per pair and part of the benchmark but its subsets. `alone` is the reward of the strong model alone, and
`accuracy_alone` its accuracy; `difference` is that of the pair less it, paired on the same rows, with the 95% interval
of a bootstrap over problems. Fractions, 0 to 1. The interval is missing where the two differ on fewer than ten
problems."""


def alone_of(reward: str) -> str:
    """The reward of the strong model alone that a reward is compared with: a sum, or a mean over tokens."""
    return "strong-mean" if KNOWN[reward].by_length else "strong"


def by_alone(
    subject: Subject, scores: Scores, dataset: Dataset, best: Sequence[str], *, reward: str, rng: np.random.Generator
) -> pd.DataFrame:
    """ALONE of some pairs.

    Args:
        subject: The pairs.
        scores: SCORES of the pairs' models.
        dataset: The rows.
        best: The pair_ids to compare.
        reward: The reward that judges.
        rng: Draws the bootstrap.
    """
    pairs = pair_table(subject).set_index("pair_id").loc[list(best)].reset_index()
    frames = {model: frame for (model, _), frame in scores.items()}
    examples = {example.example_id: example for example in dataset.examples}
    alone = alone_of(reward)
    (together, rows), (single, _) = (correctness(frames, pairs, examples, reward=name) for name in (reward, alone))
    lines = []
    for pair_id, both in zip(pairs["pair_id"], np.stack([together, single], axis=1), strict=True):
        found = paired(both, rows, rng=rng)
        for part, (own, other), limits in zip(rows.levels, found.accuracy, found.limits, strict=True):
            lines.append((pair_id, reward, alone, *part, own, other, own - other, *limits))
    return pd.DataFrame(lines, columns=list(ALONE))


def alone_note(table: pd.DataFrame, pair_id: str) -> str:
    """A sentence that sets a pair beside its strong model alone; "" where there is no score, or nothing but that model.

    Args:
        table: ALONE of one reward.
        pair_id: The pair.
    """
    known = (table["reward"] != table["alone"]) & table["difference"].notna()
    rows = table[known & (table["pair_id"] == pair_id) & (table["level"] == "overall")]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    interval = "" if np.isnan(row["low"]) else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    words = f"The strong model alone (`{row['alone']}`) scores {row['accuracy_alone']:.1%}; pair minus strong model: "
    return f"{words}{100 * row['difference']:+.1f}{interval} points."
