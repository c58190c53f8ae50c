"""Makes the printable table of a pair's rewards."""

import pandas as pd

from bench import units
from bench.study.benchmarks import title
from bench.study.rewards.known import KNOWN
from bench.study.side_by_side import BASE
from bench.study.tables import DASH, Table


def reward_table(rows: pd.DataFrame, *, provenance: str = "") -> Table:
    """One line per reward: accuracy overall and by section, and the difference to `sum` with its interval and Holm's p.

    Args:
        rows: SIDE_BY_SIDE.
        provenance: How the numbers were made, for the note.
    """
    names = list(pd.unique(rows["reward"]))
    overall = rows[rows["level"] == "overall"].set_index("reward").loc[names]
    cells = pd.DataFrame({"Reward": names, "Formula": [KNOWN[name].words for name in names]})
    cells["Accuracy %"] = [_share(row) for row in overall.to_dict("records")]
    cells[f"Over {BASE} (points)"] = [
        DASH if name == BASE else _difference(row) for name, row in zip(names, overall.to_dict("records"), strict=True)
    ]
    cells["p (Holm)"] = [DASH if pd.isna(p) else units.p_value(p) for p in overall["p_bootstrap_holm"].astype(float)]
    for level, name in rows.loc[rows["level"] != "overall", ["level", "name"]].drop_duplicates().to_numpy():
        part = rows[(rows["level"] == level) & (rows["name"] == name)].set_index("reward").loc[names]
        cells[f"{title(name)} %"] = [DASH if pd.isna(x) else f"{100 * x:.1f}" for x in part["accuracy"]]
    cells["Source"] = [KNOWN[name].source for name in names]
    note = (
        "Accuracies are in percent, with 95% intervals over prompts; prompts of one problem are treated as one. "
        f"Differences to {BASE} are paired, on the same rows; Holm's p is adjusted over all rewards on all levels. "
        f"Log-ratio: strong's log-probability minus weak's. n = {int(overall['n_examples'].max()):,}. {provenance}"
    )
    return Table("Rewards of one pair", rows, cells, note.strip())


def _share(row: dict) -> str:
    if pd.isna(row["accuracy"]):
        return DASH
    limits = "" if pd.isna(row["low"]) else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return f"{100 * row['accuracy']:.1f}{limits}"


def _difference(row: dict) -> str:
    if pd.isna(row["difference"]):
        return DASH
    limits = ""
    if not pd.isna(row["difference_low"]):
        limits = f" [{100 * row['difference_low']:+.1f}, {100 * row['difference_high']:+.1f}]"
    # Adding 0 removes the sign of a rounded -0.0.
    return f"{round(100 * row['difference'], 1) + 0.0:+.1f}{limits}"
