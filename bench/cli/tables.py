"""Prints frames as tables for people: as wide as the terminal, or plain text with all columns elsewhere."""

import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.cli.columns import COLUMNS, GAP_OTHER, GAP_POINTS, Column, text
from bench.cli.views import View
from bench.contrast import model_of
from bench.faults import printable
from bench.units import MISSING, count, significant

if TYPE_CHECKING:
    import pandas as pd

SPACE = 2
"""Characters between two columns."""

FOLDED = 16
"""The narrowest width, in characters, to which a text column is folded to make room for others."""

BOX = "    \n    \n {0}  \n    \n    \n    \n    \n    \n"
"""A box in the text form that rich reads: a line below the headings, nothing else."""


class Shown(NamedTuple):
    """A column ready to be printed."""

    column: Column
    cells: list[str]
    natural: int
    """Characters that the column needs if no cell is folded."""
    least: int
    """The fewest characters that the column needs: a text can be folded, a number cannot."""


def with_gap(view: View, frame: "pd.DataFrame", name: str) -> View:
    """A view that prints gaps in the unit of a performance, or says that pairs of one model have none.

    Args:
        view: The verb's view.
        frame: The frame to print; its column gap_points holds the gaps.
        name: The performance's name in the registry, with its unit in brackets at the end.
    """
    if frame["gap_points"].isna().all():
        one_model = {"strong", "weak"} <= set(frame) and _one_model(frame).all()
        note = "gap: none, because strong and weak are one model that reads two texts." if one_model else ""
        return view._replace(note=f"{view.note} {note}".strip())
    in_points = gap_unit(name) == "points"
    note = f"gap: strong less weak in {name[:1].lower() + name[1:] if not in_points else name}."
    own = {**view.own, "gap_points": GAP_POINTS if in_points else GAP_OTHER}
    return view._replace(own=own, note=f"{view.note} {note}".strip())


def _one_model(frame: "pd.DataFrame") -> "pd.Series":
    """Whether the two sides of each pair are one model."""
    return frame["strong"].map(model_of) == frame["weak"].map(model_of)


def gap_unit(name: str) -> str:
    """The unit in brackets at the end of a performance's name, or the name itself if there is none."""
    found = re.search(r"\(([^()]+)\)$", name)
    return found[1] if found else name[:1].lower() + name[1:]


def print_frame(frame: "pd.DataFrame", view: View, *, title: str = "") -> None:
    """Print a frame as a table, with a note on n and the intervals below it.

    On a terminal the table fits the width of the terminal, or of COLUMNS. Elsewhere it is plain text with every column.
    """
    width = _width()
    every = list(_columns(frame, view, folded=width is not None))
    shown, left_out = _fitting(every, view.n_important, width)
    notes = [view.note]
    if left_out:
        names = ", ".join(each.column.heading for each in left_out)
        notes.append(f"Too narrow for: {names}; {view.more}.")
    _print(shown, _widths(shown, width), width, title, [note for note in notes if note])


def _columns(frame: "pd.DataFrame", view: View, *, folded: bool) -> Iterator[Shown]:
    """The columns of a frame, most important first. Columns without any value are left out."""
    named = [name for name in view.columns if name in frame]
    taken = set(view.hidden)
    for name in [*named, *(str(name) for name in frame if name not in named)]:
        if name in taken:
            continue
        column = view.own.get(name) or COLUMNS.get(name) or _default(frame[name], name)
        limits = next((both for both in column.limits if set(both) <= set(frame.columns) - taken), None)
        taken |= {name, *(limits or ())}
        cells = _cells(frame, name, column, limits)
        if set(cells) == {MISSING}:
            continue
        heading = max(map(_cell_len, column.heading.split() if folded else [column.heading]))
        natural = max([heading, *map(_cell_len, cells)])
        yield Shown(column, cells, natural, natural if column.right else min(natural, max(FOLDED, heading)))


def _default(values: "pd.Series", name: str) -> Column:
    """The look of a column that COLUMNS lacks, by the kind of its values."""
    heading = name.replace("_", " ")
    if values.dtype.kind in "iu":
        return Column(heading, count)
    return Column(heading, significant) if values.dtype.kind == "f" else text(heading)


def _cells(frame: "pd.DataFrame", name: str, column: Column, limits: tuple[str, str] | None) -> list[str]:
    values = [_cell(value, column) for value in frame[name]]
    if not limits:
        return values
    ends = [[_cell(value, column._replace(missing="")) for value in frame[end]] for end in limits]
    return [
        f"{value} [{low}, {high}]" if low and high and value != column.missing else value
        for value, low, high in zip(values, *ends, strict=True)
    ]


def _cell(value: object, column: Column) -> str:
    # NaN differs from itself; None and pandas' NA are compared by name.
    if value is None or value is not value or str(value) in ("<NA>", "nan", "NaT"):
        return column.missing
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return printable(value if isinstance(value, str) and column.right else column.write(value)) or column.missing


def _width() -> int | None:
    """The most characters of a line: COLUMNS if it is set, else the terminal's width; None without a terminal."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return os.get_terminal_size(sys.stdout.fileno()).columns or 80 if sys.stdout.isatty() else None


def _fitting(every: Sequence[Shown], n_important: int, width: int | None) -> tuple[list[Shown], list[Shown]]:
    """The columns that fit, in their order, and those that do not. The first column always fits."""
    if width is None:
        return list(every), []
    for number in range(1, len(every)):
        used = sum(each.least if number < n_important else each.natural for each in every[: number + 1])
        if used + SPACE * number > width:
            # Columns are in order of importance, so a later column does not replace one that does not fit.
            return list(every[:number]), list(every[number:])
    return list(every), []


def _widths(shown: Sequence[Shown], width: int | None) -> list[int]:
    """The width of each column. Spare characters go to folded texts, the first column first."""
    if width is None:
        return [each.natural for each in shown]
    widths = [each.least for each in shown]
    spare = width - sum(widths) - SPACE * (len(widths) - 1)
    for number, each in enumerate(shown):
        more = max(0, min(each.natural - widths[number], spare))
        widths[number] += more
        spare -= more
    return widths


def _print(shown: Sequence[Shown], widths: Sequence[int], width: int | None, title: str, notes: Sequence[str]) -> None:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lengths = [sum(widths) + SPACE * len(widths), *map(_cell_len, [title, *notes])]
    console = Console(file=sys.stdout, width=width or max(lengths), highlight=False)
    line = "-" if console.options.ascii_only else "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    box = Box(BOX.format(line if console.is_terminal else " "), ascii=True) if console.is_terminal else None
    # The box draws one character between two columns.
    table = Table(box=box, show_edge=False, padding=(0, 1 if box else SPACE, 0, 0), pad_edge=False)
    for each, size in zip(shown, widths, strict=True):
        head = Text("\n".join(fold(each.column.heading, size)))
        table.add_column(head, justify="right" if each.column.right else "left", width=size, vertical="top")
    for cells in zip(*(each.cells for each in shown), strict=True):
        table.add_row(*(Text("\n".join(fold(cell, size))) for cell, size in zip(cells, widths, strict=True)))
    with console.capture() as captured:
        if title:
            console.print(Text("\n".join(fold(title, width or len(title)))))
        console.print(table)
        for note in notes:
            console.print(Text("\n".join(fold(note, width or len(note)))), style="dim")
    said = captured.get()
    sys.stdout.write(said if console.is_terminal else "".join(f"{row.rstrip()}\n" for row in said.splitlines()))


def fold(words: str, width: int) -> list[str]:
    """A text in lines of at most `width` characters, broken at spaces and hyphens, or inside a word that is longer."""
    lines = [""]
    for piece in re.findall(r"-*[^\s-]+-*|-+|\s+", words):
        if _cell_len(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _cell_len(words: str) -> int:
    from rich.cells import cell_len

    return cell_len(words)
