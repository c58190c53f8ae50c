"""Verbs that carry scores out of the store and into it, and check them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Format,
    Limit,
    ModelName,
    Owner,
    RegistryDir,
    Results,
    ScoredDtype,
    ScoredIn,
)
from bench.cli.select import emit, load


@app.command()
def scores(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="A .csv or .parquet file to write.")],
    data: Data = "reward-bench",
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Export one model's stored scores."""
    from bench.exchange import export_scores
    from bench.registry import load_registry
    from bench.store import Store

    load_registry(registry).model(model)
    export_scores(Store(results), model, load(data, limit), out, dtype=dtype.value)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file with the columns of SCORES.")],
    model: ModelName,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: Owner = None,
    dtype: ScoredDtype = ScoredIn.fp32,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Take scores that another engine computed."""
    from bench.exchange import import_scores
    from bench.registry import load_registry
    from bench.store import Store

    known = load_registry(registry)
    owner = known.model(template or model).model_id
    folder = import_scores(
        Store(results), file, known.model(model).model_id, owner, load(data, limit), dtype=dtype.value
    )
    print(folder)


@app.command()
def verify(
    model: ModelName,
    data: Data = "reward-bench",
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows to score again.")] = 32,
    limit: Limit = None,
    template: Owner = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    output: As = Format.table,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Say how far stored or imported scores are from transformers' own float32 passes, on a sample."""
    from bench.exchange import verify_scores
    from bench.registry import load_registry
    from bench.scoring.run import Options
    from bench.store import Store

    known = load_registry(registry)
    spec, owner = known.model(model), known.model(template or model)
    options = Options(dtype.value, device.value)
    table = verify_scores(Store(results), spec, owner, load(data, limit), options, n_rows=rows)
    emit(table, output)
    shift, other = table["shift_a_token"].abs(), (table["n_tokens"] != table["n_tokens_plain"]).sum()
    words = f"{len(table)} responses: {shift.mean():.1e} nats a token off in the mean, {shift.max():.1e} at most"
    print(f"{words}; {other} with another number of tokens", file=sys.stderr)
