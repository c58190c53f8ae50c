"""Draws the report's interactive figures from frames, in the same look as the printed figures.

A figure computes no statistic. Colours are Okabe and Ito's, each with its own marker, and the brightness of the heat
maps' scale rises evenly, so the figures are readable in grey.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from bokeh.core.properties import value
from bokeh.embed import json_item
from bokeh.layouts import column, gridplot
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    FactorRange,
    HoverTool,
    LayoutDOM,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations import ColorBar, Span
from bokeh.models.renderers import GlyphRenderer
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.themes import Theme
from bokeh.transform import transform

from bench.study.leaderboard import by_strength

CHANCE = 0.5

INK, GRID = "#1a1a1a", "#e3e3e3"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "plus", "x", "star", "hex")

_FONT = "system-ui, sans-serif"
_THEME = Theme(
    json={
        "attrs": {
            "Plot": {"toolbar_location": None, "outline_line_color": None, "background_fill_color": None},
            "Axis": {
                "axis_label_text_font": _FONT,
                "axis_label_text_font_style": "normal",
                "axis_label_text_color": INK,
                "axis_label_text_font_size": "13px",
                "major_label_text_font": _FONT,
                "major_label_text_color": INK,
                "minor_tick_line_color": None,
            },
            "Grid": {"grid_line_color": GRID},
            "Legend": {
                "label_text_font": _FONT,
                "label_text_font_size": "13px",
                "label_text_color": INK,
                "border_line_color": None,
                "orientation": "horizontal",
                "padding": 0,
                "margin": 0,
            },
            "Title": {"text_font": _FONT, "text_font_size": "13px", "text_color": INK},
        }
    }
)

_WIDTH = 1230
"""Largest width of a figure, in pixels, before the reader has to scroll sideways."""

PERCENT = "0%"
ACCURACY_TIP = ("accuracy", "@accuracy{0.0%} [@low{0.0%}, @high{0.0%}], n = @n_examples{0,0}")


class _Scale(NamedTuple):
    """The colour scale of a heat map, and the accuracies at its ends."""

    mapper: LinearColorMapper
    low: float
    high: float


def embedded(plot: LayoutDOM) -> str:
    """The figure as JSON for BokehJS. It contains no `<`, so it can be placed inside an HTML element."""
    return json.dumps(json_item(plot, theme=_THEME), separators=(",", ":")).replace("<", "\\u003c")


def gap_scatter(pairs: pd.DataFrame, slope: float, *, performance: str) -> LayoutDOM:
    """Accuracy against gap, one point per pair, with families by colour and marker.

    Args:
        pairs: pair_id, family, gap_points, accuracy, low, high, n_examples; one row per pair.
        slope: Accuracy per point of gap of the lines through the families' means; NaN for no lines.
        performance: Name of the performance that the gap is measured in.
    """
    plot = figure(width=860, height=460, x_axis_label=f"Gap: {performance}", y_axis_label="Accuracy")
    plot.add_layout(Span(location=CHANCE, dimension="width", line_color=INK, line_dash="dotted", line_width=1))
    drawn: list[GlyphRenderer] = []
    for position, (family, rows) in enumerate(pairs.groupby("family", sort=True)):
        colour = COLOURS[position % len(COLOURS)]
        marks = plot.scatter(
            "gap_points",
            "accuracy",
            source=as_source(rows),
            size=9,
            marker=MARKERS[position % len(MARKERS)],
            line_color=colour,
            # every second marker is open: in grey, shape and filling distinguish more than the colours
            fill_color="white" if position % 2 else colour,
            line_width=1.3,
            fill_alpha=0.9,
            name="pairs",
            legend_label=f"{family or 'no family'} ({len(rows)} pairs)",
        )
        drawn.append(marks)
        used = rows[rows["gap_points"] > 0].dropna(subset=["accuracy"])
        if np.isfinite(slope) and len(used):
            ends = np.array([used["gap_points"].min(), used["gap_points"].max()])
            line = used["accuracy"].mean() + slope * (ends - used["gap_points"].mean())
            plot.line(ends, line, line_color=colour, line_width=1.5)
    tips = [("pair", "@pair_id"), ("gap", "@gap_points{0.0}"), ACCURACY_TIP]
    plot.add_tools(hover_tool(tips, drawn))
    plot.yaxis.formatter = NumeralTickFormatter(format=PERCENT)
    plot.add_layout(plot.legend[0], "above")
    return plot


def strong_weak(pairs: pd.DataFrame) -> LayoutDOM:
    """Accuracy of every pair, strong model by weak model, one square per family, strongest model first.

    Args:
        pairs: pair_id, strong, weak, family, gap_points, accuracy, low, high, n_examples.
    """
    scale = _scale(pairs["accuracy"])
    names = pd.concat([pairs["strong"], pairs["weak"]])
    families = list(pairs.groupby("family", sort=True))
    n_most = max(len(by_strength(rows)) for _, rows in families)
    # All squares have one size and one margin, because a grid cuts off plots of different sizes.
    side, margin = max(34 * n_most, 220), 40 + 6 * int(names.str.len().max())
    plots: list[LayoutDOM | None] = [
        _square(str(family), rows, scale, side=side, margin=margin) for family, rows in families
    ]
    n_beside = max(1, _WIDTH // (side + margin))
    grid = gridplot(plots, ncols=min(2, n_beside), toolbar_location=None, merge_tools=False)
    return column(grid, _scale_bar(scale))


def subset_pair(rows: pd.DataFrame, pairs: pd.DataFrame) -> LayoutDOM:
    """Accuracy of every pair on every subset. Pairs are sorted by family and gap.

    Args:
        rows: pair_id, name (the subset), accuracy, low, high, n_examples; the subsets top to bottom.
        pairs: pair_id, family, gap_points.
    """
    order = pairs.sort_values(["family", "gap_points", "pair_id"])[["pair_id", "family", "gap_points"]]
    order = order.assign(place=np.arange(len(order)) + 0.5)
    cells = rows.merge(order, on="pair_id", how="inner", validate="many_to_one")
    names = list(pd.unique(rows["name"]))
    plot = figure(
        width=1000,
        height=90 + 20 * len(names),
        x_range=Range1d(start=0, end=len(order)),
        y_range=FactorRange(factors=list(reversed(names))),
        x_axis_label="Pairs by family, smallest gap first",
    )
    scale = _scale(cells["accuracy"])
    colour = transform("accuracy", scale.mapper)
    drawn = plot.rect("place", "name", 1, 1, source=as_source(cells), fill_color=colour, line_color=colour)
    tips = [("pair", "@pair_id"), ("subset", "@name"), ("gap", "@gap_points{0.0}"), ACCURACY_TIP]
    plot.add_tools(hover_tool(tips, [drawn]))
    edges = np.cumsum([0, *order.groupby("family", sort=True).size()])
    for edge in edges[1:-1]:
        plot.add_layout(Span(location=float(edge), dimension="height", line_color="white", line_width=2))
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    plot.xaxis.ticker = middles
    families = [family or "no family" for family in sorted(order["family"].unique())]
    plot.xaxis.major_label_overrides = dict(zip(middles, families, strict=True))
    plot.grid.visible = False
    return column(plot, _scale_bar(scale))


def intervals_by_name(rows: pd.DataFrame) -> LayoutDOM:
    """Accuracy with its interval, one line per subset, section or score.

    Args:
        rows: name, level, accuracy, low, high, n_examples; top to bottom.
    """
    names = rows["name"].tolist()[::-1]
    plot = figure(
        width=860,
        height=70 + 24 * len(rows),
        y_range=FactorRange(factors=names),
        x_range=Range1d(start=-0.02, end=1.02),
        x_axis_label="Accuracy",
    )
    plot.add_layout(Span(location=CHANCE, dimension="height", line_color=INK, line_dash="dotted", line_width=1))
    source = as_source(rows.assign(face=np.where(rows["level"] == "subset", "white", COLOURS[0])))
    plot.segment("low", "name", "high", "name", source=source, line_color=COLOURS[0], line_width=2)
    drawn = plot.scatter(
        "accuracy", "name", source=source, size=9, fill_color="face", line_color=COLOURS[0], line_width=1.5
    )
    plot.add_tools(hover_tool([("name", "@name"), ACCURACY_TIP], [drawn]))
    plot.xaxis.formatter = NumeralTickFormatter(format=PERCENT)
    plot.ygrid.visible = False
    return plot


def _square(family: str, rows: pd.DataFrame, scale: _Scale, *, side: int, margin: int) -> LayoutDOM:
    """The heat map of one family; side and margin in pixels."""
    order = by_strength(rows)
    plot = figure(
        frame_width=side,
        frame_height=side,
        min_border_left=margin,
        min_border_bottom=margin,
        x_range=FactorRange(factors=order),
        y_range=FactorRange(factors=list(reversed(order))),
        title=f"{family or 'no family'}: {len(order)} models, {len(rows)} pairs",
        x_axis_label="weak",
        y_axis_label="strong",
    )
    bright = (rows["accuracy"] - scale.low) / (scale.high - scale.low) > 0.55
    source = as_source(
        rows.assign(
            number=[f"{100 * share:.1f}" if share == share else "" for share in rows["accuracy"]],
            ink=np.where(bright, "black", "white"),
        )
    )
    colour = transform("accuracy", scale.mapper)
    drawn = plot.rect("weak", "strong", 1, 1, source=source, fill_color=colour, line_color="white")
    plot.text(
        "weak",
        "strong",
        "number",
        source=source,
        text_color="ink",
        text_align="center",
        text_baseline="middle",
        text_font=value(_FONT),
        text_font_size="11px",
    )
    tips = [("pair", "@pair_id"), ("gap", "@gap_points{0.0}"), ACCURACY_TIP]
    plot.add_tools(hover_tool(tips, [drawn]))
    plot.xaxis.major_label_orientation = "vertical"
    plot.grid.visible = False
    return plot


def as_source(rows: pd.DataFrame) -> ColumnDataSource:
    """The rows as Bokeh reads them."""
    return ColumnDataSource({str(name): rows[name].to_numpy() for name in rows})


def hover_tool(tips: list[tuple[str, str]], drawn: Iterable[GlyphRenderer]) -> HoverTool:
    """A tool that shows the given values of the mark under the pointer."""
    # The library's own labels are too pale to read, so these use the page's text colour. The library escapes values.
    lines = "".join(f"<div>{label}: <span>{words}</span></div>" for label, words in tips)
    return HoverTool(
        tooltips=f'<div style="color: {INK}; font: 13px {_FONT}">{lines}</div>',
        renderers=list(drawn),
        point_policy="snap_to_data",
    )


def _scale(values: pd.Series) -> _Scale:
    """The colour scale of accuracies. It always includes chance."""
    known = [CHANCE, *values[np.isfinite(values)]]
    low, high = min(known), max(known)
    return _Scale(LinearColorMapper(palette=Viridis256, low=low, high=high, nan_color="white"), low, high)


def _scale_bar(scale: _Scale) -> LayoutDOM:
    """The colour scale, drawn under a heat map."""
    plot = figure(
        width=420,
        height=70,
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        min_border=0,
        outline_line_color=None,
    )
    plot.axis.visible = plot.grid.visible = False
    plot.scatter([], [])  # bokeh warns of a plot without marks
    bar = ColorBar(
        color_mapper=scale.mapper,
        orientation="horizontal",
        formatter=NumeralTickFormatter(format=PERCENT),
        ticker=BasicTicker(desired_num_ticks=6),
        title="Accuracy",
        title_text_font=_FONT,
        title_text_font_style="normal",
        major_label_text_font=_FONT,
        major_label_text_color=INK,
        height=12,
        padding=2,
    )
    plot.add_layout(bar, "below")
    return plot
