"""The verb `sample`: samples a policy's responses to prompts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import LABEL, app
from bench.cli.options import (
    COMPUTING,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Limit,
    MaxNewTokens,
    PolicyName,
    Prompts,
    RegistryDir,
    SampleSeed,
    Temperature,
    TopP,
)

CacheTokens = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        min=1,
        help="Most tokens of prompts and responses that are in memory at once.",
        rich_help_panel=COMPUTING,
    ),
]


@app.command(rich_help_panel=LABEL)
def sample(
    model: PolicyName,
    prompts: Prompts,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Responses to each prompt; 1 keeps empty ones.")] = 32,
    temperature: Temperature = 0.7,
    top_p: TopP = 1,
    max_new_tokens: MaxNewTokens = 512,
    seed: SampleSeed = 0,
    batch_tokens: CacheTokens = None,
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Sample several responses of a model to each prompt."""
    from bench.data.load import load_prompts
    from bench.prefer.resumed import Sampling
    from bench.registry import load_registry
    from bench.verbs.sample import sample_candidates
    from bench.verbs.session import open_session

    known = load_registry(registry)
    known.policy(model)
    dataset = load_prompts(prompts, limit_per_subset=limit)
    wish = Sampling(n, temperature, top_p, max_new_tokens, seed, keep_empty=n == 1)
    session = open_session(known, dtype=dtype.value, device=device.value)
    n_left_out = sample_candidates(session, dataset, model, wish, out=out, cache_tokens=batch_tokens)
    if n_left_out:
        print(f"{n_left_out} prompts left out: fewer than two of their responses have text", file=sys.stderr)
    print(out)
