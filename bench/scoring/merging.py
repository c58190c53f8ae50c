"""Merges LoRA adapters (arXiv 2106.09685) into the weights of a model."""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bench.schema import DrsowError
from bench.scoring.located import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_PREFIX = "base_model.model."
"""What peft writes before the name of a layer."""

_REMEDY = "it was made for another base; correct `base`"


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Merges an adapter into the weights of a model, in place.

    Args:
        model: On the CPU, in float32: bfloat16 would round small changes away.
        folder: The adapter's files.

    Raises:
        DrsowError: A layer of the adapter is not in the model or has another shape there; the adapter's weights are not
            those of its configuration; or it changes an embedding or a head that are one matrix in the model.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict

    tied = _tied(model)
    names = _check_layers(model, folder)
    _check_equal(folder, tied)
    with warnings.catch_warnings():
        # peft warns about names of transformers, and about layers that are checked here.
        warnings.simplefilter("ignore")
        adapted = _adapted(model, folder)
        given = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    parts = {name.removeprefix(_PREFIX): part for name, part in adapted.named_modules()}
    changed = tuple(f"{name}." for name, part in parts.items() if isinstance(part, LoraLayer | ModulesToSaveWrapper))
    # peft changes one of the two. Merged, the change would reach both, or get lost.
    if apart := sorted(name for name in tied if f"{name}.".startswith(changed)):
        raise _of_a_tied(folder, apart[0])
    found = {name for name, part in parts.items() if isinstance(part, LoraLayer)}
    if differing := sorted(found ^ names):
        raise DrsowError(f"{folder}: {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} disagree about the layer {differing[0]}")
    _check_given(folder, given, set(adapted.state_dict()))
    return adapted.merge_and_unload()


def _check_given(folder: Path, given: set[str], known: set[str]) -> None:
    """Checks that an adapter's file has what its configuration asks for: peft makes up what it lacks, and leaves out
    what it has besides, in silence.

    Args:
        folder: The adapter's files.
        given: What the configuration asks for.
        known: All names that the model has with the adapter.
    """
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
        stored = set(weights.keys())
    if missing := sorted(given - stored):
        raise DrsowError(
            f"{folder}: {ADAPTER_WEIGHTS} lacks {missing[0].removeprefix(_PREFIX)} ({len(missing)} such weights); save "
            "the whole adapter again"
        )
    if unread := sorted(stored - given - known):
        raise DrsowError(
            f"{folder}: {ADAPTER_WEIGHTS} has {unread[0].removeprefix(_PREFIX)} ({len(unread)} such weights), which "
            f"{ADAPTER_CONFIG} does not name; correct it"
        )


def _adapted(model: PreTrainedModel, folder: Path) -> Any:
    """The model with the adapter as peft adds it."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder))
    except RuntimeError as error:
        # `_check_layers` does not know the shapes of experts. torch names each weight of another shape in a line.
        name = str(error).partition(f"size mismatch for {_PREFIX}")[2].partition(":")[0]
        if not name:
            raise
        weight = name.replace(".default.", ".")
        raise DrsowError(f"{folder}: {weight} has another shape than the base needs: {_REMEDY}") from error


def _tied(model: PreTrainedModel) -> set[str]:
    """The names of a model's embedding and head if they are one matrix."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not (embedding := model.get_input_embeddings()).weight:
        return set()
    return {name for name, part in model.named_modules() if part is head or part is embedding}


def _of_a_tied(folder: Path, name: str) -> DrsowError:
    return DrsowError(
        f"{folder}: changes {name}, but the base ties its embedding and its head; untie them in a copy of the base, "
        "and name the copy as `base`"
    )


def _check_equal(folder: Path, tied: set[str]) -> None:
    """Checks that an adapter with new weights for a tied embedding and its head has the same for both."""
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
        keys = {f"{_PREFIX}{name}.weight" for name in tied} & set(weights.keys())
        new = [weights.get_tensor(key) for key in keys]
    if len(new) == 2 and not torch.equal(*new):
        raise _of_a_tied(folder, min(tied))


def _check_layers(model: PreTrainedModel, folder: Path) -> set[str]:
    """The layers that an adapter changes, each of which the model has in the adapter's shape."""
    layers = dict(model.named_modules())
    shapes = {name: part.shape for name, part in model.named_parameters(remove_duplicate=False)}
    changed = set()
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            name, shape = key.removeprefix(_PREFIX), tuple(weights.get_slice(key).get_shape())
            wrapped, found, part = name.partition(".lora_")
            # Experts are one layer with several weights. peft wraps it once for each weight that the adapter changes.
            layer = wrapped.replace(".base_layer", "")
            if not found:
                # A layer that peft wraps is saved with its own weight, under another name.
                _check_whole(folder, name.replace(".base_layer.", "."), shape, shapes)
                continue
            if layer not in layers:
                raise DrsowError(f"{folder}: changes the layer {layer}, which the base does not have: {_REMEDY}")
            base = shapes.get(f"{layer}.weight")
            # transformers' Conv1D stores (in, out).
            _check_shape(folder, layer, part, shape, base[::-1] if base and isinstance(layers[layer], Conv1D) else base)
            changed.add(wrapped)
    return changed


def _check_whole(folder: Path, name: str, shape: tuple[int, ...], shapes: dict[str, torch.Size]) -> None:
    """Checks a weight that the adapter replaces."""
    layer, trains_tokens, _ = name.partition(".token_adapter.")
    if trains_tokens:
        raise DrsowError(
            f"{folder}: trains single tokens of {layer} (trainable_token_indices), which drsow does not merge; "
            "merge it with peft and name the merged folder"
        )
    if name not in shapes or tuple(shapes[name]) != shape:
        here = tuple(shapes[name]) if name in shapes else "missing"
        raise DrsowError(
            f"{folder}: replaces the weight {name} of shape {shape}, which the base has as {here}: {_REMEDY}"
        )


def _check_shape(folder: Path, layer: str, part: str, shape: tuple[int, ...], base: torch.Size | None) -> None:
    """Checks one factor of a linear layer's adapter, A of (rank, in) or B of (out, rank), against `base`, (out, in)."""
    if base is None or len(shape) != 2 or part not in ("A.weight", "B.weight"):
        return
    ours, theirs = (base[1], shape[1]) if part == "A.weight" else (base[0], shape[0])
    if ours != theirs:
        side = "in" if part == "A.weight" else "out"
        raise DrsowError(f"{folder}: the layer {layer} has {theirs} {side} there and {ours} in the base: {_REMEDY}")
