"""Tells whether a file at --out is a table of the kind that would replace it."""

import contextlib
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path


def with_columns(out: Path, columns: Sequence[str]) -> Callable[[str], bool]:
    """For `files.check_ours`: tells whether a .csv, .jsonl or .parquet file has exactly these columns."""

    def ours(line: str) -> bool:
        with contextlib.suppress(OSError, TypeError, ValueError, csv.Error):
            if line.startswith("PAR1"):
                import pyarrow.parquet as pq

                return bool(pq.read_schema(out).names == list(columns))
            cells = json.loads(line) if line.startswith("{") else next(csv.reader([line]))
            return list(cells) == list(columns)
        return False

    return ours
