"""Keeps the keys and values of prompts and of the responses to them while tokens are sampled.

The compiled kernel reads them in blocks. It computes the attention of all responses to all prompts in one call, where
torch's flash attention takes a call for each prompt and another for its responses, and half of sampling's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.scoring.forward import kernels
from bench.scoring.forward.context import Softmax

BLOCK = 64
"""Tokens of each response for which room is made at once."""

Keys = tuple[Tensor, Tensor]
"""Keys and values, (..., n, head_dim) and (..., n, width). In blocks, for the kernel, they are int32: pairs of a key's
numbers, LANES keys side by side, (..., blocks, head_dim / 2, LANES), and pairs of two keys' numbers,
(..., blocks x LANES / 2, width)."""


def fits(query: Tensor, value: Tensor, softmax: Softmax) -> bool:
    """Whether the kernel computes such heads; arguments as in `decode.Together.attend`."""
    return softmax.cap is None and kernels.fits_heads(query, value) and kernels.ready()


def packed(key: Tensor, value: Tensor) -> Keys:
    """The blocks of a prompt's keys, (kv_heads, n, head_dim), and values, (kv_heads, n, width), bfloat16."""
    more = -key.shape[1] % kernels.LANES
    key, value = (pad(x, (0, 0, 0, more)).contiguous() for x in (key, value))
    keys = key.view(torch.int32).unflatten(1, (-1, kernels.LANES)).transpose(2, 3)
    values = value.unflatten(1, (-1, 2)).transpose(2, 3).contiguous().view(torch.int32).squeeze(-1)
    return keys.contiguous(), values


def grown(blocks: Keys | None, n_rows: int, key: Tensor, value: Tensor) -> Keys:
    """The blocks of some responses, with room for BLOCK more keys; None: there are none yet.

    Args:
        blocks: Of n_rows responses.
        n_rows: Number of responses.
        key: Of a token, (..., kv_heads, head_dim).
        value: Of a token, (..., kv_heads, width).
    """
    keys = (n_rows, key.shape[-2], BLOCK // kernels.LANES, key.shape[-1] // 2, kernels.LANES)
    values = (n_rows, value.shape[-2], BLOCK // 2, value.shape[-1])
    # Zeros: a weight of 0 times what the memory holds may not be 0.
    new = torch.zeros(keys, dtype=torch.int32), torch.zeros(values, dtype=torch.int32)
    if blocks is None:
        return new
    return torch.cat([blocks[0], new[0]], 2), torch.cat([blocks[1], new[1]], 2)


class Prompt(NamedTuple):
    """A prompt that the model has read."""

    n: int
    """Number of its tokens."""
    layers: dict[int, Keys]
    """Layer -> keys and values of the kv_heads; in blocks once the kernel has read them."""
    logits: Tensor
    """Of the first token after it, (1, words)."""

    def packed(self, layer: int) -> Keys:
        """The keys and values of a layer in blocks."""
        kept = self.layers[layer]
        if kept[0].dtype != torch.int32:
            kept = self.layers[layer] = packed(*kept)
        return kept


@dataclass
class Group:
    """Responses to one prompt that have the same number of tokens."""

    prompt: Prompt
    n_rows: int
    n_own: int = 0
    """Tokens of each response whose keys and values are kept."""
    own: dict[int, Keys] = field(default_factory=dict)
    """Layer -> keys and values of the responses' tokens, (n_rows, kv_heads, ...), with room for n_own or more."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all responses but some."""
        self.n_rows = len(rows)
        self.own = {layer: (key[rows], value[rows]) for layer, (key, value) in self.own.items()}

    def with_room(self, layer: int, key: Tensor, value: Tensor) -> Keys:
        """The blocks of a layer, with room for another token; `key` and `value` as in `grown`."""
        kept = self.own.get(layer)
        if kept is None or kept[0].shape[2] * kernels.LANES == self.n_own:
            kept = self.own[layer] = grown(kept, self.n_rows, key, value)
        return kept


def attend(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: Sequence[Group],
    lengths: Tensor,
    *,
    scale: float,
    window: int | None,
) -> Tensor:
    """Attention of one layer, (slots, heads, width), bfloat16; zeros behind the last response.

    It puts the new tokens' keys and values behind those of their responses. Products and sums are float32; a weight is
    rounded before it meets its value.

    Args:
        layer: Its number.
        query: One token of each response, group by group, (heads, slots, head_dim).
        key: (kv_heads, slots, head_dim).
        value: (kv_heads, slots, width).
        groups: The responses.
        lengths: Responses, tokens of the prompt, and tokens of each response so far, (groups, 3), int64.
        scale: Of the scores.
        window: A token sees keys that are nearer than this; None for all keys.
    """
    tokens = [x.transpose(0, 1) for x in (query, key, value)]
    prompts = [group.prompt.packed(layer) for group in groups]
    own = [group.with_room(layer, *tokens[1:]) for group in groups]
    kept = [[each[i] for each in some] for some in (prompts, own) for i in range(2)]
    return torch.ops.drsow.decode_attention(*tokens, *kept, lengths, scale, window or 0)
