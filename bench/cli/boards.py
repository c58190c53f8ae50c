"""Prints leaderboards: the benchmark's score, or the plain accuracy if the rows have no such score."""

from collections.abc import Sequence

import pandas as pd

from bench import units
from bench.cli.columns import COLUMNS, Column
from bench.cli.options import Format
from bench.cli.printed import emit
from bench.cli.tables import with_gap
from bench.cli.views import VIEWS, View
from bench.faults import printable, warn
from bench.study.benchmarks import column, of_columns
from bench.study.board import Written
from bench.study.leaderboard import leader_note
from bench.study.overview import data_columns

NO_SCORE = "No score: the rows lack some subsets of {}."
PLAIN_SHARE = " Accuracy: plain share of right rows; accuracy.csv has the interval of each subset."


def show_boards(written: Sequence[Written], *, as_json: bool) -> None:
    """Print leaderboards, each with the path of its file if it was written. As JSON they are one list.

    Args:
        written: The leaderboard of each subject.
        as_json: Whether to print JSON.
    """
    if as_json and written:
        for each in written:
            if each.left_out:
                warn(f"{each.folder.parent.name}: {each.left_out}")
        emit(pd.concat([each.board for each in written], ignore_index=True), Format.json)
        return
    for each in written:
        emit(*board_view(each.board, each.accuracy, each.gap))
        if each.left_out:
            print(f"\n{printable(each.left_out)}")
        if note := leader_note(each.board):
            print(f"\n{note}")
        if each.alone:
            print(f"\n{printable(each.alone)}")
        if each.warning:
            print(f"\n{printable(each.warning)}")
        if each.verdict:
            print(f"\nIs it the gap? {printable(each.verdict)}")
        if not each.problem:
            print(f"\n{each.folder / 'leaderboard.csv'}")


def board_view(board: pd.DataFrame, accuracy: pd.DataFrame, gap: str) -> tuple[pd.DataFrame, Format, View]:
    """The frame, format and view with which a leaderboard is printed.

    Args:
        board: The leaderboard of one results folder.
        accuracy: ACCURACY of the same folder.
        gap: Name of the performance that its gaps are measured in.
    """
    benchmark = of_columns(board.columns)
    view = with_gap(leaderboard_view(board), board, gap)
    if board["score"].isna().all():
        board = board.drop(columns=["score", "score_low", "score_high"])
        note = NO_SCORE.format(benchmark.title)
        if _subsets_are_all(accuracy):
            board = board.merge(_plain(accuracy), on=["pair_id", "reward"], how="left", validate="one_to_one")
            note += PLAIN_SHARE
        return board, Format.table, _noted(view, note)
    if not benchmark.columns:
        # If the rows have no sections, their score is the plain share of right rows.
        score = COLUMNS["score"]._replace(heading=COLUMNS["plain_accuracy"].heading)
        view = view._replace(own={**view.own, "score": score})
    return board, Format.table, view


def leaderboard_view(board: pd.DataFrame) -> View:
    """The view of a leaderboard, with the benchmark's own columns after the score; styles, the hardest first."""
    benchmark, view = of_columns(board.columns), VIEWS["leaderboard"]
    place = view.columns.index("score") + 1
    parts = tuple(column(name) for name in (*reversed(benchmark.styles), *benchmark.sections))
    return view._replace(columns=(*view.columns[:place], *parts, *view.columns[place:]))


def overview_view(frame: pd.DataFrame) -> View:
    """The view of the pairs over all benchmarks, with a column for each benchmark."""
    view, names = VIEWS["board"], data_columns(frame)
    own = {
        name: Column(f"{name.replace('_', ' ')} %", units.percent, limits=((f"{name}_low", f"{name}_high"),))
        for name in names
    }
    return view._replace(
        columns=(*view.columns, *names, "source"),
        n_important=len(view.columns) + len(names),
        hidden=(*view.hidden, *(f"{name}_rank" for name in names)),
        own={**view.own, **own},
    )


def _subsets_are_all(accuracy: pd.DataFrame) -> bool:
    """Whether every row is in one subset of the table."""
    n = accuracy.assign(n=accuracy["n_examples"] + accuracy["n_excluded"]).groupby("level")["n"].sum()
    return "subset" in n.index and n["subset"] == n["overall"]


def _plain(accuracy: pd.DataFrame) -> pd.DataFrame:
    """pair_id, reward, and the share of right rows over all subsets.

    The interval is that of the only subset. Rows of several subsets may share a problem, which this table does not
    know, so their share has none.
    """
    subsets = accuracy[accuracy["level"] == "subset"]
    subsets = subsets.assign(n_right=(subsets["accuracy"] * subsets["n_examples"]).round())
    groups = subsets.groupby(["pair_id", "reward"], sort=False)
    whole = groups.agg({"n_right": "sum", "n_examples": "sum", "low": "first", "high": "first"}).reset_index()
    alone = (groups.size() == 1).to_numpy()
    share = whole["n_right"] / whole["n_examples"].where(whole["n_examples"] > 0)
    limits = {f"plain_accuracy_{end}": whole[end].where(alone) for end in ("low", "high")}
    return whole[["pair_id", "reward"]].assign(plain_accuracy=share, **limits)


def _noted(view: View, note: str) -> View:
    return view._replace(note=f"{note} {view.note}")
