"""A gated feed-forward layer in bfloat16 on a CPU in one pass: activation and product where the matrix product ends.

Apart, each reads and writes a number for every token and inner unit, two fifths of the layer's time. oneDNN's products
with an end of their own are what torch's compiler calls too; here nothing has to be compiled first. What is between is
not rounded. In float32 on Intel's processors MKL's plain products are faster than oneDNN's, and all stays as it is; on
others with AVX-512 oneDNN is twice as fast, and every product is its own.
"""

import functools

import torch
from torch import Tensor, nn

from bench.scoring.device import onednn_leads

ENDS = {"SiLUActivation": ("swish", ""), "SiLU": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""Class of an activation -> oneDNN's name of it, and of its variant."""
GATED = ("gate_proj", "up_proj", "down_proj")
ROWS = 64
"""Of the input on which a kind of layer is tried."""

CLOSE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
"""How far the two ways through a layer may be apart, as a part of its largest number."""


@torch.inference_mode()
def fuse(model: nn.Module) -> None:
    """Give the gated layers of a model on a CPU one pass, and in float32 its products the faster library, in place.

    A kind of layer that it does not fit stays, as all do on a processor or a build of torch without oneDNN in bfloat16,
    and in float32 where MKL is faster.
    """
    chosen = {
        torch.bfloat16: torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float32: onednn_leads(),
    }
    fits: dict[tuple[type, torch.dtype], bool] = {}
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and chosen[torch.float32]:
            module.forward = functools.partial(linear, module)
        end = ENDS.get(type(getattr(module, "act_fn", None)).__name__)
        if end is None or not all(isinstance(getattr(module, name, None), nn.Linear) for name in GATED):
            continue
        dtype = module.gate_proj.weight.dtype
        if not chosen.get(dtype):
            continue
        forward = functools.partial(gated, module, end)
        if (type(module), dtype) not in fits:
            fits[type(module), dtype] = _same(module, forward)
        if fits[type(module), dtype]:
            module.forward = forward


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives, (..., out), as oneDNN's product; x: (..., in)."""
    return onednn_product(x.flatten(0, -2), module.weight, module.bias).view(*x.shape[:-1], -1)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias on a CPU, (m, out), by oneDNN; x: (m, in), weight: (out, in), bias: (out,)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def gated(module: nn.Module, end: tuple[str, str], x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden); x: (..., hidden)."""
    rows, gate, up = x.flatten(0, -2), module.gate_proj, module.up_proj
    product = torch.ops.mkldnn._linear_pointwise
    inner = product(rows, gate.weight, gate.bias, end[0], [], end[1])
    return module.down_proj(product.binary(rows, inner, up.weight, up.bias, "mul")).view_as(x)


def _same(module: nn.Module, forward: functools.partial) -> bool:
    """Whether a layer's own forward pass gives the same."""
    weight = module.gate_proj.weight
    x = torch.randn(1, ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    own = module(x).float()
    return bool((forward(x).float() - own).abs().max() <= CLOSE[weight.dtype] * own.abs().max())
