"""Chooses the default device and dtype, moves arrays to a device, and tells when its memory ran out."""

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.scoring.garbage import uncollected

if TYPE_CHECKING:
    import numpy as np
    import torch


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""mallopt's parameters: free bytes at the heap's end that the system gets back; size from which on an allocation is
mapped separately; number of heaps."""


@functools.cache
def default_device() -> str:
    """ "cuda" if there is a GPU, else "cpu"."""
    # Imported here, because code that only reads the store does not need torch.
    with uncollected():
        import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """ "bf16" on GPUs and on processors that multiply it in hardware, else "fp32"; never fp16."""
    if device == "cuda":
        return "bf16"
    import torch

    capable = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if capable else "fp32"


@functools.cache
def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next layer instead of returning it to the system.

    Otherwise the system maps and clears every large activation again. That causes nine in ten of a step's page faults
    and takes a twentieth of its time. All threads share one heap, because each further heap holds 64 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**29)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_ARENA_MAX, 1)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Sets torch's number of threads. A thread keeps the number that was set when it first computed."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def moved(array: "np.ndarray", device: "torch.device") -> "torch.Tensor":
    """An array on a device. The copy does not wait for the operations that run there."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
