"""Attention over a packed trie: by tiles, by our own kernels, on a GPU by blocks.

Registered with transformers as `drsow_tiles`: the model's own code stays as it is.
"""

from concurrent.futures import CancelledError

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface

from bench.scoring.forward import ATTENTION, flex, kernels
from bench.scoring.forward.context import StepContext
from bench.scoring.forward.tiles import LONG_TRUNK, by_tiles, trunk_apart

BLOCKS_ON = {("cuda", torch.bfloat16)}
"""Device and dtype where attention is FlexAttention's: a GPU would begin a kernel for every tile, too short for it.
Not in float32, which only the precision check takes there: its blocks do not fit every GPU's shared memory."""


def block_mask(ctx: StepContext, window: int | None, device: torch.device) -> BlockMask:
    """A step's blocks, made on the host once for all layers of a window on a device."""
    if (window, ctx.n_before, device) not in ctx.masks:
        mask = flex.blocks(ctx.step.end, ctx.step.positions, n_before=ctx.n_before, window=window, device=device)
        ctx.masks[window, ctx.n_before, device] = mask
    return ctx.masks[window, ctx.n_before, device]


def attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask, *, step: StepContext, **kwargs):
    """Attention of one layer over a packed step; called by the model's own code.

    Args:
        module: The layer's attention module; gives `layer_idx`.
        query: (1, heads, n, head_dim), n padded.
        key: (1, kv_heads, n, head_dim).
        value: (1, kv_heads, n, head_dim).
        attention_mask: Unused: the step's rule is the mask.
        step: The step's context.
        kwargs: What the model passes besides; `scaling` and `sliding_window` are heeded.

    Returns:
        (1, n, heads, head_dim), and None for the weights.

    Raises:
        CancelledError: the step was given up.
        ValueError: the model's attention is more than a softmax over visible keys.
    """
    if step.stop is not None and step.stop.is_set():
        raise CancelledError
    if more := [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]:
        raise ValueError(f"its attention needs {more[0]}")
    # Rows behind the step's own are padding: no tile reaches them, no kept key is one of theirs.
    n = len(step.end)
    key, value = _behind_trunk(step, module.layer_idx, key[:, :, :n], value[:, :, :n])
    window, scale = kwargs.get("sliding_window"), kwargs.get("scaling")
    if window is not None and step.n_deep <= window:
        window = None
    if by_blocks(query):
        out = flex.attend(query, key, value, block_mask(step, window, query.device), scale=scale)
        return out.transpose(1, 2).contiguous(), None
    if kernels.takes_heads(query, value):
        if window not in step.blocks:
            step.blocks[window] = kernels.blocks(step.step, n_before=step.n_before, window=window)
        return kernels.attend(query[:, :, :n], key, value, step.blocks[window], rows=query.shape[2], scale=scale), None
    alike = query.device.type == "cpu" and query.shape[-1] == value.shape[-1]
    if window is None and alike and step.n_before >= LONG_TRUNK:
        return trunk_apart(step, query, key, value, scale), None
    return by_tiles(step, query, key, value, window, scale), None


def by_blocks(query: Tensor) -> bool:
    """Whether attention of these queries is FlexAttention's."""
    if (query.device.type, query.dtype) not in BLOCKS_ON or query.shape[-1] < flex.LEAST_HEAD_DIM:
        return False
    # Older ones do not multiply bfloat16.
    return query.device.type != "cuda" or torch.cuda.get_device_capability(query.device) >= (8, 0)


def _behind_trunk(step: StepContext, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Put a step's keys and values behind its trunk's; where it is a trunk itself, keep both."""
    if step.trunk is not None:
        key = torch.cat([step.trunk[layer][0], key], dim=2)
        value = torch.cat([step.trunk[layer][1], value], dim=2)
    if step.kept is not None:
        # Not a view: that would keep the whole of a projection that gives queries, keys and values at once.
        step.kept[layer] = (key.contiguous(), value.contiguous())
    return key, value


AttentionInterface.register(ATTENTION, attend)
