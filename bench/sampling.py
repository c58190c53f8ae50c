"""The verb `sample`: prompts and a policy -> a candidates file."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.registry import Registry
from bench.schema import Dataset
from bench.scoring import fetch, run

if TYPE_CHECKING:
    from bench.prefer.sample import Sampling


def sample_candidates(
    registry: Registry, dataset: Dataset, model_id: str, wish: "Sampling", options: run.Options, *, out: Path
) -> int:
    """Sample a model's responses to every prompt into a file; returns how many prompts were left out."""
    from bench.prefer.sample import sample_all
    from bench.scoring import models

    located = fetch.fetch(registry.model(model_id))
    dtype = models.TORCH_DTYPES[run.dtype_name(options)]
    model = models.load_policy(located.folder, dtype=dtype, device=run.device_name(options))
    facts = {
        "model_id": model_id,
        "revision": located.revision,
        "dtype": run.dtype_name(options),
        "prompts": dataset.data_id,
        "prompts_digest": dataset.digest,
    }
    return sample_all(model, models.load_tokenizer(located.folder), dataset.examples, wish, out=out, facts=facts)
