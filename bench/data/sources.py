"""Reads the rows of a file or of a hub data set, unchecked. Each row knows its place, for error messages."""

import codecs
import contextlib
import csv
import difflib
import io
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bench.faults import first_line
from bench.schema import PreconditionError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected", "candidates", "subset", "id")
"""The columns that drsow reads. It never converts other columns, so their types may be ones that Python cannot read."""

JUDGE_BENCH = ("question", "response_A", "response_B", "label")
"""The columns by which drsow recognises JudgeBench. It also reads `pair_id` and `source` of such a file."""

PUBLISHED_COLUMNS = (
    "instruction", "completions", "generations", "ratings", "input", "rating", "system", "system_prompt",
    "chosen_response", "rejected_response", "score_chosen", "score_rejected", "chosen_rating", "rejected_rating",
    "chosen-rating", "rejected-rating", "rating_chosen", "rating_rejected", "chosen_avg_rating", "rejected_avg_rating",
    "response_1", "response_2", "preference_strength",
    "context", "response1", "response2", "overall_preference", "conversations",
    "conversation_a", "conversation_b", "winner", "response_a", "response_b",
    "winner_model_a", "winner_model_b", "winner_tie", "messages", "completion", "uid", "dataset",
    "tools", "chat_template_kwargs", "images", "image",
)  # fmt: skip
"""Columns of the formats in which preferences and questions are published (`formats`)."""

MORE_COLUMNS = ("right", "domain", "num_correct", *JUDGE_BENCH, "pair_id", "source", *PUBLISHED_COLUMNS)
"""Columns of benchmarks, of labelled candidates and of other formats. A name that several columns have is not read."""

_UNREADABLE = (ArithmeticError, LookupError, TypeError, ValueError, pa.ArrowException)
"""Exceptions that Arrow raises for a value without a Python type, such as a date after the year 9999 or an unknown time
zone. An ArrowException is also what Arrow raises for a type that it cannot convert at all."""


class Row(NamedTuple):
    """One unchecked row of a file or hub data set."""

    where: str
    """Place of the row in error messages, counted from 1: "<source>, line 3", or "<source>, row 3" without lines."""
    number: int
    """From 0."""
    cells: Mapping[str, object]
    """Unconverted values by column; parquet and hub rows have only the columns in COLUMNS and
    MORE_COLUMNS."""
    names: Collection[str]
    """All columns of the source."""

    def value(self, field: str) -> object:
        """The row's value in a column, None if there is none.

        Raises:
            UsageError: The value has a type that Python does not support.
        """
        cell = self.cells.get(field)
        if not isinstance(cell, pa.Scalar):
            return cell
        try:
            return cell.as_py()
        except _UNREADABLE as error:
            raise self.error(field, f"a value of type {cell.type} cannot be read: {first_line(error)}") from error

    def error(self, field: str, problem: str) -> UsageError:
        """The error to raise for a field of this row."""
        return UsageError(f"{self.where}, field {field}: {problem}")


def file_rows(name: str) -> Iterator[Row]:
    """The rows of a .jsonl, .parquet, .csv or .json file.

    Raises:
        UsageError: The file does not exist, has another format, or is broken. The message names the line.
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
    # Not splitlines: it also splits at U+2028, which a JSON string may contain.
    for line, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        where = f"{name}, line {line}"
        fields = _parsed(name, text, line=line)
        if not isinstance(fields, dict):
            raise UsageError(f"{where}: not a JSON object")
        yield Row(where, number, fields, fields)
        number += 1


def _parsed(name: str, data: bytes, *, line: int | None = None) -> object:
    """The value that a JSON text has: a whole file, or one line of it."""
    where = name if line is None else f"{name}, line {line}"
    try:
        return json.loads(data.decode(), parse_int=_whole_number)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        where = f"{name}, line {(line or 1) + error.lineno - 1}"
        raise UsageError(f"{where}: broken JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: broken JSON: {error}") from error


def _whole_number(digits: str) -> int | float:
    """Parses a whole number of JSON.

    int() rejects more than 4,300 digits. Such a number must not break a row, because it is in a column that drsow does
    not read; float() accepts it.
    """
    return int(digits) if len(digits) < 1000 else float(digits)


def _parquet_rows(name: str, data: bytes) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        _check_names(name, names)
        wanted = _wanted(names)
        # Reading "prompt" also reads a column "prompt.words"; the selection removes it again.
        # Threads that Arrow begins after torch was imported abort a process on one core that ends early.
        table = file.read(columns=wanted, use_threads=False).select(wanted)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{name}: broken parquet: {first_line(error)}") from error
    for number, cells in enumerate(_cells(table, file.metadata.num_rows)):
        yield Row(f"{name}, row {number + 1}", number, cells, names)


def _cells(table: pa.Table, n_rows: int) -> Iterator[dict[str, pa.Scalar]]:
    """The cells of each row as Arrow scalars; `Row.value` converts a cell when it is needed."""
    columns = {column: iter(table.column(column)) for column in table.column_names}
    for _ in range(n_rows):
        yield {column: next(cells) for column, cells in columns.items()}


def _check_names(where: str, names: Collection[str]) -> None:
    """Rejects two columns with the same name if drsow reads that name."""
    for column in COLUMNS:
        if list(names).count(column) > 1:
            raise UsageError(f"{where}: two columns have one name, {column!r}")


def _wanted(names: Collection[str]) -> list[str]:
    """The columns to read, of those that a source has."""
    return [column for column in (*COLUMNS, *MORE_COLUMNS) if list(names).count(column) == 1]


def _json_rows(name: str, data: bytes) -> Iterator[Row]:
    """The objects of one JSON list, the form of RM-Bench's files."""
    items = _parsed(name, data)
    if not isinstance(items, list):
        raise UsageError(f"{name}: not a JSON list of objects; a file with one object per line is a .jsonl file")
    for number, fields in enumerate(items):
        where = f"{name}, row {number + 1}"
        if not isinstance(fields, dict):
            raise UsageError(f"{where}: not a JSON object")
        yield Row(where, number, fields, fields)


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
            if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
                raise UsageError(f"{name}, line {line}: its only column is {header[0]!r}; save it with commas")
            _check_names(f"{name}, line {line}", header)
        elif len(cells) != len(header):
            raise UsageError(f"{name}, line {line}: {len(cells)} cells, but the header has {len(header)}")
        else:
            yield Row(f"{name}, line {line}", number, dict(zip(header, cells, strict=True)), header)
            number += 1


def _csv_cells(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row starts, from 1; its cells), without blank lines."""
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


READERS = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows, ".json": _json_rows}


def hub_rows(repository: str, split: str | None, *, advice: str, offline: bool) -> Iterator[Row]:
    """The rows of a hub data set.

    Args:
        repository: "org/name".
        split: Name of the split; None if the data set has only one.
        advice: How to get the data set, for the error message.
        offline: Read only the cache of the library `datasets`. HF_HUB_OFFLINE has the same effect for every look-up.

    Raises:
        UsageError: The split does not exist, or `split` is None and there are several.
        PreconditionError: The data set is not in the cache and cannot be downloaded.
    """
    missing = f"{repository}: not on this machine; {advice}"
    if offline and not _cached(repository):
        raise PreconditionError(missing)
    import datasets  # Slow to import, and most data sets are files.

    try:
        with _cache_alone(datasets) if offline else contextlib.nullcontext():
            found = datasets.load_dataset(repository, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = first_line(error)
        if reason.startswith("Unknown split"):
            raise UsageError(f"{repository}: {reason}") from error
        if offline or datasets.config.HF_HUB_OFFLINE:
            raise PreconditionError(missing) from error
        raise PreconditionError(f"{repository}: {reason}; {advice}") from error
    if isinstance(found, datasets.DatasetDict):
        if len(found) != 1:
            raise UsageError(f"{repository}: which split? {', '.join(f'{repository}:{name}' for name in found)}")
        (found,) = found.values()
    yield from _hub_table_rows(repository, found)


def _hub_table_rows(repository: str, found: "Dataset") -> Iterator[Row]:
    names = found.column_names
    # In Arrow's format, so that images and sounds in other columns are not decoded.
    chosen = found.select_columns(_wanted(names)).with_format("arrow")
    cells = (row for table in chosen.iter(batch_size=1000) for row in _cells(table, table.num_rows))
    for number in range(len(found)):
        yield Row(f"{repository}, row {number + 1}", number, next(cells, {}), names)


def _cached(repository: str) -> bool:
    """Whether the cache of the library `datasets` has any data set of the repository's owner.

    It looks at folder names, because importing `datasets` is slow.
    """
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home) / "datasets").expanduser()
    owner = repository.partition("/")[0]
    return any(path.name.startswith(f"{owner}___") for path in cache.iterdir()) if cache.is_dir() else False


@contextlib.contextmanager
def _cache_alone(datasets: ModuleType) -> Iterator[None]:
    """Keeps the library `datasets` off the network, and silences its warning about that.

    `datasets` reads HF_HUB_OFFLINE only on import, so this sets the library's copy of the switch.
    """
    before, level = datasets.config.HF_HUB_OFFLINE, datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(level)
