"""Replaces a model's layers on a CPU by the fastest code there. Gated layers, norms and rotary positions take one pass.

A fused product applies the activation and the second factor to its result before writing it. Separately, each of these
steps reads and writes a number for every token and inner unit, which takes two fifths of the layer's time. torch's
compiler calls the same fused oneDNN products, but here nothing has to be compiled. Results in between are not rounded.

In float32 on Intel's processors MKL's plain products are faster than oneDNN's, so the layers stay unchanged. On others
with AVX-512 oneDNN is twice as fast and computes every product. In bfloat16 the compiled kernels multiply if they suit
the processor.
"""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.scoring.forward import kernels
from bench.scoring.forward.onednn import onednn_product, padded

ENDS = {"SiLUActivation": ("swish", ""), "SiLU": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""Class of an activation -> oneDNN's names of the activation and its variant."""
GATED = ("gate_proj", "up_proj", "down_proj")
NORM = "RMSNorm"
"""Part of the name of every class of a root-mean-square norm."""
ROTARY = "apply_rotary_pos_emb"
"""Name of the function by which an attention layer's code turns queries and keys by their positions."""
EPS = ("variance_epsilon", "eps")
"""Names of the number that a norm adds to the mean square."""
ROWS = 64
"""Number of rows of the input on which a kind of layer is tried."""

ROTARY_WIDTH = 64
"""Width of the heads on which rotary positions are tried."""

NORM_ROWS = 8
"""The same for a norm; every norm is tried."""

SAME = 0.99
"""Share of a norm's numbers that must be the same in both ways to compute it, to the last bit of bfloat16."""

CLOSE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
"""The largest accepted difference between the two ways to compute a layer, as a fraction of its largest output."""

Forward = functools.partial[Tensor]


class Gated(NamedTuple):
    """A layer that looks like down(act(gate(x)) * up(x))."""

    module: nn.Module
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    end: tuple[str, str]
    """oneDNN's names of the activation and its variant, from ENDS."""


@torch.inference_mode()
def fit(
    model: nn.Module,
    *,
    linear: Callable[[nn.Linear], Forward | None],
    gated: Callable[[Gated], Forward | None],
    norm: Callable[[nn.Module], Forward | None],
    rotary: Callable[[nn.Module], Forward | None],
) -> None:
    """Replaces the forward passes of a model's layers by the chosen ones, in place.

    A kind of gated layer keeps its own pass if the new one gives other numbers.

    Args:
        model: The model without its output head.
        linear: Gives a layer's new pass, or None to keep its own. It may change the form of the layer's weight.
        gated: The same for a layer that looks gated; it runs after the linear layers inside have their new passes.
        norm: The same for a layer that looks like a root-mean-square norm.
        rotary: The same for any layer; None if its code calls no function named ROTARY.
    """
    for module in model.modules():
        if type(module) is nn.Linear and (forward := linear(module)):
            module.forward = forward
        if NORM in type(module).__name__ and (forward := norm(module)):
            module.forward = forward
        if forward := rotary(module):
            module.forward = forward
    fits: dict[tuple, bool] = {}
    for module in model.modules():
        layer = _gated(module)
        if layer is None or (forward := gated(layer)) is None:
            continue
        kind = (type(module), forward.func)
        if kind not in fits:
            fits[kind] = _same(layer, forward)
        if fits[kind]:
            module.forward = forward


@torch.inference_mode(False)
def unfit(model: nn.Module) -> None:
    """Gives a model's layers their own forward passes and weights again."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), functools.partial):
            del module.forward
        if type(module) is nn.Linear and kernels.in_panels(module.weight):
            module.weight.data = kernels.out_of_panels(module.weight.data)


def _gated(module: nn.Module) -> Gated | None:
    """The parts of a layer that looks gated; None for any other layer."""
    parts = dict(module.named_children())
    gate, up, down = (parts.get(name) for name in GATED)
    end = ENDS.get(type(parts.get("act_fn")).__name__)
    if end is None or not all(isinstance(layer, nn.Linear) for layer in (gate, up, down)):
        return None
    return Gated(module, gate, up, down, end)


def keep(layer: nn.Module | Gated) -> None:
    """Keeps the layer's own pass."""


def onednn_linear(layer: nn.Linear) -> Forward | None:
    """oneDNN's product in float32."""
    return functools.partial(_onednn_linear, layer) if layer.weight.dtype == torch.float32 else None


def _onednn_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer's output by oneDNN's product, (..., out); x: (..., in)."""
    return onednn_product(x.flatten(0, -2), layer.weight, layer.bias).view(*x.shape[:-1], -1)


def panel_linear(layer: nn.Linear) -> Forward | None:
    """The compiled kernels' product, if they support the weight. Rearranges the weight into panels, in place."""
    if not kernels.fits_panels(layer.weight):
        return None
    layer.weight.data = kernels.panels(layer.weight.data)
    return functools.partial(_panel_linear, layer)


def _panel_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer's output from its weight in panels, (..., out); x: (..., in)."""
    rows = x.flatten(0, -2)
    return kernels.panel_product(padded(rows), layer.weight, layer.bias)[: len(rows)].view(*x.shape[:-1], -1)


def onednn_gated(layer: Gated, *, dtype: torch.dtype) -> Forward | None:
    """oneDNN's fused products, for weights of one dtype that are not in panels."""
    if layer.gate.weight.dtype != dtype or kernels.in_panels(layer.gate.weight):
        return None
    return functools.partial(_onednn_gated, layer)


def _onednn_gated(layer: Gated, x: Tensor) -> Tensor:
    """down(act(gate(x)) * up(x)), (..., hidden); x: (..., hidden)."""
    rows, (name, variant), product = x.flatten(0, -2), layer.end, torch.ops.mkldnn._linear_pointwise
    inner = product(rows, layer.gate.weight, layer.gate.bias, name, [], variant)
    return layer.down(product.binary(rows, inner, layer.up.weight, layer.up.bias, "mul")).view_as(x)


def panel_gated(layer: Gated) -> Forward | None:
    """The compiled kernels' gated product, if all three weights are in panels and the first two have no bias."""
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


def kernel_norm(module: nn.Module) -> Forward | None:
    """The compiled kernels' norm, if it gives the module's own numbers. A norm with a second input keeps its own."""
    weight, eps = dict(module.named_parameters()), [vars(module)[name] for name in EPS if name in vars(module)]
    if list(weight) != ["weight"] or len(eps) != 1 or not kernels.fits_norm(weight["weight"]):
        return None
    if len(inspect.signature(type(module).forward).parameters) != len(("self", "x")):
        return None
    for shift in (False, True):
        forward = functools.partial(_kernel_norm, weight["weight"], eps[0], shift)
        if _same_norm(module, forward, len(weight["weight"])):
            return forward
    return None


def _kernel_norm(weight: Tensor, eps: float, shift: bool, x: Tensor) -> Tensor:
    """The norm of x over its last dimension, (..., k)."""
    return kernels.rms_norm(x.flatten(0, -2), weight, eps=eps, shift=shift).view_as(x)


def kernel_rotary(module: nn.Module) -> Forward | None:
    """The layer's own code, which then calls the compiled kernel for rotary positions, if both give the same bits."""
    own = _own_rotary(type(module).forward)
    return functools.partial(_with_kernel_rotary, module) if own and _same_rotary(own) else None


def _with_kernel_rotary(module: nn.Module, *args: Any, **named: Any) -> Any:
    """A layer's output by its own code with the kernel's function in place of ROTARY."""
    return _exchanged(type(module).forward)(module, *args, **named)


@functools.cache
def _exchanged(code: FunctionType) -> FunctionType:
    """A copy of some code with the kernel's function in place of ROTARY."""
    own = code.__globals__[ROTARY]
    names = {**code.__globals__, ROTARY: functools.partial(_kernel_rotary, own)}
    copy = FunctionType(code.__code__, names, code.__name__, code.__defaults__, code.__closure__)
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy


def _own_rotary(code: Callable) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The function named ROTARY that a layer's code calls; None if it calls none."""
    calls = isinstance(code, FunctionType) and ROTARY in code.__code__.co_names
    return code.__globals__.get(ROTARY) if calls else None


def _kernel_rotary(own: Callable, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any) -> Any:
    """Queries and keys, turned by their positions. `own` does what the kernel does not support."""
    if more or named or not all(kernels.fits_rotary(x, cos, sin) for x in (q, k)):
        return own(q, k, cos, sin, *more, **named)
    return kernels.rotary(q, cos, sin), kernels.rotary(k, cos, sin)


@functools.cache
def _same_rotary(own: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether a layer's own function gives the kernel's bits."""
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 2, ROWS, ROTARY_WIDTH), (1, 1, ROWS, ROTARY_WIDTH), (1, ROWS, ROTARY_WIDTH), (1, ROWS, ROTARY_WIDTH)
    drawn = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    try:
        turned = list(zip(own(*drawn), _kernel_rotary(own, *drawn), strict=True))
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(torch.equal(a, b) for a, b in turned)


@torch.no_grad()
def fill(weight: nn.Parameter, values: Tensor) -> None:
    """Replaces the values of a weight by others in any float dtype: of its own shape, or (n, k) if it is in panels."""
    weight.copy_(kernels.panels(values.to(weight.dtype)) if values.dim() < weight.dim() else values)


def _same_norm(module: nn.Module, forward: Forward, width: int) -> bool:
    """Whether a norm's new forward pass gives the same numbers as its own, but for a last bit here and there."""
    x = torch.randn(1, NORM_ROWS, width, generator=torch.Generator().manual_seed(0)).bfloat16()
    own, found = module(x), forward(x)
    if own.shape != found.shape or own.dtype != found.dtype:
        return False
    near = (own.float() - found.float()).abs() <= CLOSE[torch.bfloat16] * own.float().abs()
    return bool(near.all()) and float((own == found).float().mean()) >= SAME


def _same(layer: Gated, forward: Forward) -> bool:
    """Whether a new forward pass gives the same numbers as the layer's own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, ROWS, layer.gate.in_features, generator=generator).to(layer.gate.weight.dtype)
    own = layer.module(x).float()
    return bool((forward(x).float() - own).abs().max() <= CLOSE[layer.gate.weight.dtype] * own.abs().max())
