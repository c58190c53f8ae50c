"""Frames -> figures: time by scorer, growth, and what a dtype moves."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from bench.study.figures.style import COLOURS, INK, STYLE, head, looks
from perf.bars import mean_times
from perf.precision import PAIR
from perf.scorers import OURS, SCORERS


@matplotlib.rc_context(STYLE)
def scorer_times(perf: pd.DataFrame) -> Figure:
    """Seconds of each scorer on each workload and dtype; a bar is the mean, a point a round."""
    mean = mean_times(perf)["wall_s"]
    panels = list(dict.fromkeys((workload, dtype) for workload, dtype, _ in mean.index))
    styles = looks(SCORERS)
    heights = [mean.loc[panel].size for panel in panels]
    figure = Figure(figsize=(6.5, 1.0 + 0.42 * sum(heights)), layout="constrained")
    for axes, panel in zip(
        figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0], panels, strict=True
    ):
        times = mean.loc[panel]
        runs = perf[(perf["workload"] == panel[0]) & (perf["dtype"] == panel[1])]
        axes.barh(times.index, times, color=[styles[name]["colour"] for name in times.index], height=0.6)
        axes.scatter(runs["wall_s"], runs["scorer"], s=9, color="white", edgecolor=INK, linewidth=0.7, zorder=3)
        for name, value in times.items():
            end = runs.loc[runs["scorer"] == name, "wall_s"].max()
            ratio = value / times[OURS]
            words = f"{value:.1f} s" if name == OURS else f"{value:.1f} s, {ratio:.{2 if ratio < 2 else 1}f}x"
            axes.annotate(words, (end, name), (6, 0), textcoords="offset points", va="center")
        axes.set(title=f"{panel[0]}, {panel[1]}, {runs['rows'].iloc[0]} rows", xlim=(0, 1.25 * runs["wall_s"].max()))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
    axes.set_xlabel("Seconds (bar: mean; points: rounds)")
    head(figure, "Time to score the same token ids")
    return figure


@matplotlib.rc_context(STYLE)
def growth(scaling: pd.DataFrame) -> Figure:
    """Seconds against the number of rows, models and pairs, both axes logarithmic."""
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    for axes, name, colour in zip(figure.subplots(1, 3), ("rows", "models", "pairs"), COLOURS, strict=False):
        rows = scaling[scaling["grows"] == name]
        axes.plot(rows[name], rows["wall_s"], marker="o", color=colour)
        _proportional(axes, rows[name], rows["wall_s"])
        axes.set(xscale="log", yscale="log", xlabel=name, title=name)
        axes.set_xticks(rows[name], [f"{n}" for n in rows[name]])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    figure.axes[0].set_ylabel("Seconds")
    head(figure, "How the cost grows (dotted: in proportion)")
    return figure


def _proportional(axes: Axes, n: pd.Series, wall_s: pd.Series) -> None:
    """A line of slope one through the first point."""
    axes.plot(n, wall_s.iloc[0] * n / n.iloc[0], linestyle=":", color=INK, linewidth=0.8, zorder=0)


@matplotlib.rc_context(STYLE)
def dtype_shifts(precision: pd.DataFrame) -> Figure:
    """What each dtype of body and logits costs and moves; a point a model, and the pair."""
    rows = precision.assign(variant=precision["body"] + " body\n" + precision["logits"] + " logits")
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    panels = {"wall_s": "Seconds", "mean_shift_nats": "Mean shift, nats", "max_shift_nats": "Largest shift, nats"}
    names = list(pd.unique(rows["model"]))
    for axes, (column, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for place, (name, style) in enumerate(looks(names).items()):
            own = rows[rows["model"] == name]
            axes.plot(
                [at + 0.2 * (place - 1) for at in range(len(own))], own[column], linestyle="none", label=name,
                marker=style["marker"], markersize=6, markerfacecolor=style["face"], markeredgecolor=style["colour"],
            )  # fmt: skip
        axes.set_xticks(range(len(own)), own["variant"])
        axes.set_ylabel(label)
        axes.margins(x=0.15)
        axes.set_ylim(-0.05 * rows[column].max(), 1.1 * rows[column].max())
        axes.grid(False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    pair = rows[rows["model"] == PAIR]
    flips = "; ".join(f"{r.body} body, {r.logits} logits: {r.flipped_share:.1%}" for r in pair.itertuples())
    head(
        figure, f"Time and shift a response against fp32, {pair['rows'].iloc[0]} rows", f"decisions that flip: {flips}"
    )
    return figure
