"""Describes what this machine computes with: its device, its dtype and its kernels. It loads no model."""

import os
from typing import NamedTuple

from bench import units
from bench.schema import DTYPES
from bench.scoring.forward.device import default_device, default_dtype
from bench.scoring.identity import ops_name


class Machine(NamedTuple):
    """What a run with the default options uses here."""

    device: str
    """"cpu" or "cuda"."""
    words: str
    """Name and memory of the GPU, or the processor's cores and memory."""
    dtype: str
    """"bf16" or "fp32"."""
    ops: str
    """Name of the arithmetic, as in a score set's key."""


def machine() -> Machine:
    """The device, dtype and arithmetic of a run with the default options. It may compile the kernels.

    Raises:
        ImportError: torch is not installed, or one of its libraries is missing.
        UsageError: DRSOW_KERNELS has a wrong value.
    """
    import torch

    device = default_device()
    dtype = default_dtype(device)
    if device == "cuda":
        free, whole = torch.cuda.mem_get_info()
        n_gpus = torch.cuda.device_count()
        words = f"{n_gpus} x {torch.cuda.get_device_name()}, {units.si(free, 'B')} of {units.si(whole, 'B')} free"
    else:
        words = f"cpu, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    return Machine(device, words, dtype, ops_name(device, DTYPES[dtype]))
