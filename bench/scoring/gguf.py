"""Converts a GGUF file into a folder of safetensors."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path

import gguf as gguf_library
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.scoring.models import check_whole, loading


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes a GGUF file's model, dequantised to float32, and its tokenizer as a folder of safetensors."""
    # No setting turns the dequantiser's progress bar off, so stderr is redirected.
    with loading(gguf.name), contextlib.redirect_stderr(io.StringIO()), _parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model, found = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
        )
        check_whole(gguf.name, found)
        # The weights are float32 now, but transformers does not save them while it finds these two settings.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Makes transformers parse a GGUF file once instead of three times (20 s each for 262k tokens)."""
    whole = gguf_library.GGUFReader
    gguf_library.GGUFReader = functools.cache(whole)
    try:
        yield
    finally:
        gguf_library.GGUFReader = whole
