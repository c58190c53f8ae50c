"""Computes attention over a packed trie when transformers asks for it, and chooses the code by the shape of the heads.

It is registered with transformers as ATTENTION, so the model's own code runs unchanged.
"""

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

import torch
from torch import Tensor, nn

from bench.scoring.forward import NotSupportedError, flex, kernels
from bench.scoring.forward.context import RUNNING, Call, Softmax, StepContext

SOFTMAX = {
    "scaling", "sliding_window", "softcap", "dropout", "is_causal", "deterministic", "position_ids", "cache_position",
    "use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits",
}  # fmt: skip
"""Arguments by which a model asks for no more than a softmax over visible keys."""


def check_softmax(asked: Mapping[str, Any], mask: Tensor | None = None) -> None:
    """Checks the arguments by which a model asks for its attention, by their names, and its mask.

    Raises:
        NotSupportedError: It asks for more than a softmax over visible keys.
    """
    if more := sorted(name for name, value in asked.items() if name not in SOFTMAX and value is not None):
        raise NotSupportedError(f"its attention needs {more[0]}")
    if mask is not None:
        raise NotSupportedError("its attention reads another mask")


def trie_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: StepContext | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over a packed step. The model's own code calls it.

    Args:
        module: The layer's attention module; gives `layer_idx`.
        query: (1, heads, n, head_dim), n padded.
        key: (1, kv_heads, n, head_dim).
        value: (1, kv_heads, n, width).
        attention_mask: None, because `step.end` is the mask.
        step: The step's context; None, for the running one, in layers that hand nothing on, such as StableLM's.
        kwargs: What the model passes besides; `scaling`, `sliding_window` and `softcap` are used.

    Returns:
        (1, n, heads, width), and None for the weights.

    Raises:
        CancelledError: The step is no longer needed.
        NotSupportedError: The model's attention is more than a softmax over visible keys.
    """
    step = step or RUNNING.get()
    if step.stop is not None and step.stop.is_set():
        raise CancelledError
    check_softmax(kwargs, attention_mask)
    window = kwargs.get("sliding_window")
    if step.calls is not None:
        step.calls.append(Call(module.layer_idx, window))
    key, value = _behind_trunk(step, module.layer_idx, key, value)
    hides = window is not None and step.n_deep > window
    softmax = Softmax(kwargs.get("scaling"), window if hides else None, kwargs.get("softcap"))
    return step.attend(step, query, key, value, softmax), None


def flex_or(
    otherwise: Callable[..., Tensor],
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    softmax: Softmax,
) -> Tensor:
    """FlexAttention, (1, rows, heads, width); `otherwise` for heads too narrow for a GPU's kernel."""
    if query.shape[-1] < flex.LEAST_HEAD_DIM:
        return otherwise(ctx, query, key, value, softmax)
    sizes = {"n_before": ctx.n_before, "window": softmax.window, "device": query.device}
    make = functools.partial(flex.block_mask, ctx.step.end, ctx.step.positions, **sizes)
    mask = ctx.once(("flex", *sizes.values()), make)
    out = flex.block_attention(query, key, value, mask, scale=softmax.scale, cap=softmax.cap)
    return out.transpose(1, 2).contiguous()


def kernels_or(
    otherwise: Callable[..., Tensor],
    ctx: StepContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    softmax: Softmax,
) -> Tensor:
    """The compiled kernels' attention, (1, rows, heads, width); `otherwise` for heads that they do not fit."""
    if softmax.cap is not None or not kernels.fits_heads(query, value):
        return otherwise(ctx, query, key, value, softmax)
    make = functools.partial(kernels.seen_keys, ctx.step, n_before=ctx.n_before, window=softmax.window)
    seen, rows = ctx.once(("kernels", softmax.window), make), query.shape[2]
    key, value = (x[:, :, : ctx.n_keys] for x in (key, value))
    return kernels.kernel_attention(query[:, :, : len(ctx.end)], key, value, seen, rows=rows, scale=softmax.scale)


def _behind_trunk(step: StepContext, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Puts a step's keys and values behind its trunk's; where the step is a trunk itself, keeps both.

    Returns:
        (1, kv_heads, k, head_dim) each, k at least `step.n_keys`: the rows behind are padding, which nothing sees.
    """
    n = len(step.end)
    if step.trunk is not None:
        key, value = key[:, :, :n], value[:, :, :n]
        if layer not in step.trunk:
            raise NotSupportedError(f"its layer {layer} kept no keys of the text before a branch")
        key = torch.cat([step.trunk[layer][0], key], dim=2)
        value = torch.cat([step.trunk[layer][1], value], dim=2)
    if step.kept is not None:
        if layer in step.kept:
            raise NotSupportedError(f"its layer {layer} attends more than once in a pass")
        # Not a view: that would keep the whole of a projection that gives queries, keys and values at once.
        step.kept[layer] = (key[:, :, : step.n_keys].contiguous(), value[:, :, : step.n_keys].contiguous())
    return key, value
