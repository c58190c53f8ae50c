"""Files that are whole or absent, names that are safe, tables that no spreadsheet runs.

Nothing here knows where a file belongs: `store` says that.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.schema import CannotWrite, DrsowError, PreconditionError, UsageError

if TYPE_CHECKING:
    import pandas as pd

MAX_NAME = 100
"""Longest path part, in characters: file systems allow 255, and folders add endings of their own."""

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
_HASHED = re.compile(r"-[0-9a-f]{10}$")
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠'")
"""What makes a spreadsheet run a cell; and the guard itself, so that taking it off is unambiguous."""

TEXT_COLUMNS = frozenset({
    "example_id", "response_id", "status", "pair_id", "reward", "subset", "level", "name", "strong", "weak", "family",
    "dtype", "strong_revision", "weak_revision", "licence", "performance", "estimator", "model_id", "template",
    "variant", "router", "section", "domain", "known",
})  # fmt: skip
"""Columns of `schema` that are text even where every cell looks like a number ("007" is an id)."""


WRITERS = {
    **dict.fromkeys(("leaderboard.csv", "accuracy.csv", "margins.csv", "length.csv"), "run"),
    **dict.fromkeys(("correlation.csv", "left_out.csv", "gap_noise.csv"), "run --study"),
    **dict.fromkeys(("ablation.csv", "confusion.csv"), "ablate"),
    **{"agreement.csv": "agree", "judge.csv": "judge", "curve.csv": "tune", "skipped.csv": "annotate"},
}
"""Name of a table -> the verb that writes it."""


def crash_point(label: str, path: Path) -> None:
    """Ends the process as `kill -9` would, where `DRSOW_CRASH_AT` says `label` or `label:start of file name`."""
    wanted, _, name = os.environ.get("DRSOW_CRASH_AT", "").partition(":")
    if wanted == label and path.name.startswith(name):
        os._exit(137)


def write_whole(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, so that whatever happens the file is the old one or the new one, never a part.

    Raises:
        CannotWrite: The disk is full, or the folder cannot be written; the old file is untouched.
    """
    temp = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        crash_point("before-temp", path)
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            crash_point("after-temp", path)
            os.fsync(file.fileno())
        crash_point("before-rename", path)
        temp.replace(path)
        crash_point("after-rename", path)
        _sync(path.parent)
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def rename(path: Path, target: Path) -> None:
    """Gives a file or folder another name in the same folder."""
    try:
        path.replace(target)
        _sync(path.parent)
    except OSError as error:
        raise DrsowError(f"{path}: cannot be renamed: {error.strerror or error}") from error


def read_if_there(path: Path) -> bytes | None:
    """A file's bytes, None where there is no file; one that is there and cannot be opened is an error."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DrsowError(f"{path}: cannot be read: {error.strerror or error}") from error


def edited_text(path: Path) -> str:
    """A text that a person edits: UTF-8, with or without a byte order mark, any line ends.

    Raises:
        PreconditionError: There is no such file.
        UsageError: It is no UTF-8.
        DrsowError: It cannot be opened.
    """
    data = read_if_there(path)
    if data is None:
        raise PreconditionError(f"{path}: no such file")
    try:
        return io.StringIO(data.decode("utf-8-sig"), newline=None).read()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: is not UTF-8; save it as UTF-8 and try again") from error


def _sync(folder: Path) -> None:
    """Makes renames inside `folder` outlive a power cut."""
    if os.name == "nt":  # Windows opens no folder, and needs no such call.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_name(text: str) -> str:
    """One path part for any text: [A-Za-z0-9._-], 1 to 100 characters, no leading dot, no Windows device.

    A text that is such a part already stays as it is; any other gets a hash of the whole text appended,
    and so does one that looks as if it had one: two texts never share a name.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")
    if not safe or safe.partition(".")[0].upper() in _DEVICES:
        safe = f"_{safe}"
    if safe == text and len(text) <= MAX_NAME and not _HASHED.search(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{safe[: MAX_NAME - 11]}-{digest}"


def _guarded(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _unguarded(cell: object) -> object:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") else cell


def write_csv(path: Path, frame: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Writes a table whole: these columns in this order; see `csv_bytes`.

    Raises:
        ValueError: The frame has other columns than these.
    """
    if sorted(frame.columns) != sorted(columns):
        raise ValueError(f"{path.name}: columns are {list(frame.columns)}, not {list(columns)}")
    write_whole(path, csv_bytes(frame[list(columns)]))


def csv_bytes(table: "pd.DataFrame") -> bytes:
    """A table as CSV: LF, shortest exact floats, NaN as an empty cell.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; `read_csv` takes it off.
    """
    # Imported here: a wrong name is told before pandas is there.
    import pandas as pd

    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    table = table.assign(**{name: table[name].astype(object).map(_guarded) for name in texts})
    # The csv writer leaves a bare carriage return unquoted, and most readers end the row there.
    returns = any("\r" in cell for name in texts for cell in table[name] if isinstance(cell, str))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return table.to_csv(index=False, lineterminator="\n", quoting=quoting).encode()


def read_csv(path: Path) -> "pd.DataFrame":
    """Reads what `write_csv` wrote, guards taken off; an empty cell is "" in a text column, else NaN.

    Raises:
        PreconditionError: There is no such file.
        DrsowError: It is no table.
    """
    data = read_if_there(path)
    if data is None:
        verb = WRITERS.get(path.name)
        raise PreconditionError(f"{path}: not found" + (f"; `drsow {verb}` writes it" if verb else ""))
    return parse_csv(data, path)


def parse_csv(data: bytes, path: Path) -> "pd.DataFrame":
    """The table in a file's bytes, as `read_csv` gives it; `path` is for the message.

    Raises:
        DrsowError: It is no table.
    """
    import pandas as pd

    try:
        types = dict.fromkeys(TEXT_COLUMNS, str)
        frame = pd.read_csv(io.BytesIO(data), dtype=types, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise DrsowError(f"{path}: is no table: {str(error).splitlines()[0]}") from error
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(**{name: frame[name].fillna("").map(_unguarded) for name in texts})


def write_json(path: Path, value: object) -> None:
    """Writes JSON whole: two spaces, keys in the given order, UTF-8; NaN is refused, since JSON has none."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
