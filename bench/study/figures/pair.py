"""Draws the accuracy of one pair."""

from typing import NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contrast import model_of
from bench.study.benchmarks import of_table
from bench.study.figures.style import CHANCE, COLOURS, FAINT, INK, STYLE, counts, head, percent


@matplotlib.rc_context(STYLE)
def pair_accuracy(accuracy: pd.DataFrame, pair: pd.Series) -> Figure:
    """Accuracy of a pair overall, by section and by subset, with 95% intervals.

    Args:
        accuracy: ACCURACY of one pair and reward.
        pair: The pair's strong, weak and gap_points.
    """
    rows = _in_sections(accuracy)
    figure = Figure(figsize=(7.0, 1.5 + 0.2 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(CHANCE, color=INK, linestyle=":", linewidth=1)
    for level, mark in _MARKS.items():
        _points(axes, rows[rows["level"] == level], mark)
    axes.set_yticks(rows["place"], rows["name"])
    for label, level in zip(axes.get_yticklabels(), rows["level"], strict=True):
        label.set_fontweight("normal" if level == "subset" else "bold")
    axes.set_ylim(rows["place"].max() + 0.7, rows["place"].min() - 0.7)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(False, axis="y")
    _margin_notes(axes, rows)
    percent(axes.xaxis)
    axes.set_xlabel(f"Accuracy: {', '.join(of_table(accuracy).judgement)} (95% interval)")
    overall = rows.iloc[0]
    n_models = len({model_of(str(pair[side])) for side in ("strong", "weak")})
    gap = "no published gap" if pd.isna(pair["gap_points"]) else f"gap {pair['gap_points']:g}"
    gap = gap if n_models > 1 else "no gap: both sides are one model"
    head(
        figure,
        f"strong: {pair['strong']}    weak: {pair['weak']}",
        f"{counts(n_models, 1, overall['n_examples'])}; reward: {overall['reward']}; {gap}",
    )
    return figure


def _margin_notes(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the numbers of each row to the right of it."""
    axes.text(CHANCE, 1, "chance", transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=FAINT)
    axes.text(1.02, 1, "accuracy, prompts (ties, left out)", transform=axes.transAxes, va="bottom", color=FAINT)
    for row in rows.itertuples():
        share = "missing" if pd.isna(row.accuracy) else f"{row.accuracy:.1%}"
        more = f" ({row.n_ties}, {row.n_excluded})" if row.n_ties or row.n_excluded else ""
        note = f"{share}  {row.n_examples:,}{more}"
        axes.text(1.02, row.place, note, transform=axes.get_yaxis_transform(), va="center")


class _Mark(NamedTuple):
    """How the accuracies of one level look."""

    marker: str
    size: float
    colour: str
    fill: str


_BLUE, _ORANGE, *_ = COLOURS
_MARKS = {
    "overall": _Mark("D", 7, _ORANGE, _ORANGE),
    "section": _Mark("s", 6, _BLUE, _BLUE),
    "style": _Mark("s", 6, _BLUE, "white"),
    "subset": _Mark("o", 4.5, INK, "white"),
}


def _in_sections(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The rows from top to bottom: the score, each section with its subsets, the styles. `place` leaves gaps."""
    benchmark = of_table(accuracy)
    groups = [accuracy[accuracy["level"] == "overall"]]
    subsets = accuracy[accuracy["level"] == "subset"]
    for section in benchmark.sections:
        group = accuracy[(accuracy["name"] == section) & (accuracy["level"] == "section")]
        if len(group):
            groups.append(pd.concat([group, subsets[subsets["name"].map(benchmark.section_of) == section]]))
    if len(groups) == 1:
        groups.append(subsets)
    if (styles := accuracy["level"] == "style").any():
        groups.append(accuracy[styles])
    placed = [group.assign(block=block) for block, group in enumerate(groups)]
    rows = pd.concat(placed, ignore_index=True)
    return rows.assign(place=rows.index + 0.8 * rows["block"])


def _points(axes: Axes, rows: pd.DataFrame, mark: _Mark) -> None:
    """Draw the accuracies of one level with their intervals."""
    axes.errorbar(
        rows["accuracy"],
        rows["place"],
        xerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
        linestyle="none",
        marker=mark.marker,
        markersize=mark.size,
        color=mark.colour,
        markerfacecolor=mark.fill,
        elinewidth=1,
        capsize=2,
    )
