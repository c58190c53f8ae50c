"""Figures of the margins under one or a few pairs: how wide they are, and whether they measure length."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.schema import SECTIONS
from bench.study.figures.style import CHANCE, FAINT, INK, STYLE, counts, head, looks, n_models, percent

_N_BINS = 40
_SHOWN = (0.005, 0.995)
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
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    figure = Figure(figsize=(7.5, 1.2 + 1.45 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False).ravel()
    ends = scored["margin_nats"].quantile(list(_SHOWN)).to_numpy()
    styles = looks(shown)
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        _histograms(axes, rows, np.linspace(*ends, _N_BINS + 1), styles)
        axes.set_title(f"{name}: {rows['example_id'].nunique():,} prompts")
    reward = margins["reward"].iloc[0]
    panels[-1].set_xlabel(f"Margin, chosen minus rejected ({_UNITS[reward]})")
    figure.supylabel("Share of the prompts", fontsize=8)
    if len(shown) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    n_outside = int((~scored["margin_nats"].between(*ends)).sum())
    note = f"{_counted(pairs, shown, scored['example_id'].nunique())}; dotted: 0"
    note += f"; {n_outside:,} of {len(scored):,} margins lie outside"
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
    axes.set_ylim(-0.02, 1.02)
    percent(axes.yaxis)
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
        axes.plot(
            range(len(rows)), rows.sort_values("length_low_bytes")["accuracy"], color=FAINT, alpha=0.3, linewidth=0.7
        )
