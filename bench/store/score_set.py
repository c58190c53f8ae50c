"""Writes and reads a score set, a folder with the scores of one model on one data set under one key.

The folder fills part by part; the scores of single tokens are optional and lie in files beside the parts.
After a kill, each file is there whole or it is missing. The key and the tables depend on the sums alone.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bench.faults import warn
from bench.files import crash_point, locked, read_if_there, rename, safe_name, write_whole
from bench.schema import DrsowError, PreconditionError, ScoreKey
from bench.store.part_files import PartFiles
from bench.store.parts import (
    Damaged,
    Manifest,
    canonical,
    check_scores,
    decode_manifest,
    digest,
    encode_manifest,
    encode_part,
    join_parts,
)
from bench.store.token_parts import encode_tokens, join_tokens, match_tokens


class ScoreSet:
    """The scores of one model on one data set under one key: a folder that fills part by part."""

    def __init__(self, scores: Path, key: ScoreKey) -> None:
        """Computes the folder's name from the key; does not access the disk."""
        self.key = key
        self.folder = scores / f"{safe_name(key.model_id)}-{digest(canonical(key._asdict()))[:16]}"
        self._parts, self._tokens = PartFiles(self.folder, "part"), PartFiles(self.folder, "tokens")

    @contextlib.contextmanager
    def lock(self, share: str = "", *, wait_s: float = 0) -> Iterator[None]:
        """Locks the set, or a named share of its parts, for this process. The lock ends with the process.

        Raises:
            DrsowError: Another process holds the lock for longer than `wait_s`, or the folder cannot be written.
        """
        # The lock file is beside the folder, not in it, because `begin` may rename the folder.
        words = f"{self.key.model_id} is being scored by another process ({self.folder})"
        words += "; wait for it, or share the work with --shard i/n"
        with locked(self.folder.with_name(f"{self.folder.name}{share}.lock"), busy=words, wait_s=wait_s):
            yield

    def begin(self, n_parts: int, settings: dict, info: dict | None = None, *, alone: bool = True) -> dict:
        """Prepares the set for its parts; call it under `lock`.

        If the folder contains something else (another key, another number of parts, a damaged manifest), this method
        renames it, warns on stderr and starts a new one. It removes temporary files of stopped runs.

        Args:
            n_parts: Number of parts into which the sorted list of responses is divided.
            settings: Settings that a resumed run must use again, such as batch_tokens; JSON values.
            info: Provenance known before the first part: the user's names of the data and of the template's owner.
            alone: Whether no other process is writing parts; otherwise temporary files stay.

        Returns:
            The settings to use: those of the run that began this set, or the given ones for a new set.
        """
        for temp in self.folder.glob(".*.tmp") if alone else ():
            temp.unlink(missing_ok=True)
        try:
            manifest = self._manifest()
            if manifest is None and (self._parts.paths() or self._tokens.paths()):
                raise Damaged("its manifest is gone")
        except Damaged as error:
            self._set_aside("damaged", str(error))
            manifest = None
        if manifest is not None and (change := self._change(manifest, n_parts)):
            self._set_aside("stale", change)
            manifest = None
        if manifest is None:
            manifest = Manifest(self.key._asdict(), n_parts, settings, complete=False, parts=[], info=info or {})
            write_whole(self._manifest_path, encode_manifest(manifest))
        return manifest.settings

    def recorded_settings(self) -> dict | None:
        """Settings of the run that began this set; None if the set does not exist or `begin` would replace it."""
        manifest = self._own_manifest()
        return None if manifest is None else manifest.settings

    def info(self) -> dict:
        """Provenance that `begin` and `finish` stored; empty before."""
        manifest = self._own_manifest()
        return {} if manifest is None else manifest.info

    @property
    def has_parts(self) -> bool:
        """Whether any part is stored."""
        return bool(self._parts.paths())

    def missing(self) -> list[int]:
        """Numbers of the parts, from 0, that are not scored yet. A damaged part is renamed and counts as missing.

        Raises:
            PreconditionError: `begin` was not called for this set.
        """
        self._parts.set_damaged_aside()
        return _gaps(self._parts.sound(self._begun().n_parts))

    def without_tokens(self) -> list[int]:
        """Numbers of the parts whose tokens are not stored. A damaged file is renamed and counts as missing.

        Raises:
            PreconditionError: `begin` was not called for this set.
        """
        self._tokens.set_damaged_aside()
        return _gaps(self._tokens.sound(self._begun().n_parts))

    def write_tokens(self, index: int, frame: pd.DataFrame) -> None:
        """Stores the tokens of one part, and replaces an earlier file of them.

        Write a part's tokens before its sums: then a part that a run with tokens stored always has them.

        Args:
            index: Number of the part, from 0.
            frame: Columns TOKEN_SCORES.

        Raises:
            DrsowError: The part is stored, and its sums are those of other numbers.
        """
        stored = self._parts.sound(self._begun().n_parts)[index]
        if stored is not None:
            match_tokens(frame, self._joined([stored.name]), self.folder.name)
        self._tokens.write(index, encode_tokens(frame))

    def write_part(self, index: int, frame: pd.DataFrame, spent: dict | None = None) -> None:
        """Stores one part, and replaces an earlier file of this part.

        Args:
            index: Number of the part, from 0.
            frame: Columns SCORES; see `check_scores`.
            spent: Costs of the part, numbers by name. They differ between equal runs, so they go into a separate file.
        """
        manifest = self._own_manifest()
        if manifest is None or not 0 <= index < manifest.n_parts:
            raise ValueError(f"{self.folder.name}: was not begun with a part {index}")
        check_scores(frame)
        data = encode_part(frame)
        if spent is not None:
            # Costs first: then every stored part has its costs, even if the process is killed between the two writes.
            write_whole(self._spent_path(index), json.dumps(spent).encode())
        self._parts.write(index, data)

    def spent(self) -> dict:
        """Total costs of the parts, over all processes that wrote one."""
        manifest = self._own_manifest()
        total: dict = {}
        for index in range(0 if manifest is None else manifest.n_parts):
            data = read_if_there(self._spent_path(index))
            # A damaged cost file only makes the total too small; the scores are not affected.
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                for name, value in ({} if data is None else json.loads(data)).items():
                    total[name] = total.get(name, 0) + value
        return total

    def _spent_path(self, index: int) -> Path:
        return self.folder / f"spent-{index:04d}.json"

    def finish(self, info: dict) -> None:
        """Marks the set complete.

        Args:
            info: Provenance as JSON values: versions, device, durations, the precision check.

        Raises:
            DrsowError: A part is missing, or two parts contain the same response.
        """
        manifest = self._begun()
        self._parts.set_damaged_aside()
        parts = self._parts.sound(manifest.n_parts)
        if missing := _gaps(parts):
            raise DrsowError(f"{self.folder}: not complete, missing parts: {', '.join(map(str, missing))}")
        self._joined(names := [path.name for path in parts if path is not None])
        crash_point("before-finish", self._manifest_path)
        manifest = manifest._replace(complete=True, parts=names, info=manifest.info | info)
        write_whole(self._manifest_path, encode_manifest(manifest))

    @property
    def finished(self) -> bool:
        """Whether `finish` marked the set complete, though a part may be damaged since."""
        manifest = self._own_manifest()
        return manifest is not None and manifest.complete

    @property
    def complete(self) -> bool:
        """Whether the set is finished, has this key, and all its parts are undamaged."""
        manifest = self._own_manifest()
        if manifest is None or not manifest.complete:
            return False
        return all(self._parts.verified(self.folder / name) is not None for name in manifest.parts)

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens of all parts are stored and undamaged."""
        manifest = self._own_manifest()
        return manifest is not None and not _gaps(self._tokens.sound(manifest.n_parts))

    def read(self) -> pd.DataFrame:
        """The scores: columns SCORES, sorted by example_id and response_id.

        Raises:
            PreconditionError: The set is not complete.
            DrsowError: Two parts contain the same response.
        """
        manifest = self._own_manifest()
        if manifest is None or not self.complete:
            raise PreconditionError(
                f"{self.key.model_id}: the score set {self.folder} is not complete; `drsow run` scores the rest"
            )
        return self._joined(manifest.parts)

    def read_tokens(self) -> pd.DataFrame:
        """The scores of tokens: columns TOKEN_SCORES, sorted like `read`.

        Raises:
            PreconditionError: The set is not complete, or the tokens of a part are not stored.
            DrsowError: The tokens are not those of the stored sums.
        """
        scores = self.read()
        parts = [data for path in self._tokens.sound(self._begun().n_parts) if path and (data := read_if_there(path))]
        if len(parts) < self._begun().n_parts:
            raise PreconditionError(
                f"{self.key.model_id}: the scores of its tokens are not stored in {self.folder}; "
                "`drsow run --tokens` stores them"
            )
        tokens = join_tokens(parts)
        match_tokens(tokens, scores, self.folder.name)
        return tokens

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _manifest(self) -> Manifest | None:
        """The manifest on the disk, or None."""
        data = read_if_there(self._manifest_path)
        return None if data is None else decode_manifest(data)

    def _own_manifest(self) -> Manifest | None:
        """The manifest if it is undamaged and has this key, else None."""
        with contextlib.suppress(Damaged):
            manifest = self._manifest()
            if manifest is not None and manifest.key == self.key._asdict():
                return manifest
        return None

    def _change(self, manifest: Manifest, n_parts: int) -> str:
        """Describes the differences between the stored set and this one for the user; "" if there are none."""
        stored, ours = manifest.key | {"n_parts": manifest.n_parts}, self.key._asdict() | {"n_parts": n_parts}
        names = [name for name in stored | ours if stored.get(name) != ours.get(name)]
        return ", ".join(f"{name} was {stored.get(name)!r}, is {ours.get(name)!r}" for name in names)

    def _begun(self) -> Manifest:
        """The manifest of a set that `begin` prepared."""
        manifest = self._own_manifest()
        if manifest is None:
            raise PreconditionError(f"{self.folder}: has no valid manifest; `drsow run` begins the set again")
        return manifest

    def _joined(self, names: list[str]) -> pd.DataFrame:
        parts = [data for name in names if (data := self._parts.verified(self.folder / name)) is not None]
        if len(parts) < len(names):
            raise DrsowError(f"{self.folder}: a part changed while it was read; run again")
        try:
            return join_parts(parts)
        except ValueError as error:
            raise DrsowError(f"{self.folder}: {error}") from error

    def _set_aside(self, reason: str, detail: str) -> None:
        names = (self.folder.with_name(f"{self.folder.name}.{reason}-{n}") for n in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        crash_point("before-aside", self.folder)
        rename(self.folder, aside)
        crash_point("after-aside", self.folder)
        warn(f"warning: {self.folder}: {detail}; drsow renamed it to {aside.name} and scores the set again")


def _gaps(paths: list[Path | None]) -> list[int]:
    """Numbers of the parts without a file."""
    return [index for index, path in enumerate(paths) if path is None]
