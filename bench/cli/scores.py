"""Verbs that carry scores out of the store and into it."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import (
    RESULTS,
    Data,
    Dtype,
    DtypeOption,
    Limit,
    ModelName,
    Owner,
    RegistryDir,
    Results,
    ScoredDtype,
    ScoredIn,
)
from bench.cli.select import load


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
