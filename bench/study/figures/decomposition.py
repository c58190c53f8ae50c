"""Draws the answer to "is it the gap?": the two slopes in the plane of the possible worlds, and the checks."""

import textwrap

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.correlate import ALL, HEADLINE
from bench.study.figures.style import FAINT, INK, STYLE, counts, head, say
from bench.study.verdict import CHECKS, GIVEN_LENGTH, MIXED, SLOPES, WITHIN, WITHOUT_STARTS, WORLDS, verdict

_SHORT = {
    "strong": "strong",
    "weak": "weak",
    "sum": "sum of both",
    WITHIN: "gap, one strong model",
    "mixed-strong": "strong, mixed model",
    "mixed-weak": "weak, mixed model",
    "mixed-sum": "sum, mixed model",
    HEADLINE: "ρ, as declared",
    WITHOUT_STARTS: "ρ without starts",
    GIVEN_LENGTH: "ρ given length preference",
}


@matplotlib.rc_context(STYLE)
def decomposition(table: pd.DataFrame, correlation: pd.DataFrame) -> Figure:
    """The slopes of the strong and of the weak model with the worlds that they could come from, and the checks.

    Args:
        table: DECOMPOSITION.
        correlation: CORRELATION for the same reward and performance; the last panel has its headline rho too.
    """
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    plane, slopes, rhos = figure.subplots(1, 3, width_ratios=[1.15, 1, 1])
    rows = table.set_index("estimator")
    if table.empty:
        say(plane, "There is nothing to take apart.")
    else:
        _plane(plane, rows)
        figure.legend(*plane.get_legend_handles_labels(), loc="outside lower left", ncols=5)
    declared = correlation[(correlation["estimator"] == HEADLINE) & (correlation["family"] == ALL)]
    declared = declared[declared["level"] == "overall"].set_index("estimator")
    _estimates(slopes, rows.reindex([*SLOPES, WITHIN, *MIXED]))
    slopes.set_xlabel("Points of accuracy per unit of performance")
    checks = pd.concat([frame for frame in (declared, rows) if len(frame)]) if len(declared) else rows
    _estimates(rhos, checks.reindex([HEADLINE, *CHECKS[1:]]))
    rhos.set(xlabel="Spearman's ρ of gap and accuracy", xlim=(-1.05, 1.05))
    n = table.iloc[0][["n_models", "n_pairs", "n_prompts"]].astype(int) if len(table) else [0, 0, 0]
    bars = "bars: 95% intervals; ● rejects 0 at 5% after Holm's adjustment, ○ does not; mixed model: not adjusted"
    words = textwrap.fill(f"Is it the gap? {verdict(table).words}", 125)
    head(figure, words, f"{counts(*n)}; inside families; {bars}")
    return figure


def _plane(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the two slopes, and the line of each world."""
    strong, weak = rows.loc["strong"], rows.loc["weak"]
    ends = [abs(value) for row in (strong, weak) for value in (row["estimate"], row["low"], row["high"])]
    most = 1.35 * np.nanmax([*ends, 1e-9])
    for (x, y), line, words in (
        ((most, 0.0), "-", WORLDS["only-strong"]),
        ((0.0, -most), "--", WORLDS["only-weak"]),
        ((most, -most), "-.", WORLDS["difference"]),
    ):
        axes.plot([0, x], [0, y], color=INK, linewidth=1.2, linestyle=line, label=f"{words} counts")
    axes.plot([0], [0], marker="s", color=INK, markersize=6, linestyle="none", label="neither counts")
    axes.errorbar(
        [strong["estimate"]],
        [weak["estimate"]],
        xerr=_reach(strong),
        yerr=_reach(weak),
        marker="o",
        markersize=7,
        color=INK,
        markerfacecolor="white",
        capsize=3,
        zorder=5,
        label="this study, 95% intervals",
    )
    # a slope against the claim's direction needs more room on its side
    left, up = np.fmin(-0.45 * most, 1.1 * strong["low"]), np.fmax(0.45 * most, 1.1 * weak["high"])
    axes.set(xlim=(left, most), ylim=(-most, up))
    axes.set(xlabel="Strong model's slope", ylabel="Weak model's slope")
    axes.set_title("Slopes and worlds")


def _estimates(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw estimates with their intervals from top to bottom. A filled mark rejects 0."""
    shown = rows[rows["estimate"].notna()]
    for place, (name, row) in enumerate(shown.iterrows()):
        p_value = row["p_value"] if pd.isna(row["p_holm"]) else row["p_holm"]
        axes.errorbar(
            [row["estimate"]],
            [place],
            xerr=_reach(row),
            marker="D" if name in MIXED else "o",
            color=INK,
            markerfacecolor=INK if p_value <= 0.05 else "white",
            capsize=2,
        )
    axes.axvline(0, color=FAINT, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(shown)), [_SHORT[name] for name in shown.index])
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)


def _reach(row: pd.Series) -> np.ndarray:
    """How far the interval reaches below and above the estimate, (2, 1); 0 where there is none."""
    ends = [row["estimate"] - row["low"], row["high"] - row["estimate"]]
    return np.maximum(np.nan_to_num(np.array(ends, dtype=float)), 0)[:, None]
