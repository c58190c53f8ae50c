"""Writes files atomically, makes safe file names, and reads and writes CSV tables that are safe in spreadsheets.

This module knows no paths; `store` defines them.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.schema import CannotWrite, DrsowError, PreconditionError, UsageError

if TYPE_CHECKING:
    import pandas as pd

MAX_NAME = 100
"""Maximum length of a file or folder name, in characters. File systems allow 255, but drsow adds endings to names."""

DIGITS = 12
"""Significant digits of a float in a table of results. A double has 17, but sums, logarithms and products of matrices
differ in the last ones from processor to processor."""

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
_HASHED = re.compile(r"-[0-9a-f]{10}$")
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠'")
"""Characters that make a spreadsheet run a cell as a formula. The guard, an apostrophe, is one of them, so that
removing a guard is unambiguous."""

TEXT_COLUMNS = frozenset({
    "example_id", "response_id", "status", "pair_id", "reward", "subset", "level", "name", "strong", "weak", "family",
    "dtype", "strong_revision", "weak_revision", "licence", "performance", "estimator", "model_id", "template",
    "variant", "router", "section", "domain", "known", "ladder", "start", "labels", "data_digest",
    "weights_sha256", "prompt", "source", "system", "as_good", "by", "world",
})  # fmt: skip
"""Columns of `schema` that are text even if every cell looks like a number ("007" is an id)."""


WRITERS = {
    **dict.fromkeys(("leaderboard.csv", "accuracy.csv", "margins.csv", "length.csv", "ties.csv"), "run"),
    **dict.fromkeys(("length_balanced.csv", "calibration.csv", "reliability.csv", "coverage.csv", "alone.csv"), "run"),
    **dict.fromkeys(("correlation.csv", "decomposition.csv", "left_out.csv", "gap_noise.csv"), "run --study"),
    **dict.fromkeys(("ablation.csv", "confusion.csv"), "ablate"),
    **{
        "agreement.csv": "agree",
        "judge.csv": "judge",
        "curve.csv": "tune",
        "skipped.csv": "annotate",
        "rungs.csv": "ladder",
        "board.csv": "board",
        "rewards.csv": "rewards",
    },
}
"""The verb that writes each table, by file name."""


def crash_point(label: str, path: Path) -> None:
    """Ends the process like `kill -9` if `DRSOW_CRASH_AT` is `label` or `label:start of file name`; for crash tests."""
    wanted, _, name = os.environ.get("DRSOW_CRASH_AT", "").partition(":")
    if wanted == label and path.name.startswith(name):
        os._exit(137)


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file atomically: after a crash, `path` has the old or the new contents, never a part of them.

    A symbolic link stays, and the file that it names is replaced. What is there and is no regular file, such as a pipe
    or a device, is written into.

    Raises:
        CannotWrite: The disk is full, or the folder is not writable; the old file is unchanged.
    """
    real = Path(os.path.realpath(path))
    temp = real.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        real.parent.mkdir(parents=True, exist_ok=True)
        crash_point("before-temp", path)
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            crash_point("after-temp", path)
            os.fsync(file.fileno())
        crash_point("before-rename", path)
        temp.replace(real)
        crash_point("after-rename", path)
        _sync(real.parent)
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, busy: str, wait_s: float = 0) -> Iterator[None]:
    """Locks a file for this process; makes it and its folder. The lock ends with the process.

    Raises:
        DrsowError: Another process holds the lock for longer than `wait_s`, which `busy` says.
        CannotWrite: The file cannot be made, or its file system has no locks.
    """
    import filelock

    lock = filelock.FileLock(path, timeout=wait_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise DrsowError(busy) from None
    except (OSError, NotImplementedError) as error:  # filelock's word for a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise CannotWrite(f"{path.with_suffix('')}: cannot be locked: {reason}") from error
    try:
        yield
    finally:
        lock.release()


def check_not_read(out: Path, option: str, source: str | Path | None) -> None:
    """Checks that a file to write is not the one that an option reads, by whatever path each names it.

    Raises:
        UsageError: It is the same file.
    """
    with contextlib.suppress(OSError, ValueError):
        if source is not None and out.is_file() and out.samefile(source):
            raise UsageError(f"--out {out} is the file that {option} reads; name another file")


def check_ours(out: Path, verb: str, ours: Callable[[str], bool]) -> None:
    """Checks that a file to write is absent or empty, or one that the verb wrote: `ours` gets its first line.

    Raises:
        UsageError: It is another file.
    """
    if out.is_file():
        first = (read_if_there(out) or b"").decode("utf-8-sig", errors="replace").partition("\n")[0].strip()
        if first and not ours(first):
            raise UsageError(f"{out} exists already, and drsow {verb} did not write it; name another --out")


def rename(path: Path, target: Path) -> None:
    """Gives a file or folder another name in the same folder."""
    try:
        path.replace(target)
        _sync(path.parent)
    except OSError as error:
        raise DrsowError(f"{path}: cannot be renamed: {error.strerror or error}") from error


def read_if_there(path: Path) -> bytes | None:
    """A file's bytes, or None if there is no file. A file that exists but cannot be read is an error."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DrsowError(f"{path}: cannot be read: {error.strerror or error}") from error


def edited_text(path: Path) -> str:
    """Reads a text file that a person may have edited: UTF-8, with or without byte order mark, any line ends.

    Raises:
        PreconditionError: The file does not exist.
        UsageError: The file is not UTF-8.
        DrsowError: The file cannot be opened.
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
    """Makes renames in `folder` survive a power failure."""
    if os.name == "nt":  # Windows cannot open a folder, and does not need this call.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_name(text: str) -> str:
    """A safe file name for any text: [A-Za-z0-9._-], 1 to 100 characters, no leading dot, no Windows device name.

    A text that is such a name stays unchanged. Any other text gets a hash of the whole text appended, and so does a
    text that already ends like such a hash, so two texts never share a name.
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
    """Writes a table of results atomically, with these columns in this order; see `rounded` and `csv_bytes`.

    Raises:
        ValueError: The frame's columns are not these.
    """
    if sorted(frame.columns) != sorted(columns):
        raise ValueError(f"{path.name}: columns are {list(frame.columns)}, not {list(columns)}")
    write_whole(path, csv_bytes(rounded(frame[list(columns)])))


def rounded(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table whose floats have `DIGITS` significant digits: the ones behind differ from processor to processor."""
    floats = table.select_dtypes("float")
    return table.assign(**{name: floats[name].map(lambda value: float(f"{value:.{DIGITS}g}")) for name in floats})


def csv_bytes(table: "pd.DataFrame") -> bytes:
    """A table as CSV: lines end with LF, floats are as short as exactness allows, NaN is an empty cell.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; `read_csv` removes it.
    """
    # Imported here because pandas is slow to import, and an error about a wrong name should come at once.
    import pandas as pd

    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    table = table.assign(**{name: table[name].astype(object).map(_guarded) for name in texts})
    # The csv writer does not quote a single carriage return, and most readers would end the row there.
    returns = any("\r" in cell for name in texts for cell in table[name] if isinstance(cell, str))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return table.to_csv(index=False, lineterminator="\n", quoting=quoting).encode()


def read_csv(path: Path) -> "pd.DataFrame":
    """Reads a table that `write_csv` wrote, without the apostrophes. An empty cell is "" in a text column, else NaN.

    Raises:
        PreconditionError: The file does not exist.
        DrsowError: The file is not a table.
    """
    data = read_if_there(path)
    if data is None:
        verb = WRITERS.get(path.name)
        raise PreconditionError(f"{path}: not found" + (f"; `drsow {verb}` writes it" if verb else ""))
    return parse_csv(data, path)


def parse_csv(data: bytes, path: Path) -> "pd.DataFrame":
    """Like `read_csv`, for the bytes of a file; `path` is only for the error message.

    Raises:
        DrsowError: The bytes are not a table.
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
    """Writes JSON atomically: indented by two spaces, keys in the given order, UTF-8. JSON has no NaN, so NaN fails."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def toml_table(name: str, fields: Mapping[str, Any]) -> str:
    """An entry of the table [[name]] as TOML, with an empty line before it."""
    return "\n".join(["", f"[[{name}]]", *(f"{key} = {_toml_value(value)}" for key, value in fields.items()), ""])


def _toml_value(value: Any) -> str:
    """A value as TOML. JSON writes texts, numbers and lists of texts alike, if it escapes no letter."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
