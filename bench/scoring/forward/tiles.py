"""Computes attention over a packed trie tile by tile, and skips most keys that the trie masks.

A tile is a run of queries with the stretches of keys that they may see. A long run is divided into several tiles, and
short subtrees share one tile. The mask inside a tile is a small dense matrix. It is computed once per step and used by
every layer.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.scoring.forward import products
from bench.scoring.forward.context import Softmax, StepContext

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Softmax attention, and the logarithm of each query's sum over its keys, (1, heads, n), float32."""

TILE = 128
"""The most queries of a tile. In a larger one, too many scores would be masked."""

LONG_TRUNK = 256
"""Number of keys from which on a CPU computes attention to a trunk once for the whole step, not once per tile."""


class Tile(NamedTuple):
    """Queries low..high of a step, and the stretches of the step's keys that they may see."""

    low: int
    high: int
    keys: tuple[tuple[int, int], ...]


def tiles(end: np.ndarray, positions: np.ndarray) -> list[Tile]:
    """Divides a step's tokens into tiles. Every key that a query sees is in the query's tile.

    Args:
        end: Index after each token's subtree, (n,).
        positions: Depth of each token, (n,).
    """
    found: list[Tile] = []
    stack: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(0, len(end), ())]
    while stack:
        low, high, above = stack.pop()
        while low < high:
            stop = int(end[low])
            if stop - low <= TILE:
                low = _dense(found, low, high, end, above)
                continue
            # The tokens whose subtrees all end at `stop` are one run, without a branch inside.
            run = low + int(np.argmax(np.append(end[low:stop] != stop, True)))
            for at in range(low, run, TILE):
                cut = min(at + TILE, run)
                found.append(Tile(at, cut, _joined((*above, (low, cut)))))
            if run < stop:
                stack.append((stop, high, above))
                low, high, above = run, stop, (*above, (low, run))
                continue
            low = stop
    return found


def _dense(found: list[Tile], low: int, high: int, end: np.ndarray, above: tuple) -> int:
    """Appends one tile with as many small neighbouring subtrees as fit, and returns its end."""
    stop = int(end[low])
    while stop < high and int(end[stop]) - low <= TILE:
        stop = int(end[stop])
    found.append(Tile(low, stop, _joined((*above, (low, stop)))))
    return stop


def _joined(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    joined = [ranges[0]]
    for low, high in ranges[1:]:
        if joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return tuple(joined)


class TileMasks(NamedTuple):
    """A step's tiles, and an additive mask for each tile, (queries, keys)."""

    tiles: list[Tile]
    masks: list[Tensor]


def tile_masks(ctx: StepContext, like: Tensor, *, window: int | None, n_before: int, least: float) -> TileMasks:
    """A step's tiles with their masks, on the device and in the dtype of `like`: 0 where visible, -inf elsewhere.

    The first `n_before` keys of a mask are the trunk's. A mask with at least `least` entries has the form for
    `product_attention`.
    """
    end, positions = ctx.end.to(like.device), ctx.positions.to(like.device)
    found, masks = tiles(ctx.step.end, ctx.step.positions), []
    before = torch.arange(n_before, device=like.device)
    for tile in found:
        q = torch.arange(tile.low, tile.high, device=like.device)[:, None]
        k = torch.cat([torch.arange(low, high, device=like.device) for low, high in tile.keys])
        visible = (k <= q) & (q < end[k])
        visible = torch.cat([visible.new_ones(len(q), n_before), visible], dim=1)
        if window is not None:
            visible &= positions[q] - torch.cat([before, positions[k]]) < window
        if visible.numel() >= least:
            masks.append(products.additive(visible))
        else:
            masks.append(like.new_zeros(visible.shape).masked_fill_(~visible, float("-inf")))
    return TileMasks(found, masks)


def tile_attention(
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    softmax: Softmax,
    *,
    least: float,
) -> Tensor:
    """Attention of one layer over a packed step on a CPU, (1, rows, heads, width); arguments as `by_tiles` has them."""
    plain = softmax.window is None and softmax.cap is None
    if plain and ctx.n_before >= LONG_TRUNK and query.shape[-1] == value.shape[-1]:
        return trunk_apart(ctx, query, key, value, softmax, least=least)
    return by_tiles(ctx, query, key, value, softmax, least=least)


def by_tiles(
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    softmax: Softmax,
    *,
    least: float,
    sums: Tensor | None = None,
) -> Tensor:
    """Attention tile by tile, (1, rows, heads, width).

    Args:
        ctx: Context of a step of n tokens.
        query: (1, heads, rows, head_dim), at least n rows; the result's rows after the n-th are 0.
        key: (1, kv_heads, keys, head_dim), the trunk's before the step's own.
        value: (1, kv_heads, keys, width).
        softmax: The layer's.
        least: Queries times keys from which on `product_attention` computes a tile; infinity for none.
        sums: If given, (1, heads, n), the keys are only the step's; gets the logarithm of each query's sum.
    """
    n_before = ctx.n_before if sums is None else 0
    out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    groups, scale = query.shape[1] != key.shape[1], softmax.scale
    least = least if softmax.cap is None else math.inf
    make = functools.partial(tile_masks, ctx, query, window=softmax.window, n_before=n_before, least=least)
    for tile, mask in zip(*ctx.once(("tiles", softmax.window, n_before, query.device), make), strict=True):
        own = query[:, :, tile.low : tile.high]
        keys, values = (_gather(x, n_before, tile.keys) for x in (key, value))
        if (tile.high - tile.low) * keys.shape[2] >= least:
            logs = None if sums is None else sums[:, :, tile.low : tile.high]
            result = products.product_attention(own, keys, values, mask, scale=scale, sums=logs)
        elif softmax.cap is not None:
            result = capped_attention(own, keys, values, mask, scale=scale, cap=softmax.cap)
        elif sums is None:
            result = scaled_dot_product_attention(own, keys, values, attn_mask=mask, scale=scale, enable_gqa=groups)
        else:
            result, sums[:, :, tile.low : tile.high] = flash(own, keys, values, attn_mask=mask, scale=scale)
        out[:, tile.low : tile.high] = result.transpose(1, 2)
    return out


def capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float | None, cap: float
) -> Tensor:
    """Attention with a soft cap of the scores, in float32. torch's attention has no such cap.

    Args:
        query: (1, heads, n, head_dim).
        key: (1, kv_heads, k, head_dim).
        value: (1, kv_heads, k, width).
        mask: Added to the scores, (n, k).
        scale: Factor of the scores; None for 1 / sqrt(head_dim).
        cap: The soft cap of the scores.

    Returns:
        (1, heads, n, width), in the values' dtype.
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    query = query.unflatten(1, (key.shape[1], -1))
    scores = (query.float() @ key[:, :, None].float().transpose(3, 4)) * (scale / cap)
    weights = torch.softmax(scores.tanh_().mul_(cap).add_(mask), -1)
    return (weights @ value[:, :, None].float()).flatten(1, 2).to(value.dtype)


def trunk_apart(
    ctx: StepContext, query: Tensor, key: Tensor, value: Tensor, softmax: Softmax, *, least: float
) -> Tensor:
    """Attention to the trunk and to the step's keys, computed separately and joined.

    Every query sees the whole trunk, so the trunk's keys need no mask. The two softmaxes are joined by the logarithms
    of their sums: the trunk's weight is the sigmoid of the difference.
    """
    n, before, scale = len(ctx.end), ctx.n_before, softmax.scale
    sums = query.new_empty(1, query.shape[1], n, dtype=torch.promote_types(query.dtype, torch.float32))
    own = (key[:, :, before:], value[:, :, before:])
    out = by_tiles(ctx, query, *own, softmax, least=least, sums=sums)
    seen = (key[:, :, :before], value[:, :, :before])
    if n * before >= least:
        all_seen, above = products.additive(torch.ones(1, before, dtype=torch.bool))[:1], torch.empty_like(sums)
        result = products.product_attention(query[:, :, :n], *seen, all_seen, scale=scale, sums=above)
    else:
        result, above = flash(query[:, :, :n], *seen, scale=scale)
    weight = (above - sums).sigmoid_().transpose(1, 2)[..., None]
    out[:, :n] = torch.lerp(out[:, :n].to(sums.dtype), result.transpose(1, 2).to(sums.dtype), weight)
    return out


def _gather(x: Tensor, before: int, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """Keys or values of the trunk and of the tile's stretches, (1, kv_heads, k, head_dim)."""
    if ranges[0][0] == 0:
        ranges, first = ranges[1:], x[:, :, : before + ranges[0][1]]
    else:
        first = x[:, :, :before]
    rest = [x[:, :, before + low : before + high] for low, high in ranges]
    if not rest:
        return first
    return torch.cat([first, *rest], dim=2) if first.shape[2] else (rest[0] if len(rest) == 1 else torch.cat(rest, 2))
