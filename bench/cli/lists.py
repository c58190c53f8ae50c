"""The verbs `models`, `pairs` and `fetch`: list the registry, and download models and data."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import LOOK_UP, app
from bench.cli.options import As, Format, RegistryDir, StudyName
from bench.cli.printed import emit
from bench.cli.views import VIEWS


@app.command(rich_help_panel=LOOK_UP)
def models(output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the registry's models."""
    from bench.registry import load_registry
    from bench.verbs.listing import models_frame

    emit(models_frame(load_registry(registry)), output, VIEWS["models"])


@app.command(rich_help_panel=LOOK_UP)
def pairs(study: StudyName = None, output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the named pairs, or the pairs of a study."""
    from bench.registry import PERFORMANCE, load_registry

    known = load_registry(registry)
    chosen = known.named_pairs() if study is None else known.study_pairs(known.study(study))
    gap = known.performances[PERFORMANCE if study is None else known.study(study).performance].name

    from bench.cli.tables import with_gap
    from bench.verbs.listing import pairs_frame

    frame = pairs_frame(known, chosen)
    emit(frame, output, with_gap(VIEWS["pairs"], frame, gap))


@app.command(rich_help_panel=LOOK_UP)
def fetch(
    names: Annotated[
        list[str], typer.Argument(help="model_ids, pairs, studies, or data: a benchmark's name, a hub id.")
    ],
    lock: Annotated[Path | None, typer.Option("--lock", help="Write commits and digests to this file.")] = None,
    registry: RegistryDir = None,
) -> None:
    """Download models and data for runs without a network."""
    from bench.data.load import fetch_data, is_data
    from bench.registry import load_registry

    known = load_registry(registry)
    data = [name for name in names if is_data(name)]
    model_ids = list(
        dict.fromkeys(model_id for name in names if name not in data for model_id in known.models_of(name))
    )

    from bench.scoring.fetch import fetch as fetch_model
    from bench.verbs.lock import write_lock

    for name in data:
        print(f"{name} {fetch_data(name):,} rows")
    for model_id in model_ids:
        print(model_id, fetch_model(known.model(model_id)).folder)
    if lock:
        write_lock(known, model_ids, lock)
