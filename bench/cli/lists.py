"""Verbs that list the registry and fetch from it."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import As, Format, RegistryDir, StudyName
from bench.cli.select import emit


@app.command()
def models(output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the registry's models."""
    from bench.listing import models_frame
    from bench.registry import load_registry

    emit(models_frame(load_registry(registry)), output)


@app.command()
def pairs(study: StudyName = None, output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the named pairs, or a study's."""
    from bench.listing import pairs_frame
    from bench.registry import load_registry

    known = load_registry(registry)
    chosen = known.named_pairs() if study is None else known.study_pairs(known.study(study))
    emit(pairs_frame(known, chosen), output)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="model_ids, pairs or studies.")],
    lock: Annotated[Path | None, typer.Option("--lock", help="Write commits and digests to this file.")] = None,
    registry: RegistryDir = None,
) -> None:
    """Download models (and nothing else) for later runs without a network."""
    from bench.lockfile import write_lock
    from bench.registry import load_registry
    from bench.scoring.fetch import fetch as fetch_model

    known = load_registry(registry)
    model_ids = list(dict.fromkeys(model_id for name in names for model_id in known.models_of(name)))
    for model_id in model_ids:
        print(model_id, fetch_model(known.model(model_id)).folder)
    if lock:
        write_lock(known, model_ids, lock)
