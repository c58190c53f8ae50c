"""Finds the results folder with the tables of a subject on a data set, by the digest of the rows, not by name.

A folder's manifest says which rows and settings its tables belong to. If equal rows have another name, drsow finds the
same folder. If other rows have the same name, they get a new folder, so their tables are never confused.
"""

import contextlib
import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.files import locked, read_if_there, safe_name
from bench.schema import CannotWrite, Dataset, DrsowError, PreconditionError
from bench.store.folder import ScoreSet, Store, read_table
from bench.store.parts import canonical

SHORT = 8
"""Number of hexadecimal digits of a digest that distinguish two folders with the same name."""

WAIT_S = 300
"""Seconds that a process waits while another writes tables of the same pair or study. Writing takes a few."""


class Place(NamedTuple):
    """What the tables of a results folder belong to."""

    subject: str
    """The pair_id or study_id."""
    dataset: Dataset
    variant: str = ""
    """Name of the change to the plain run, "" for the plain run."""
    told: Mapping[str, object] = {}
    """Other settings that decide the tables, such as routers or a seed; JSON values, as in the manifest."""
    above: str = ""
    """Name of the parent folder; "" for a folder named after the subject."""

    @property
    def identity(self) -> dict[str, object]:
        """The fields of the folder's manifest that identify its tables."""
        named = {"subject": self.subject, "data_digest": self.dataset.digest, "variant": self.variant}
        return named | json.loads(json.dumps(dict(self.told)))

    def expected(self, store: Store) -> Path:
        """The folder of these tables, unless the tables of another place are already in it."""
        if self.above:
            return store.result_dir(self.above, self.dataset.slug, self.subject)
        return store.result_dir(self.subject, self.dataset.slug, self.variant)


def found_folder(store: Store, place: Place) -> Path | None:
    """The folder with the tables of this place, or None."""
    expected = place.expected(store)
    return next((folder for folder in _folders(expected) if _is_of(folder, place, expected)), None)


@contextlib.contextmanager
def locked_folder(store: Store, place: Place) -> Iterator[Path]:
    """The folder to write the tables of this place to, while no other process chooses or writes one beside it.

    Where no file can be locked, such as in a read-only folder, there is no lock.

    Raises:
        DrsowError: Another process writes for longer than `WAIT_S`.
    """
    above = place.expected(store).parent
    busy = f"{above}: another process has been writing tables for {WAIT_S} s; wait for it and try again"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(CannotWrite):
            held.enter_context(locked(above / ".tables.lock", busy=busy, wait_s=WAIT_S))
        yield folder_to_write(store, place)


def folder_to_write(store: Store, place: Place) -> Path:
    """The folder to write the tables of this place to; a new folder if other tables are in the expected one."""
    if folder := found_folder(store, place):
        return folder
    expected = place.expected(store)
    other = stored_manifest(expected)
    if not other and not any(expected.glob("*.csv")):
        return expected
    if other.get("data_digest") != place.dataset.digest:
        expected = expected.with_name(f"{expected.name}-{place.dataset.digest[:SHORT]}")
        if not stored_manifest(expected):
            return expected
    whole = hashlib.sha256(canonical(place.identity)).hexdigest()
    return expected.with_name(f"{expected.name}-{whole[:SHORT]}")


def fuller(folder: Path, left_out: Collection[str]) -> str:
    """Why tables without some pairs do not replace those of a folder; "" if the folder's have none of these pairs.

    Args:
        folder: Where the tables would be written.
        left_out: pair_ids of pairs whose model failed.
    """
    path = folder / "leaderboard.csv"
    known: list[str] = []
    # Tables that cannot be read are replaced.
    with contextlib.suppress(DrsowError):
        known = list(read_table(path)["pair_id"]) if left_out and path.is_file() else []
    if n_lost := len(set(known) & set(left_out)):
        words = f"not replaced: it has {len(known)} pairs, and {n_lost} of them failed now"
        return f"{path}: {words}; solve that and run again, or delete the folder to have tables of the other pairs"
    return ""


def folder_to_read(store: Store, place: Place, *, option: str) -> Path:
    """The folder with the tables of this place.

    Args:
        store: The results folder.
        place: What the tables belong to.
        option: The command-line option that names the subject, such as "--pair tiny".

    Raises:
        PreconditionError: There is no such folder. The message says whether other tables have its name, and what to
            run.
    """
    if folder := found_folder(store, place):
        return folder
    expected = place.expected(store)
    command = f"`drsow run {option} {data_option(place.dataset)}{results_option(store)}`"
    other = stored_manifest(expected)
    if other and other.get("data_digest") != place.dataset.digest:
        raise PreconditionError(
            f"{expected}: its tables belong to other rows than {place.dataset.data_id} has now; {command} writes the "
            "tables of these rows beside them"
        )
    if not other and (expected / "leaderboard.csv").is_file():
        raise PreconditionError(
            f"{expected}: it has no manifest.json that names the rows of its tables; {command} writes the tables of "
            "these rows beside them"
        )
    raise PreconditionError(f"{expected / 'leaderboard.csv'}: not found; `drsow run` writes it: {command}")


def tables_of(store: Store, subject: str, variant: str = "") -> dict[Path, dict]:
    """The folders with a leaderboard of a subject, on any data, and the manifest of each, sorted by name.

    Folders that are not named after their data, such as copies, are last. A manifest that cannot be read is empty.
    """
    folders = sorted((store.root / safe_name(subject)).glob("*/leaderboard.csv"))
    known = {path.parent: stored_manifest(path.parent) for path in folders}
    return {
        folder: stored
        for folder, stored in sorted(known.items(), key=lambda each: not _is_named_after_data(*each))
        if stored.get("subject", subject) == subject and stored.get("variant", variant) == variant
    }


def _is_named_after_data(folder: Path, stored: Mapping[str, str]) -> bool:
    """Whether a folder's name begins as drsow names those of its data: a file, a benchmark or a data set on the hub."""
    data = stored.get("data", "")
    return folder.name.startswith((safe_name(Path(data).stem), data.replace(":", "-"), safe_name(data)))


def data_option(dataset: Dataset) -> str:
    """The command-line options that name a data set."""
    limit = f" --limit-per-subset {dataset.limit}" if dataset.limit else ""
    return f"--data {shlex.quote(dataset.data_id)}{limit}"


def results_option(store: Store) -> str:
    """The command-line option that names the results folder, after a space; "" for the default folder."""
    return "" if str(store.root) == "results" else f" --results {shlex.quote(str(store.root))}"


def shown_data(dataset: Dataset) -> str:
    """The name of the data for files that travel: of a full path the file's name, which hides private folders."""
    path = Path(dataset.data_id)
    return path.name if path.is_absolute() else dataset.data_id


def manifest(place: Place, sets: Iterable[ScoreSet], left_out: Sequence[str] = ()) -> dict:
    """Provenance of a folder: what its tables belong to, and the key and the report of every score set.

    Args:
        place: What the tables belong to.
        sets: The score sets that they are made of.
        left_out: pair_ids of pairs that are not in the tables because a model failed.
    """
    return {
        "data": shown_data(place.dataset),
        **({"data_revision": place.dataset.revision} if place.dataset.revision else {}),
        "n_examples": len(place.dataset.examples),
        **({"rows_left_out": dict(place.dataset.left_out)} if place.dataset.left_out else {}),
        **({"pairs_left_out": list(left_out)} if left_out else {}),
        **place.identity,
        "score_sets": [{"key": s.key._asdict(), "info": _without_sums(s.info())} for s in sets],
    }


def _without_sums(info: dict) -> dict:
    if "precision" not in info:
        return info
    kept = {name: value for name, value in info["precision"].items() if name not in ("sums_nats", "right")}
    return info | {"precision": kept}


def _folders(expected: Path) -> Iterator[Path]:
    yield expected
    yield from (path.parent for path in sorted(expected.parent.glob("*/manifest.json")))


def _is_of(folder: Path, place: Place, expected: Path) -> bool:
    """Whether a folder's tables belong to a place.

    The manifest of an older version has fewer fields. In the expected folder, the missing ones count as equal.
    """
    stored = stored_manifest(folder)
    if stored.get("data_digest") != place.dataset.digest:
        return False
    known = stored if folder != expected else place.identity | stored
    return all(known.get(name, _NOTHING) == value for name, value in place.identity.items())


_NOTHING = object()


def stored_manifest(folder: Path) -> dict:
    """The fields of a folder's manifest; empty if there is no manifest or it cannot be read."""
    data = read_if_there(folder / "manifest.json")
    try:
        found = {} if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
