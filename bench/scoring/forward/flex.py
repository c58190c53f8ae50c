"""Computes attention over a packed trie on a GPU with FlexAttention, which skips blocks that the trie masks.

The host computes the blocks from the trie's `end` array, once per step for all layers. A compiled kernel is for one
shape of heads and any length. Keys of a trunk precede the step's keys.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.scoring.forward.compiling import compiled
from bench.scoring.forward.device import moved

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

NAME = "FlexAttention"
"""Its name in error messages."""
BLOCK = 128
"""Number of queries, and of keys, of a block."""
LEAST_HEAD_DIM = 16
"""Of what a GPU's kernel multiplies."""
TOLD = {"IS_DIVISIBLE": True}
"""What dynamic lengths do not tell the compiler: all lengths are whole blocks.

Not ROWS_GUARANTEED_SAFE, although every query sees a key: the kernel's first block may hide all its keys from a query,
whose running maximum is then -inf, and whose result is not a number.
"""


def block_mask(
    end: np.ndarray, positions: np.ndarray, *, n_before: int, window: int | None, device: torch.device
) -> "BlockMask":
    """Says which keys of a step and of its trunk each query of the step may see.

    Args:
        end: Index after each token's subtree, (n,).
        positions: Depth of each token, (n,).
        n_before: Tokens of the trunk; every query sees them.
        window: A query sees keys of less than this distance; None for all.
        device: Where the attention runs.

    Returns:
        A mask of n queries and n_before + n keys, both rounded up to whole blocks. The added queries see some keys, so
        that their results are finite; no query of the step sees the added keys.
    """
    # Imported here, because the module imports torch's compiler, which takes a second, and a CPU does not need it.
    from torch.nn.attention.flex_attention import BlockMask

    n, n_queries, n_keys = len(end), block_rows(len(end)), block_rows(n_before + len(end))
    first = np.arange(n_keys) - n_before
    last = first + 1
    last[:n_before], last[n_before : n_before + n] = n_queries, end
    depth_q, depth_k = np.zeros(n_queries, dtype=np.int64), np.zeros(n_keys, dtype=np.int64)
    depth_q[:n], depth_k[n_before : n_before + n], depth_k[:n_before] = positions, positions, np.arange(n_before)
    some, whole = _kinds(first, last, depth_q, depth_k, window)
    # 32-bit indices: with 64 bits the kernel needs more registers than a GPU has, and spills them.
    rule = (moved(x.astype(np.int32), device) for x in (first, last, depth_q, depth_k))
    partial_blocks, whole_blocks = (_listed(x, device) for x in (some & ~whole, whole))
    return BlockMask.from_kv_blocks(
        *partial_blocks,
        *whole_blocks,
        BLOCK_SIZE=BLOCK,
        mask_mod=_rule(*rule, window=window),
        seq_lengths=(n_queries, n_keys),
        compute_q_blocks=False,
    )


def block_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: "BlockMask", *, scale: float | None, cap: float | None = None
) -> Tensor:
    """Attention of one layer.

    Args:
        query: (1, heads, n, head_dim), n at most the mask's queries.
        key: (1, kv_heads, k, head_dim); rows behind the mask's keys are not read.
        value: (1, kv_heads, k, head_dim).
        mask: From `block_mask`.
        scale: Of the products of queries and keys; None for 1 / sqrt(head_dim).
        cap: Scores s become cap * tanh(s / cap); None: they stay.

    Returns:
        (1, heads, n, head_dim).
    """
    n_queries, n_keys = mask.seq_lengths
    n = query.shape[2]
    query, (key, value) = _fitted(query, n_queries), (_fitted(x, n_keys) for x in (key, value))
    more = {"score_mod": None if cap is None else capped(cap), "scale": scale, "enable_gqa": True}
    return _compiled()(query, key, value, block_mask=mask, kernel_options=TOLD, **more)[:, :, :n]


def _fitted(x: Tensor, n: int) -> Tensor:
    """The first n rows, zeros added where there are fewer; x: (1, heads, rows, width). Copies only to add rows."""
    return x[:, :, :n] if x.shape[2] >= n else pad(x, (0, 0, 0, n - x.shape[2]))


@functools.cache
def capped(cap: float) -> Callable[..., Tensor]:
    """The soft cap of a model's scores, as FlexAttention takes it."""

    def score(scores: Tensor, _batch: Tensor, _head: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        return cap * torch.tanh(scores / cap)

    return score


def block_rows(n: int) -> int:
    """Rows that a step of n tokens has on a GPU: whole blocks, so that attention copies nothing to add some.

    At least two blocks, because torch compiles another kernel for a single block.
    """
    return max(2, -(-n // BLOCK)) * BLOCK


@functools.cache
def _compiled() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    # Whole or an error: what torch does instead of a kernel holds all scores at once.
    return compiled(flex_attention, NAME, fullgraph=True)


def _rule(first: Tensor, last: Tensor, depth_q: Tensor, depth_k: Tensor, *, window: int | None) -> Callable:
    def visible(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (first[k] <= q) & (q < last[k])

    def near(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible(_batch, _head, q, k) & (depth_q[q] - depth_k[k] < window)

    return visible if window is None else near


def _kinds(
    first: np.ndarray, last: np.ndarray, depth_q: np.ndarray, depth_k: np.ndarray, window: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a block of queries may see some of a block of keys, and whether it sees all; (queries, keys) each."""
    low = np.arange(0, len(depth_q), BLOCK)[:, None]
    first, last, depth_q, depth_k = (x.reshape(-1, BLOCK) for x in (first, last, depth_q, depth_k))
    some = (first.min(axis=1) < low + BLOCK) & (last.max(axis=1) > low)
    whole = (first.max(axis=1) <= low) & (last.min(axis=1) >= low + BLOCK)
    if window is not None:
        some &= depth_q.min(axis=1)[:, None] - depth_k.max(axis=1) < window
        whole &= depth_q.max(axis=1)[:, None] - depth_k.min(axis=1) < window
    return some, whole


def _listed(chosen: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each block of queries: the number of chosen blocks of keys, and all blocks with the chosen ones first."""
    order = np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)
    counts = chosen.sum(axis=1, dtype=np.int32)
    return moved(counts, device)[None, None], moved(order, device)[None, None]
