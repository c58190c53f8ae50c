"""Makes a model worse on purpose with seeded Gaussian noise on its weight matrices, as a control for studies."""

import numpy as np
import torch

from bench.entries import ModelSpec, NoiseSource


def noise_of(spec: ModelSpec) -> NoiseSource | None:
    """The noise of a noise model; None for any other model."""
    return spec.source if isinstance(spec.source, NoiseSource) else None


@torch.no_grad()
def add_noise(model: torch.nn.Module, *, noise: float, seed: int) -> None:
    """Adds noise x std(W) x N(0, 1) to every entry of every weight matrix W, in place.

    A matrix is a parameter of two dimensions, including embeddings. A matrix that two layers share is changed once.
    Each matrix has its own random stream, seeded with the seed and the matrix's name, and NumPy draws and sums in one
    thread. So the result does not depend on the order of the matrices, the number of threads or a later device.

    Args:
        model: A model on the CPU, in float32.
        noise: Standard deviation of the noise, in standard deviations of the matrix (over all its entries).
        seed: Seed, 0 or more.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            matrix = parameter.numpy()
            scale = noise * matrix.std(dtype=np.float64)
            rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
            matrix += np.float32(scale) * rng.standard_normal(matrix.shape, dtype=np.float32)
