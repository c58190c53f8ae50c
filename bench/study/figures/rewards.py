"""Draws the accuracy of all rewards of one pair, overall and by section."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.benchmarks import title
from bench.study.figures.style import CHANCE, FAINT, INK, STYLE, Look, counts, head, looks, percent

BASE = "sum"


@matplotlib.rc_context(STYLE)
def reward_families(rows: pd.DataFrame) -> Figure:
    """Accuracy of each reward with its 95% interval, one panel for the score and for each section.

    Args:
        rows: SIDE_BY_SIDE of one pair. A family has one colour, marker and line.
    """
    names = list(pd.unique(rows["reward"]))
    parts = [tuple(part) for part in rows[["level", "name"]].drop_duplicates().to_numpy()]
    shown = [part for part in parts if rows.loc[_inside(rows, part), "accuracy"].notna().any()]
    figure = Figure(figsize=(2.4 + 1.9 * max(len(shown), 1), 2.0 + 0.24 * len(names)), layout="constrained")
    panels = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
    styles = looks(pd.unique(rows["family"]))
    for axes, part in zip(panels, shown, strict=False):
        _panel(axes, rows[_inside(rows, part)].set_index("reward").loc[names], styles)
        axes.set_title("Overall" if part[0] == "overall" else title(part[1]))
    if not shown:
        panels[0].text(0.5, 0.5, "No part of the benchmark is whole.", ha="center", transform=panels[0].transAxes)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    panels[len(panels) // 2].set_xlabel("Accuracy, ties wrong (95% interval)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles))
    n = int(rows.loc[rows["level"] == "overall", "n_examples"].max())
    head(
        figure,
        f"Rewards of {rows['pair_id'].iloc[0]}",
        f"{counts(2, 1, n)}; dotted: chance; dashed: the reward {BASE}; *: differs from it (paired, Holm's p < 0.05)",
    )
    return figure


def _inside(rows: pd.DataFrame, part: tuple[str, str]) -> pd.Series:
    return (rows["level"] == part[0]) & (rows["name"] == part[1])


def _panel(axes: Axes, rows: pd.DataFrame, styles: dict[str, Look]) -> None:
    axes.axvline(CHANCE, color=INK, linestyle=":", linewidth=1)
    if BASE in rows.index:
        axes.axvline(rows.loc[BASE, "accuracy"], color=FAINT, linestyle="--", linewidth=0.9)
    places = pd.Series(range(len(rows)), index=rows.index)
    for family, look in styles.items():
        mine = rows[rows["family"] == family]
        axes.errorbar(
            mine["accuracy"],
            places[mine.index],
            xerr=[mine["accuracy"] - mine["low"], mine["high"] - mine["accuracy"]],
            linestyle="none",
            marker=look["marker"],
            markersize=5,
            color=look["colour"],
            markerfacecolor=look["face"],
            elinewidth=1,
            capsize=2,
            label=family,
        )
    for name, row in rows[rows["p_bootstrap_holm"].astype(float) < 0.05].iterrows():
        axes.annotate("*", (row["high"], places[name]), xytext=(3, -4), textcoords="offset points", color=INK)
    axes.grid(False, axis="y")
    percent(axes.xaxis)
