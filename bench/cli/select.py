"""The verb `select`: keeps the response pairs that are worth labelling."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import LABEL, app
from bench.cli.options import Device, DeviceOption, Dtype, DtypeOption, Format, Limit, RegistryDir
from bench.cli.printed import emit
from bench.cli.views import VIEWS
from bench.schema import UsageError


class Strategy(StrEnum):
    """What `--strategy` takes."""

    dissimilar = "dissimilar"
    similar = "similar"
    centroid = "centroid"
    random = "random"


@app.command(rich_help_panel=LABEL)
def select(
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    candidates: Annotated[str | None, typer.Option("--candidates", help="Prompts with several responses each.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Preferences, as --data of other verbs.")] = None,
    limit: Limit = None,
    strategy: Annotated[
        Strategy, typer.Option("--strategy", help="Which response pairs to keep.")
    ] = Strategy.dissimilar,
    fraction: Annotated[float, typer.Option("--fraction", min=0, max=1, help="Share of the prompts to keep.")] = 0.5,
    model: Annotated[
        str, typer.Option("--model", help="The model that embeds responses.")
    ] = "smollm2-135m-instruct-q4",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random draws.")] = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Keep the response pairs worth labelling (REAL, arXiv 2409.17169)."""
    from bench.data.load import check_preferences, load_candidates, load_data
    from bench.files import check_not_read, check_ours
    from bench.registry import load_registry
    from bench.verbs.select import Selection, is_selected, select_pairs
    from bench.verbs.session import open_session

    if (candidates is None) == (data is None):
        raise UsageError("name what to select from: --candidates FILE or --data DATA")
    if candidates is not None and limit is not None:
        raise UsageError("--limit-per-subset draws from --data; --candidates takes every prompt of its file")
    check_not_read(out, "--candidates", candidates)
    check_not_read(out, "--data", data)
    check_ours(out, "select", is_selected)
    dataset = load_data(str(data), limit_per_subset=limit) if candidates is None else load_candidates(candidates)
    if candidates is None:
        check_preferences(dataset)
    session = open_session(load_registry(registry), dtype=dtype.value, device=device.value)
    table = select_pairs(session, dataset, Selection(model, strategy.value, fraction, seed), out=out)
    kept = table["similarity"].describe()[["mean", "min", "50%", "max"]].to_frame().T.assign(n_kept=len(table))
    emit(kept, Format.table, VIEWS["select"])
