"""Draws many pairs, one point per pair: accuracy against gap, and score against compute."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.typing import HashableList

from bench.study.benchmarks import of_columns, title
from bench.study.correlate import ALL, HEADLINE, TOO_FEW, lacks_models
from bench.study.figures.style import (
    CHANCE,
    INK,
    STYLE,
    Look,
    counts,
    head,
    looks,
    n_columns,
    n_models,
    named_families,
    percent,
    say,
)

_TESTED = (
    "ρ: Spearman's inside families (mean weighted by pairs) with its 95% interval; lines: common slope inside families",
    "p: QAP, labels exchangeable inside families; adjusted by Holm except for the declared test (score, sum)",
)


@matplotlib.rc_context(STYLE)
def gap_accuracy(
    leaderboard: pd.DataFrame, correlation: pd.DataFrame, *, performance: str = "published performance"
) -> Figure:
    """Accuracy against the gap, one point per pair (Figure 1 of arXiv 2411.02481), overall and by section.

    Args:
        leaderboard: LEADERBOARD. Pairs without a gap or a score are counted, but not drawn.
        correlation: CORRELATION for the same reward and one performance. The figure uses the estimators HEADLINE and
            `slope` (points of accuracy per point of gap) over all families, both computed inside families.
        performance: Name of the performance that the gap is measured in.
    """
    if correlation["performance"].nunique() > 1 or correlation["reward"].nunique() > 1:
        raise ValueError("a figure shows the correlation for one performance and one reward")
    drawn = named_families(leaderboard).dropna(subset=["gap_points", "score"])
    benchmark = of_columns(leaderboard.columns)
    names = {"score": "score", **benchmark.columns}
    columns = [column for column in names if drawn[column].notna().any()]
    rows = _places(list(benchmark.columns)) if len(columns) > 1 else [["score"]]
    n_beside = len(rows[0]) - 1
    figure = Figure(figsize=(5.5 + 2.5 * n_beside, 5.6) if n_beside else (6.5, 5.4), layout="constrained")
    panels = figure.subplot_mosaic(rows, width_ratios=[1.7 if n_beside else 1, *[1] * n_beside])
    styles = looks(sorted(pd.unique(drawn["family"])))
    for column in columns:
        _scatter(panels[column], drawn, column, styles)
        # The empty line below the title is for rho, which would meet a long title.
        panels[column].set_title(title(names[column]) + "\n")
        _trend(panels[column], drawn, column, correlation[correlation["name"] == names[column]], styles)
        panels[column].set_xlabel("Gap" if n_beside and column in rows[-1] else "")
    if drawn.empty:
        say(panels["score"], "No pair has both a gap and a score: there is nothing to show.")
    accuracy = f"Accuracy: {benchmark.judgement[0]}"
    panels["score"].set(xlabel=f"Gap, strong minus weak: {performance}", ylabel=accuracy)
    handles, labels = panels["score"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns(figure, labels))
    words = f"Gap against accuracy, one point per pair; reward: {leaderboard['reward'].iloc[0]}"
    notes = [f"{_counted(drawn, leaderboard, 'a gap')}; dotted: chance"]
    head(figure, words, *notes, *(_TESTED if correlation["estimator"].eq(HEADLINE).any() else ()))
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_cost(leaderboard: pd.DataFrame, frontier: pd.DataFrame) -> Figure:
    """Score against compute: what a better pair costs.

    Args:
        leaderboard: LEADERBOARD. Pairs without a score or a known cost are counted, but not drawn.
        frontier: The pairs that `leaderboard.frontier` keeps. They are circled and named.
    """
    drawn = named_families(leaderboard).dropna(subset=["cost_flop", "score"])
    figure = Figure(figsize=(9.5, max(5, 1.8 + 0.36 * len(frontier))), layout="constrained")
    axes = figure.add_subplot()
    for family, style in looks(sorted(pd.unique(drawn["family"]))).items():
        rows = drawn[drawn["family"] == family]
        _intervals(axes, rows, style)
    axes.step(frontier["cost_flop"], frontier["score"], where="post", color=INK, linewidth=1, zorder=1)
    rings = axes.scatter(
        frontier["cost_flop"], frontier["score"], s=90, facecolor="none", edgecolor=INK, linewidth=1.1, zorder=4
    )
    rings.set_label("on the frontier: no pair is cheaper and better")
    times = drawn["cost_flop"].max() / drawn["cost_flop"].min() if len(drawn) else 1
    if times > 5:
        axes.set_xscale("log")
        # Below a hundredfold range there may be no two powers of ten.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if times < 100 else (1,)))
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=0.8, zorder=0, label="chance")
    axes.xaxis.set_major_formatter(EngFormatter(unit="FLOP"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    percent(axes.yaxis)
    if drawn.empty:
        say(axes, "No pair has both a cost and a score: there is nothing to show.")
    axes.set(xlabel="Compute per row, both models", ylabel="Score (95% interval over prompts)")
    _name_frontier(figure, axes, frontier)
    words = f"Score against compute, one point per pair; reward: {leaderboard['reward'].iloc[0]}"
    head(figure, words, _counted(drawn, leaderboard, "a cost"))
    return figure


def _places(columns: list[str]) -> list[HashableList[str]]:
    """The panels: the score on the left, the others in two rows beside it."""
    n = -(-len(columns) // 2)
    return [["score", *columns[:n]], ["score", *columns[n:], *["."] * (2 * n - len(columns))]]


def _intervals(axes: Axes, rows: pd.DataFrame, style: Look) -> None:
    """Draw the scores of one family, with their intervals behind them."""
    axes.vlines(
        rows["cost_flop"], rows["score_low"], rows["score_high"], color=style["colour"], alpha=0.25, linewidth=1
    )
    axes.scatter(
        rows["cost_flop"],
        rows["score"],
        s=20,
        marker=style["marker"],
        facecolor=style["face"],
        edgecolor=style["edge"],
        linewidth=0.7,
        zorder=3,
        label=f"{rows['family'].iloc[0]} ({len(rows)} pairs)",
    )


def _name_frontier(figure: Figure, axes: Axes, frontier: pd.DataFrame) -> None:
    """Draw the legend on the right, and below it the names of the frontier's pairs."""
    handles, labels = axes.get_legend_handles_labels()
    for row in frontier.itertuples():
        handles.append(Line2D([], [], linestyle="none"))
        labels.append(f"{row.score:.1%}  {row.strong}\n            over {row.weak}")
    figure.legend(handles, labels, loc="outside right upper", handlelength=1.2)


def _scatter(axes: Axes, drawn: pd.DataFrame, column: str, styles: dict[str, Look]) -> None:
    """Draw the pairs of one panel. Colour and marker show the family."""
    big = column == "score"
    for family, rows in drawn.groupby("family"):
        style = styles[family]
        axes.scatter(
            rows["gap_points"],
            rows[column],
            s=22 if big else 10,
            marker=style["marker"],
            facecolor=style["face"],
            edgecolor=style["edge"],
            linewidth=0.7,
            label=f"{family} ({len(rows)} pairs)",
        )
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=0.8, zorder=0)
    percent(axes.yaxis)


def _trend(axes: Axes, drawn: pd.DataFrame, column: str, correlation: pd.DataFrame, styles: dict[str, Look]) -> None:
    """Draw one line per family, with the common slope through the family's means, and write rho with its interval."""
    rows = correlation[correlation["family"] == ALL]
    effects = rows.set_index("estimator")
    if "slope" in effects.index:
        # the estimates leave out pairs with a gap of 0
        used = drawn[drawn["gap_points"] > 0].dropna(subset=[column])
        slope = effects.loc["slope", "estimate"] / 100
        for family, rows in used.groupby("family"):
            ends = np.array([rows["gap_points"].min(), rows["gap_points"].max()])
            line = rows[column].mean() + slope * (ends - rows["gap_points"].mean())
            axes.plot(ends, line, color=styles[family]["colour"], linestyle=styles[family]["line"], linewidth=1.2)
    if HEADLINE in effects.index:
        axes.set_title(_rho(effects.loc[HEADLINE]), loc="right", fontsize=7, fontweight="normal")


def _rho(row: pd.Series) -> str:
    """Text of an estimate with its interval and adjusted p."""
    if pd.isna(row["estimate"]):
        return "ρ has no value: too few pairs, or all pairs are equal"
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]" if pd.notna(row["low"]) else "(no interval)"
    if lacks_models(row):
        interval = f"({TOO_FEW})"
    p_value = "p < 0.001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.3f}"
    return f"ρ = {row['estimate']:.2f} {interval}" + (f", {p_value}" if pd.notna(row["p_holm"]) else "")


def _counted(drawn: pd.DataFrame, leaderboard: pd.DataFrame, needed: str) -> str:
    """The counts that a study's figure shows."""
    missing = len(leaderboard) - len(drawn)
    note = counts(n_models(drawn), len(drawn), leaderboard["n_examples"].max())
    left_out = "1 pair is" if missing == 1 else f"{missing} pairs are"
    return f"{note}; {left_out} not drawn, without {needed} or a score" if missing else note
