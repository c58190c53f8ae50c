"""Lock files: record the commits and digests of a study's model files, and refuse any other file later."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.entries import HubSource
from bench.files import edited_text, write_json
from bench.registry import Registry
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring import fetch, hub, located

FIELDS = {"source", "revision", "files"}


def write_lock(registry: Registry, model_ids: Sequence[str], path: Path) -> None:
    """Fetch models and write their revisions and the sha256 of every file of a repository.

    Args:
        registry: Knows the models.
        model_ids: The models to lock.
        path: The lock file. It keeps its entries of other models.

    Raises:
        DrsowError: a model cannot be fetched, or the file is not a lock.
    """
    if path.exists():
        read_lock(path)
    for model_id in model_ids:
        spec = registry.model(model_id)
        found = fetch.fetch(spec)
        files = _digests(found.folder) if isinstance(spec.files.source, HubSource) else {}
        # Read for each model, because another process may have added its models meanwhile.
        known = read_lock(path) if path.exists() else {}
        known[model_id] = {"source": spec.source.location, "revision": found.revision, "files": files}
        write_json(path, {name: known[name] for name in sorted(known)})


def read_lock(path: Path) -> dict[str, dict]:
    """The entries of a lock, by model_id.

    Raises:
        PreconditionError: there is no such file.
        UsageError: the file is not a lock.
    """
    if not path.is_file():
        raise PreconditionError(f"{path}: not found; `drsow fetch NAME --lock {shlex.quote(str(path))}` writes it")
    try:
        entries = json.loads(edited_text(path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise UsageError(
            f"{path}: is not a lock: each model needs {', '.join(sorted(FIELDS))}; `drsow fetch NAME --lock` writes one"
        )
    return entries


def _is_entry(entry: object) -> bool:
    """Whether a value of a lock has its fields, of their kinds."""
    if not isinstance(entry, dict) or set(entry) != FIELDS:
        return False
    files = entry["files"]
    texts = [entry["source"], entry["revision"], *(files.values() if isinstance(files, dict) else [None])]
    return all(isinstance(text, str) for text in texts)


def frozen(registry: Registry, model_ids: Sequence[str], path: Path) -> Registry:
    """A registry that accepts only the locked files of these models. It fetches nothing.

    Raises:
        PreconditionError: the lock lacks a model, or this machine lacks its locked revision.
        DrsowError: a file differs from the one that the lock names.
    """
    known = read_lock(path)
    models = dict(registry.models)
    for model_id in model_ids:
        if model_id not in known:
            command = f"drsow fetch {model_id} --lock {shlex.quote(str(path))}"
            raise PreconditionError(f"{path}: {model_id} is not in it; `{command}` adds it")
        entry, spec = known[model_id], registry.model(model_id)
        if isinstance(spec.source, HubSource):
            spec = spec.model_copy(update={"source": spec.source.model_copy(update={"revision": entry["revision"]})})
            models[model_id] = spec
        found = fetch.locate(spec)
        if found is None or found.revision != entry["revision"]:
            there = "is not here" if found is None else f"is here at {found.revision}"
            raise PreconditionError(f"{model_id}: {path} names revision {entry['revision']}, which {there}")
        for name, digest in entry["files"].items():
            if not (found.folder / name).is_file() or _digest(found.folder / name) != digest:
                raise DrsowError(f"{model_id}: {name} is not the file that {path} names: it is missing or was changed")
    return replace(registry, models=models)


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of every file that a model is loaded from, by name."""
    top = {path for pattern in [*hub.PATTERNS, hub.CODE] for path in folder.glob(pattern)}
    paths = {path.relative_to(folder).as_posix(): path for path in top.union(located.weight_files(folder))}
    return {name: _digest(path) for name, path in sorted(paths.items())}


def _digest(path: Path) -> str:
    """sha256 of a file. The hub's weights have theirs in their names, so they are not read again."""
    return located.promised_digest(path) or located.file_digest(path)
