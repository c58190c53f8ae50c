"""Converts a GGUF file into a folder of safetensors."""

import contextlib
import functools
import io
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf as gguf_library
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel

from bench.schema import DrsowError
from bench.scoring.models import load_tokenizer, loading
from bench.scoring.splitting import set_rule
from bench.scoring.whole import check_missing

EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
"""transformers' names of what a norm adds to a variance."""


def convert_gguf(gguf: Path, folder: Path) -> str:
    """Writes a GGUF file's model, dequantised to float32, and its tokenizer as a folder of safetensors.

    Returns:
        The rule by which the tokenizer divides texts, if transformers lacks it, else "".

    Raises:
        DrsowError: The file names a rule that is not known, or holds more than transformers reads.
    """
    # No setting turns the dequantiser's progress bar off, so stderr is redirected.
    with loading(gguf.name), contextlib.redirect_stderr(io.StringIO()), _parsed_once(), _alone(gguf) as alone:
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=gguf.name, trust_remote_code=False)
        rule = _rule(gguf)
        changed = bool(rule) and set_rule(tokenizer.backend_tokenizer, rule, gguf.name)
        model, found = AutoModelForCausalLM.from_pretrained(
            alone,
            gguf_file=gguf.name,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
        _check_read(gguf, model)
        check_missing(gguf.name, found)
        # The weights are float32 now, but transformers does not save them while it finds these two settings.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _compact(folder / "tokenizer.json")
    if not changed:
        return ""
    if load_tokenizer(folder).backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
        raise DrsowError(f"{gguf.name}: transformers does not keep its tokenizer's rule {rule!r}")
    return rule


@contextlib.contextmanager
def _alone(gguf: Path) -> Iterator[Path]:
    """A temporary folder with a link to the file alone: transformers also reads other files that lie beside it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / gguf.name).symlink_to(gguf.absolute())
        yield Path(folder)


def _compact(path: Path) -> None:
    """Writes a JSON file again without spaces: Gemma's tokenizer has 14 instead of 33 MB, and transformers reads it
    twice."""
    held = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(held, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _check_read(gguf: Path, model: PreTrainedModel) -> None:
    """Checks that a model has all that its file holds: transformers leaves out what it does not know, in silence.

    Raises:
        DrsowError: It lacks a weight, the scaling of its rotary positions, or another setting of its attention.
    """
    reader = gguf_library.GGUFReader(str(gguf))
    if differing := _differing(reader, model.config.get_text_config()):
        raise _unread(gguf, differing)
    settings = {name: field.contents() for name, field in reader.fields.items() if ".rope.scal" in name}
    if (scaling := _scaling(settings)) and scaling != _converted_scaling(model):
        kind, factor = scaling
        raise _unread(gguf, f"how it scales its rotary positions ({kind}, factor {factor:g})")
    # Two names of one weight lie at one address.
    weights = {weight.data_ptr(): weight.numel() for weight in model.state_dict().values()}
    if sum(int(tensor.n_elements) for tensor in reader.tensors) > sum(weights.values()):
        raise _unread(gguf, f"its weights {', '.join(_unknown(reader, model)[:2])}")


def _unread(gguf: Path, what: str) -> DrsowError:
    return DrsowError(f"{gguf.name}: transformers does not read {what}; use the model's safetensors")


def _differing(reader: gguf_library.GGUFReader, config: PretrainedConfig) -> str:
    """A setting of a file that the converted model has otherwise, "" if there is none."""
    ours = _settings(config)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar and scalar != ours["attention.key_length"]:
        # As in Gemma 2 and 3 of 27B: the file does not hold the number, and transformers takes another model's.
        return "the scale of its attention"
    kept = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items()}
    if kept.get("attention.sliding_window", 0) >= kept.get("context_length", math.inf):
        del kept["attention.sliding_window"]
    for name, value in ours.items():
        # A GGUF file has float32, and 0 where there is none.
        if kept.get(name) and not (value and math.isclose(kept[name], value, rel_tol=1e-5)):
            return f"its setting {name} = {kept[name]:g}"
    return ""


def _settings(config: PretrainedConfig) -> dict[str, float | None]:
    """The settings of a file as a configuration has them, by their names there without the architecture."""
    has = config.to_dict()
    rope = has.get("rope_parameters") or {}
    width = has.get("global_head_dim") or has.get("head_dim") or config.hidden_size // config.num_attention_heads
    epsilon = next((has[name] for name in EPSILONS if name in has), None)
    found = {
        "attention.key_length": width,
        "attention.sliding_window": has.get("sliding_window"),
        "attn_logit_softcapping": has.get("attn_logit_softcapping"),
        "final_logit_softcapping": has.get("final_logit_softcapping"),
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "rope.freq_base": rope.get("full_attention", rope).get("rope_theta"),
    }
    if "full_attention" in rope:
        return found
    part = rope.get("partial_rotary_factor") or has.get("partial_rotary_factor") or 1
    return found | {"rope.dimension_count": has.get("rotary_dim") or width * part}


def _scaling(settings: dict[str, Any]) -> tuple[str, float] | None:
    """Kind and factor by which a file scales its rotary positions, None if it does not.

    Args:
        settings: Its settings of the scaling, whose names begin with the architecture's.
    """
    named = {name.partition(".rope.")[2]: value for name, value in settings.items()}
    # As llama.cpp reads them: a factor without a kind is linear, and an older name of the factor counts too.
    kind = named.get("scaling.type", "linear")
    factor = float(named.get("scaling.factor") or named.get("scale_linear") or 1)
    return None if kind == "none" or factor == 1 else (kind, factor)


def _converted_scaling(model: PreTrainedModel) -> tuple[str, float] | None:
    """The same of the converted model's configuration."""
    rope = model.config.get_text_config().to_dict().get("rope_parameters") or {}
    return (rope["rope_type"], float(rope["factor"])) if "factor" in rope else None


def _unknown(reader: gguf_library.GGUFReader, model: PreTrainedModel) -> list[str]:
    """The weights of a file that have no place in the model, or one of another name, as experts have."""
    numbers = {name: number for number, name in gguf_library.MODEL_ARCH_NAMES.items()}
    number = numbers[reader.fields["general.architecture"].contents()]
    names = gguf_library.get_tensor_name_map(number, model.config.get_text_config().num_hidden_layers)
    split = (name.rpartition(".") for name in model.state_dict())
    known = {f"{names.get_name(layer)}.{part}" for layer, _, part in split}
    unknown = [tensor.name for tensor in reader.tensors if tensor.name not in known]
    return sorted(unknown, key=lambda name: "_exps." in name)


def _rule(gguf: Path) -> str:
    """The rule that a file names; "" for a file without one, and for tokenizers that have none."""
    fields = gguf_library.GGUFReader(str(gguf)).fields
    kind, rule = (fields.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    return str(rule.contents()) if kind and rule and kind.contents() == "gpt2" else ""


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Makes transformers parse a GGUF file once instead of three times (20 s each for 262k tokens)."""
    whole = gguf_library.GGUFReader
    gguf_library.GGUFReader = functools.cache(whole)
    try:
        yield
    finally:
        gguf_library.GGUFReader = whole
