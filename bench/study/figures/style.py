"""Defines the look of all figures, and encodes a figure as the same bytes every time.

Colours are Okabe and Ito's (2008), which colour-blind readers can distinguish. Each colour has its own marker and line,
so that figures are readable in grey. Proportions become percent only here.
"""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import LineStyleType

from bench.contrast import model_of

if TYPE_CHECKING:
    # matplotlib 3.9, the oldest that drsow allows, does not have it yet
    from matplotlib.typing import RcKeyType

CHANCE = 0.5

INK, FAINT, GRID = "#1a1a1a", "#767676", "#e3e3e3"

STYLE: "dict[RcKeyType, str | float | bool]" = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    # names of models and subsets are plain text, even if they contain a dollar sign
    "text.parse_math": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9.5,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
# nine markers and lines to eight colours, so that looks repeat after 72 names
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<")
LINES: tuple[LineStyleType, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (1, 3)),
    (0, (8, 2)),
    (0, (3, 5)),
    (0, (8, 1, 1, 1)),
)

_HANDLE, _LETTER = 0.4, 0.0625
"""Width of a legend's mark with the space around it, and of a letter of its labels on average, inches."""

FORMATS = ("pdf", "png", "svg")
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"metadata": {"Creator": None, "Date": None}},
}
"""Options of `Figure.savefig` for each format. They keep dates and versions out of the file."""

_SAVE_STYLE: "dict[RcKeyType, str | int]" = {"svg.hashsalt": "drsow", "svg.fonttype": "path", "pdf.fonttype": 42}


def encode(figure: Figure, file_format: str) -> bytes:
    """Encode a figure as a file. The same figure gives the same bytes. A letter that its font lacks is an empty box.

    Args:
        figure: Result of one of the figure functions.
        file_format: One of `FORMATS`.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SAVE_STYLE), any_letter():
        _settle(figure)
        figure.savefig(buffer, format=file_format, **SAVE_OPTIONS[file_format])
    return buffer.getvalue()


@contextlib.contextmanager
def any_letter() -> Iterator[None]:
    """Silence Matplotlib's warning of each letter that the font lacks; it warns whenever it measures or draws one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font")
        yield


def _settle(figure: Figure) -> None:
    """Round the positions of a figure's panels: the layout solver reproduces them only up to the last bit."""
    layout = figure.get_layout_engine()
    if not isinstance(layout, ConstrainedLayoutEngine):
        return
    # the second execution lays out the ticks that the first one chose
    for _ in range(2):
        layout.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 6))


class Look(TypedDict):
    """How the marks of one name are drawn."""

    colour: str
    marker: str
    face: str
    """Colour of the marker's filling."""
    edge: str
    """Colour of the marker's outline."""
    line: LineStyleType


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each name a look, in the given order.

    Every second marker is open: in grey, shape and filling distinguish more than the colours.
    """
    return {
        name: {
            "colour": COLOURS[position % len(COLOURS)],
            "marker": MARKERS[position % len(MARKERS)],
            "face": "white" if position % 2 else COLOURS[position % len(COLOURS)],
            "edge": COLOURS[position % len(COLOURS)] if position % 2 else "white",
            "line": LINES[position % len(LINES)],
        }
        for position, name in enumerate(names)
    }


def head(figure: Figure, title: str, *notes: str) -> None:
    """Write a title above the figure, and the notes in lines below the title. Long lines are broken."""
    figure.suptitle("\n".join([title, *notes]), x=0.01, ha="left", color=INK, wrap=True)


def n_columns(figure: Figure, labels: Sequence[str]) -> int:
    """The columns of a figure's legend, at most four, so that its labels stay inside the figure."""
    widest = max(map(len, labels), default=0)
    return int(np.clip(figure.get_figwidth() // (_HANDLE + _LETTER * widest), 1, 4))


def say(axes: Axes, words: str) -> None:
    """Write into a panel why it cannot show its data."""
    axes.text(0.5, 0.7, words, transform=axes.transAxes, ha="center", va="center", color=FAINT, wrap=True)
    axes.grid(False)


def counts(n_models: int, n_pairs: int, n_prompts: int) -> str:
    """The counts that every figure shows."""
    parts = [(n_models, "model"), (n_pairs, "pair"), (n_prompts, "prompt")]
    return ", ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in parts)


def n_models(pairs: pd.DataFrame) -> int:
    """Number of models in the columns `strong` and `weak`."""
    return pd.concat([pairs["strong"], pairs["weak"]]).map(model_of).nunique()


def named_families(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs, with a name for the missing family that a legend can show."""
    return pairs.assign(family=pairs["family"].astype(object).fillna("no family").replace("", "no family"))


def percent(axis: Axis) -> None:
    """Show the proportions on an axis as percent, with as many decimals as its ticks need."""
    # rounding removes the error of binary fractions
    axis.set_major_formatter(lambda fraction, _: f"{round(100 * fraction, 6):g}%")
