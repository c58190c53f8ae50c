"""Heat maps of many pairs, one cell per pair.

The brightness of the colour scale rises evenly, so the figures are readable in grey.
"""

from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.benchmarks import Benchmark, of_table
from bench.study.figures.style import CHANCE, INK, STYLE, any_letter, counts, head, n_models, named_families, percent
from bench.study.leaderboard import by_strength

_SCALE = "viridis"
_CELL = 0.34
"""Inches."""
_SMALL_CELL = 0.22
_LABEL = 1.9
_SQUARE = 1.9
"""Least side of a square of cells."""
_BAR = 1.6
"""Least height of the colour bar, about that of its label, where the panels are as tall."""
_BAR_WIDTH = 0.065
_LEAST_SCALE = 0.05
"""How far the colour scale reaches above and below chance if all scores are chance."""
_MAX_NAMED_PAIRS = 40


@matplotlib.rc_context(STYLE)
def strong_weak_heatmap(leaderboard: pd.DataFrame) -> Figure:
    """Score of every pair, strong model by weak model, one panel per family.

    Args:
        leaderboard: LEADERBOARD.
    """
    families = list(named_families(leaderboard).groupby("family", sort=True))
    n_columns = min(2, len(families))
    n_rows = -(-len(families) // n_columns)
    square = max(_SQUARE, _CELL * max(len(by_strength(rows)) for _, rows in families))
    side = square + _LABEL
    figure = Figure(figsize=(n_columns * side + 0.8, n_rows * side + 0.8), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (family, rows) in zip(panels, families, strict=False):
        order = by_strength(rows)
        _pair_cells(axes, rows, order, _limits(leaderboard["score"]), "{:.1f}")
        axes.set_title(f"{family}: {len(order)} models, {len(rows)} pairs")
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    _colour_bar(figure, panels[: len(families)], (n_rows - 1) * side + square)
    _strong_weak_head(figure, leaderboard, "Score (%) of each pair in its family, strongest model first")
    return figure


@matplotlib.rc_context(STYLE)
def strong_weak_overview(leaderboard: pd.DataFrame) -> Figure:
    """Score of every pair of a study in one square, with the families side by side.

    Args:
        leaderboard: LEADERBOARD.
    """
    families = list(named_families(leaderboard).groupby("family", sort=True))
    orders = [by_strength(rows) for _, rows in families]
    order = [model for models in orders for model in models]
    square = max(_SQUARE, _SMALL_CELL * len(order))
    side = square + _LABEL
    figure = Figure(figsize=(side + 0.8, side + 0.6), layout="constrained")
    axes = figure.subplots()
    _pair_cells(axes, leaderboard, order, _limits(leaderboard["score"]), "{:.0f}")
    for edge in np.cumsum([len(models) for models in orders])[:-1]:
        axes.axhline(edge, color=INK, linewidth=0.8)
        axes.axvline(edge, color=INK, linewidth=0.8)
    _colour_bar(figure, [axes], square)
    _strong_weak_head(figure, leaderboard, "Score (%) of each pair, by family, strongest model first")
    return figure


@matplotlib.rc_context(STYLE)
def subset_pair_heatmap(accuracy: pd.DataFrame, leaderboard: pd.DataFrame) -> Figure:
    """Accuracy of every pair on every subset. Pairs are sorted by family and gap; bars above show the gap.

    Args:
        accuracy: ACCURACY of these pairs under one reward.
        leaderboard: LEADERBOARD, for families and gaps.
    """
    # Imported here, because seaborn takes a second to import and a pair's figures do not need it.
    import seaborn

    pairs = named_families(leaderboard).sort_values(["family", "gap_points", "pair_id"])
    subsets = accuracy[accuracy["level"] == "subset"]
    cells = subsets.pivot(index="name", columns="pair_id", values="accuracy")
    benchmark = of_table(accuracy)
    names = benchmark.sorted(subsets["name"])
    named = len(pairs) <= _MAX_NAMED_PAIRS
    figure = Figure(figsize=(max(6.5, min(14, 2.6 + 0.25 * len(pairs))), 2 + 0.24 * len(names) + 2.4 * named))
    figure.set_layout_engine("constrained")
    top, main = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(4, len(names) / 4)])
    top.bar(np.arange(len(pairs)) + 0.5, pairs["gap_points"], width=1, color=INK, linewidth=0)
    top.set_ylabel("Gap")
    low, high = _limits(cells)
    shown = cells.loc[names, pairs["pair_id"]]
    with any_letter():
        seaborn.heatmap(shown, ax=main, cmap=_SCALE, vmin=low, vmax=high, cbar=False, xticklabels=named)
    n_rows = subsets.groupby("name")["n_examples"].max()
    main.set_yticks(np.arange(len(names)) + 0.5, [f"{name} ({n_rows[name]:,})" for name in names], rotation=0)
    main.grid(False)
    _family_marks(main, pairs, named=named)
    top.tick_params(bottom=False, labelbottom=False)
    _lines_between_sections(main, names, benchmark)
    _colour_bar(figure, [main], 0.24 * len(names))
    note = counts(n_models(pairs), len(pairs), pairs["n_examples"].max())
    head(figure, f"Accuracy by subset and pair; reward: {pairs['reward'].iloc[0]}", f"{note}; prompts in brackets")
    return figure


def _limits(scores: pd.Series | pd.DataFrame) -> tuple[float, float]:
    """Both ends of the colour scale, which differ. The scale always includes chance."""
    values = scores.to_numpy().ravel()
    shown = [CHANCE, *values[np.isfinite(values)]]
    low, high = min(shown), max(shown)
    return (low, high) if high > low else (low - _LEAST_SCALE, high + _LEAST_SCALE)


def _pair_cells(axes: Axes, pairs: pd.DataFrame, order: list[str], limits: tuple[float, float], number: str) -> None:
    """Draw one square of strong models by weak models."""
    import seaborn

    cells = pairs.pivot(index="strong", columns="weak", values="score").reindex(index=order, columns=order)
    low, high = limits
    numbers = cells.map(lambda share: "" if pd.isna(share) else number.format(100 * share))
    with any_letter():
        seaborn.heatmap(
            cells,
            ax=axes,
            cmap=_SCALE,
            vmin=low,
            vmax=high,
            square=True,
            cbar=False,
            annot=numbers,
            fmt="",
            annot_kws={"fontsize": 6.5 if "1" in number else 5},
            linewidths=0.5,
            linecolor="#dddddd",
            xticklabels=True,
            yticklabels=True,
        )
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    axes.grid(False)
    axes.set(xlabel="weak", ylabel="strong")


def _colour_bar(figure: Figure, panels: Iterable[Axes], height: float) -> None:
    """Draw the scale of the cells, with chance marked. Beside panels of little height it is as tall as its label.

    Args:
        figure: The figure.
        panels: The panels with the cells.
        height: About the height of the panels together, inches.
    """
    shown = list(panels)
    (cells, *_) = shown[0].collections
    tall = max(0.5 * height, min(height, _BAR))
    bar = figure.colorbar(cells, ax=shown, shrink=tall / height, aspect=min(30, tall / _BAR_WIDTH), pad=0.01)
    bar.ax.axhline(CHANCE, color="white", linewidth=2)
    bar.ax.axhline(CHANCE, color=INK, linewidth=1, linestyle=":")
    percent(bar.ax.yaxis)
    bar.set_label("Accuracy (dotted: chance)")


def _strong_weak_head(figure: Figure, leaderboard: pd.DataFrame, title: str) -> None:
    """Write the head of both squares."""
    note = counts(n_models(leaderboard), len(leaderboard), leaderboard["n_examples"].max())
    head(figure, f"{title}; reward: {leaderboard['reward'].iloc[0]}", note)


def _lines_between_sections(axes: Axes, names: list[str], benchmark: Benchmark) -> None:
    """Draw a line below the last subset of each section."""
    for position in range(1, len(names)):
        if benchmark.section(names[position - 1]) != benchmark.section(names[position]):
            axes.axhline(position, color="white", linewidth=2)


def _family_marks(axes: Axes, pairs: pd.DataFrame, *, named: bool) -> None:
    """Draw lines between families, and name the families where the names of the pairs do not fit."""
    sizes = pairs.groupby("family", sort=True).size()
    edges = np.concatenate([[0], np.cumsum(sizes)])
    for edge in edges[1:-1]:
        axes.axvline(edge, color="white", linewidth=2)
    axes.set(ylabel="", xlabel="Pairs by family, smallest gap first")
    if not named:
        axes.set_xticks((edges[:-1] + edges[1:]) / 2, [f"{name}\n{n} pairs" for name, n in sizes.items()], rotation=0)
        axes.tick_params(axis="x", length=0)
