"""Which device and dtype a run uses where the user says nothing."""

import functools


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
