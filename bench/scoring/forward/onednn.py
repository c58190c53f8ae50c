"""Multiplies matrices on a CPU with oneDNN or MKL, and tells which of the two is faster in float32."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")

SHAPE = 64
"""Every matrix product has a multiple of this many rows, because oneDNN keeps 2.5 MB of code for each number."""


@functools.cache
def onednn_leads() -> bool:
    """Whether oneDNN's float32 products are faster than MKL's. MKL uses AVX-512 only on Intel's processors.

    The maker's name decides, not a measurement, so that one machine gives the same numbers in every run.
    """
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.backends.mkldnn.is_available()
    if not (wide and torch.backends.mkl.is_available() and CPUINFO.is_file()):
        return False
    makers = [line for line in CPUINFO.read_text(encoding="utf-8").splitlines() if line.startswith("vendor_id")]
    return bool(makers) and "GenuineIntel" not in makers[0]


def onednn_fuses_bf16() -> bool:
    """Whether oneDNN has bfloat16 products with a fused activation on this processor."""
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
    """hidden @ weight.T, (m, words), float32, by oneDNN, which allocates the result itself and ignores `out`."""
    return onednn_product(hidden, weight)


def mkl_float32(hidden: Tensor, weight: Tensor, *, out: Tensor | None) -> Tensor:
    """hidden @ weight.T, (m, words), float32, by MKL, written to `out` if it is given."""
    return torch.mm(hidden, weight.T, out=out)


def exact_bf16(hidden: Tensor, weight: Tensor, *, out: Tensor | None) -> Tensor:
    """hidden @ weight.T, (m, words), float32: bfloat16 products, summed in float32.

    Args:
        hidden: (m, hidden), float32, with values that bfloat16 can represent exactly.
        weight: (words, hidden), bfloat16.
        out: Memory for the result, or None.
    """
    # oneDNN rounds the float32 inputs to bfloat16, which changes nothing here, and keeps the sums in float32.
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        return torch.mm(hidden, weight.float().T, out=out)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
