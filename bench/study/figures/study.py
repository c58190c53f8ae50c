"""Figures of many pairs, one point a pair."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.figures.style import CHANCE, INK, STYLE, counts, head, looks, percent

ALL_FAMILIES = "all"
"""CORRELATION's family for the estimate over all of them."""

PERFORMANCES = {"alpaca_eval_2_lc": "AlpacaEval 2 LC win rate", "arena_hard": "Arena-Hard v0.1 score"}
"""How an axis calls the published boards."""

_PANELS = {
    "score": "Score",
    "chat": "Chat",
    "chat_hard": "Chat Hard",
    "safety": "Safety",
    "reasoning": "Reasoning",
}


@matplotlib.rc_context(STYLE)
def gap_accuracy(leaderboard: pd.DataFrame, correlation: pd.DataFrame) -> Figure:
    """Accuracy against the gap, one point a pair (Figure 1 of arXiv 2411.02481), overall and by section.

    Args:
        leaderboard: LEADERBOARD; pairs without a gap or a score are counted, not drawn.
        correlation: CORRELATION for the same reward and one performance; of it, the estimators `spearman` and `slope`
            (points of accuracy per point of gap) over all families.
    """
    drawn = leaderboard.dropna(subset=["gap_points", "score"])
    columns = [column for column in _PANELS if drawn[column].notna().any()]
    rows = [["score", "chat", "chat_hard"], ["score", "safety", "reasoning"]] if len(columns) > 1 else [["score"]]
    figure = Figure(figsize=(10.5, 5.6) if len(columns) > 1 else (6.5, 5.4), layout="constrained")
    panels = figure.subplot_mosaic(rows, width_ratios=[1.7, 1, 1] if len(columns) > 1 else [1])
    styles = looks(drawn["family"])
    for column in columns:
        _scatter(panels[column], drawn, column, styles)
        _trend(panels[column], drawn, column, correlation)
        panels[column].set_xlabel("Gap (points)" if column in ("safety", "reasoning") else "")
    performance = ", ".join(PERFORMANCES.get(name, name) for name in pd.unique(correlation["performance"]))
    panels["score"].set_xlabel(f"Gap: {performance or 'performance'}, strong minus weak (points)")
    panels["score"].set_ylabel("Accuracy: chosen above rejected")
    figure.legend(*panels["score"].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    title = f"Gap against accuracy, a point a pair; reward: {drawn['reward'].iloc[0]}"
    head(figure, title, f"{_counted(drawn, leaderboard)}; ρ: Spearman's, with its 95% interval; dotted: chance")
    return figure


def _scatter(axes: Axes, drawn: pd.DataFrame, column: str, styles: dict[str, dict[str, str]]) -> None:
    """The pairs of one panel, families by colour and marker."""
    big = column == "score"
    for family, rows in drawn.groupby("family"):
        style = styles[family]
        axes.scatter(
            rows["gap_points"],
            rows[column],
            s=22 if big else 10,
            marker=style["marker"],
            facecolor=style["colour"],
            edgecolor="white",
            linewidth=0.4,
            label=f"{family} ({len(rows)} pairs)",
        )
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=0.8, zorder=0)
    axes.set_title(_PANELS[column], fontweight="bold")
    percent(axes.yaxis)


def _trend(axes: Axes, drawn: pd.DataFrame, column: str, correlation: pd.DataFrame) -> None:
    """The regression line, through the pairs' means as least squares has it, and rho with its interval."""
    name = column.replace("_", "-")
    rows = correlation[(correlation["name"] == name) & (correlation["family"] == ALL_FAMILIES)]
    effects = rows.set_index("estimator")
    if "slope" in effects.index:
        # pairs of gap 0 take no part in the estimates
        used = drawn[drawn["gap_points"] > 0].dropna(subset=[column])
        ends = np.array([0, used["gap_points"].max()])
        slope = effects.loc["slope", "estimate"] / 100
        line = used[column].mean() + slope * (ends - used["gap_points"].mean())
        axes.plot(ends, line, color=INK, linewidth=1.2, zorder=3)
    if "spearman" in effects.index:
        rho = effects.loc["spearman"]
        p_value = "p < 0.001" if rho["p_value"] < 0.001 else f"p = {rho['p_value']:.3f}"
        text = f"ρ = {rho['estimate']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}], {p_value}"
        axes.set_title(text, loc="right", fontsize=7)


def _counted(drawn: pd.DataFrame, leaderboard: pd.DataFrame) -> str:
    """What a study figure says of its data."""
    n_models = pd.concat([drawn["strong"], drawn["weak"]]).nunique()
    missing = len(leaderboard) - len(drawn)
    note = counts(n_models, len(drawn), drawn["n_examples"].max())
    return f"{note}; {missing} pairs without a gap or a score are not drawn" if missing else note
