"""From the rows of a run on a GPU to its bars, figure and README."""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from bench.study.figures.style import COLOURS, FORMATS, STYLE, encode, head
from perf.markdown import markdown

ROWS, ABOUT, README = "rows.csv", "about.csv", "README.md"
SOME_ROWS = "every 8th row, "
"""How the timings of a part of the rows begin, before the name of the operations."""
SHARE, ALL_ROWS_S, TIMES_PLAIN, EXACT_NATS = 0.60, 35.0, 1.5, 2e-3
"""Bars: least share of the sustained product rate; most seconds for all rows; most of plain bfloat16's distance to
float32; largest distance of a float32 token from a plain pass."""


def bars(folder: Path) -> pd.DataFrame:
    """One row per bar: what was measured, the value, what it should be, and whether it is met."""
    rows = pd.read_csv(folder / ROWS)
    found = rows.set_index(["part", "what"])["value"]
    lines = []
    for what, bar, low in (("all rows: share of the sustained rate", SHARE, True), ("all rows", ALL_ROWS_S, False)):
        if ("timing", what) in found.index:
            value = found["timing", what]
            met = value >= bar if low else value <= bar
            unit = "" if low else " s"
            lines.append((what, f"{value:.3g}{unit}", f"{'at least' if low else 'at most'} {bar:g}{unit}", met))
    for name, own in rows[rows.what == "plain bf16: sum_mean_nats"].set_index("part")["value"].items():
        part = rows[rows.part == name]
        for what, pattern, bar in (
            ("bf16 sums, mean distance to float32", r"cuda-flex.*: sum_mean_nats", TIMES_PLAIN * own),
            ("float32 tokens, largest distance to a plain pass", r"cuda-tiles, .*: token_max_nats", EXACT_NATS),
        ):
            value = part[part.what.str.match(pattern)]["value"].max()
            # What did not run has no value, and a comparison with none is False.
            lines.append((f"{name}: {what}", f"{value:.2g} nats", f"at most {bar:.2g} nats", value <= bar))
    lines += [(row.part, row.what, "", False) for row in rows[rows.what.str.startswith("failed")].itertuples()]
    return pd.DataFrame(lines, columns=["what", "measured", "bar", "met"]).replace({"met": {True: "yes", False: "no"}})


@matplotlib.rc_context(STYLE)
def speed(timing: pd.Series) -> Figure:
    """Seconds for the same rows: padded batches, the engine with the model's own layers, and with compiled ones.

    Args:
        timing: What was measured -> its value.
    """
    names = [
        name for name in timing.index if name.startswith(("padded batches", f"{SOME_ROWS}cuda")) and ":" not in name
    ]
    labels, values = [name.replace(SOME_ROWS, "drsow, ") for name in names], timing[names].to_numpy()
    figure = Figure(figsize=(6.5, 1.0 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(labels, values, color=[COLOURS[0] if name.startswith(SOME_ROWS) else "0.7" for name in names], height=0.6)
    for label, value in zip(labels, values, strict=True):
        axes.annotate(f"{value:.1f} s", (value, label), (6, 0), textcoords="offset points", va="center")
    axes.set(xlim=(0, 1.15 * values.max()), xlabel="Seconds")
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    head(figure, "Time for every 8th row of RewardBench (8B shape, bf16)")
    return figure


def write(folder: Path) -> str:
    """Writes the figure and the README; returns the bars."""
    about = pd.read_csv(folder / ABOUT, header=None, index_col=0)[1]
    found = bars(folder)
    rows = pd.read_csv(folder / ROWS).query("part == 'timing'")
    if len(rows):
        figure = speed(rows.set_index("what")["value"])
        for file_format in FORMATS:
            (folder / f"speed.{file_format}").write_bytes(encode(figure, file_format))
    text = f"""# Correctness and speed on a GPU

Measured on one {about["card"]}, {about["date"]}, torch {about["torch"]}, transformers {about["transformers"]}, by
`make perf-gpu LENGTHS=FILE`. All weights are random and made on the GPU, so speed and rounding are real and the
probabilities of texts are not. The large model has Llama-3-8B's shape, in bf16. The texts are random tokens of the
lengths of RewardBench's 2,985 rows. "Sustained rate" is the rate of the model's own products, repeated for seconds on
the same GPU. Correctness is measured on small models of ten architectures: a response's sum in bf16 against float32,
beside that of a plain bf16 pass of transformers, and float32 tokens against a plain float32 pass.

![Time for every 8th row](speed.png)

{markdown(found)}

A bf16 sum may be {TIMES_PLAIN:g} times as far from float32 as a plain bf16 pass's is.

`rows.csv` has every figure, `profile.csv` the kernels of one step, `about.csv` the versions.
"""
    (folder / README).write_text(text, encoding="utf-8")
    return found.to_string(index=False)
