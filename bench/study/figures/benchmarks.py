"""Draws what single benchmarks have besides accuracies by part: RM-Bench's matrix and the margins of Ties."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.figures.style import CHANCE, FAINT, GRID, INK, STYLE, head, looks, say
from bench.study.rewards.known import UNITS

_SCALE = "viridis"
_SIDES = " over "
"""What separates the two styles in the name of a cell: the right response's style, then the wrong one's."""


@matplotlib.rc_context(STYLE)
def style_matrix(accuracy: pd.DataFrame, pair: pd.Series) -> Figure:
    """The share of right comparisons by the styles of the right and of the wrong response, in all and by domain.

    Args:
        accuracy: ACCURACY of one pair and reward; its rows of level "cell" are drawn.
        pair: The pair's strong and weak model.
    """
    cells = accuracy[accuracy["level"] == "cell"]
    domain = cells["name"].str.rpartition(": ")[0].replace("", "all domains")
    styles = cells["name"].str.rpartition(": ")[2].str.split(_SIDES, expand=True)
    cells = cells.assign(domain=domain, right=styles[0], wrong=styles[1])
    names = list(pd.unique(cells["domain"]))
    if len(names) == 2:
        # One domain is all of the data: its matrix is not drawn twice.
        names = names[1:]
    order = list(pd.unique(cells["right"]))
    n_columns = min(len(names), 3)
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(max(1.2 + 2.6 * n_columns, 5), 1.2 + 2.5 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _cells(axes, cells[cells["domain"] == name], order)
        axes.set_title(f"{name}: {int(cells.loc[cells['domain'] == name, 'n_examples'].max()):,} prompts")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes in panels[::n_columns][:n_rows]:
        axes.set_ylabel("style of the right response")
    below = "Style of the wrong response\nAbove the diagonal: hard, on it: normal, below it: easy"
    figure.supxlabel(below, fontsize=8)
    note = "Share of prompts whose right response has the higher reward, with its 95% interval; a tie is wrong"
    head(figure, f"strong: {pair['strong']}    weak: {pair['weak']};  reward: {cells['reward'].iloc[0]}", note)
    return figure


@matplotlib.rc_context(STYLE)
def ties_margins(margins: pd.DataFrame) -> Figure:
    """The lead of right over wrong responses against the spread of the right ones, one point per prompt of Ties.

    A prompt above the diagonal has right responses that differ less from one another than from the wrong ones.

    Args:
        margins: pair_id, reward, prompt, spread, lead_tied, lead_ref, of at most three pairs under one reward.
    """
    pairs = list(pd.unique(margins["pair_id"]))
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    least = margins[["lead_tied", "lead_ref"]].min(axis=1, skipna=False)
    unit = UNITS[margins["reward"].iloc[0]]
    titles = ("the prompt with several right responses", "the lesser of both prompts")
    for axes, values, words in zip(panels, (margins["lead_tied"], least), titles, strict=True):
        for pair_id, style in looks(pairs).items():
            mine = (margins["pair_id"] == pair_id) & values.notna()
            axes.scatter(
                margins.loc[mine, "spread"],
                values[mine],
                s=18,
                marker=style["marker"],
                facecolor=style["face"],
                edgecolor=style["colour"],
                linewidth=0.8,
                label=pair_id,
            )
        axes.axhline(0, color=INK, linestyle=":", linewidth=1)
        axes.axline((0, 0), slope=1, color=FAINT, linewidth=1)
        axes.set_title(f"Lead: {words}")
        axes.set_xlabel(f"Spread of the right responses ({unit})")
    if margins[["spread", "lead_tied"]].isna().all(axis=None):
        say(panels[0], "There is no margin to show: all rows are left out.")
    panels[0].set_ylabel(f"Lead of the least right response over the best wrong one ({unit})")
    if len(pairs) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    n = margins["prompt"].nunique()
    note = f"{n:,} prompt{'' if n == 1 else 's'}; dotted: 0; line: lead and spread are equal"
    head(figure, f"Ties: right responses against wrong ones; reward: {margins['reward'].iloc[0]}", note)
    return figure


def _cells(axes: Axes, cells: pd.DataFrame, order: list[str]) -> None:
    """Draw one matrix: rows are styles of the right response, columns those of the wrong one."""
    table = cells.pivot(index="right", columns="wrong", values="accuracy").reindex(index=order, columns=order)
    axes.imshow(table.to_numpy(dtype=float), cmap=_SCALE, vmin=0, vmax=1)
    for row in cells.to_dict("records"):
        place = order.index(row["wrong"]), order.index(row["right"])
        share, low, high = row["accuracy"], row["low"], row["high"]
        words = "missing" if pd.isna(share) else f"{share:.1%}"
        words += "" if pd.isna(low) else f"\n[{100 * low:.0f}, {100 * high:.0f}]"
        axes.text(*place, words, ha="center", va="center", fontsize=7, color="white" if share < CHANCE else INK)
    axes.set_xticks(np.arange(len(order)), order)
    axes.set_yticks(np.arange(len(order)), order, rotation=90, va="center")
    axes.set_xticks(np.arange(len(order) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(order) + 1) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(True, which="minor", color=GRID, linewidth=0.6)
    axes.tick_params(which="both", length=0)
