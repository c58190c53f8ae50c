"""A file or a hub data set -> rows as they are, each knowing how an error names it."""

import codecs
import csv
import difflib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bench.schema import PreconditionError, UsageError


class Row(NamedTuple):
    """One row of a source, unchecked."""

    where: str
    """"<source>, line 3" (from 1), as errors name it; "row" where the source has no lines."""
    number: int
    """From 0."""
    fields: dict[str, object]

    def error(self, field: str, problem: str) -> UsageError:
        """What to raise for a field of this row."""
        return UsageError(f"{self.where}, field {field}: {problem}")


def file_rows(name: str) -> Iterator[Row]:
    """The rows of a .jsonl, .parquet or .csv file.

    Raises:
        UsageError: No such file, another kind of file, or one that is broken, with the line.
    """
    path = Path(name)
    if path.suffix.lower() not in READERS:
        raise UsageError(f"{name}: only {', '.join(READERS)} files are read")
    if not path.is_file():
        raise UsageError(f"{name}: no such file{_near(path)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error
    return READERS[path.suffix.lower()](name, data.removeprefix(codecs.BOM_UTF8))


def _near(path: Path) -> str:
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [name for name in siblings if Path(name).suffix in READERS], n=1)
    return f", did you mean {str(path.with_name(close[0]))!r}?" if close else ""


def _jsonl_rows(name: str, data: bytes) -> Iterator[Row]:
    number = 0
    # Not splitlines: a JSON text may hold U+2028 as it is.
    for line, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        where = f"{name}, line {line}"
        try:
            fields = json.loads(text.decode())
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: not UTF-8 text") from error
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}: broken JSON: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: broken JSON: {error}") from error
        if not isinstance(fields, dict):
            raise UsageError(f"{where}: not a JSON object")
        yield Row(where, number, fields)
        number += 1


def _parquet_rows(name: str, data: bytes) -> Iterator[Row]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{name}: broken parquet: {str(error).splitlines()[0]}") from error
    for number, fields in enumerate(table.to_pylist()):
        yield Row(f"{name}, row {number + 1}", number, fields)


def _csv_rows(name: str, data: bytes) -> Iterator[Row]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{name}, line {line}: not UTF-8 text") from error
    header, number = None, 0
    for line, cells in _csv_cells(name, text):
        if header is None:
            header = cells
            if len(set(header)) < len(header):
                raise UsageError(f"{name}, line {line}: two columns have one name")
        elif len(cells) != len(header):
            raise UsageError(f"{name}, line {line}: {len(cells)} cells, but the header has {len(header)}")
        else:
            fields = {column: _csv_value(cell) for column, cell in zip(header, cells, strict=True)}
            yield Row(f"{name}, line {line}", number, fields)
            number += 1


def _csv_cells(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row starts, from 1; its cells), blank lines left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, limit = 1, csv.field_size_limit(sys.maxsize)
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{name}, line {line}: broken CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _csv_value(cell: str) -> object:
    """A cell's text, or the messages that it spells as JSON; any other list is a text."""
    if not cell.startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    messages = bool(value) and all(isinstance(turn, dict) and set(turn) == {"role", "content"} for turn in value)
    return value if messages else cell


READERS = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}


def hub_rows(repository: str, split: str | None) -> Iterator[Row]:
    """The rows of a data set of the hub, from its cache when offline.

    Args:
        repository: "org/name".
        split: None for the only one.

    Raises:
        UsageError: No such split, or several to choose from.
        PreconditionError: It is not in the cache and the hub did not give it.
    """
    import datasets  # Slow to import, and most data sets are files.

    try:
        found = datasets.load_dataset(repository, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if reason.startswith("Unknown split"):
            raise UsageError(f"{repository}: {reason}") from error
        call = f"load_dataset({repository!r}" + (f", split={split!r})" if split else ")")
        command = f'HF_HUB_OFFLINE=0 python -c "from datasets import load_dataset; {call}"'
        raise PreconditionError(f"{repository}: {reason}; with access to the hub, fetch it with: {command}") from error
    if isinstance(found, datasets.DatasetDict):
        if len(found) != 1:
            raise UsageError(f"{repository}: which split? {', '.join(f'{repository}:{name}' for name in found)}")
        (found,) = found.values()
    for number, fields in enumerate(found):
        yield Row(f"{repository}, row {number + 1}", number, fields)
