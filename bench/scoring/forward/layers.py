"""A model's layers on a CPU by the products that are fastest there; a gated feed-forward layer's in one pass.

Activation and product stand where the matrix product ends. Apart, each reads and writes a number for every token and
inner unit, two fifths of the layer's time. oneDNN's products with an end of their own are what torch's compiler calls
too; here nothing has to be compiled first. What is between is not rounded. In float32 on Intel's processors MKL's plain
products are faster than oneDNN's, and all stays as it is; on others with AVX-512 oneDNN is twice as fast, and every
product is its own. In bfloat16 our own kernels multiply where they are for the processor.
"""

import functools

import torch
from torch import Tensor, nn

from bench.scoring.forward import kernels
from bench.scoring.forward.onednn import onednn_leads, onednn_product, padded

ENDS = {"SiLUActivation": ("swish", ""), "SiLU": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""Class of an activation -> oneDNN's name of it, and of its variant."""
GATED = ("gate_proj", "up_proj", "down_proj")
ROWS = 64
"""Of the input on which a kind of layer is tried."""


CLOSE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
"""How far the two ways through a layer may be apart, as a part of its largest number."""


@torch.inference_mode()
def fuse(model: nn.Module) -> None:
    """Give the gated layers of a model on a CPU one pass, and its products what is fastest, in place.

    A kind of layer that it does not fit stays, as all do on a processor or a build of torch without oneDNN in bfloat16,
    and in float32 where MKL is faster.

    Args:
        model: Without its output head, which `head_logps` reads: the weights of layers on our own kernels become panels
            (`kernels.panels`).
    """
    _in_panels(model)
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
        if not chosen.get(dtype) or module.gate_proj.weight.dim() != 2:
            continue
        forward = functools.partial(gated, module, end)
        if (type(module), dtype) not in fits:
            fits[type(module), dtype] = _same(module, forward)
        if fits[type(module), dtype]:
            module.forward = forward


def _in_panels(model: nn.Module) -> None:
    """Give bfloat16 layers our own kernels where they take them, and put their weights in panels, in place."""
    gates, own = [], {}
    for module in model.modules():
        end = ENDS.get(type(getattr(module, "act_fn", None)).__name__)
        layers = [getattr(module, name, None) for name in GATED]
        if end is None or not all(type(layer) is nn.Linear and kernels.takes(layer.weight) for layer in layers):
            continue
        if layers[0].bias is None and layers[1].bias is None:
            gates.append((module, functools.partial(gated_in_panels, module, end[0] == "gelu")))
            if type(module) not in own:
                own[type(module)] = module(_tried(module.gate_proj))
    for module in model.modules():
        if type(module) is nn.Linear and kernels.takes(module.weight):
            module.weight.data = kernels.panels(module.weight.data)
            module.forward = functools.partial(linear_in_panels, module)
    fits: dict[type, bool] = {}
    for module, forward in gates:
        kind = type(module)
        if kind not in fits:
            fits[kind] = _close(forward(_tried(module.gate_proj)), own[kind])
        if fits[kind]:
            module.forward = forward


def linear_in_panels(module: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives, (..., out), from its weight's panels; x: (..., in)."""
    rows = x.flatten(0, -2)
    return kernels.linear(padded(rows), module.weight, module.bias)[: len(rows)].view(*x.shape[:-1], -1)


def gated_in_panels(module: nn.Module, gelu: bool, x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden), from panels; x: (..., hidden)."""
    rows = x.flatten(0, -2)
    inner = kernels.gated(padded(rows), module.gate_proj.weight, module.up_proj.weight, gelu=gelu)
    return module.down_proj(inner)[: len(rows)].view_as(x)


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives, (..., out), as oneDNN's product; x: (..., in)."""
    return onednn_product(x.flatten(0, -2), module.weight, module.bias).view(*x.shape[:-1], -1)


def gated(module: nn.Module, end: tuple[str, str], x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden); x: (..., hidden)."""
    rows, gate, up = x.flatten(0, -2), module.gate_proj, module.up_proj
    product = torch.ops.mkldnn._linear_pointwise
    inner = product(rows, gate.weight, gate.bias, end[0], [], end[1])
    return module.down_proj(product.binary(rows, inner, up.weight, up.bias, "mul")).view_as(x)


def _same(module: nn.Module, forward: functools.partial) -> bool:
    """Whether a layer's own forward pass gives the same."""
    x = _tried(module.gate_proj)
    return _close(forward(x), module(x))


def _tried(layer: nn.Linear) -> Tensor:
    """Rows on which a kind of layer is tried, (1, ROWS, in)."""
    return torch.randn(1, ROWS, layer.in_features, generator=torch.Generator().manual_seed(0)).to(layer.weight.dtype)


def _close(found: Tensor, own: Tensor) -> bool:
    return bool((found.float() - own.float()).abs().max() <= CLOSE[own.dtype] * own.float().abs().max())
