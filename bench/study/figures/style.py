"""How every figure looks, and how it becomes the same bytes each time.

Colours are Okabe and Ito's (2008), told apart by the colour-blind; each goes with a marker and a hatch of its own,
so that grey prints read the same. Fractions become percent here and nowhere before.
"""

import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    # names of models and subsets are text, also when they hold a dollar sign
    "text.parse_math": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "hatch.linewidth": 0.6,
}

CHANCE = 0.5

INK, FAINT = "#1a1a1a", "#767676"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----")
LINES = ("-", "--", "-.", ":")

FORMATS = ("pdf", "png", "svg")
SAVE_OPTIONS = {
    "pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"metadata": {"Creator": None, "Date": None}},
}
"""What `Figure.savefig` is told for each format: neither a date nor a version goes into the file."""

_SAVE_STYLE = {"svg.hashsalt": "drsow", "svg.fonttype": "path", "pdf.fonttype": 42}


def encode(figure: Figure, file_format: str) -> bytes:
    """The file that shows a figure; the same figure gives the same bytes.

    Args:
        figure: What one of the figure functions gave.
        file_format: One of `FORMATS`.
    """
    _settle(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SAVE_STYLE):
        figure.savefig(buffer, format=file_format, **SAVE_OPTIONS[file_format])
    return buffer.getvalue()


def _settle(figure: Figure) -> None:
    """Ends the layout on rounded positions: its solver gives the same ones only up to the last bit."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 6))


def looks(names: pd.Series) -> dict[str, dict[str, str]]:
    """Colour, marker, hatch and line of each distinct name, in the names' alphabetical order."""
    return {
        name: {
            "colour": COLOURS[position % len(COLOURS)],
            "marker": MARKERS[position % len(MARKERS)],
            "hatch": HATCHES[position % len(HATCHES)],
            "line": LINES[position % len(LINES)],
        }
        for position, name in enumerate(sorted(pd.unique(names)))
    }


def head(figure: Figure, title: str, *notes: str) -> None:
    """Puts a title over the figure, and what was counted, in grey, under the title."""
    figure.suptitle("\n".join([title, *notes]), x=0.01, ha="left", color=INK)


def counts(n_models: int, n_pairs: int, n_prompts: int) -> str:
    """What every figure says of its data."""
    parts = [(n_models, "model"), (n_pairs, "pair"), (n_prompts, "prompt")]
    return ", ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in parts)


def percent(axis: matplotlib.axis.Axis, *, decimals: int | None = 0) -> None:
    """Shows the fractions on an axis as percent."""
    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=decimals))


def bare(axes: Axes) -> None:
    """Takes ticks, grid and spines off axes that hold cells or text."""
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
