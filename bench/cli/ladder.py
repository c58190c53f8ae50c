"""The verb `ladder`: tunes families of models that are more and less aligned."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import TUNE, app
from bench.cli.options import Device, DeviceOption, Dtype, DtypeOption, Format, Limit, Prompts, RegistryDir
from bench.cli.printed import emit
from bench.cli.views import VIEWS


@app.command(rich_help_panel=TUNE)
def ladder(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A file of ladders, such as pairs/ladders.toml.")],
    preferences: Annotated[
        str, typer.Option("--preferences", help="The folder that `annotate` wrote, or what `run --data` takes.")
    ],
    prompts: Prompts,
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Tune ladders of models that are more and less aligned than their start."""
    from bench.data.load import load_prompts
    from bench.registry import load_registry
    from bench.verbs.ladder import REGISTRY, Inputs, climb, read_recipe
    from bench.verbs.session import open_session

    found, known = read_recipe(recipe), load_registry(registry)
    for each in found.ladders:
        known.policy(each.start)
    session = open_session(known, dtype=dtype.value, device=device.value)
    inputs = Inputs(preferences, load_prompts(prompts, limit_per_subset=limit))
    emit(climb(session, found, inputs, out=out), Format.table, VIEWS["ladder"])
    print(out / REGISTRY)
