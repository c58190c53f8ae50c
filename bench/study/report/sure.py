"""Prepares the parts of the report that say what an accuracy rests on: is it only length, and how sure is a label?"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from bokeh.models import LayoutDOM, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Slope, Span
from bokeh.plotting import figure

from bench.store.folder import read_table
from bench.study.checks import BALANCE_FILE, stored_confidence
from bench.study.length_table import length_table
from bench.study.report.plots import (
    ACCURACY_TIP,
    CHANCE,
    COLOURS,
    INK,
    MARKERS,
    PERCENT,
    as_source,
    embedded,
    hover_tool,
)
from bench.study.tables import DASH, Table

_SHARES = (1.0, 0.5, 0.2)
"""Shares of the labels whose accuracy the table shows."""
_N_PAIRS = 10
"""Number of best pairs in the table of length-balanced accuracies."""


class Checks(NamedTuple):
    """The tables of a results folder on length and confidence."""

    balance: pd.DataFrame
    """LENGTH_BALANCED."""
    calibration: pd.DataFrame
    reliability: pd.DataFrame
    coverage: pd.DataFrame


class Curve(NamedTuple):
    """One interactive figure."""

    title: str
    words: str
    """What the figure shows, for readers who cannot see it."""
    json: str


def stored_checks(folder: Path) -> Checks | None:
    """The tables of a results folder; None if an earlier version wrote the folder."""
    tables, balance = stored_confidence(folder), folder / BALANCE_FILE
    return Checks(read_table(balance), *tables) if tables and balance.is_file() else None


def balance_table(checks: Checks, board: pd.DataFrame) -> Table:
    """The length-balanced accuracies of the best pairs."""
    return length_table(checks.balance, list(board["pair_id"].head(_N_PAIRS)), provenance="")


def sure_table(checks: Checks) -> Table:
    """One row per pair: calibration error, and the accuracy of the labels that are kept by margin or by confidence."""
    rows = []
    for row in checks.calibration.to_dict("records"):
        mine = checks.coverage[checks.coverage["pair_id"] == row["pair_id"]]
        cells = {"Pair": row["pair_id"], "Labels": f"{row['n_examples']:,}"}
        cells["Calibration error"] = _with_limits(row["error"], row["error_low"], row["error_high"])
        for by in ("margin", "confidence"):
            kept = mine[mine["by"] == by]
            for share in _SHARES if by == "margin" else _SHARES[1:]:
                name = "All labels" if share == 1 else f"Largest {share:.0%} by {by}"
                cells[name] = _accuracy(kept, share)
        rows.append(cells)
    note = (
        "Accuracies of the labels that are kept, in percent, with 95% intervals over prompts. A confidence is the "
        "probability that a label is right, estimated from its margin on other prompts' labels. The calibration error "
        "is the mean distance between confidence and accuracy, in points; an interval that begins at 0 means that "
        "noise alone explains it. Where keeping large margins does worse than keeping large confidences, a larger "
        "margin is not surer."
    )
    return Table("How sure is a label?", checks.calibration, pd.DataFrame(rows), note)


def curves(checks: Checks) -> list[Curve]:
    """The figures of confidence and of coverage; none without a calibration."""
    if checks.calibration["confidence"].isna().all():
        return []
    return [
        Curve(
            "Confidence and accuracy",
            "Accuracy of the labels by their confidence, one point per bin of about equally many labels, with its 95% "
            "interval; dotted: confidence and accuracy are equal.",
            embedded(_reliability(checks.reliability)),
        ),
        Curve(
            "Accuracy of the labels that are kept",
            "Accuracy by the share of the labels that are kept: solid lines keep the largest margins, dashed lines the "
            "largest confidences; dotted: chance.",
            embedded(_coverage(checks.coverage)),
        ),
    ]


def _reliability(rows: pd.DataFrame) -> LayoutDOM:
    """Accuracy by confidence, one colour and marker per pair."""
    plot = figure(width=560, height=520, x_axis_label="Confidence", y_axis_label="Accuracy", **_range())
    plot.add_layout(Slope(gradient=1, y_intercept=0, line_color=INK, line_dash="dotted", line_width=1))
    drawn = []
    for position, (pair_id, mine) in enumerate(rows.groupby("pair_id", sort=False)):
        colour, source = COLOURS[position], as_source(mine)
        plot.segment("confidence", "low", "confidence", "high", source=source, line_color=colour, line_width=1.5)
        drawn.append(
            plot.scatter(
                "confidence",
                "accuracy",
                source=source,
                size=9,
                marker=MARKERS[position],
                line_color=colour,
                fill_color="white" if position % 2 else colour,
                legend_label=str(pair_id),
            )
        )
    plot.add_tools(hover_tool([("pair", "@pair_id"), ("confidence", "@confidence{0.0%}"), ACCURACY_TIP], drawn))
    return _finished(plot)


def _coverage(rows: pd.DataFrame) -> LayoutDOM:
    """Accuracy by the share of labels kept, one colour per pair, solid by margin and dashed by confidence."""
    plot = figure(width=860, height=420, x_axis_label="Share of the labels kept", y_axis_label="Accuracy", **_range())
    plot.add_layout(Span(location=CHANCE, dimension="width", line_color=INK, line_dash="dotted", line_width=1))
    drawn = []
    places = {pair_id: place for place, pair_id in enumerate(pd.unique(rows["pair_id"]))}
    for (pair_id, by), mine in rows.groupby(["pair_id", "by"], sort=False):
        position, ordered = places[pair_id], mine.sort_values("coverage")
        colour, source = COLOURS[position], as_source(ordered)
        label = f"{pair_id}: largest {by}s"
        dash = "solid" if by == "margin" else "dashed"
        plot.line("coverage", "accuracy", source=source, line_color=colour, line_dash=dash, legend_label=label)
        marks = {"marker": MARKERS[position], "line_color": colour, "fill_color": "white" if position % 2 else colour}
        drawn.append(plot.scatter("coverage", "accuracy", source=source, size=6, legend_label=label, **marks))
    tips = [("pair", "@pair_id"), ("kept by", "@by, at least @least"), ("share kept", "@coverage{0.0%}"), ACCURACY_TIP]
    plot.add_tools(hover_tool(tips, drawn))
    return _finished(plot)


def _range() -> dict[str, Range1d]:
    return {axis: Range1d(start=-0.02, end=1.02) for axis in ("x_range", "y_range")}


def _finished(plot: figure) -> LayoutDOM:
    """Both axes in percent, and the legend above the plot, one entry per line and wide enough to show dashes."""
    for axis in (plot.xaxis, plot.yaxis):
        axis.formatter = NumeralTickFormatter(format=PERCENT)
    # The theme's orientation is horizontal; "vertical" is the library's default, which it leaves out of the JSON.
    plot.legend[0].ncols = 1
    plot.legend[0].glyph_width = 44
    plot.add_layout(plot.legend[0], "above")
    return plot


def _accuracy(rows: pd.DataFrame, share: float) -> str:
    """Text of the accuracy of the smallest set of labels that is at least this share."""
    there = rows[rows["coverage"] >= share - 1e-9].sort_values("coverage")
    if there.empty:
        return DASH
    row = there.iloc[0]
    return _with_limits(row["accuracy"], row["low"], row["high"])


def _with_limits(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return DASH
    return f"{100 * value:.1f}" + ("" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")
