"""From the rows of a run on a GPU to its bars, met or not."""

from pathlib import Path

import pandas as pd

ROWS, ABOUT = "rows.csv", "about.csv"
SHARE, ALL_ROWS_S, TIMES_PLAIN = 0.60, 35.0, 1.5
"""Bars: of the sustained product rate, seconds for all of RewardBench's lengths, of plain bfloat16's distance."""


def bars(folder: Path) -> str:
    """A line a bar: what was measured, what it should be, whether it is met."""
    rows = pd.read_csv(folder / ROWS)
    found = rows.set_index(["part", "what"])["value"]
    lines = []
    for what, bar, met in (
        ("all rows: share of the sustained rate", SHARE, lambda x: x >= SHARE),
        ("all rows", ALL_ROWS_S, lambda x: x <= ALL_ROWS_S),
    ):
        if ("timing", what) in found.index:
            value = found["timing", what]
            lines.append(f"{what}: {value:.3g} (bar {bar:g}): {'met' if met(value) else 'not met'}")
    for name, own in rows[rows.what == "plain bf16: sum_mean_nats"].set_index("part")["value"].items():
        ours = rows[(rows.part == name) & rows.what.str.match(r"cuda-flex.*: sum_mean_nats")]["value"]
        exact = rows[(rows.part == name) & rows.what.str.match(r"cuda-tiles, .*: token_max_nats")]["value"]
        right = len(ours) > 0 and ours.max() <= TIMES_PLAIN * own and exact.max() < 2e-3
        lines.append(f"{name}: bf16 sums off by {ours.max():.3g} nats, plain bf16 by {own:.3g}; float32 tokens by "
                     f"{exact.max():.1e}: {'met' if right else 'not met'}")  # fmt: skip
    lines += [f"{row.part}: {row.what}" for row in rows[rows.what.str.startswith("failed")].itertuples()]
    return "\n".join(lines)
