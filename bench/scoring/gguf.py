"""Converts a GGUF file into a folder of safetensors."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path

import gguf as gguf_library
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.schema import DrsowError
from bench.scoring.models import check_whole, load_tokenizer, loading
from bench.scoring.splitting import set_rule


def convert_gguf(gguf: Path, folder: Path) -> str:
    """Writes a GGUF file's model, dequantised to float32, and its tokenizer as a folder of safetensors.

    Returns:
        The rule by which the tokenizer divides texts, if transformers lacks it, else "".

    Raises:
        DrsowError: The file names a rule that is not known.
    """
    # No setting turns the dequantiser's progress bar off, so stderr is redirected.
    with loading(gguf.name), contextlib.redirect_stderr(io.StringIO()), _parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        rule = _rule(gguf)
        changed = bool(rule) and set_rule(tokenizer.backend_tokenizer, rule, gguf.name)
        model, found = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
        )
        check_whole(gguf.name, found)
        # The weights are float32 now, but transformers does not save them while it finds these two settings.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if not changed:
        return ""
    if load_tokenizer(folder).backend_tokenizer.to_str() != tokenizer.backend_tokenizer.to_str():
        raise DrsowError(f"{gguf.name}: transformers does not keep its tokenizer's rule {rule!r}")
    return rule


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
