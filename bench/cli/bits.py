"""The verb `bits`: measures bits per byte of a text, the performance that the `noise` study uses."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import LOOK_UP, app
from bench.cli.options import As, Format, RegistryDir
from bench.cli.printed import emit
from bench.cli.views import VIEWS
from bench.faults import warn


@app.command(rich_help_panel=LOOK_UP)
def bits(
    names: Annotated[list[str], typer.Argument(help="model_ids, pairs or studies.")],
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", exists=True, dir_okay=False, help="A UTF-8 text in sections; default: pairs/noise_text.txt."
        ),
    ] = None,
    output: As = Format.table,
    registry: RegistryDir = None,
) -> None:
    """Measure how many bits models need per byte of a text."""
    from bench.files import edited_text
    from bench.registry import load_registry, pairs_folder

    known = load_registry(registry)
    model_ids = list(dict.fromkeys(model_id for name in names for model_id in known.models_of(name)))

    import pandas as pd

    from bench.scoring import fetch
    from bench.scoring.bits import bits_per_byte, sections

    for model_id in model_ids:
        fetch.check_here(known.model(model_id))

    examples = sections(edited_text(text or pairs_folder() / "noise_text.txt"))
    found = []
    for number, model_id in enumerate(model_ids, start=1):
        warn(f"{model_id}: model {number} of {len(model_ids)}")
        found.append((model_id, bits_per_byte(known.model(model_id), examples)))
    emit(pd.DataFrame(found, columns=["model_id", "bits_per_byte"]), output, VIEWS["bits"])
