"""The tokens that were added to a tokenizer's vocabulary, such as special tokens, read once a tokenizer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerFast


class Added(NamedTuple):
    """The added tokens of a tokenizer."""

    ids: Mapping[str, int]
    """Text -> id."""
    special: Mapping[int, str]
    """Id -> text of those that are special."""


_READ: WeakKeyDictionary[PreTrainedTokenizerFast, Added] = WeakKeyDictionary()


def added(tokenizer: PreTrainedTokenizerFast) -> Added:
    """The added tokens of a tokenizer as they are when it is first asked for; a token that is added later is unknown.

    Gemma has 6,400 of them, and transformers makes an object of each whenever it is asked: 8 ms, and work for the
    garbage collector.
    """
    found = _READ.get(tokenizer)
    if found is None:
        tokens = tokenizer.added_tokens_decoder
        ids = {token.content: i for i, token in sorted(tokens.items())}
        special = {i: token.content for i, token in tokens.items() if token.special}
        found = _READ[tokenizer] = Added(MappingProxyType(ids), MappingProxyType(special))
    return found
