"""Records where a model's files are on this machine, and computes the digests that identify them."""

import contextlib
import functools
import hashlib
import json
import os
import re
import time
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.entries import ModelSpec
from bench.files import read_if_there, write_whole
from bench.schema import CannotWrite, DrsowError, PreconditionError
from bench.scoring import templates
from bench.scoring.cache import cache_folder, user_cache

CARD = "drsow.json"
"""File that is written last into a converted folder; a folder without it is incomplete and is not used."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of a LoRA adapter, as peft saves it."""

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""A model's weights in one file, and the list of their files if they are in several."""

INDEX_END = ".safetensors.index.json"
"""How the name of such a list ends."""

KEPT_BYTES = 2**24
"""Smallest file whose digest later processes need not compute again."""

SETTLED_NS = 2 * 10**9
"""Age that a file must have before its digest is kept: a later change could bear the same time."""


class Located(NamedTuple):
    """A model's files on this machine."""

    folder: Path
    revision: str
    """Commit on the hub, or "sha256:…" of the files. It also describes the noise of a noise model, and the commit and
    digest of an adapter."""
    trust_remote_code: bool = False
    """Whether code that comes with the files may run, as the registry's entry says. Every loader gets this value."""
    adapter: Path | None = None
    """The folder of the LoRA adapter that is merged into the weights when they are loaded."""


def promised_digest(path: Path) -> str | None:
    """sha256 in the name of a large file in the hub's cache, which was checked on download; None for other files."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name) else None


def named_weights(folder: Path) -> list[str]:
    """The files that a model's index, or its config.json, names as its weights: their paths inside of the folder.

    Raises:
        PreconditionError: A path leads out of the folder, or is that of another kind of file than safetensors.
    """
    given = _fields(folder / "config.json").get("transformers_weights")
    if given is None and (folder / WHOLE).is_file():
        return []  # transformers does not read the index.
    names = [] if given is None else [_inside(folder, str(given), "config.json")]
    index = names[0] if names else INDEX
    if index.endswith(INDEX_END):
        listed = _fields(folder / index).get("weight_map")
        names += [_inside(folder, str(name), index) for name in listed.values()] if isinstance(listed, dict) else []
    return sorted(set(names))


def _inside(folder: Path, name: str, by: str) -> str:
    """The name of a file of weights, which is checked; `by` names it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.endswith((".safetensors", INDEX_END)):
        words = "weights must be .safetensors files inside of the folder; correct it, or use another copy of the model"
        raise PreconditionError(f"{folder / by}: names the weights {name!r}, but {words}")
    return name


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder: those at its top, and those that `named_weights` names."""
    named = (folder / name for name in named_weights(folder))
    return sorted({*folder.glob("*.safetensors"), *(p for p in named if p.suffix == ".safetensors" and p.is_file())})


def _fields(path: Path) -> dict:
    """The fields of a JSON file; none if it is not there or broken, which gives an error when the model is loaded."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def folder_digest(folder: Path) -> str:
    """Digest over the names and bytes of a folder's files.

    Raises:
        PreconditionError: As in `named_weights`.
    """
    whole = hashlib.sha256()
    suffixes = {".json", ".jinja", ".safetensors", ".model", ".txt"}
    top = (p for p in (*folder.iterdir(), *(folder / templates.MORE).glob("*.jinja")) if p.suffix in suffixes)
    files = {*top, *(folder / name for name in named_weights(folder))}
    for path in sorted(p for p in files if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{_known_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def adapter_digest(folder: Path) -> str:
    """Digest over the two files of an adapter."""
    files = [folder / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    whole = "".join(f"{promised_digest(path) or _known_digest(path)}\n" for path in files)
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def _known_digest(path: Path) -> str:
    """sha256 of a file. It is read again only if it changed since this process, or an earlier one, read it."""
    stat = path.stat()
    # The inode and the time of its change show a file that took the place of another one with the same time and size.
    stamps = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return _digest_at(path.resolve(), stamps)


@functools.cache
def _digest_at(path: Path, stamps: tuple[int, ...]) -> str:
    if stamps[2] < KEPT_BYTES:
        return file_digest(path)
    place = user_cache() / "digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    with contextlib.suppress(DrsowError, ValueError, TypeError, KeyError):
        stored = json.loads(read_if_there(place) or b"{}")
        if stored["stamps"] == list(stamps) and re.fullmatch(r"[0-9a-f]{64}", stored["sha256"]):
            return stored["sha256"]
    begun = time.time_ns()
    digest = file_digest(path)
    if begun - max(stamps[3:]) > SETTLED_NS:
        with contextlib.suppress(CannotWrite):
            write_whole(place, json.dumps({"path": str(path), "stamps": stamps, "sha256": digest}).encode())
    return digest


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted_folder(spec: ModelSpec, digest: str) -> Path:
    return cache_folder() / "models" / f"{spec.model_id}-{digest[:16]}"
