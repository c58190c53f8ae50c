"""Draws the margins under one or a few pairs: their distribution, and whether they measure length."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.study.benchmarks import Benchmark, of_columns
from bench.study.figures.style import CHANCE, FAINT, INK, STYLE, Look, counts, head, looks, n_models, percent, say
from bench.study.rewards.known import UNITS

_N_BINS = 40
_SHOWN = (0.005, 0.995)
"""Quantiles of the margins at which the histogram begins and ends."""
_FEW = 100
"""Up to this number of margins, the histogram shows all of them, because each is a visible proportion."""

_MAX_OUTLINES = 3
_MAX_LINES = 6


@matplotlib.rc_context(STYLE)
def margin_distributions(margins: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Proportion of the prompts by margin, overall and by section. A pair judges prompts right of 0 rightly.

    Args:
        margins: MARGINS of at most three pairs under one reward.
        pairs: The leaderboard of these pairs; other pairs may be included. Its columns say what the sections are.
    """
    shown = sorted(pd.unique(margins["pair_id"]))
    if len(shown) > _MAX_OUTLINES:
        raise ValueError(f"{len(shown)} pairs in one figure of margins: show at most {_MAX_OUTLINES}")
    scored = margins.dropna(subset=["margin_nats"])
    parts = {"all": scored}
    benchmark = of_columns(pairs.columns)
    sections = scored["subset"].map(benchmark.section)
    parts |= {section: scored[sections == section] for section in benchmark.sections}
    parts = {name: rows for name, rows in parts.items() if len(rows) or name == "all"}
    figure = Figure(figsize=(7.5, 1.2 + 1.45 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False).ravel()
    low, high = _ends(scored["margin_nats"])
    styles = looks(shown)
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        _histograms(axes, rows, np.linspace(low, high, _N_BINS + 1).tolist(), styles)
        axes.set_title(f"{name}: {_prompts(rows)}")
    if scored.empty:
        say(panels[0], f"There is no margin to show: all {margins['example_id'].nunique():,} rows are left out.")
    reward = margins["reward"].iloc[0]
    panels[-1].set_xlabel(f"Margin, {' minus '.join(benchmark.sides)} ({UNITS[reward]})")
    figure.supylabel("Proportion of the prompts", fontsize=8)
    if len(shown) > 1 and len(scored):
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
    n_outside = int((~scored["margin_nats"].between(low, high)).sum())
    note = f"{_counted(pairs, shown, scored['example_id'].nunique())}; dotted: 0"
    note += f"; {n_outside:,} of {len(scored):,} margins lie outside"
    note += "; all margins are equal" if len(scored) > 1 and scored["margin_nats"].nunique() == 1 else ""
    head(figure, f"Margins of {shown[0] if len(shown) == 1 else 'the pairs'}; reward: {reward}", note)
    return figure


@matplotlib.rc_context(STYLE)
def length_accuracy(by_length: pd.DataFrame, pairs: pd.DataFrame) -> Figure:
    """Share of the prompts with a margin above 0, by how much longer the chosen response is.

    A judge of length alone rises from 0% to 100%, or falls from 100% to 0%.

    Args:
        by_length: Result of `metrics.accuracy_by_length` under one reward. Intervals are drawn for at most six pairs.
        pairs: The leaderboard of these pairs; other pairs may be included.
    """
    shown = sorted(pd.unique(by_length["pair_id"]))
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(CHANCE, color=INK, linestyle=":", linewidth=1)
    benchmark = of_columns(pairs.columns)
    if len(shown) > _MAX_LINES:
        _thin_lines(axes, by_length)
        axes.set_ylabel(f"{_share(benchmark)}, one line per pair")
    else:
        _lines(axes, by_length, looks(shown))
        axes.set_ylabel(f"{_share(benchmark)} (95% interval)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
    bins = by_length[["length_low_bytes", "length_high_bytes"]].drop_duplicates().sort_values("length_low_bytes")
    axes.set_xticks(range(len(bins)), [f"{low:,.0f} to\n{high:,.0f}" for low, high in bins.itertuples(index=False)])
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.set_ylim(-0.02, 1.02)
    percent(axes.yaxis)
    if by_length["accuracy"].isna().all():
        say(axes, "There is no accuracy to show: all rows are left out.")
    elif len(bins) < 2:
        axes.set_title("Too few rows, or too few different lengths, to compare accuracy by length.")
    axes.set_xlabel(" minus ".join(benchmark.lengths).capitalize())
    n_prompts = by_length.groupby("pair_id")["n_examples"].sum().max()
    head(
        figure,
        f"Does the reward only measure length?  reward: {by_length['reward'].iloc[0]}",
        f"{_counted(pairs, shown, n_prompts)}; dotted: chance",
    )
    return figure


def _share(benchmark: Benchmark) -> str:
    """What the share of margins above 0 is called: accuracy, unless that of the benchmark is another number."""
    words = " above ".join(benchmark.sides)
    return "Accuracy" if words == benchmark.judgement[0] else words.capitalize()


def _counted(pairs: pd.DataFrame, shown: list[str], n_prompts: int) -> str:
    """The counts that both figures show."""
    return counts(n_models(pairs[pairs["pair_id"].isin(shown)]), len(shown), n_prompts)


def _prompts(rows: pd.DataFrame) -> str:
    """The number of prompts, in words."""
    n_prompts = rows["example_id"].nunique()
    return f"{n_prompts:,} prompt{'' if n_prompts == 1 else 's'}"


def _ends(values: pd.Series) -> tuple[float, float]:
    """Both ends of the histograms. Where all margins are equal the range surrounds them; without a margin it surrounds
    0.
    """
    low, high = values.quantile(list(_SHOWN) if len(values) > _FEW else [0, 1]).fillna(0.0)
    if high > low:
        return low, high
    half = max(1.0, abs(low))
    return low - half, low + half


def _histograms(axes: Axes, rows: pd.DataFrame, edges: list[float], styles: dict[str, Look]) -> None:
    """Draw one outline per pair, with equal weight for each prompt. A single pair is filled."""
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


def _lines(axes: Axes, by_length: pd.DataFrame, styles: dict[str, Look]) -> None:
    """Draw one line per pair with its intervals. The pairs are shifted sideways, so that intervals do not overlap."""
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
    """Draw one faint line per pair; the reader should see the bundle."""
    for _, rows in by_length.groupby("pair_id"):
        shares = rows.sort_values("length_low_bytes")["accuracy"]
        # A line through a single point is invisible.
        marker = "_" if len(shares) == 1 else None
        axes.plot(range(len(shares)), shares, color=FAINT, alpha=0.3, linewidth=0.7, marker=marker)
