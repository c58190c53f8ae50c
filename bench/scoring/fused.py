"""A gated feed-forward layer in bfloat16 on a CPU in one pass: activation and product where the matrix product ends.

Apart, each reads and writes a number for every token and inner unit, two fifths of the layer's time. oneDNN's products
with an end of their own are what torch's compiler calls too; here nothing has to be compiled first. What is between is
not rounded. In float32 MKL's plain products are faster than oneDNN's, and the layer stays as it is.
"""

import functools

import torch
from torch import Tensor, nn

ENDS = {"SiLUActivation": ("swish", ""), "SiLU": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""Class of an activation -> oneDNN's name of it, and of its variant."""
GATED = ("gate_proj", "up_proj", "down_proj")
ROWS = 64
"""Of the input on which a kind of layer is tried."""


@torch.inference_mode()
def fuse(model: nn.Module) -> None:
    """Give the gated layers of a bfloat16 model on a CPU one pass, in place; a kind that it does not fit stays.

    So do all on a processor or a build of torch without oneDNN in bfloat16.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return
    fits: dict[type, bool] = {}
    for module in model.modules():
        end = ENDS.get(type(getattr(module, "act_fn", None)).__name__)
        if end is None or not all(isinstance(getattr(module, name, None), nn.Linear) for name in GATED):
            continue
        if module.gate_proj.weight.dtype != torch.bfloat16:
            continue
        forward = functools.partial(gated, module, end)
        if type(module) not in fits:
            fits[type(module)] = _same(module, forward)
        if fits[type(module)]:
            module.forward = forward


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
    return bool((forward(x).float() - own).abs().max() <= 3e-2 * own.abs().max())
