"""Break a model on purpose: seeded Gaussian noise on its weight matrices. A control, not a way to a better pair."""

import numpy as np
import torch

from bench.entries import ModelSpec, NoiseSource


def noise_of(spec: ModelSpec) -> NoiseSource | None:
    """What breaks a model's weights, None where nothing does."""
    return spec.source if isinstance(spec.source, NoiseSource) else None


@torch.no_grad()
def add_noise(model: torch.nn.Module, *, noise: float, seed: int) -> None:
    """Add noise x std(W) x N(0, 1) to every entry of every weight matrix W, in place.

    A matrix is a parameter of two dimensions, embeddings among them; one that two layers share is changed once.
    Each draws from a stream of its own, made of the seed and its name, and NumPy draws and sums in one thread: the
    result depends neither on the order of the matrices nor on the number of threads, nor on a later device.

    Args:
        model: On the CPU, in float32.
        noise: Standard deviation of the noise in standard deviations of the matrix (over all its entries).
        seed: Not negative.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            matrix = parameter.numpy()
            scale = noise * matrix.std(dtype=np.float64)
            rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
            matrix += np.float32(scale) * rng.standard_normal(matrix.shape, dtype=np.float32)
