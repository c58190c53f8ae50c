"""The verb `plan`: estimates what a run costs before it starts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Dtype,
    DtypeOption,
    Format,
    Limit,
    Pairs,
    RegistryDir,
    Results,
    StudyName,
    TemplateMode,
    TemplateOption,
)
from bench.cli.power import (
    Families,
    Models,
    NRows,
    Power,
    PowerSeed,
    Rho,
    Wanted,
    refuse_without_power,
    show_power,
)
from bench.cli.printed import emit
from bench.cli.session import Rows, Stored, select_stored
from bench.cli.views import VIEWS
from bench.faults import warn


class Gpu(StrEnum):
    """What `--gpu` takes."""

    h200 = "h200"
    h100 = "h100"
    a100 = "a100"
    l40s = "l40s"
    rtx_4090 = "rtx-4090"


@app.command(rich_help_panel=SCORE)
def plan(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    gpu: Annotated[Gpu, typer.Option("--gpu", help="Estimate the hours on this GPU.")] = Gpu.h100,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", metavar="", help="Estimate this processor's time too.")
    ] = False,
    power: Power = False,
    models: Models = None,
    rho: Rho = None,
    rows: NRows = None,
    families: Families = None,
    seed: PowerSeed = None,
    dtype: DtypeOption = Dtype.auto,
    template: TemplateOption = TemplateMode.shared,
    output: As = Format.table,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Say what a run would cost and what it lacks, without a network."""
    wanted = Wanted(models, rho, rows, families, seed)
    if power:
        show_power(wanted, registry, pair, study, Rows(data, limit), output)
        return
    refuse_without_power(wanted)
    stored = select_stored(registry, pair, study, template, rows=Rows(data, limit))
    _show_costs(stored, results, dtype.value, gpu.value, calibrate=calibrate, output=output)


def _show_costs(stored: Stored, results: Path, dtype: str, gpu: str, *, calibrate: bool, output: Format) -> None:
    """Print the plan of every pass, and its totals on stderr."""
    from bench.scoring.plan import matmul_rate
    from bench.store.folder import Store
    from bench.verbs.plan import Planner, plan_passes, planned_options, summary
    from bench.verbs.run import lookup_of
    from bench.verbs.session import Session

    known, subjects, dataset = stored
    session = Session(known, Store(results), planned_options(dtype, on_cpu=calibrate))
    rate = matmul_rate(session.options.dtype) if calibrate else None
    planner = Planner(session, dataset, lookup_of(known, dtype=dtype))
    table = plan_passes(planner, subjects, gpu=gpu, cpu_rate=rate)
    emit(table, output, VIEWS["plan"])
    n_pairs = len({found.pair_id for subject in subjects for found in subject.pairs})
    for line in summary(table, dataset, gpu=gpu, n_pairs=n_pairs):
        warn(line)
    for model_id, note in planner.notes.items():
        warn(f"{model_id} {note}")
