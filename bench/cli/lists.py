"""The verbs `models`, `pairs` and `fetch`: list the registry, add to it, and download models and data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import LOOK_UP, app
from bench.cli.options import As, Format, RegistryDir, StudyName
from bench.cli.printed import emit
from bench.cli.views import VIEWS
from bench.faults import warn
from bench.schema import UsageError

if TYPE_CHECKING:
    from bench.verbs.add import Added

models_app, pairs_app = typer.Typer(), typer.Typer()
app.add_typer(models_app, name="models", rich_help_panel=LOOK_UP)
app.add_typer(pairs_app, name="pairs", rich_help_panel=LOOK_UP)


@models_app.callback(invoke_without_command=True)
def models(ctx: typer.Context, output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the registry's models, or add one."""
    if ctx.invoked_subcommand:
        return
    from bench.registry import load_registry
    from bench.verbs.listing import models_frame

    emit(models_frame(load_registry(registry)), output, VIEWS["models"])


@models_app.command("add")
def add_model(
    ctx: typer.Context,
    place: Annotated[str, typer.Argument(help="A hub repository, or a folder or .gguf file on this machine.")],
    registry: RegistryDir = None,
    model_id: Annotated[str | None, typer.Option("--model-id", help="Default: from the repository's name.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Last training method: base, sft, dpo.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Of a LoRA adapter: the model_id of its base.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Which .gguf file of the repository.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit; default: the newest.")] = None,
) -> None:
    """Write an entry for a model into your registry folder."""
    folder = _folder(ctx, registry)

    from bench.verbs.add import Asked
    from bench.verbs.add import add_model as write_model

    _tell(write_model(folder, place, Asked(model_id, method, base, file, revision)))


@pairs_app.callback(invoke_without_command=True)
def pairs(ctx: typer.Context, study: StudyName = None, output: As = Format.table, registry: RegistryDir = None) -> None:
    """List the named pairs or the pairs of a study, or add a pair."""
    if ctx.invoked_subcommand:
        return
    from bench.registry import PERFORMANCE, load_registry

    known = load_registry(registry)
    chosen = known.named_pairs() if study is None else known.study_pairs(known.study(study))
    gap = known.performances[PERFORMANCE if study is None else known.study(study).performance].name

    from bench.cli.tables import with_gap
    from bench.verbs.listing import pairs_frame

    frame = pairs_frame(known, chosen)
    emit(frame, output, with_gap(VIEWS["pairs"], frame, gap))


@pairs_app.command("add")
def add_pair(
    ctx: typer.Context,
    strong: Annotated[str, typer.Argument(help="model_id of the better-aligned model.")],
    weak: Annotated[str, typer.Argument(help="model_id of the less-aligned model.")],
    registry: RegistryDir = None,
    pair_id: Annotated[str | None, typer.Option("--pair-id", help="Default: STRONG-over-WEAK.")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template", help="The model whose chat template both read; default: STRONG, or WEAK if only it has one."
        ),
    ] = None,
) -> None:
    """Write an entry for a pair into your registry folder."""
    folder = _folder(ctx, registry)

    from bench.verbs.add import add_pair as write_pair

    _tell(write_pair(folder, strong, weak, pair_id=pair_id, template=template))


def _folder(ctx: typer.Context, registry: Path | None) -> Path:
    """The registry folder that the user names, before or after `add`."""
    found: Path | None = registry or (ctx.parent.params.get("registry") if ctx.parent else None)
    if found is None:
        raise UsageError("name the folder of your registry: --registry DIR; it is made if it does not exist")
    return found


def _tell(added: "Added") -> None:
    print(added.text)
    for line in (f"{added.entry_id} added", *added.notes):
        warn(f"{added.path}: {line}")


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
