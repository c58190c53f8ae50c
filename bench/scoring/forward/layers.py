"""A model's layers on a CPU by the products that are fastest there; a gated feed-forward layer's in one pass.

Activation and product stand where the matrix product ends. Apart, each reads and writes a number for every token and
inner unit, two fifths of the layer's time. oneDNN's products with an end of their own are what torch's compiler calls
too; here nothing has to be compiled first. What is between is not rounded. In float32 on Intel's processors MKL's plain
products are faster than oneDNN's, and all stays as it is; on others with AVX-512 oneDNN is twice as fast, and every
product is its own. In bfloat16 the compiled kernels multiply where they are for the processor.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.scoring.forward import kernels
from bench.scoring.forward.onednn import onednn_product, padded

ENDS = {"SiLUActivation": ("swish", ""), "SiLU": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""Class of an activation -> oneDNN's name of it, and of its variant."""
GATED = ("gate_proj", "up_proj", "down_proj")
ROWS = 64
"""Of the input on which a kind of layer is tried."""

CLOSE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
"""How far the two ways through a layer may be apart, as a part of its largest number."""

Forward = Callable[[Tensor], Tensor]


class Gated(NamedTuple):
    """A layer that looks like down(act(gate(x)) * up(x))."""

    module: nn.Module
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    end: tuple[str, str]
    """Of ENDS."""


@torch.inference_mode()
def fit(
    model: nn.Module, *, linear: Callable[[nn.Linear], Forward | None], gated: Callable[[Gated], Forward | None]
) -> None:
    """Give the layers of a model the forward passes that are chosen for them, in place.

    A kind of gated layer whose own pass gives other numbers keeps its own.

    Args:
        model: Without its output head.
        linear: A layer -> its new pass, None where it keeps its own; may put its weight in another form.
        gated: The same of what looks like a gated layer, after its parts have got theirs.
    """
    for module in model.modules():
        if type(module) is nn.Linear and (forward := linear(module)):
            module.forward = forward
    fits: dict[tuple, bool] = {}
    for module in model.modules():
        layer = _gated(module)
        forward = None if layer is None else gated(layer)
        if forward is None:
            continue
        kind = (type(module), forward.func)
        if kind not in fits:
            fits[kind] = _same(layer, forward)
        if fits[kind]:
            module.forward = forward


def _gated(module: nn.Module) -> Gated | None:
    """A layer that looks gated, None for others."""
    parts = dict(module.named_children())
    layers = [parts.get(name) for name in GATED]
    end = ENDS.get(type(parts.get("act_fn")).__name__)
    if end is None or not all(isinstance(layer, nn.Linear) for layer in layers):
        return None
    return Gated(module, *layers, end)


def keep(layer: nn.Linear | Gated) -> None:
    """No layer gets another pass than its own."""


def onednn_linear(layer: nn.Linear) -> Forward | None:
    """oneDNN's product in float32."""
    return functools.partial(_onednn_linear, layer) if layer.weight.dtype == torch.float32 else None


def _onednn_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives, (..., out), as oneDNN's product; x: (..., in)."""
    return onednn_product(x.flatten(0, -2), layer.weight, layer.bias).view(*x.shape[:-1], -1)


def panel_linear(layer: nn.Linear) -> Forward | None:
    """The compiled kernels' product, where the weight fits: it is put in panels, in place."""
    if not kernels.fits_panels(layer.weight):
        return None
    layer.weight.data = kernels.panels(layer.weight.data)
    return functools.partial(_panel_linear, layer)


def _panel_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives, (..., out), from its weight's panels; x: (..., in)."""
    rows = x.flatten(0, -2)
    return kernels.panel_product(padded(rows), layer.weight, layer.bias)[: len(rows)].view(*x.shape[:-1], -1)


def onednn_gated(layer: Gated, *, dtype: torch.dtype) -> Forward | None:
    """oneDNN's products with activation and product at their ends, for weights of a dtype that stand as they came."""
    if layer.gate.weight.dtype != dtype or kernels.in_panels(layer.gate.weight):
        return None
    return functools.partial(_onednn_gated, layer)


def _onednn_gated(layer: Gated, x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden); x: (..., hidden)."""
    rows, (name, variant), product = x.flatten(0, -2), layer.end, torch.ops.mkldnn._linear_pointwise
    inner = product(rows, layer.gate.weight, layer.gate.bias, name, [], variant)
    return layer.down(product.binary(rows, inner, layer.up.weight, layer.up.bias, "mul")).view_as(x)


def panel_gated(layer: Gated) -> Forward | None:
    """The compiled kernels' gated product, where all three weights stand in panels and the first two have no bias."""
    if not all(kernels.in_panels(part.weight) for part in (layer.gate, layer.up, layer.down)):
        return None
    return functools.partial(_panel_gated, layer) if layer.gate.bias is None and layer.up.bias is None else None


def _panel_gated(layer: Gated, x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden), from panels; x: (..., hidden)."""
    rows = x.flatten(0, -2)
    inner = kernels.gated_panel_product(padded(rows), layer.gate.weight, layer.up.weight, gelu=layer.end[0] == "gelu")
    return layer.down(inner)[: len(rows)].view_as(x)


def panel_or_onednn_gated(layer: Gated) -> Forward | None:
    """The compiled kernels' gated product, or oneDNN's for a layer in bfloat16 that does not fit panels."""
    return panel_gated(layer) or onednn_gated(layer, dtype=torch.bfloat16)


@torch.no_grad()
def fill(weight: nn.Parameter, values: Tensor) -> None:
    """Put other values, (n, k) and of any float dtype, into a weight, in whichever form it stands."""
    weight.copy_(kernels.panels(values.to(weight.dtype)) if kernels.in_panels(weight) else values)


def _same(layer: Gated, forward: Forward) -> bool:
    """Whether a layer's own forward pass gives the same."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, ROWS, layer.gate.in_features, generator=generator).to(layer.gate.weight.dtype)
    own = layer.module(x).float()
    return bool((forward(x).float() - own).abs().max() <= CLOSE[layer.gate.weight.dtype] * own.abs().max())
