"""oneDNN's products on a CPU, and whether they are the faster ones."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.scoring.forward import kernels

CPUINFO = Path("/proc/cpuinfo")

SHAPE = kernels.WIDTH
"""Every matrix product has a multiple of this many rows: oneDNN makes and keeps 2.5 MB of code for each new number."""


def padded(rows: Tensor) -> Tensor:
    """Rows of zeros added up to a multiple of SHAPE."""
    lacking = -len(rows) % SHAPE
    return torch.cat([rows, rows.new_zeros(lacking, *rows.shape[1:])]) if lacking else rows


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias on a CPU, (m, out), by oneDNN; x: (m, in), weight: (out, in), bias: (out,)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def multiplier(dtype: torch.dtype, side: int) -> Callable[[], Tensor]:
    """A product of square matrices as the engine multiplies them on this processor, to measure its rate by."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    if dtype == torch.bfloat16 and kernels.ready():
        return functools.partial(kernels.linear, a, kernels.panels(b), None)
    if dtype == torch.float32 and onednn_leads():
        return functools.partial(onednn_product, a, b)
    return functools.partial(torch.mm, a, b, out=torch.empty(side, side, dtype=dtype))


@functools.cache
def onednn_leads() -> bool:
    """Whether oneDNN's float32 products are faster than MKL's: MKL keeps its AVX-512 for Intel's own processors.

    Told by the maker's name and not by a clock: one machine gives the same numbers in every run.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.backends.mkldnn.is_available()
    if not (wide and torch.backends.mkl.is_available() and CPUINFO.is_file()):
        return False
    makers = [line for line in CPUINFO.read_text(encoding="utf-8").splitlines() if line.startswith("vendor_id")]
    return bool(makers) and "GenuineIntel" not in makers[0]


def float32_product(hidden: Tensor, weight: Tensor, *, out: Tensor | None = None) -> Tensor:
    """hidden @ weight.T on a CPU, (m, words), products of the weight's dtype summed and kept in float32.

    Args:
        hidden: (m, hidden), float32, of values that the weight's dtype holds.
        weight: (words, hidden).
        out: Memory that the result may take.
    """
    if weight.dtype == torch.float32:
        if onednn_leads():
            return onednn_product(hidden, weight)
        return torch.mm(hidden, weight.T, out=out)
    # oneDNN rounds float32 inputs to bfloat16 on the way in, which changes nothing here, and keeps the sums.
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        return torch.mm(hidden, weight.float().T, out=out)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
