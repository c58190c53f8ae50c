"""Computes attention over a packed step with gradients, tile by tile.

On a processor torch's attention spends ten times as long in its backward pass as these products do, and the gradient of
each slice of a tensor clears and adds a whole tensor. On a GPU torch's attention is fast.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.scoring.forward.context import Softmax, StepContext
from bench.scoring.forward.tiles import Tile, TileMasks, by_tiles, tile_masks

Ranges = tuple[tuple[int, int], ...]


def attend(ctx: StepContext, query: Tensor, key: Tensor, value: Tensor, softmax: Softmax) -> Tensor:
    """Attention of one layer over a step without a trunk, (1, rows, heads, width); arguments as in `by_tiles`."""
    # The soft cap of the scoring pass works in place, so it has no gradient.
    if query.device.type != "cpu" and softmax.cap is None:
        return by_tiles(ctx, query, key, value, softmax, least=math.inf)
    make = functools.partial(_masks, ctx, query, window=softmax.window)
    masks = ctx.once(("gradient", softmax.window), make)
    told = softmax._replace(scale=query.shape[3] ** -0.5) if softmax.scale is None else softmax
    return TileAttention.apply(query[0], key[0], value[0], masks, told).transpose(0, 1)[None]


def _masks(ctx: StepContext, like: Tensor, *, window: int | None) -> TileMasks:
    """The step's tiles and their padded masks. A padded query sees every key, because its gradient must not be NaN."""
    found = tile_masks(ctx, like, window=window, n_before=0, least=0)
    for tile, mask in zip(*found, strict=True):
        mask[tile.high - tile.low :] = 0
    return TileMasks(found.tiles, [mask.to(like.device) for mask in found.masks])


class TileAttention(torch.autograd.Function):
    """Softmax attention in float32 products of the inputs' dtype; the backward pass computes the weights again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, masks: TileMasks, softmax: Softmax) -> Tensor:
        """(heads, rows, width), 0 behind the last tile.

        Args:
            ctx: Of autograd.
            query: (heads, rows, head_dim).
            key: (kv_heads, rows, head_dim).
            value: (kv_heads, rows, width).
            masks: Of the step.
            softmax: The layer's, with its scale.
        """
        ctx.save_for_backward(query, key, value)
        ctx.masks, ctx.softmax = masks, softmax
        out = query.new_zeros(len(query), query.shape[1], value.shape[2])
        with _products(query.dtype):
            for tile, mask in zip(*masks, strict=True):
                keys, values = (_stretches(x, tile.keys, mask.shape[1]) for x in (key, value))
                weights = _weights(_scores(_queries(query, key, tile, mask), keys, softmax), mask)
                _put(out, torch.bmm(weights, values), tile, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` takes; `grad`: (heads, rows, width)."""
        query, key, value = ctx.saved_tensors
        by_query = torch.zeros_like(query)
        by_key, by_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key, value))
        with _products(query.dtype):
            for tile, mask in zip(*ctx.masks, strict=True):
                queries, slope = (_queries(x, key, tile, mask) for x in (query, grad))
                keys, values = (_stretches(x, tile.keys, mask.shape[1]) for x in (key, value))
                scores = _scores(queries, keys, ctx.softmax)
                slopes = _slopes(scores, ctx.softmax)
                weights = _weights(scores, mask)
                _add(by_value, torch.bmm(weights.mT, slope), tile.keys)
                by_weights = torch.bmm(slope, values.mT)
                by_scores = torch._softmax_backward_data(by_weights, weights, -1, torch.float32).mul_(slopes)
                _put(by_query, torch.bmm(by_scores, keys), tile, mask)
                _add(by_key, torch.bmm(by_scores.mT, queries), tile.keys)
        return by_query, by_key.to(key.dtype), by_value.to(value.dtype), None, None


def _scores(queries: Tensor, keys: Tensor, softmax: Softmax) -> Tensor:
    """Scores under their soft cap and without a mask, (kv_heads, group x queries, keys), float32."""
    scores = torch.bmm(queries, keys.mT).mul_(softmax.scale)
    return scores if softmax.cap is None else scores.div_(softmax.cap).tanh_().mul_(softmax.cap)


def _slopes(scores: Tensor, softmax: Softmax) -> Tensor | float:
    """Gradient of each score by the product of its query and key."""
    return softmax.scale if softmax.cap is None else (1 - (scores / softmax.cap).square_()).mul_(softmax.scale)


def _weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Attention weights, in the memory of the scores."""
    scores.unflatten(1, (-1, len(mask))).add_(mask)
    return torch.softmax(scores, -1, out=scores)


def _queries(x: Tensor, key: Tensor, tile: Tile, mask: Tensor) -> Tensor:
    """A tile's queries of the heads that share a key head, (kv_heads, group x queries, width), float32."""
    return _stretches(x.unflatten(0, (len(key), -1)), ((tile.low, tile.high),), len(mask)).flatten(1, 2)


def _put(total: Tensor, part: Tensor, tile: Tile, mask: Tensor) -> None:
    """The inverse of `_queries`: writes a tile's rows into those of all heads, (heads, rows, width)."""
    heads = part.reshape(len(total), len(mask), -1)
    total[:, tile.low : tile.high] = heads[:, : tile.high - tile.low]


def _stretches(x: Tensor, ranges: Ranges, n: int) -> Tensor:
    """Stretches of the last dimension but one, then zeros up to n; float32."""
    out = x.new_zeros(*x.shape[:-2], n, x.shape[-1], dtype=torch.float32)
    at = 0
    for low, high in ranges:
        out[..., at : at + high - low, :] = x[..., low:high, :]
        at += high - low
    return out


def _add(total: Tensor, part: Tensor, ranges: Ranges) -> None:
    """The inverse of `_stretches`: adds."""
    at = 0
    for low, high in ranges:
        total[..., low:high, :] += part[..., at : at + high - low, :]
        at += high - low


@contextlib.contextmanager
def _products(dtype: torch.dtype) -> Iterator[None]:
    """For bfloat16: oneDNN rounds the factors of float32 products to bfloat16, and keeps the sums in float32."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    if dtype == torch.bfloat16:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
