"""Draws how sure a pair's labels are: confidence against accuracy, and accuracy of the surest labels."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.figures.style import CHANCE, INK, STYLE, Look, counts, head, looks, n_models, percent, say

_TOO_FEW = "There are too few labelled rows for a calibration."


@matplotlib.rc_context(STYLE)
def reliability(bins: pd.DataFrame, calibration: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Accuracy by confidence, one panel a pair and one point a bin.

    Confidences are right where the points lie on the dotted line.

    Args:
        bins: RELIABILITY of at most a few pairs.
        calibration: CALIBRATION of the same pairs.
        pairs: The leaderboard of these pairs; other pairs may be included.
    """
    known = calibration[calibration["error"].notna()]
    n = max(len(known), 1)
    figure = Figure(figsize=(max(6.0, 3.4 * n), 5.2 if n == 1 else 4.4), layout="constrained")
    panels = figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0]
    for axes, row, style in zip(panels, known.itertuples(), looks(known["pair_id"]).values(), strict=False):
        _bins(axes, bins[bins["pair_id"] == row.pair_id], style)
        error = f"calibration error {row.error:.1%} [{row.error_low:.1%}, {row.error_high:.1%}]"
        axes.set_title("\n".join([*str(row.pair_id).replace("--", "\n--").splitlines(), error]))
    for axes in panels:
        axes.axline((0, 0), slope=1, color=INK, linestyle=":", linewidth=1)
        axes.set_aspect("equal")
        percent(axes.xaxis)
    ends = [0.0, 1.0]
    if len(known):
        values = bins[["confidence", "low", "high"]]
        ends = [np.floor(10 * values.min().min()) / 10, np.ceil(10 * values.max().max()) / 10]
    else:
        say(panels[0], _TOO_FEW)
    panels[0].set(xlim=(ends[0] - 0.02, ends[1] + 0.02), ylim=(ends[0] - 0.02, ends[1] + 0.02))
    panels[0].set_ylabel("Accuracy of the labels (95% interval)")
    percent(panels[0].yaxis)
    figure.supxlabel("Confidence: probability that the label is right, from other prompts' labels", fontsize=8)
    title = f"How sure is a label?  reward: {calibration['reward'].iloc[0]}"
    head(figure, title, f"{_counted(calibration, pairs)}; dotted: confidence and accuracy are equal")
    return figure


def _bins(axes: Axes, rows: pd.DataFrame, style: Look) -> None:
    """Draw the bins of one pair."""
    axes.errorbar(
        rows["confidence"],
        rows["accuracy"],
        yerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
        color=style["colour"],
        marker=style["marker"],
        markerfacecolor=style["face"],
        linestyle="none",
        markersize=5,
        capsize=2,
    )


@matplotlib.rc_context(STYLE)
def coverage(rows: pd.DataFrame, calibration: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Accuracy of the labels with the largest margins or confidences, by the share of labels that are kept.

    The lines differ where a larger margin is not surer.

    Args:
        rows: COVERAGE of at most a few pairs.
        calibration: CALIBRATION of the same pairs.
        pairs: The leaderboard of these pairs; other pairs may be included.
    """
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=1)
    for pair_id, style in looks(pd.unique(rows["pair_id"])).items():
        _kept(axes, rows[rows["pair_id"] == pair_id].sort_values("coverage"), style)
    axes.set_ylim(-0.02, 1.02)
    percent(axes.yaxis)
    if len(rows):
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
    else:
        say(axes, _TOO_FEW)
    axes.set_xlabel("Share of the labels kept: those with the largest margins, or confidences")
    axes.set_ylabel("Accuracy of the labels kept")
    axes.set_xlim(0, 1.02)
    percent(axes.xaxis)
    note = f"{_counted(calibration, pairs)}; dotted: chance; band: 95% interval by margin"
    head(figure, f"Are sure labels better?  reward: {calibration['reward'].iloc[0]}", note)
    return figure


def _kept(axes: Axes, rows: pd.DataFrame, style: Look) -> None:
    """Draw one pair's accuracy by margin, with marks and a band, and by confidence, as a thin line without."""
    pair_id = rows["pair_id"].iloc[0]
    by_margin, by_confidence = (rows[rows["by"] == each] for each in ("margin", "confidence"))
    shares, low, high = (by_margin[name].astype(float) for name in ("coverage", "low", "high"))
    axes.fill_between(shares, low, high, color=style["colour"], alpha=0.12, linewidth=0)
    axes.plot(
        shares,
        by_margin["accuracy"],
        color=style["colour"],
        marker=style["marker"],
        markerfacecolor=style["face"],
        linestyle=style["line"],
        markersize=4,
        label=f"{pair_id}: largest margins",
    )
    if len(by_confidence):
        axes.plot(
            by_confidence["coverage"],
            by_confidence["accuracy"],
            color=style["colour"],
            linestyle=style["line"],
            linewidth=0.9,
            label=f"{pair_id}: largest confidences",
        )


def _counted(calibration: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The counts that both figures show."""
    shown = list(calibration["pair_id"])
    n_prompts = int(calibration["n_examples"].max())
    return counts(n_models(pairs[pairs["pair_id"].isin(shown)]), len(shown), n_prompts)
