"""Computes attention on a CPU as two oneDNN products with a softmax between them, where MKL is slower than oneDNN.

torch's flash kernel multiplies with MKL, which is much slower than oneDNN on processors that are not Intel's. This
module computes in float32 up to the result, attention's weights too; the flash kernel rounds these to the values'
dtype. A product in bfloat16 would save no more time than that rounding costs.
"""

import itertools

import torch
from torch import Tensor

from bench.scoring.forward.onednn import onednn_product

QUERIES, KEYS = 16, 64
"""Numbers of queries and keys of a product are multiples of these: oneDNN keeps 0.7 MB of code for each shape."""

LEAST = 12_288
"""Queries times keys from which on this is faster than the flash kernel. Below it, many short operations cost more."""

ROWS = 128
"""The most queries of one product, so that the scores of a group of heads fit into a core's cache."""


def additive(visible: Tensor) -> Tensor:
    """The mask of a product, float32: 0 for a visible key, -inf for others and for the padding of `product_attention`.

    Args:
        visible: (queries, keys), bool.
    """
    n, k = visible.shape
    mask = torch.full((n + -n % QUERIES, k + -k % KEYS), float("-inf"), device=visible.device)
    mask[:n, :k].masked_fill_(visible, 0.0)
    return mask


def product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float | None, sums: Tensor | None = None
) -> Tensor:
    """Softmax attention, (1, heads, n, value_dim), in the values' dtype.

    Args:
        query: (1, heads, n, head_dim).
        key: (1, kv_heads, k, head_dim).
        value: (1, kv_heads, k, value_dim).
        mask: From `additive`, for n queries, or one row for all of them.
        scale: Factor of the scores; None for 1 / sqrt(head_dim).
        sums: Filled with the logarithm of each query's sum over its keys, (1, heads, n), float32.
    """
    n, kv_heads = query.shape[2], key.shape[1]
    scale = query.shape[3] ** -0.5 if scale is None else scale
    query = _rows(query[0], n + -n % QUERIES).mul_(scale).unflatten(0, (kv_heads, -1))
    key, wide = (_rows(x[0], mask.shape[1]) for x in (key, value))
    out = value.new_empty(*query.shape[:3], value.shape[3])
    for low, head in itertools.product(range(0, query.shape[2], ROWS), range(kv_heads)):
        rows = slice(low, low + ROWS)
        own = query[head, :, rows]
        scores = onednn_product(own.flatten(0, 1), key[head]).view(*own.shape[:2], -1)
        scores += mask if len(mask) == 1 else mask[rows]
        highest = None if sums is None else scores.amax(-1)
        weights = torch.softmax(scores, -1, out=scores)
        if sums is not None:
            logs = highest - weights.amax(-1).log_()
            sums.unflatten(1, (kv_heads, -1))[0, head, :, rows] = logs[:, : n - low]
        product = onednn_product(weights.flatten(0, 1), wide[head].T)
        out[head, :, rows] = product.view(*own.shape[:2], -1)
    return out.flatten(0, 1)[None, :, :n]


def _rows(x: Tensor, n: int) -> Tensor:
    """A float32 copy of x, (heads, rows, head_dim), followed by rows of zeros up to n rows."""
    rows = x.new_zeros(x.shape[0], n, x.shape[2], dtype=torch.float32)
    rows[:, : x.shape[1]] = x
    return rows
