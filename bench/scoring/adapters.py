"""Finds the files of LoRA adapters, and checks that they fit the base. Reads no weights."""

import json
from pathlib import Path

from bench.entries import AdapterSource, FolderSource, HubSource, ModelSpec
from bench.schema import DrsowError, PreconditionError
from bench.scoring.hub import NotHere, check_promised, snapshot
from bench.scoring.located import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Located, adapter_digest


def adapted(spec: ModelSpec, source: AdapterSource, base: Located, *, weights: bool, local: bool) -> Located:
    """The base with its adapter, whose files are checked. Missing files are downloaded, except with `local`.

    Without `weights` it is the base alone, which has the tokenizer.

    Raises:
        NotHere: The adapter's files are not in the hub's cache and were not downloaded.
        PreconditionError: The hub refuses the download, a file is missing, or the weights are pickled.
        DrsowError: It is another kind of adapter, or one of another base.
    """
    if not weights:
        return base
    place = source.files
    if isinstance(place, FolderSource):
        folder, commit = place.folder, ""
    else:
        files = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
        folder = snapshot(spec.model_id, place.repo, place.revision, files, local=local)
        commit = f"{folder.name}-"
        if local and not all((folder / name).is_file() for name in files):
            raise NotHere(f"{spec.model_id}: the files of the adapter {source.adapter} are not on this machine")
    _check(spec, source, folder)
    if commit and not local:
        check_promised(spec.model_id, folder / ADAPTER_WEIGHTS)
    revision = f"{base.revision}+lora-{commit}{adapter_digest(folder)}"
    return base._replace(revision=revision, adapter=folder)


def _check(spec: ModelSpec, source: AdapterSource, folder: Path) -> None:
    """Checks that a folder holds a LoRA adapter of the model's base. Reads no weights.

    Raises:
        PreconditionError: A file is missing, or the weights are pickled.
        DrsowError: It is another kind of adapter, or one of another base.
    """
    where = f"{spec.model_id}: adapter {source.adapter}"
    config = lora_config(where, folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise PreconditionError(f"{where}: has no {ADAPTER_WEIGHTS}; pickled weights are not read")
    named, base = config.get("base_model_name_or_path"), spec.files.source
    ours = base.repo if isinstance(base, HubSource) else None
    # A path on the machine of the training, or a base that is no repository, cannot be compared.
    comparable = ours is not None and isinstance(named, str) and named.count("/") == 1 and not Path(named).is_absolute()
    if comparable and named != ours and not source.other_base:
        raise DrsowError(
            f"{where}: was made for {named}, and its base {source.base!r} is {ours}; correct `base`, or write "
            "`other_base = true` into its source if both have the same weights"
        )


def lora_config(where: str, folder: Path) -> dict:
    """The configuration of a LoRA adapter.

    Raises:
        PreconditionError: It is missing.
        DrsowError: It cannot be read, or is of another kind of adapter.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise PreconditionError(f"{where}: has no {ADAPTER_CONFIG}; name a LoRA adapter as peft saves it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DrsowError(f"{where}: {ADAPTER_CONFIG}: broken JSON: {error}") from error
    if not isinstance(found, dict):
        raise DrsowError(f"{where}: {ADAPTER_CONFIG}: is no JSON object")
    if (kind := found.get("peft_type")) != "LORA":
        raise DrsowError(f"{where}: is of the kind {kind!r}; drsow merges LoRA adapters only")
    return found
