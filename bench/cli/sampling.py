"""The verb `sample`: samples a policy's responses to prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from bench.faults import warn
from bench.schema import UsageError

if TYPE_CHECKING:
    from bench.sources import Served

CacheTokens = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        min=1,
        help="Most tokens of prompts and responses that are in memory at once.",
        rich_help_panel=COMPUTING,
    ),
]


Url = Annotated[
    str | None,
    typer.Option("--url", help="Sample from --model on this server, by chat completions.", rich_help_panel=COMPUTING),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="--url: questions at once; default 8.", rich_help_panel=COMPUTING),
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
    url: Url = None,
    concurrency: Concurrency = None,
    batch_tokens: CacheTokens = None,
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Sample several responses of a model to each prompt."""
    from bench.data.load import load_prompts
    from bench.prefer.resumed import Sampling

    _check(url, concurrency, here=(dtype, device, batch_tokens, registry) != (Dtype.auto, Device.auto, None, None))
    wish = Sampling(n, temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed, keep_empty=n == 1)
    if url is None:
        from bench.registry import load_registry
        from bench.verbs.sample import sample_candidates
        from bench.verbs.session import open_session

        (known := load_registry(registry)).policy(model)
        dataset = load_prompts(prompts, limit_per_subset=limit)
        session = open_session(known, dtype=dtype.value, device=device.value)
        n_left_out = sample_candidates(session, dataset, model, wish, out=out, cache_tokens=batch_tokens)
    else:
        from bench.verbs.sample import sample_served

        server, dataset = _served(url, model, concurrency), load_prompts(prompts, limit_per_subset=limit)
        n_left_out = sample_served(dataset, server, wish, out=out)
    if n_left_out:
        warn(f"{n_left_out} prompts left out: fewer than two of their responses have text")
    print(out)


def _check(url: str | None, concurrency: int | None, *, here: bool) -> None:
    """Refuse an option that does nothing. `here`: whether one says how this machine computes."""
    if url is None and concurrency is not None:
        raise UsageError("--concurrency is for a model on a server; name the server with --url")
    if url is not None and here:
        raise UsageError("--url: a server computes, without --dtype, --device, --batch-tokens and --registry")


def _served(url: str, model: str, concurrency: int | None) -> "Served":
    from pydantic import ValidationError

    from bench.sources import Served

    try:
        source = Served(url=url, model=model)
        return source if concurrency is None else source.model_copy(update={"concurrency": concurrency})
    except ValidationError as error:
        raise UsageError(f"--url {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
