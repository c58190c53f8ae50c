"""Every path under the results folder: where scores, tables and figures lie, and how scores are read back.

A score set is a folder `scores/<model>-<digest of its key>/` with a manifest and a fixed number of parts.
"""

import re
import sys
from pathlib import Path

from bench.files import (
    csv_bytes,
    parse_csv,
    read_csv,
    read_if_there,
    rename,
    safe_name,
    write_csv,
    write_json,
    write_whole,
)
from bench.schema import SCHEMA_VERSION, ScoreKey, UsageError
from bench.store.parts import Damaged, check_scores, decode_manifest
from bench.store.score_set import ScoreSet

__all__ = ["ScoreSet", "Store", "check_scores", "csv_bytes", "parse_csv", "read_csv", "rename", "safe_name"]
__all__ += ["write_csv", "write_json", "write_whole"]

_ASIDE = re.compile(r"\.(stale|damaged)-\d+$")
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Store:
    """The results folder."""

    def __init__(self, root: Path) -> None:
        """Names the folder; nothing is made before something is written."""
        self.root = root
        self._told: set[str] = set()

    def score_set(self, key: ScoreKey) -> "ScoreSet":
        """The score set of a key, whether it is there or not."""
        return ScoreSet(self.root / "scores", key)

    def find(self, **fields: object) -> list["ScoreSet"]:
        """Complete score sets whose stored key has these values, by folder name.

        A damaged set, and all sets of an older version together, are named on stderr once.

        Args:
            **fields: Names and values of ScoreKey.
        """
        return [score_set for score_set in self.begun(**fields) if score_set.complete]

    def begun(self, **fields: object) -> list["ScoreSet"]:
        """The same, and those that are not complete."""
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
            # A copied folder: no set of ours has this place.
            if set(stored) != set(ScoreKey._fields) or self.score_set(ScoreKey(**stored)).folder != path.parent:
                self._tell(f"{path.parent}: left out: its key belongs elsewhere")
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
        """Warn, once in the same words."""
        if words not in self._told:
            self._told.add(words)
            print(f"warning: {words}", file=sys.stderr)

    def result_dir(self, name: str, data_slug: str, variant: str = "") -> Path:
        """Where the tables and figures of a pair or study on a data set lie.

        Args:
            name: What the user calls the pair or study; any text.
            data_slug: `Dataset.slug`.
            variant: What sets the run apart from the plain one, "" for none.
        """
        if name.lower() == "scores":
            raise UsageError("scores: no pair or study can have this name, its results would lie among the score sets")
        leaf = f"{data_slug}-{variant}" if variant else data_slug
        if not _SLUG.fullmatch(leaf):
            raise ValueError(f"{leaf!r} is no safe folder name")
        return self.root / safe_name(name) / leaf
