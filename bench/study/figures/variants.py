"""Draws runs that differ in one thing: the customisation of the prompt, or the training step of tuning."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.figures.style import CHANCE, GRID, INK, STYLE, Look, counts, head, looks, n_columns, percent

_MEASURES = {"loss": "Loss", "reward": "Mean reward as the loss defines it", "win_rate": "Win rate against the start"}


@matplotlib.rc_context(STYLE)
def ablation(variants: pd.DataFrame, pair_id: str) -> Figure:
    """Accuracy of each variant by section, and its paired difference to the plain run, with 95% intervals.

    Args:
        variants: variant, router ("" or missing for none), section ("score" for the whole), accuracy, low, high,
            difference, difference_low, difference_high, n_examples; one row per variant, router and section, in drawing
            order. The difference is missing for the plain run.
        pair_id: The pair that was run.
    """
    routers = variants["router"].fillna("").astype(str)
    rows = variants.assign(label=variants["variant"].where(routers == "", variants["variant"] + ", " + routers))
    sections = list(pd.unique(rows["section"]))
    by_variant = looks(pd.unique(rows["variant"]))
    labels = dict(zip(rows["label"], zip(rows["variant"], routers, strict=True), strict=True))
    styles = {label: _filled(by_variant[variant], router) for label, (variant, router) in labels.items()}
    figure = Figure(figsize=(9, 1.6 + 0.2 * len(sections) * (len(styles) + 1)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for position, (label, style) in enumerate(styles.items()):
        part = rows[rows["label"] == label].set_index("section").reindex(sections)
        places = np.arange(len(sections)) + 0.8 * ((position + 0.5) / len(styles) - 0.5)
        _marks(left, part[["accuracy", "low", "high"]], places, style, label)
        _marks(right, part[["difference", "difference_low", "difference_high"]], places, style, label)
    left.axvline(CHANCE, color=INK, linestyle=":", linewidth=1)
    right.axvline(0, color=INK, linestyle=":", linewidth=1)
    for edge in range(len(sections) - 1):
        left.axhline(edge + 0.5, color=GRID, linewidth=0.8)
        right.axhline(edge + 0.5, color=GRID, linewidth=0.8)
    left.set_yticks(range(len(sections)), sections)
    left.set_ylim(len(sections) - 0.5, -0.5)
    percent(left.xaxis)
    right.xaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):+g}" if value else "0")
    left.set_xlabel("Accuracy (95% interval; dotted: chance)")
    right.set_xlabel("Paired difference to plain, points (95% interval)")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=n_columns(figure, names))
    note = counts(2, 1, variants["n_examples"].max())
    head(figure, f"What each component of the customisation changes for {pair_id}", note)
    return figure


@matplotlib.rc_context(STYLE)
def tuning(curves: pd.DataFrame, *, n_models: int, n_pairs: int, n_prompts: int) -> Figure:
    """Loss, reward and win rate over the training steps, one panel per measure.

    Args:
        curves: step, measure (loss, reward, win_rate or another), series, value, low, high; the limits are missing
            where there is no interval.
        n_models: Number of models that took part.
        n_pairs: Number of pairs that judged.
        n_prompts: Number of prompts for tuning and judging.
    """
    measures = list(pd.unique(curves["measure"]))
    figure = Figure(figsize=(0.8 + 3.4 * len(measures), 4), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False).ravel()
    styles = looks(pd.unique(curves["series"]))
    for axes, measure in zip(panels, measures, strict=True):
        rows = curves[curves["measure"] == measure]
        for series, part in rows.sort_values("step").groupby("series"):
            style = styles[series]
            axes.fill_between(part["step"], part["low"], part["high"], color=style["colour"], alpha=0.15, linewidth=0)
            axes.plot(
                part["step"],
                part["value"],
                color=style["colour"],
                linestyle=style["line"],
                marker=style["marker"] if len(part) <= 25 else "",
                markerfacecolor=style["face"],
                markersize=4,
                linewidth=1.2,
                label=series,
            )
        axes.set(title=_MEASURES.get(measure, measure), xlabel="Training step")
        if measure == "win_rate":
            axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=1)
            percent(axes.yaxis)
    labelled = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
    shown = {label: line for label, line in labelled.items() if label in styles}
    figure.legend(list(shown.values()), list(shown), loc="outside lower left", ncols=n_columns(figure, list(shown)))
    head(figure, "Tuning; bands: 95% intervals", counts(n_models, n_pairs, n_prompts))
    return figure


def _filled(style: Look, router: str) -> Look:
    """The look of a variant with the filling of its router. Colour and shape show the variant."""
    return {**style, "face": {"classifier": "white", "model": GRID}.get(router, style["colour"])}


def _marks(axes: Axes, values: pd.DataFrame, places: np.ndarray, style: Look, label: str) -> None:
    """Draw the values of one variant with their intervals. The columns of `values` are estimate, low and high."""
    estimate, low, high = values.to_numpy(dtype=float).T
    axes.errorbar(
        estimate,
        places,
        xerr=[estimate - low, high - estimate],
        linestyle="none",
        color=style["colour"],
        marker=style["marker"],
        markerfacecolor=style["face"],
        markersize=5,
        elinewidth=1,
        capsize=2,
        label=label,
    )
    axes.grid(False, axis="y")
