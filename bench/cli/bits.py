"""The verb that measures the performance of the `noise` study."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import RegistryDir


@app.command()
def bits(
    names: Annotated[list[str], typer.Argument(help="model_ids, pairs or studies.")],
    text: Annotated[
        Path | None,
        typer.Option("--text", exists=True, dir_okay=False, help="UTF-8, in sections; default: pairs/noise_text.txt."),
    ] = None,
    registry: RegistryDir = None,
) -> None:
    """Print how many bits a model needs per byte of a text, in float32 on the CPU."""
    from bench.files import edited_text
    from bench.registry import load_registry, pairs_folder
    from bench.scoring.bits import bits_per_byte, sections

    known = load_registry(registry)
    examples = sections(edited_text(text or pairs_folder() / "noise_text.txt"))
    for model_id in dict.fromkeys(model_id for name in names for model_id in known.models_of(name)):
        print(f"{model_id} {bits_per_byte(known.model(model_id), examples):.4f}", flush=True)
