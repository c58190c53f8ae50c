"""Accuracy of a single model on a task, with a standard error that knows which items belong together."""

import numpy as np
import pandas as pd

PERFORMANCE = (
    "model_id", "task", "level", "name", "accuracy", "stderr", "n_prompts", "n_items", "n_left_out", "n_empty",
)  # fmt: skip
"""`level` is "overall" or "rule". `accuracy` is the share of right items, 0 to 1. An item is an instruction of a prompt
(task ifeval) or a preference (task preferences). `n_left_out` counts the prompts that could not be checked or
preferences that could not be scored, and `n_empty` the empty responses; both are missing for a rule."""

OVERALL, RULE = "overall", "rule"


def share(right: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """The share of right items, and its standard error.

    Items of one cluster are not independent, so the error is that of a ratio of sums over clusters (linearised),
    as for a sample of clusters.

    Args:
        right: 1 or 0 for each item, (items,).
        cluster: Number of each item's cluster, (items,), int from 0.

    Returns:
        Share, NaN without items; standard error, NaN with fewer than two clusters.
    """
    if not len(right):
        return float("nan"), float("nan")
    accuracy = float(np.mean(right))
    _, number = np.unique(cluster, return_inverse=True)
    n_clusters = int(number.max()) + 1
    if n_clusters < 2:
        return accuracy, float("nan")
    off = np.bincount(number, weights=np.asarray(right, dtype=float) - accuracy)
    return accuracy, float(np.sqrt(n_clusters / (n_clusters - 1) * np.sum(off**2)) / len(right))


def table(items: pd.DataFrame, *, model_id: str, task: str, n_left_out: int, n_empty: int) -> pd.DataFrame:
    """PERFORMANCE of the items.

    Args:
        items: Columns name (the rule, "" if there is none), right, cluster; one row per item.
        model_id: The model.
        task: The task.
        n_left_out: What could not be checked or scored.
        n_empty: Number of empty responses.
    """
    groups: list[tuple] = [(OVERALL, "score", items, n_left_out, n_empty)]
    named = items[items["name"] != ""]
    groups += [(RULE, str(name), rows, None, None) for name, rows in named.groupby("name", sort=True)]
    lines = [
        [model_id, task, level, name, *share(rows["right"].to_numpy(), rows["cluster"].to_numpy()),
         rows["cluster"].nunique(), len(rows), *counts]
        for level, name, rows, *counts in groups
    ]  # fmt: skip
    counts = {"n_left_out": "Int64", "n_empty": "Int64"}
    return pd.DataFrame(lines, columns=list(PERFORMANCE)).astype(counts)
