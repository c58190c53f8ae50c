"""The verbs `models add` and `pairs add`: write entries into the files of a user's registry folder.

An entry is added behind what the file holds. An entry that is there is never changed.
"""

import contextlib
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from bench.entries import Entry, HubSource, ModelSpec, PairEntry
from bench.files import read_if_there, toml_table, write_whole
from bench.links import unknown
from bench.registry import Registry, load_registry
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring import fetch
from bench.scoring.adapters import lora_config
from bench.scoring.facts import Facts, folder_facts, hub_facts
from bench.scoring.located import ADAPTER_CONFIG, ADAPTER_WEIGHTS, file_digest

OWN_TEMPLATE, NO_TEMPLATE = "chat template: its own", "chat template: none"
"""What the note of an entry says."""

_FILES = ("models.toml", "pairs.toml", "domains.toml", "scores.toml")
"""The files of a registry folder."""


class Added(NamedTuple):
    """What was written."""

    path: Path
    entry_id: str
    text: str
    """The entry, as the file has it."""
    notes: tuple[str, ...]
    """What the user should know, each a clause."""


class Asked(NamedTuple):
    """What the user says about a model."""

    model_id: str | None = None
    method: str | None = None
    base: str | None = None
    """model_id of the base of an adapter."""
    file: str | None = None
    """GGUF file of a repository."""
    revision: str | None = None


def add_model(folder: Path, place: str, asked: Asked) -> Added:
    """Writes an entry for a hub repository, or for a folder or GGUF file on this machine, into FOLDER/models.toml.

    Raises:
        UsageError: The id is taken, or an option does not fit the place.
        PreconditionError: The hub cannot be reached, and the repository is not on this machine.
        DrsowError: A file cannot be read.
    """
    known = _registry(folder)
    path = Path(place).expanduser()
    named = path.resolve().name
    if not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
        path /= "model"  # `drsow tune` writes the model there.
    if path.is_file() and path.suffix == ".gguf":
        _check_unread(place, "is a .gguf file", asked, ("base", "file", "revision"))
        facts, fields = None, _file_fields(folder, path)
        name = path.stem
    elif path.is_dir():
        _check_unread(place, "is a folder on this machine", asked, ("revision",))
        facts = folder_facts(path)
        fields = _files_fields(known, facts, asked, {"folder": _from(folder, path)}, place)
        name = named
    else:
        _check_repository(place)
        facts = hub_facts(place, asked.revision)
        fields = _files_fields(known, facts, asked, {"repo": place, "revision": facts.revision}, place)
        name = Path(asked.file).stem if asked.file else place.partition("/")[2]
    model_id = asked.model_id or _id(name)
    if model_id in known.models:
        raise UsageError(
            f"the registry has a model {model_id} already, and no entry is changed; name another id with --model-id"
        )
    row = {"model_id": model_id, **fields, "method": asked.method or "unknown"} | _known_fields(facts)
    row |= {name: value for name, value in _of_the_base(known, row["source"]).items() if name not in row}
    notes = _notes(row, facts, has_method=asked.method is not None)
    return _append(folder / "models.toml", "models", ModelSpec, row, notes)


def add_pair(folder: Path, strong: str, weak: str, *, pair_id: str | None, template: str | None) -> Added:
    """Writes an entry for a pair of models of the registry into FOLDER/pairs.toml.

    Raises:
        UsageError: A model is unknown, the two are one, or the id is taken.
    """
    known = _registry(folder)
    specs = [_known_model(known, name, folder) for name in dict.fromkeys([strong, weak, template or strong])]
    if strong == weak:
        raise UsageError(f"{weak} cannot be both the strong and the weak model")
    name = pair_id or _id(f"{strong}-over-{weak}")
    for kind, taken in (("pair", known.pairs), ("study", known.studies)):
        if name in taken:
            raise UsageError(
                f"the registry has a {kind} {name} already, and no entry is changed; name another id with --pair-id"
            )
    notes = []
    if template is None and _has_template(specs[0]) is False:
        if _has_template(specs[1]):
            template = weak
            notes.append(f"{strong} has no chat template, so both models read that of {weak}")
        else:
            notes.append(f"{strong} has no chat template, so both models read the plain format")
    row = {"pair_id": name, "strong": strong, "weak": weak} | ({"template": template} if template else {})
    return _append(folder / "pairs.toml", "pairs", PairEntry, row, tuple(notes))


def _registry(folder: Path) -> Registry:
    """drsow's entries and the user's, with the folder of these, which may not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; name your registry's folder with --registry")
    has_entries = any((folder / name).is_file() for name in _FILES)
    return replace(load_registry(folder if has_entries else None), folder=folder)


def _check_unread(place: str, kind: str, asked: Asked, names: tuple[str, ...]) -> None:
    """Refuses options that a place of this kind does not read."""
    if given := [f"--{name}" for name in names if getattr(asked, name) is not None]:
        raise UsageError(f"{place}: {kind} and takes no {' or '.join(given)}")


def _is_repository(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


def _check_repository(place: str) -> None:
    if not _is_repository(place):
        raise UsageError(f"{place}: is neither a folder or .gguf file here nor a hub repository (owner/name)")


def _file_fields(folder: Path, path: Path) -> dict[str, Any]:
    return {"source": {"file": _from(folder, path), "sha256": file_digest(path)}, "format": "gguf"}


def _files_fields(known: Registry, facts: Facts, asked: Asked, source: Mapping[str, Any], place: str) -> dict[str, Any]:
    """source and format of a repository or folder: an adapter, a GGUF file, or a model in safetensors."""
    source = {name: value for name, value in source.items() if value is not None}
    if ADAPTER_CONFIG in facts.files:
        if facts.all_listed and ADAPTER_WEIGHTS not in facts.files:
            raise PreconditionError(f"{place}: has no {ADAPTER_WEIGHTS}; pickled weights are not read")
        _check_unread(place, "is a LoRA adapter", asked, ("file",))
        base = _base(known, facts, asked.base, place)
        where = {"adapter": source.pop("repo", None) or source.pop("folder")}
        return {"source": where | {"base": base} | source, "format": known.model(base).format}
    if asked.base is not None:
        raise UsageError(f"{place}: has no {ADAPTER_CONFIG}, so it is no adapter and takes no --base")
    ggufs = facts.named(".gguf")
    if asked.file is not None or (ggufs and not facts.named(".safetensors")):
        return {"source": source | _gguf(facts, asked.file, ggufs, place), "format": "gguf"}
    if "config.json" not in facts.files or (facts.all_listed and not facts.named(".safetensors")):
        raise PreconditionError(
            f"{place}: has no config.json with safetensors weights, no GGUF file and no LoRA adapter; pickled weights "
            "are not read"
        )
    return {"source": source | ({"gated": True} if facts.gated else {}), "format": "safetensors"}


def _gguf(facts: Facts, file: str | None, ggufs: list[str], place: str) -> dict[str, Any]:
    if facts.revision is None:
        raise UsageError(f"{place}: name the .gguf file itself, such as {place}/{ggufs[0] if ggufs else 'x.gguf'}")
    if file not in ggufs:
        named = f"has no file {file}" if file else "has GGUF files and no safetensors"
        raise UsageError(f"{place}: {named}; name one of {', '.join(ggufs) or 'its .gguf files'} with --file")
    digest = facts.files[file]
    return {"file": file} | ({"gated": True} if facts.gated else {}) | ({"sha256": digest} if digest else {})


def _base(known: Registry, facts: Facts, asked: str | None, place: str) -> str:
    """model_id of an adapter's base: what the user says, or the model of the repository that the adapter names."""
    named = lora_config(place, facts.folder).get("base_model_name_or_path")
    if asked is not None:
        return known.model(asked).model_id
    for spec in known.models.values():
        if isinstance(spec.source, HubSource) and spec.source.repo == named:
            return spec.model_id
    base = f"an adapter of {named!r}, which is no hub repository" if named else "an adapter that names no base"
    words = f"is {base}; name its base's model_id with --base"
    # A command is made of a repository's name only: whoever made the adapter wrote the text.
    if isinstance(named, str) and _is_repository(named):
        command = f"drsow models add {named} --registry {shlex.quote(str(known.folder))}"
        words = f"is an adapter of {named}, which no entry of the registry has; add it first (`{command}`), or name "
        words += "the base's model_id with --base"
    merged = f", or a copy without {ADAPTER_CONFIG} if its other weights contain it"
    raise UsageError(f"{place}: {words}" + (merged if facts.named(".safetensors") else ""))


def _known_fields(facts: Facts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    found = {
        "n_params": facts.n_params,
        "licence": facts.licence,
        "context_tokens": facts.context_tokens,
        "note": {True: OWN_TEMPLATE, False: NO_TEMPLATE, None: None}[facts.has_template],
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_the_base(known: Registry, source: Mapping[str, Any]) -> dict[str, Any]:
    """What an adapter has from its base."""
    if "base" not in source:
        return {}
    base = known.model(source["base"])
    found = {"n_params": base.n_params, "context_tokens": base.context_tokens, "licence": base.licence}
    return {name: value for name, value in found.items() if value is not None}


def _notes(row: Mapping[str, Any], facts: Facts | None, *, has_method: bool) -> tuple[str, ...]:
    notes = []
    if unknown := [name for name in ("n_params", "licence", "context_tokens") if name not in row]:
        notes.append(f"unknown, and left out: {', '.join(unknown)}")
    if not has_method:
        notes.append("method is 'unknown'; --method says how it was trained last")
    if facts and "adapter" in row["source"] and facts.named(".safetensors"):
        base = row["source"]["base"]
        notes.append(f"it is added as an adapter of {base}; the other weights in its folder are not read")
    if row.get("note") == NO_TEMPLATE:
        notes.append("it has no chat template")
    if facts and facts.has_code:
        notes.append("its files name code of their own, which runs only with trust_remote_code = true in its source")
    return tuple(notes)


def _known_model(known: Registry, name: str, folder: Path) -> ModelSpec:
    if name in known.models:
        return known.models[name]
    place = name if _is_repository(name) else "REPO"
    command = f"drsow models add {place} --registry {shlex.quote(str(folder))}"
    raise UsageError(f"{unknown('model', name, known.models)}; `{command}` adds a model")


def _has_template(spec: ModelSpec) -> bool | None:
    """Whether a model has a chat template, None if its tokenizer is not here and its entry does not say it."""
    with contextlib.suppress(DrsowError):
        if located := fetch.locate(spec, weights=False):
            return bool(fetch.template_text(located.folder))
    return {OWN_TEMPLATE: True, NO_TEMPLATE: False}.get(spec.files.note)


def _id(name: str) -> str:
    """An id that resembles a name."""
    words = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9._-]+", "-", name.lower()))
    return words.strip("-._")[:80] or "model"


def _from(folder: Path, path: Path) -> str:
    """A path as a file of the registry folder writes it: relative if it is inside."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _append(path: Path, table: str, kind: type[Entry], row: dict[str, Any], notes: tuple[str, ...]) -> Added:
    """Checks an entry and writes it behind what the file holds."""
    try:
        entry = kind.model_validate(row, context=path.parent)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1]) if first["loc"] else table
        raise UsageError(f"{row[kind.KEY]}: {field}: {first['msg'].removeprefix('Value error, ')}") from error
    text = toml_table(table, row)
    before = (read_if_there(path) or b"").decode()
    whole = f"{before.rstrip()}\n{text}" if before.strip() else text.lstrip()
    try:
        tomllib.loads(whole.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: [[{table}]] cannot stand at its end ({error}); write the entry by hand") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, whole.encode())
    return Added(path, entry.id, text.strip(), notes)
