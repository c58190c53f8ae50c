"""Load a tokenizer or a model from a folder of safetensors; turn a GGUF file into such a folder."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from bench.schema import DrsowError
from bench.scoring import engine


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder.

    Raises:
        DrsowError: there is none, or only one without offsets (a slow one).
    """
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise DrsowError(f"{folder}: no tokenizer can be loaded: {str(error).splitlines()[0]}") from None
    if not tokenizer.is_fast:
        raise DrsowError(f"{folder}: its tokenizer has no tokenizer.json")
    return tokenizer


def context_tokens(folder: Path, *, trust_remote_code: bool = False) -> int:
    """The longest sequence that the model's configuration allows, in tokens."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
    return int(config.max_position_embeddings)


def load_model(folder: Path, *, dtype: torch.dtype, device: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """A causal language model, ready for the engine; what one GPU cannot hold is spread over all of them."""
    spread = device == "cuda" and torch.cuda.device_count() > 1
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            device_map="auto" if spread else None,
            trust_remote_code=trust_remote_code,
        )
    return engine.prepare(model if spread else model.to(device))


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model, dequantised to float32, and its tokenizer as a folder of safetensors."""
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise DrsowError(f"{gguf.name}: cannot be read: {str(error).splitlines()[0]}") from None
        # The weights are plain float32 now; while these two stay, transformers refuses to write them.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own bars and notes off stderr, where our progress stands."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
