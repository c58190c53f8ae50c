"""Adds LoRA adapters (arXiv 2106.09685) to a model, with a forward pass that reads and writes each activation once.

peft computes a layer and its adapter apart and adds the results. On a processor these additions and casts cost more
than the products.
"""

import warnings
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel


def with_lora(model: PreTrainedModel, rank: int, *, dtype: torch.dtype) -> nn.Module:
    """Adds an adapter to every linear layer except the head; only the adapters are tuned.

    Args:
        model: The policy.
        rank: Of the adapters.
        dtype: Precision of the products.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import Linear

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft uses names of transformers that are deprecated, and warns about settings that it makes itself.
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
    # peft has sets, whose order differs from process to process; the digest of the saved adapter must not.
    told = adapted.peft_config["default"]
    told.target_modules = sorted(told.target_modules)
    if told.target_parameters:
        told.target_parameters = sorted(told.target_parameters)
    for module in adapted.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.forward = MethodType(_forward(dtype), module)
    return adapted


def _forward(dtype: torch.dtype) -> Any:
    def forward(layer: Any, x: Tensor) -> Tensor:
        (name,) = layer.active_adapters
        parts = layer.base_layer.weight, layer.base_layer.bias, layer.lora_A[name].weight, layer.lora_B[name].weight
        rows = x.flatten(0, -2).to(dtype)
        cast = [None if part is None else part.to(dtype) for part in parts]
        return LoraLinear.apply(rows, *cast, layer.scaling[name]).view(*x.shape[:-1], -1)

    return forward


class LoraLinear(torch.autograd.Function):
    """x W' + b + scale (x A') B', where W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """(rows, out).

        Args:
            ctx: Of autograd.
            x: (rows, in).
            weight: W, (out, in).
            bias: b, (out,) or None.
            down: A, (rank, in).
            up: B, (out, rank).
            scale: Of the adapter.
        """
        inner = linear(x, down)
        ctx.save_for_backward(x, weight, down, up, inner)
        ctx.scale = scale
        return linear(x, weight, bias).addmm_(inner, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` takes; `grad`: (rows, out)."""
        x, weight, down, up, inner = ctx.saved_tensors
        by_inner = (grad @ up).mul_(ctx.scale)
        by_x = (grad @ weight).addmm_(by_inner, down) if ctx.needs_input_grad[0] else None
        return by_x, None, None, by_inner.T @ x, (grad.T @ inner).mul_(ctx.scale), None
