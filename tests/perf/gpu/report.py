"""From the rows of a run on a GPU to its bars, figure and README."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

ROWS, ABOUT, README = "rows.csv", "about.csv", "README.md"
SHARE, ALL_ROWS_S, TIMES_PLAIN, EXACT_NATS = 0.60, 35.0, 1.5, 2e-3
"""Bars: least share of the sustained product rate; most seconds for all rows; most of plain bfloat16's distance to
float32; largest distance of a float32 token from a plain pass."""


def bars(folder: Path) -> str:
    """A line per bar: what was measured, what it should be, and whether it is met."""
    rows = pd.read_csv(folder / ROWS)
    found = rows.set_index(["part", "what"])["value"]
    lines = []
    for what, bar, low in (("all rows: share of the sustained rate", SHARE, True), ("all rows", ALL_ROWS_S, False)):
        if ("timing", what) in found.index:
            value = found["timing", what]
            met = value >= bar if low else value <= bar
            lines.append(f"{what}: {value:.3g} (bar {bar:g}): {'met' if met else 'not met'}")
    for name, own in rows[rows.what == "plain bf16: sum_mean_nats"].set_index("part")["value"].items():
        part = rows[rows.part == name]
        ours = part[part.what.str.match(r"cuda-flex.*: sum_mean_nats")]["value"].max()
        exact = part[part.what.str.match(r"cuda-tiles, .*: token_max_nats")]["value"].max()
        # Without a number a comparison is False, so what did not run is not met.
        met = ours <= TIMES_PLAIN * own and exact < EXACT_NATS
        lines.append(
            f"{name}: bf16 sums are {ours:.3g} nats from float32, plain bf16's {own:.3g}; float32 tokens at most "
            f"{exact:.1e} from a plain pass: {'met' if met else 'not met'}"
        )
    lines += [f"{row.part}: {row.what}" for row in rows[rows.what.str.startswith("failed")].itertuples()]
    return "\n".join(lines)


def figure(folder: Path) -> None:
    """Seconds for the same rows: padded batches, the engine with the model's own layers, and with compiled ones."""
    timing = pd.read_csv(folder / ROWS).query("part == 'timing'").set_index("what")["value"]
    names = [name for name in timing.index if name.startswith("padded batches") and ":" not in name]
    names += [name for name in timing.index if name.startswith("every 8th row, cuda") and ":" not in name]
    if not names:
        return
    height, labels = timing[names].to_numpy(), [name.replace("every 8th row, ", "drsow, ") for name in names]
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.45 * len(names)), layout="constrained")
    axes.barh(labels, height, color=["0.7" if label.startswith("padded") else "0.3" for label in labels])
    for at, value in enumerate(height):
        axes.text(value, at, f" {value:.1f} s", va="center")
    axes.set_xlim(0, 1.12 * max(height))
    axes.invert_yaxis()
    axes.set_xlabel("seconds, every 8th row of RewardBench (8B shape, bf16)")
    axes.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"speed.{suffix}", dpi=150)
    plt.close(figure)


def write(folder: Path) -> str:
    """Writes the figure and the README; returns the bars."""
    about = pd.read_csv(folder / ABOUT, header=None, index_col=0)[1]
    lines = bars(folder)
    figure(folder)
    text = f"""# On a GPU

Measured on one {about["card"]}, {about["date"]}, torch {about["torch"]}, transformers {about["transformers"]}, by
`make perf-gpu LENGTHS=FILE`. All weights are random and made on the GPU, so speed and rounding are real and the
probabilities of texts are not. The large model has Llama-3-8B's shape, in bf16. The texts are random tokens of the
lengths of RewardBench's 2,985 rows. "Sustained rate" is the rate of the model's own products, repeated for seconds on
the same GPU. Correctness is measured on small models of ten architectures: a response's sum in bf16 against float32,
beside that of a plain bf16 pass of transformers, and float32 tokens against a plain float32 pass.

![Seconds of padded batches and of drsow](speed.png)

```
{lines}
```

`rows.csv` has every figure, `profile.csv` the kernels of one step, `about.csv` the versions.
"""
    (folder / README).write_text(text, encoding="utf-8")
    return lines
