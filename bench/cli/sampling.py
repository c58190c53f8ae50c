"""The verb that samples on-policy candidates."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import Device, DeviceOption, Dtype, DtypeOption, Limit, ModelName, RegistryDir


@app.command()
def sample(
    model: ModelName,
    prompts: Annotated[
        str, typer.Option("--prompts", help="A .jsonl, .parquet or .csv file with prompts, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    n: Annotated[int, typer.Option("--n", min=2, help="Responses a prompt.")] = 32,
    temperature: Annotated[float, typer.Option("--temperature", min=0.01, help="Of the sampling.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", min=0.01, max=1, help="Share of the probability drawn from.")] = 1,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest response.")] = 512,
    seed: Annotated[int, typer.Option("--seed", min=0, help="With a prompt's id it gives its responses.")] = 0,
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Sample several responses of a model to each prompt; a stopped run goes on where it was."""
    from bench.data import load_prompts
    from bench.prefer.sample import Sampling
    from bench.registry import load_registry
    from bench.sampling import sample_candidates
    from bench.scoring.run import Options

    known = load_registry(registry)
    known.model(model)
    dataset = load_prompts(prompts, limit_per_subset=limit)
    wish = Sampling(n, temperature, top_p, max_new_tokens, seed)
    options = Options(dtype.value, device.value)
    n_left_out = sample_candidates(known, dataset, model, wish, options, out=out)
    if n_left_out:
        print(f"{n_left_out} prompts left out: fewer than two responses were not empty", file=sys.stderr)
    print(out)
