"""Chooses the operations of a forward pass once, by device, dtype, processor and compiled kernels.

Layers, attention and head call the functions of the chosen record. Two records with the same name give the same numbers
up to the last bits of float32. In bfloat16, other products round at other places and move a response by 0.3 to 0.5
nats. So a name also says which instructions multiply bfloat16.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.scoring.forward import attention, flex, fused, head, kernels, layers, onednn, products, tiles

KERNELS = "drsow2"
"""The compiled kernels' part of a name. The number grows when a kernel's results change in any bit, because bfloat16
rounds elsewhere then: a response moves by about half a nat."""


class Ops(NamedTuple):
    """The operations of a forward pass. `preparing.prepare` calls all but `attend` once per layer."""

    name: str
    """Device, library and, in bfloat16, instructions of the products. It is part of a score's key."""
    linear: Callable[[nn.Linear], layers.Forward | None]
    """A linear layer -> its new forward pass, or None to keep its own."""
    gated: Callable[[layers.Gated], layers.Forward | None]
    """A gated feed-forward layer -> its new forward pass, or None to keep its own."""
    norm: Callable[[nn.Module], layers.Forward | None]
    """A root-mean-square norm -> its new forward pass, or None to keep its own."""
    rotary: Callable[[nn.Module], layers.Forward | None]
    """An attention layer with rotary positions -> its new forward pass, or None to keep its own."""
    log_totals: Callable[[nn.Linear, head.Rescale], head.LogTotals]
    """An output head and the function that the model applies to its logits -> log-sum-exp from hidden states."""
    attend: Callable[..., Tensor]
    """A step's context, queries, keys, values and `Softmax` -> attention of one layer."""
    n_rows: int
    """Targets whose logits are computed at once."""
    rows: Callable[[int], int] = onednn.shape_rows
    """Tokens of a step -> rows of its tensors; those behind the tokens are padding."""
    fuses: bool = False
    """Whether torch compiles the decoder layers."""
    without: Mapping[str, Callable[[], "Ops"]] = {}
    """Name of a function that may not compile -> the record that does not need it."""


class Processor(NamedTuple):
    """Properties of a processor that decide which operations are fast on it."""

    isa: str
    """Instructions that multiply bfloat16: "amx", "avx512bf16", or otherwise the widest float32 instructions."""
    onednn_leads: bool
    """Whether oneDNN's float32 products are faster than MKL's."""
    fuses_bf16: bool
    """Whether oneDNN has bfloat16 products with a fused activation."""
    has_kernels: bool
    """Whether the compiled kernels suit it and are loaded."""


def choose(device: torch.device, dtype: torch.dtype, *, compiles: bool = True) -> Ops:
    """The operations for models of a dtype on a device.

    Args:
        device: Where the models are.
        dtype: Their dtype.
        compiles: Whether the kernels may be compiled, once per machine. Otherwise, those that can be count as there.
    """
    if device.type == "cuda":
        return on_gpu(dtype, torch.cuda.get_device_capability(device))
    return on_cpu(dtype, processor(dtype, compiles=compiles))


def processor(dtype: torch.dtype, *, compiles: bool = True) -> Processor:
    """The properties of this machine's processor that matter for a dtype. Only bfloat16 has compiled kernels."""
    isa = torch.backends.cpu.get_cpu_capability().lower()
    if torch.cpu._is_avx512_bf16_supported():
        isa = "avx512bf16"
    if torch.cpu._is_amx_tile_supported():
        isa = "amx"
    has_kernels = dtype == torch.bfloat16 and (kernels.ready() if compiles else kernels.expected())
    return Processor(isa, onednn.onednn_leads(), onednn.onednn_fuses_bf16(), has_kernels)


def on_cpu(dtype: torch.dtype, cpu: Processor) -> Ops:
    """The operations on a processor."""
    if dtype == torch.bfloat16:
        return _bf16_on_cpu(cpu)
    leads = cpu.onednn_leads and dtype == torch.float32
    return Ops(
        name="cpu-onednn" if leads else "cpu-torch",
        linear=layers.onednn_linear if leads else layers.keep,
        gated=functools.partial(layers.onednn_gated, dtype=dtype) if leads else layers.keep,
        norm=layers.keep,
        rotary=layers.keep,
        log_totals=functools.partial(head.unshifted, float32=_float32(leads)),
        attend=_tiles(leads),
        n_rows=head.CPU_ROWS,
    )


def _bf16_on_cpu(cpu: Processor) -> Ops:
    who = "drsow" if cpu.has_kernels else "onednn" if cpu.fuses_bf16 else "torch"
    gated: dict[str, Callable[[layers.Gated], layers.Forward | None]] = {
        "drsow": layers.panel_or_onednn_gated,
        "onednn": functools.partial(layers.onednn_gated, dtype=torch.bfloat16),
    }
    totals = head.kernels_or_unshifted if who == "drsow" else head.unshifted
    attend = _tiles(cpu.onednn_leads)
    named = KERNELS if who == "drsow" else who
    return Ops(
        # If oneDNN is faster in float32, attention does not round its weights between its two products.
        name="-".join(["cpu", named, cpu.isa, *(["products"] if cpu.onednn_leads else [])]),
        linear=layers.panel_linear if who == "drsow" else layers.keep,
        gated=gated.get(who, layers.keep),
        norm=layers.kernel_norm if who == "drsow" else layers.keep,
        rotary=layers.kernel_rotary if who == "drsow" else layers.keep,
        log_totals=functools.partial(totals, float32=_float32(cpu.onednn_leads)),
        attend=functools.partial(attention.kernels_or, attend) if who == "drsow" else attend,
        n_rows=head.CPU_ROWS,
    )


def _float32(leads: bool) -> Callable[..., Tensor]:
    return onednn.onednn_float32 if leads else onednn.mkl_float32


def _tiles(leads: bool) -> Callable[..., Tensor]:
    return functools.partial(tiles.tile_attention, least=products.LEAST if leads else math.inf)


def on_gpu(dtype: torch.dtype, capability: tuple[int, int]) -> Ops:
    """The operations on a GPU of a compute capability.

    FlexAttention is used only for bfloat16. Older GPUs do not multiply bfloat16, and float32 blocks do not fit into
    every GPU's shared memory; both use tiles. On a GPU, only the precision check uses float32.
    """
    low = dtype == torch.bfloat16
    arch = f"sm{capability[0]}{capability[1]}" if low else ""
    flexes = low and capability >= (8, 0)
    return gpu_ops("flex" if flexes else "tiles", "compiled", arch, fuses=flexes)


def gpu_ops(attend: str, totals: str, arch: str, *, fuses: bool = False) -> Ops:
    """The operations on a GPU.

    Args:
        attend: "flex" or "tiles", which begins a kernel for every tile and is slow.
        totals: How the head sums: "compiled", or "eager", which holds its logits more than once.
        arch: Name of the instructions, "" where they do not matter.
        fuses: Whether torch compiles the decoder layers.
    """
    by_tiles = functools.partial(tiles.by_tiles, least=math.inf)
    attends = {"flex": functools.partial(attention.flex_or, by_tiles), "tiles": by_tiles}
    sums = {
        "compiled": functools.partial(head.shifted, logsumexp=head.compiled_logsumexp, n_words=head.GPU_WORDS),
        "eager": functools.partial(head.shifted, logsumexp=head.eager_logsumexp, n_words=head.EAGER_WORDS),
    }
    without = {}
    if attend == "flex":
        without[flex.NAME] = functools.partial(gpu_ops, "tiles", totals, arch, fuses=fuses)
    if totals == "compiled":
        without[head.NAME] = functools.partial(gpu_ops, attend, "eager", arch, fuses=fuses)
    if fuses:
        without[fused.NAME] = functools.partial(gpu_ops, attend, totals, arch)
    name = ["cuda", attend, "fused" if fuses else "", "eager" if totals == "eager" else "", arch]
    return Ops(
        name="-".join(filter(None, name)),
        linear=layers.keep,
        gated=layers.keep,
        norm=layers.keep,
        rotary=layers.keep,
        log_totals=sums[totals],
        attend=attends[attend],
        n_rows=head.GPU_ROWS,
        rows=flex.block_rows if attend == "flex" else onednn.shape_rows,
        fuses=fuses,
        without=without,
    )


def multiplier(dtype: torch.dtype, side: int) -> Callable[[], Tensor]:
    """A product of square matrices, computed as in the engine, with which to measure this processor's rate."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    layer = nn.Linear(side, side, bias=False).requires_grad_(False).to(dtype)
    forward = choose(torch.device("cpu"), dtype).linear(layer)
    if forward is None:
        return functools.partial(torch.mm, a, b, out=torch.empty(side, side, dtype=dtype))
    return functools.partial(forward, a)
