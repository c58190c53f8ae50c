"""Which device and dtype a run uses where the user says nothing; how arrays get there."""

import contextlib
import ctypes
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""mallopt's parameters: bytes free at the heap's end that go back to the system, bytes that are mapped apart, heaps."""


@functools.cache
def default_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    # Imported here: what only reads the store needs no torch.
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
    """Let glibc keep what is freed, for the next layer: else every large activation is mapped and cleared anew.

    Nine in ten of a step's page faults, and a twentieth of its time. Threads share one heap: those of their own hold
    64 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**29)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_ARENA_MAX, 1)


def moved(array: "np.ndarray", device: "torch.device") -> "torch.Tensor":
    """An array on a device, without a wait for what runs there."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
