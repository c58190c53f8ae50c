"""Gives a GGUF file's tokenizer the rule by which it divides a text before it merges pieces.

A file names its rule in `tokenizer.ggml.pre`. transformers (5.23) knows some names and gives a file with any other the
rule of GPT-2, by which "\\n\\n1" is three tokens of SmolLM2 instead of two.
"""

from tokenizers import Tokenizer, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as KNOWN

from bench.schema import DrsowError

GPT_2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo", "jais"})
DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
"""GPT-2's rule after each digit is set apart, as llama.cpp does for files with these names."""


def set_rule(tokenizer: Tokenizer, name: str, file: str) -> bool:
    """Give a tokenizer the rule that its GGUF file names.

    Args:
        tokenizer: A byte-level BPE, as transformers converts it. It is changed.
        name: The value of `tokenizer.ggml.pre`.
        file: The file's name for messages.

    Returns:
        Whether transformers lacks this rule, so that it was set here.

    Raises:
        DrsowError: The rule is not known.
    """
    if name in DIGITS:
        digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        return True
    if name in GPT_2 or name in KNOWN:
        return False
    raise DrsowError(
        f"{file}: its tokenizer divides texts by the rule {name!r}, which is not known; use the model's safetensors, "
        "or serve the file (kind openai-echo)"
    )
