"""Which results folder holds the tables of a subject on a data set: found by the rows' digest, not by a name.

A folder's manifest says what its tables are of. Equal rows under another name find the folder; other rows under its
name get one of their own, and are never shown for it.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.files import read_if_there
from bench.schema import Dataset, PreconditionError
from bench.store.folder import ScoreSet, Store
from bench.store.parts import canonical

SHORT = 8
"""Hexadecimal digits of a digest that tell two folders of one name apart."""


class Place(NamedTuple):
    """What a results folder's tables are of."""

    subject: str
    """The pair_id or study_id."""
    dataset: Dataset
    variant: str = ""
    """What sets the run apart from the plain one, "" for none."""
    told: Mapping[str, object] = {}
    """What else decides the tables, JSON values as its manifest holds them: routers, a seed."""
    above: str = ""
    """Folder that it lies in, where that is not the subject's."""

    @property
    def identity(self) -> dict[str, object]:
        """What the manifest of its folder says."""
        named = {"subject": self.subject, "data_digest": self.dataset.digest, "variant": self.variant}
        return named | json.loads(json.dumps(dict(self.told)))

    def expected(self, store: Store) -> Path:
        """Its folder where no other place has that name."""
        if self.above:
            return store.result_dir(self.above, self.dataset.slug, self.subject)
        return store.result_dir(self.subject, self.dataset.slug, self.variant)


def found_folder(store: Store, place: Place) -> Path | None:
    """The folder whose tables are of this place; None where there is none."""
    expected = place.expected(store)
    return next((folder for folder in _folders(expected) if _is_of(folder, place, expected)), None)


def folder_to_write(store: Store, place: Place) -> Path:
    """The place's folder; a new one where another place's tables have its name."""
    if folder := found_folder(store, place):
        return folder
    expected = place.expected(store)
    other = _manifest(expected)
    if not other:
        return expected
    if other.get("data_digest") != place.dataset.digest:
        expected = expected.with_name(f"{expected.name}-{place.dataset.digest[:SHORT]}")
        if not _manifest(expected):
            return expected
    whole = hashlib.sha256(canonical(place.identity)).hexdigest()
    return expected.with_name(f"{expected.name}-{whole[:SHORT]}")


def folder_to_read(store: Store, place: Place, *, option: str, verb: str = "run") -> Path:
    """The place's folder, with tables of these rows in it.

    Args:
        store: The results folder.
        place: What is wanted.
        option: Words that name the subject to the command, "--pair tiny".
        verb: Who writes the tables.

    Raises:
        PreconditionError: There is none; says whose tables have its name, and what to run.
    """
    if folder := found_folder(store, place):
        return folder
    expected = place.expected(store)
    command = f"`drsow {verb} {option} {data_option(place.dataset)}`"
    other = _manifest(expected)
    if other and other.get("data_digest") != place.dataset.digest:
        raise PreconditionError(
            f"{expected}: its tables are of other rows than {place.dataset.data_id} has now; {command} writes the "
            "tables of these rows beside them"
        )
    if not other and (expected / "leaderboard.csv").is_file():
        raise PreconditionError(
            f"{expected}: no manifest.json says of which rows its tables are; {command} writes both"
        )
    raise PreconditionError(f"{expected / 'leaderboard.csv'}: not found; `drsow {verb}` writes it: {command}")


def data_option(dataset: Dataset) -> str:
    """The words that name a data set to the command."""
    limit = f" --limit-per-subset {dataset.limit}" if dataset.limit else ""
    return f"--data {shlex.quote(dataset.data_id)}{limit}"


def manifest(place: Place, sets: Iterable[ScoreSet]) -> dict:
    """Provenance of a folder: what it is of, every score set's key and what its run reported."""
    path = Path(place.dataset.data_id)
    return {
        # Where a file lies on this machine is nobody else's business.
        "data": path.name if path.is_absolute() else place.dataset.data_id,
        "n_examples": len(place.dataset.examples),
        **place.identity,
        "score_sets": [{"key": s.key._asdict(), "info": _without_sums(s.info())} for s in sets],
    }


def _without_sums(info: dict) -> dict:
    if "precision" not in info:
        return info
    return info | {"precision": {name: value for name, value in info["precision"].items() if name != "sums_nats"}}


def _folders(expected: Path) -> Iterator[Path]:
    yield expected
    yield from (path.parent for path in sorted(expected.parent.glob("*/manifest.json")))


def _is_of(folder: Path, place: Place, expected: Path) -> bool:
    """Whether a folder's tables are of a place; the plain name is believed where an older manifest says less."""
    stored = _manifest(folder)
    if stored.get("data_digest") != place.dataset.digest:
        return False
    known = stored if folder != expected else place.identity | stored
    return all(known.get(name, _NOTHING) == value for name, value in place.identity.items())


_NOTHING = object()


def _manifest(folder: Path) -> dict:
    """What a folder's manifest says; nothing where there is none, or none that can be read."""
    data = read_if_there(folder / "manifest.json")
    try:
        found = {} if data is None else json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
