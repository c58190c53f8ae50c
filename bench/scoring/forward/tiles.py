"""Attention over a packed trie tile by tile, so that what the trie masks away is not computed.

A tile is a run of queries with the stretches of keys that they may see. Long runs are cut, short subtrees
stand in one tile; what is left to mask inside a tile is a small dense matrix, made once a step and used by
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
"""Queries a tile: a larger one would mask away too much of its own triangle, and of its neighbours' subtrees."""

LONG_TRUNK = 256
"""Keys of a trunk from which on a CPU attends to them apart: once for the whole step, not once a tile."""


class Tile(NamedTuple):
    """Queries low..high of a step, and the stretches of the step's keys that they may see."""

    low: int
    high: int
    keys: tuple[tuple[int, int], ...]


def tiles(end: np.ndarray, positions: np.ndarray) -> list[Tile]:
    """Cover a step's tokens with tiles; every visible key lies in its query's tile.

    Args:
        end: Index after each token's subtree, (n,).
        positions: Depth of each token, (n,).
    """
    found: list[Tile] = []
    stack = [(0, len(end), ())]
    while stack:
        low, high, above = stack.pop()
        while low < high:
            stop = int(end[low])
            if stop - low <= TILE:
                low = _dense(found, low, high, end, above)
                continue
            # The run of tokens whose subtree ends where the first one's does: nothing branches off before its end.
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
    """Append one tile over as many small neighbouring subtrees as fit; return where it ends."""
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
    """A step's tiles, and an additive mask for each, (queries, keys)."""

    tiles: list[Tile]
    masks: list[Tensor]


def tile_masks(ctx: StepContext, like: Tensor, *, window: int | None, n_before: int, least: float) -> TileMasks:
    """A step's tiles with their masks, on the device and in the dtype of `like`: 0 where visible, -inf elsewhere.

    The first `n_before` keys of a mask are the trunk's; 0 leaves them out. From `least` entries on, a mask is one for
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
        ctx: Of a step of n tokens.
        query: (1, heads, rows, head_dim), rows at least n; the result is 0 behind the n-th.
        key: (1, kv_heads, keys, head_dim), the trunk's before the step's own.
        value: (1, kv_heads, keys, width).
        softmax: The layer's.
        least: Queries times keys from which on a tile is `product_attention`'s; infinity: none is.
        sums: Where it is given, (1, heads, n), the keys are the step's own without the trunk's, and it is filled with
            the logarithm of each query's sum over them.
    """
    n_before = ctx.n_before if sums is None else 0
    out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    groups, scale = query.shape[1] != key.shape[1], softmax.scale
    least = least if softmax.cap is None else math.inf
    make = functools.partial(tile_masks, ctx, query, window=softmax.window, n_before=n_before, least=least)
    for tile, mask in zip(*ctx.once(("tiles", softmax.window, n_before, query.device), make), strict=True):
        own = query[:, :, tile.low : tile.high]
        seen = [_gather(x, n_before, tile.keys) for x in (key, value)]
        if (tile.high - tile.low) * seen[0].shape[2] >= least:
            logs = None if sums is None else sums[:, :, tile.low : tile.high]
            result = products.product_attention(own, *seen, mask, scale=scale, sums=logs)
        elif softmax.cap is not None:
            result = capped_attention(own, *seen, mask, softmax)
        elif sums is None:
            result = scaled_dot_product_attention(own, *seen, attn_mask=mask, scale=scale, enable_gqa=groups)
        else:
            result, sums[:, :, tile.low : tile.high] = flash(own, *seen, attn_mask=mask, scale=scale)
        out[:, tile.low : tile.high] = result.transpose(1, 2)
    return out


def capped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, softmax: Softmax) -> Tensor:
    """Attention whose scores are under a soft cap, in float32, which torch's own attention does not have.

    Args:
        query: (1, heads, n, head_dim).
        key: (1, kv_heads, k, head_dim).
        value: (1, kv_heads, k, width).
        mask: Added to the scores, (n, k).
        softmax: With a `cap`.

    Returns:
        (1, heads, n, width), in the values' dtype.
    """
    scale = query.shape[3] ** -0.5 if softmax.scale is None else softmax.scale
    query = query.unflatten(1, (key.shape[1], -1))
    scores = (query.float() @ key[:, :, None].float().transpose(3, 4)) * (scale / softmax.cap)
    weights = torch.softmax(scores.tanh_().mul_(softmax.cap).add_(mask), -1)
    return (weights @ value[:, :, None].float()).flatten(1, 2).to(value.dtype)


def trunk_apart(
    ctx: StepContext, query: Tensor, key: Tensor, value: Tensor, softmax: Softmax, *, least: float
) -> Tensor:
    """The same on a CPU: every query sees the whole trunk, so its keys need neither mask nor gathering.

    Two softmaxes over parts of the keys make one by their logarithmic sums: the weight of a part is the sigmoid of
    the difference.
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
    """The trunk's part and the tile's stretches of keys or values, (1, kv_heads, k, head_dim)."""
    if ranges[0][0] == 0:
        ranges, first = ranges[1:], x[:, :, : before + ranges[0][1]]
    else:
        first = x[:, :, :before]
    rest = [x[:, :, before + low : before + high] for low, high in ranges]
    if not rest:
        return first
    return torch.cat([first, *rest], dim=2) if first.shape[2] else (rest[0] if len(rest) == 1 else torch.cat(rest, 2))
