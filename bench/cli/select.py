"""From options to what the stages take, and from frames to what is printed."""

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.cli.options import Format, TemplateMode
from bench.data import load_data
from bench.files import csv_bytes
from bench.registry import Registry, load_registry
from bench.schema import Dataset, Example, UsageError
from bench.study.leaderboard import leader_note
from bench.subject import Subject

if TYPE_CHECKING:
    from bench.study.board import Written


def printable(text: str) -> str:
    """A text on one line, without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def select(
    registry: Path | None, pair: list[str] | None, study: str | None, template: TemplateMode
) -> tuple[Registry, list]:
    """The registry and what to run of it: each pair a subject of its own, a study one subject."""
    known = load_registry(registry)
    native = template is TemplateMode.native
    if bool(pair) == bool(study):
        raise UsageError("name what to run: --pair PAIR (once or more) or --study STUDY")
    if study:
        entry = known.study(study)
        axes = tuple(dict.fromkeys(axis for axis in (entry.performance, entry.second_performance) if axis))
        return known, [Subject(study, tuple(known.study_pairs(entry)), native, axes)]
    return known, [Subject(name, (known.pair(name),), native) for name in dict.fromkeys(pair)]


def load(data: str, limit: int | None) -> Dataset:
    """The data set."""
    return load_data(data, limit_per_subset=limit)


def one_example(dataset: Dataset, example_id: str) -> Example:
    """The example of that id."""
    known = {example.example_id: example for example in dataset.examples}
    if example_id not in known:
        close = difflib.get_close_matches(example_id, known, n=1)
        raise UsageError(
            f"{dataset.data_id}: no row {example_id!r}" + (f", did you mean {close[0]!r}?" if close else "")
        )
    return known[example_id]


def emit(frame: pd.DataFrame, output: Format) -> None:
    """Print a frame as the user asked."""
    if output is Format.csv:
        sys.stdout.write(csv_bytes(frame).decode())
    elif output is Format.json:
        # Not to_json, which rounds to ten places.
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        print(frame.astype(object).where(frame.notna(), "").to_string(index=False))


def show_boards(written: Sequence["Written"], *, as_json: bool) -> None:
    """Print leaderboards, and where they lie if they could be written; as JSON they are one list."""
    if as_json and written:
        emit(pd.concat([each.board for each in written], ignore_index=True), Format.json)
        return
    for each in written:
        print(board_text(each.board))
        if note := leader_note(each.board):
            print(f"\n{note}")
        if not each.problem:
            print(f"\n{each.folder / 'leaderboard.csv'}")


def board_text(board: pd.DataFrame) -> str:
    """A leaderboard for a terminal: percent with intervals, best first."""
    shares = ["chat", "chat_hard", "safety", "reasoning"]
    table = pd.DataFrame({"rank": [_rank(*ranks) for ranks in zip(*(board[c] for c in RANKS), strict=True)]})
    table["pair"] = board["pair_id"]
    table["score % [95% interval]"] = [
        f"{score:.1%} [{low:.1%}, {high:.1%}]" if low == low else f"{score:.1%} [too few rows for an interval]"
        for score, low, high in board[["score", "score_low", "score_high"]].values
    ]
    for name in shares:
        table[name.replace("_", " ")] = [f"{value:.1%}" if value == value else "-" for value in board[name]]
    table["gap"] = [f"{gap:.1f}" if gap == gap else "-" for gap in board["gap_points"]]
    for name in ("n_examples", "n_excluded", "reward", "dtype"):
        table[name] = board[name]
    return table.to_string(index=False)


RANKS = ("rank", "rank_low", "rank_high")


def _rank(rank: float, low: float, high: float) -> str:
    return "not ranked" if rank != rank else f"{rank:.0f} ({low:.0f} to {high:.0f})"
