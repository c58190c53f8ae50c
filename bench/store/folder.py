"""Defines all paths in the results folder, and finds stored score sets by the fields of their keys.

A score set is a folder `scores/<model>-<digest of its key>/` with a manifest and a fixed number of parts.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.faults import warn
from bench.files import WRITERS, parse_csv, read_csv, read_if_there, safe_name
from bench.schema import SCHEMA_VERSION, DrsowError, PreconditionError, ScoreKey, UsageError
from bench.store.parts import Damaged, decode_manifest
from bench.store.score_set import ScoreSet

__all__ = ["NEEDED", "ScoreSet", "Store", "not_whole", "read_table"]

if TYPE_CHECKING:
    import pandas as pd

_ASIDE = re.compile(r"\.(stale|damaged)-\d+$")
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

NEEDED = {
    "leaderboard.csv": ("rank", "pair_id", "strong", "weak", "score", "reward", "strong_revision", "weak_revision"),
    "accuracy.csv": ("pair_id", "reward", "level", "name", "accuracy", "n_examples", "n_excluded"),
    "margins.csv": ("pair_id", "example_id", "margin_nats"),
    "length.csv": ("pair_id", "length_low_bytes", "accuracy"),
    "length_balanced.csv": ("pair_id", "level", "balanced"),
}
"""Tables of results folders that have at least a row, and columns that each version of drsow writes."""


def read_table(path: Path) -> "pd.DataFrame":
    """Reads a table of a results folder, like `files.read_csv`.

    Raises:
        PreconditionError: The file does not exist, or it is not whole.
    """
    data = read_if_there(path)
    if data is None:
        return read_csv(path)
    try:
        frame = parse_csv(data, path)
    except DrsowError:
        raise not_whole(path) from None
    needed = NEEDED.get(path.name, ())
    # Each line that drsow writes has an end.
    if not data.endswith(b"\n") or set(needed) - set(frame.columns) or (needed and frame.empty):
        raise not_whole(path)
    return frame


def not_whole(path: Path) -> PreconditionError:
    """The error of a table that lacks rows or columns; it names the verb that writes the table again."""
    verb = WRITERS.get(path.name, "run")
    verb = "leaderboard" if verb.startswith("run") else verb
    return PreconditionError(f"{path}: was cut or changed; `drsow {verb}` writes it again")


class Store:
    """The results folder."""

    def __init__(self, root: Path) -> None:
        """Takes the folder's path. The first write creates the folder."""
        self.root = root
        self._told: set[str] = set()

    def score_set(self, key: ScoreKey) -> "ScoreSet":
        """The score set of a key; its folder need not exist yet."""
        return ScoreSet(self.root / "scores", key)

    def find(self, **fields: object) -> list["ScoreSet"]:
        """Complete score sets whose stored key has these values, sorted by folder name.

        It warns on stderr about each damaged set, and in one warning about all sets of another schema version. Each
        warning appears once.

        Args:
            **fields: Names and values of ScoreKey.
        """
        found = []
        for score_set in self.begun(**fields):
            if score_set.complete:
                found.append(score_set)
            elif score_set.finished:
                words = "left out: a part of it is damaged or gone; `drsow run` or `drsow import` stores it again"
                self._tell(f"{score_set.folder}: {words}")
        return found

    def begun(self, **fields: object) -> list["ScoreSet"]:
        """Like `find`, but also returns incomplete score sets."""
        if unknown := set(fields) - set(ScoreKey._fields):
            raise ValueError(f"no field of a score key: {', '.join(sorted(unknown))}")
        found, older = [], []
        for path in sorted((self.root / "scores").glob("*/manifest.json")):
            if _ASIDE.search(path.parent.name):
                continue
            try:
                stored = decode_manifest(read_if_there(path) or b"").key
            except Damaged as error:
                self._tell(f"{path.parent}: left out: {error}")
                continue
            if stored.get("schema_version") != SCHEMA_VERSION:
                older.append(path.parent)
                continue
            # The folder was copied or renamed: its name does not match its key.
            if set(stored) != set(ScoreKey._fields) or self.score_set(ScoreKey(**stored)).folder != path.parent:
                self._tell(f"{path.parent}: left out: its name does not match its key, so it was copied or renamed")
                continue
            if all(stored[name] == value for name, value in fields.items()):
                found.append(self.score_set(ScoreKey(**stored)))
        if older:
            names = ", ".join(folder.name for folder in older[:3]) + (", …" if len(older) > 3 else "")
            self._tell(
                f"{self.root / 'scores'}: {len(older)} score sets of another version of drsow are left out ({names}); "
                "`drsow run` scores them again, then delete these folders"
            )
        return found

    def _tell(self, words: str) -> None:
        """Prints a warning, unless it was printed before."""
        if words not in self._told:
            self._told.add(words)
            warn(f"warning: {words}")

    def result_dir(self, name: str, data_slug: str, variant: str = "") -> Path:
        """The folder of the tables and figures of a pair or study on a data set.

        Args:
            name: The user's name of the pair or study; any text.
            data_slug: `Dataset.slug`.
            variant: Name of the change to the plain run, "" for the plain run.
        """
        if name.lower() == "scores":
            raise UsageError("scores: no pair or study can have this name, its results would lie among the score sets")
        leaf = f"{data_slug}-{variant}" if variant else data_slug
        if not _SLUG.fullmatch(leaf):
            raise ValueError(f"{leaf!r} is no safe folder name")
        return self.root / safe_name(name) / leaf

    def board_dir(self, names: Sequence[str]) -> Path:
        """The folder of the table of one or several pairs or studies over all benchmarks."""
        return self.root / safe_name("+".join(sorted(names)))
