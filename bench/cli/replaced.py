"""Tells whether a file at --out is a table of the kind that would replace it."""

import contextlib
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path


def list_with(out: Path, keys: Sequence[str]) -> Callable[[str], bool]:
    """For `files.check_ours`: tells whether a .json file is a list of objects with these keys in this order."""

    def ours(line: str) -> bool:
        with contextlib.suppress(OSError, TypeError, ValueError):
            rows = json.loads(out.read_text(encoding="utf-8"))
            return isinstance(rows, list) and all(isinstance(row, dict) and list(row) == list(keys) for row in rows)
        return False

    return ours


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
