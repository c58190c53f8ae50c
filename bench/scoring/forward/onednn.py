"""Products on a CPU: oneDNN's, MKL's, and which of the two libraries is the faster one in float32."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")

SHAPE = 64
"""Every matrix product has a multiple of this many rows: oneDNN makes and keeps 2.5 MB of code for each new number."""


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


def onednn_fuses_bf16() -> bool:
    """Whether oneDNN multiplies bfloat16 here with an activation at the product's end."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def shape_rows(n: int) -> int:
    """The multiple of SHAPE from n on."""
    return n + -n % SHAPE


def padded(rows: Tensor, *, to: Callable[[int], int] = shape_rows) -> Tensor:
    """Rows of zeros added up to as many as `to` says."""
    lacking = to(len(rows)) - len(rows)
    return torch.cat([rows, rows.new_zeros(lacking, *rows.shape[1:])]) if lacking else rows


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias on a CPU, (m, out), by oneDNN; x: (m, in), weight: (out, in), bias: (out,)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def onednn_float32(hidden: Tensor, weight: Tensor, *, out: Tensor | None) -> Tensor:
    """hidden @ weight.T, (m, words), float32, by oneDNN, which takes memory of its own."""
    return onednn_product(hidden, weight)


def mkl_float32(hidden: Tensor, weight: Tensor, *, out: Tensor | None) -> Tensor:
    """hidden @ weight.T, (m, words), float32, by MKL, in the memory `out` where it is given."""
    return torch.mm(hidden, weight.T, out=out)


def exact_bf16(hidden: Tensor, weight: Tensor, *, out: Tensor | None) -> Tensor:
    """hidden @ weight.T, (m, words), float32: products of bfloat16 whose sums stay float32.

    Args:
        hidden: (m, hidden), float32, of values that bfloat16 holds.
        weight: (words, hidden), bfloat16.
        out: Memory that the result may take.
    """
    # oneDNN rounds float32 inputs to bfloat16 on the way in, which changes nothing here, and keeps the sums.
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        return torch.mm(hidden, weight.float().T, out=out)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
