"""Attention over a packed trie, as transformers calls it; and who computes it, where the shape of the heads decides.

Registered with transformers as ATTENTION: the model's own code stays as it is.
"""

import functools
from collections.abc import Callable
from concurrent.futures import CancelledError

import torch
from torch import Tensor

from bench.scoring.forward import NotSupportedError, flex, kernels
from bench.scoring.forward.context import StepContext

NOT_SOFTMAX = ("softcap", "s_aux", "position_bias")
"""Arguments by which a model asks for more than a softmax over visible keys."""


def trie_attention(module, query: Tensor, key: Tensor, value: Tensor, attention_mask, *, step: StepContext, **kwargs):
    """Attention of one layer over a packed step; called by the model's own code.

    Args:
        module: The layer's attention module; gives `layer_idx`.
        query: (1, heads, n, head_dim), n padded.
        key: (1, kv_heads, n, head_dim).
        value: (1, kv_heads, n, width).
        attention_mask: Unused: the step's rule is the mask.
        step: The step's context.
        kwargs: What the model passes besides; `scaling` and `sliding_window` are heeded.

    Returns:
        (1, n, heads, width), and None for the weights.

    Raises:
        CancelledError: the step was given up.
        NotSupportedError: the model's attention is more than a softmax over visible keys.
    """
    if step.stop is not None and step.stop.is_set():
        raise CancelledError
    if more := [name for name in NOT_SOFTMAX if kwargs.get(name) is not None]:
        raise NotSupportedError(f"its attention needs {more[0]}")
    # Rows behind the step's own are padding: no tile reaches them, no kept key is one of theirs.
    n = len(step.end)
    key, value = _behind_trunk(step, module.layer_idx, key[:, :, :n], value[:, :, :n])
    window, scale = kwargs.get("sliding_window"), kwargs.get("scaling")
    if window is not None and step.n_deep <= window:
        window = None
    return step.attend(step, query, key, value, window=window, scale=scale), None


def flex_or(
    otherwise: Callable[..., Tensor],
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """FlexAttention, (1, rows, heads, width); `otherwise` for heads too narrow for a GPU's kernel."""
    if query.shape[-1] < flex.LEAST_HEAD_DIM:
        return otherwise(ctx, query, key, value, window=window, scale=scale)
    sizes = {"n_before": ctx.n_before, "window": window, "device": query.device}
    make = functools.partial(flex.block_mask, ctx.step.end, ctx.step.positions, **sizes)
    mask = ctx.once(("flex", *sizes.values()), make)
    return flex.block_attention(query, key, value, mask, scale=scale).transpose(1, 2).contiguous()


def kernels_or(
    otherwise: Callable[..., Tensor],
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """The compiled kernels' attention, (1, rows, heads, width); `otherwise` for heads that they do not fit."""
    if not kernels.fits_heads(query, value):
        return otherwise(ctx, query, key, value, window=window, scale=scale)
    make = functools.partial(kernels.seen_keys, ctx.step, n_before=ctx.n_before, window=window)
    seen, rows = ctx.once(("kernels", window), make), query.shape[2]
    return kernels.kernel_attention(query[:, :, : len(ctx.end)], key, value, seen, rows=rows, scale=scale)


def _behind_trunk(step: StepContext, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Put a step's keys and values behind its trunk's; where it is a trunk itself, keep both."""
    if step.trunk is not None:
        if layer not in step.trunk:
            raise NotSupportedError(f"its layer {layer} kept no keys of the text before a branch")
        key = torch.cat([step.trunk[layer][0], key], dim=2)
        value = torch.cat([step.trunk[layer][1], value], dim=2)
    if step.kept is not None:
        # Not a view: that would keep the whole of a projection that gives queries, keys and values at once.
        step.kept[layer] = (key.contiguous(), value.contiguous())
    return key, value
