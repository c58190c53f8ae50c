"""Figures of the margins under one or a few pairs: how wide they are, and whether they measure length."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.schema import SECTIONS
from bench.study.figures.style import CHANCE, FAINT, INK, STYLE, counts, head, looks, n_models, percent, say

_N_BINS = 40
_SHOWN = (0.005, 0.995)
_FEW = 100
"""Of so many margins none is left outside: each is a visible share."""

_MAX_OUTLINES = 3
_MAX_LINES = 6
_UNITS = {"sum": "nats", "mean": "nats a token", "per-byte": "nats a byte"}


@matplotlib.rc_context(STYLE)
def margin_distributions(margins: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Share of the prompts by margin, overall and by section; what lies right of 0 is judged rightly.

    Args:
        margins: MARGINS of at most three pairs under one reward.
        pairs: pair_id, strong, weak of those pairs and perhaps others.
    """
    shown = sorted(pd.unique(margins["pair_id"]))
    if len(shown) > _MAX_OUTLINES:
        raise ValueError(f"{len(shown)} pairs in one figure of margins: at most {_MAX_OUTLINES} can be told apart")
    scored = margins.dropna(subset=["margin_nats"])
    parts = {"all": scored}
    parts |= {section: scored[scored["subset"].isin(subsets)] for section, subsets in SECTIONS.items()}
    parts = {name: rows for name, rows in parts.items() if len(rows) or name == "all"}
    figure = Figure(figsize=(7.5, 1.2 + 1.45 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False).ravel()
    ends = _ends(scored["margin_nats"])
    styles = looks(shown)
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        _histograms(axes, rows, np.linspace(*ends, _N_BINS + 1), styles)
        axes.set_title(f"{name}: {_prompts(rows)}")
    if scored.empty:
        say(panels[0], f"No margin to show: all {margins['example_id'].nunique():,} rows are left out.")
    reward = margins["reward"].iloc[0]
    panels[-1].set_xlabel(f"Margin, chosen minus rejected ({_UNITS[reward]})")
    figure.supylabel("Share of the prompts", fontsize=8)
    if len(shown) > 1 and len(scored):
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    n_outside = int((~scored["margin_nats"].between(*ends)).sum())
    note = f"{_counted(pairs, shown, scored['example_id'].nunique())}; dotted: 0"
    note += f"; {n_outside:,} of {len(scored):,} margins lie outside"
    note += "; all margins are equal" if len(scored) > 1 and scored["margin_nats"].nunique() == 1 else ""
    head(figure, f"Margins of {shown[0] if len(shown) == 1 else 'the pairs'}; reward: {reward}", note)
    return figure


@matplotlib.rc_context(STYLE)
def length_accuracy(by_length: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Accuracy by how much longer the chosen response is: a judge of length alone climbs from 0% to 100%, or falls.

    Args:
        by_length: What `metrics.accuracy_by_length` gave under one reward; the intervals are drawn for six pairs or
            fewer.
        pairs: pair_id, strong, weak of those pairs and perhaps others.
    """
    shown = sorted(pd.unique(by_length["pair_id"]))
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=1)
    if len(shown) > _MAX_LINES:
        _thin_lines(axes, by_length)
        axes.set_ylabel("Accuracy, a line a pair")
    else:
        _lines(axes, by_length, looks(shown))
        axes.set_ylabel("Accuracy (95% interval)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
    bins = by_length[["length_low_bytes", "length_high_bytes"]].drop_duplicates().sort_values("length_low_bytes")
    axes.set_xticks(range(len(bins)), [f"{low:,.0f} to\n{high:,.0f}" for low, high in bins.itertuples(index=False)])
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.set_ylim(-0.02, 1.02)
    percent(axes.yaxis)
    if by_length["accuracy"].isna().all():
        say(axes, "No accuracy to show: all rows are left out.")
    elif len(bins) < 2:
        axes.set_title("Too few rows, or rows too alike in length, to compare accuracy by length.")
    axes.set_xlabel("Bytes of chosen minus bytes of rejected")
    n_prompts = by_length.groupby("pair_id")["n_examples"].sum().max()
    head(
        figure,
        f"Does the reward only measure length?  reward: {by_length['reward'].iloc[0]}",
        f"{_counted(pairs, shown, n_prompts)}; dotted: chance",
    )
    return figure


def _counted(pairs: pd.DataFrame, shown: list[str], n_prompts: int) -> str:
    """What both figures say of their data."""
    return counts(n_models(pairs[pairs["pair_id"].isin(shown)]), len(shown), n_prompts)


def _prompts(rows: pd.DataFrame) -> str:
    n_prompts = rows["example_id"].nunique()
    return f"{n_prompts:,} prompt{'' if n_prompts == 1 else 's'}"


def _ends(values: pd.Series) -> np.ndarray:
    """Where the histograms begin and end: around a value that all margins have, around 0 where there is none."""
    low, high = values.quantile(list(_SHOWN) if len(values) > _FEW else [0, 1]).fillna(0.0)
    return np.array([low, high]) if high > low else low + max(1.0, abs(low)) * np.array([-1.0, 1.0])


def _histograms(axes: Axes, rows: pd.DataFrame, edges: np.ndarray, styles: dict[str, dict]) -> None:
    """One outline a pair, each prompt weighing alike; a single pair is filled."""
    for pair_id, margins in rows.groupby("pair_id"):
        style = styles[pair_id]
        axes.hist(
            margins["margin_nats"],
            bins=edges,
            weights=np.full(len(margins), 1 / len(margins)),
            histtype="stepfilled" if len(styles) == 1 else "step",
            color=style["colour"],
            linestyle=style["line"],
            label=pair_id,
        )
    axes.axvline(0, color=INK, linestyle=":", linewidth=1)
    percent(axes.yaxis)


def _lines(axes: Axes, by_length: pd.DataFrame, styles: dict[str, dict]) -> None:
    """One line a pair with its intervals, side by side."""
    for position, (pair_id, style) in enumerate(styles.items()):
        rows = by_length[by_length["pair_id"] == pair_id].sort_values("length_low_bytes")
        places = np.arange(len(rows)) + 0.09 * (position - (len(styles) - 1) / 2)
        axes.errorbar(
            places,
            rows["accuracy"],
            yerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
            color=style["colour"],
            marker=style["marker"],
            markerfacecolor=style["face"],
            linestyle=style["line"],
            markersize=4.5,
            linewidth=1.1,
            capsize=2,
            label=pair_id,
        )


def _thin_lines(axes: Axes, by_length: pd.DataFrame) -> None:
    """One faint line a pair: their bundle is what is to be seen."""
    for _, rows in by_length.groupby("pair_id"):
        shares = rows.sort_values("length_low_bytes")["accuracy"]
        # A line through one point is not seen.
        marker = "_" if len(shares) == 1 else None
        axes.plot(range(len(shares)), shares, color=FAINT, alpha=0.3, linewidth=0.7, marker=marker)
