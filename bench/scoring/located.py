"""Records where a model's files are on this machine, and computes the digests that identify them."""

import functools
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from bench.entries import ModelSpec
from bench.scoring import templates
from bench.scoring.cache import cache_folder

CARD = "drsow.json"
"""File that is written last into a converted folder; a folder without it is incomplete and is not used."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of a LoRA adapter, as peft saves it."""


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


def folder_digest(folder: Path) -> str:
    """Digest over the names and bytes of a folder's files."""
    whole = hashlib.sha256()
    suffixes = {".json", ".jinja", ".safetensors", ".model", ".txt"}
    files = [p for p in (*folder.iterdir(), *(folder / templates.MORE).glob("*.jinja")) if p.suffix in suffixes]
    for path in sorted(p for p in files if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{_known_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def adapter_digest(folder: Path) -> str:
    """Digest over the two files of an adapter."""
    files = [folder / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    whole = "".join(f"{promised_digest(path) or _known_digest(path)}\n" for path in files)
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def _known_digest(path: Path) -> str:
    """sha256 of a file, which is read again only if its size or time has changed."""
    stat = path.stat()
    return _digest_at(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest_at(path: Path, _size: int, _time_ns: int) -> str:
    return file_digest(path)


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted_folder(spec: ModelSpec, digest: str) -> Path:
    return cache_folder() / "models" / f"{spec.model_id}-{digest[:16]}"
