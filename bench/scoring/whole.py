"""Checks that a model is the one in its files: transformers leaves out or makes up what does not fit, in silence."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import FineGrainedFP8Config, PretrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from bench.faults import warn
from bench.schema import DrsowError, PreconditionError
from bench.scoring.located import weight_files

PLAIN = {"F64", "F32", "F16", "BF16"}
"""The dtypes, as safetensors names them, of weights that are what they say."""

UNUSED = re.compile(
    # Tables that older versions of transformers stored, and scales of activations and of a cache of keys.
    r"rotary|inv_freq|\.(attn|attention)\.(masked_)?bias$|position_ids$|version$"
    r"|\b(input|output|activation|act|k|v|q|kv|kv_cache)_scale$"
    # What reads pictures or sound, and what predicts a second token.
    r"|vision|visual|image|video|audio|speech|projector|mtp|nextn",
)
"""Names of weights that a language model does not need."""

CLASSIFIER = ("score.", "classifier.")
"""How the heads begin that transformers gives a model that classifies texts."""


def quantisation(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    """The options by which transformers reads a model's quantised weights. Block-FP8 ones become plain numbers, on a
    GPU too, where their activations would be rounded otherwise.

    Args:
        folder: The model's files.
        config: Its configuration.

    Raises:
        DrsowError: transformers does not know the quantisation, and would read the raw numbers as weights.
    """
    text = config.get_text_config(decoder=True)
    found = getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None)
    if not found:
        _check_plain(folder)
        return {}
    if not AutoHfQuantizer.supports_quant_method(found):
        raise DrsowError(
            f"{folder}: transformers does not read the quantisation {found.get('quant_method')!r} that config.json "
            "names; use the model without quantisation"
        )
    return {"quantization_config": FineGrainedFP8Config(dequantize=True)} if found.get("quant_method") == "fp8" else {}


def _check_plain(folder: Path) -> None:
    """Checks that the weights of a model without quantisation are no quantised ones."""
    for path in weight_files(folder):
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                dtype = weights.get_slice(name).get_dtype()
                if dtype not in PLAIN and (name.endswith("weight") or dtype.startswith(("F8", "F6", "F4"))):
                    raise DrsowError(
                        f"{folder}: {name} is stored as {dtype}, but config.json names no quantisation; use the model "
                        "without quantisation"
                    )


def check_missing(name: str, found: dict) -> None:
    """Checks that no weight is missing: transformers fills it with random numbers.

    Args:
        name: What to call the model's files.
        found: transformers' loading info.

    Raises:
        DrsowError: A weight is missing, or has another shape.
    """
    if missing := sorted(found["missing_keys"]):
        raise DrsowError(f"{name}: {missing[0]} is not in its files ({len(missing)} weights are missing)")
    for weight, stored, expected in sorted(found["mismatched_keys"]):
        raise DrsowError(
            f"{name}: {weight} has the shape {tuple(stored)} in its files and {tuple(expected)} by its configuration; "
            "correct it, or use the files of one model"
        )


def check_left_out(name: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Checks that the weights that a model has no place for are none of a language model's; says which others there
    are.

    Args:
        name: What to call the model's files.
        model: The model, loaded.
        unexpected: The names of those weights.

    Raises:
        DrsowError: They belong to one of its layers, to a further layer, or to the head of a classifier.
    """
    left_out = sorted(key for key in unexpected if not UNUSED.search(key) and not _predicts_more(model, key))
    parts = {part for part, _ in model.named_modules()} - {"", model.base_model_prefix}
    if inside := [key for key in left_out if key.startswith(CLASSIFIER) or _parents(key) & parts]:
        raise DrsowError(
            f"{name}: {inside[0]} is in its files, but not in the model that config.json describes ({len(inside)} such "
            "weights); correct config.json"
        )
    if left_out:
        _warn_once(
            f"{name}: {left_out[0]} is in its files, but not in the language model, and is left out ({len(left_out)} "
            "such weights)"
        )


def _parents(key: str) -> set[str]:
    """The names of all parts of a model in which a weight of this name may be."""
    names = key.split(".")
    return {".".join(names[:n]) for n in range(1, len(names))}


def _predicts_more(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight is of the layers behind the last one that predict a second token."""
    config = model.config.get_text_config().to_dict()
    layer = re.search(r"layers\.(\d+)\.", key)
    has_more = any(count for name, count in config.items() if "nextn" in name or "mtp" in name)
    return layer is not None and has_more and int(layer[1]) >= config["num_hidden_layers"]


@functools.cache
def _warn_once(line: str) -> None:
    """A model's files may be read several times in a run."""
    warn(line)


def without_tokenizer(folder: Path, error: DrsowError) -> DrsowError:
    """The error for a folder whose tokenizer transformers cannot load, for the reason that `error` names."""
    has_code = any(folder.glob("*.py"))
    if has_code or (folder / "tokenizer.json").is_file():
        return error
    if (folder / "tokenizer.model").is_file():
        return PreconditionError(
            f"{folder}: its tokenizer.model cannot be read; run `pip install sentencepiece protobuf`, or save the "
            "tokenizer as tokenizer.json beside it"
        )
    return DrsowError(f"{folder}: has no tokenizer.json; save the tokenizer of the model in this folder")
