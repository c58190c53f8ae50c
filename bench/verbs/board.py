"""The verb `board`: one table of pairs over all benchmarks whose results are stored."""

from pathlib import Path

import pandas as pd

from bench.files import write_csv, write_whole
from bench.schema import PreconditionError
from bench.store.folder import Store
from bench.study.tables import markdown, overview_table


def check_stored(store: Store) -> None:
    """Check that a results folder has the tables of a pair or study.

    Raises:
        PreconditionError: It has none.
    """
    if not any(store.root.glob("*/*/leaderboard.csv")):
        raise PreconditionError(
            f"{store.root}: has no stored results; `drsow run` writes them, or name another folder with --results"
        )


def write_board(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write board.csv and board.md into a folder; returns their paths."""
    table = overview_table(frame)
    write_csv(folder / "board.csv", frame, tuple(frame.columns))
    write_whole(folder / "board.md", markdown(table).encode())
    return [folder / "board.csv", folder / "board.md"]
