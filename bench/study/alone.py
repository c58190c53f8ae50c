"""Compares a pair with its strong model alone: does the weak model's log-probability help?

The strong model's log-probability is itself a reward (arXiv 2506.23235), and it costs one pass instead of two. A pair
that is no better than it gains nothing from the density ratio.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.schema import Dataset
from bench.study.analysis import correctness
from bench.study.compare import compare
from bench.study.design import plain_accuracy
from bench.study.measure import Scores, pair_table
from bench.subject import Subject

ALONE_FILE = "alone.csv"

ALONE = ("pair_id", "reward", "alone", "level", "name", "accuracy", "accuracy_alone", "difference", "low", "high")
"""One row per pair and part of the benchmark but its subsets. `alone` is the reward of the strong model alone, and
`accuracy_alone` its accuracy; `difference` is that of the pair less it, paired on the same rows, with the 95% interval
of a bootstrap over problems. Fractions, 0 to 1. The interval is missing where the two differ on fewer than ten problems
(`compare`)."""

_BY_LENGTH = frozenset({"mean", "per-byte", "length-regularised"})
"""Rewards that take the length of a response into account."""


def alone_of(reward: str) -> str:
    """The reward of the strong model alone that a reward is compared with: a sum, or a mean over tokens."""
    return "strong-mean" if reward in _BY_LENGTH else "strong"


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
    wide = [number for number, (level, _) in enumerate(rows.levels) if level != "subset"]
    rows = rows._replace(levels=tuple(rows.levels[number] for number in wide), weights=rows.weights[wide])
    found = []
    for pair_id, both in zip(pairs["pair_id"], np.stack([together, single], axis=1), strict=True):
        table = compare(both, [reward, alone], rows, [(reward, alone)], rng=rng)
        shared = plain_accuracy(np.where(np.isfinite(both).all(axis=0), both, np.nan), rows)
        table = table.assign(accuracy=shared[:, 0], accuracy_alone=shared[:, 1])
        found.append(table.assign(pair_id=pair_id, reward=reward, alone=alone))
    return pd.concat(found, ignore_index=True)[list(ALONE)]


def alone_note(table: pd.DataFrame, pair_id: str) -> str:
    """A sentence that sets a pair beside its strong model alone; "" where the rows have no score.

    Args:
        table: ALONE of one reward.
        pair_id: The pair.
    """
    (row,) = table[(table["pair_id"] == pair_id) & (table["level"] == "overall")].to_dict("records")
    if np.isnan(row["difference"]):
        return ""
    points = [f"{100 * row[name]:+.1f}" for name in ("difference", "low", "high") if np.isfinite(row[name])]
    interval = f" [{points[1]}, {points[2]}]" if len(points) == 3 else ""
    words = f"The strong model alone (`{row['alone']}`) scores {row['accuracy_alone']:.1%}; the pair less it: "
    return f"{words}{points[0]}{interval} points."
