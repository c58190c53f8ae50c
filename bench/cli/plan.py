"""The verb `plan`: estimates what a run costs before it starts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    COMPUTING,
    RESULTS,
    As,
    Data,
    Dtype,
    Format,
    Limit,
    Pairs,
    RegistryDir,
    Results,
    StudyName,
    TemplateMode,
)
from bench.cli.power import (
    Families,
    Models,
    NRows,
    Power,
    PowerSeed,
    Rho,
    Wanted,
    refuse_with_power,
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


GpuOption = Annotated[Gpu | None, typer.Option("--gpu", help="Estimate the hours on this GPU; default: h100.")]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Default: bf16; with --calibrate fp32 where this processor lacks bf16.",
        rich_help_panel=COMPUTING,
    ),
]
TemplateOption = Annotated[
    TemplateMode | None,
    typer.Option("--template", help="One chat template for both models (default), or each its own."),
]


@app.command(rich_help_panel=SCORE)
def plan(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    gpu: GpuOption = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", metavar="", help="Estimate this processor's time too.")
    ] = False,
    power: Power = False,
    models: Models = None,
    rho: Rho = None,
    rows: NRows = None,
    families: Families = None,
    seed: PowerSeed = None,
    dtype: DtypeOption = None,
    template: TemplateOption = None,
    output: As = Format.table,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Say what a run would cost and what it lacks, without a network."""
    wanted = Wanted(models, rho, rows, families, seed)
    if power:
        unread = limit if study is None or rows is not None else None
        refuse_with_power(
            {"--gpu": gpu, "--calibrate": calibrate or None, "--limit-per-subset": unread}
            | {"--dtype": dtype, "--template": template}
        )
        show_power(wanted, registry, pair, study, Rows(data, limit), output)
        return
    refuse_without_power(wanted)
    stored = select_stored(registry, pair, study, template or TemplateMode.shared, rows=Rows(data, limit))
    chosen, machine = (dtype or Dtype.auto).value, (gpu or Gpu.h100).value
    _show_costs(stored, results, chosen, machine, calibrate=calibrate, output=output)


def _show_costs(stored: Stored, results: Path, dtype: str, gpu: str, *, calibrate: bool, output: Format) -> None:
    """Print the plan of every pass, and its totals on stderr."""
    from bench.lookup import some
    from bench.scoring.plan import matmul_rate
    from bench.store.folder import Store
    from bench.verbs.plan import Planner, plan_passes, planned_options, summary
    from bench.verbs.session import Session
    from bench.verbs.told import lookup_of

    known, subjects, dataset = stored
    session = Session(known, Store(results), planned_options(dtype, on_cpu=calibrate))
    rate = matmul_rate(session.options.dtype) if calibrate else None
    planner = Planner(session, dataset, lookup_of(known, dtype=dtype))
    table = plan_passes(planner, subjects, gpu=gpu, cpu_rate=rate)
    emit(table, output, VIEWS["plan"])
    n_pairs = len({found.pair_id for subject in subjects for found in subject.pairs})
    for line in summary(table, dataset, gpu=gpu, n_pairs=n_pairs):
        warn(line)
    for words, names in planner.others.items():
        warn(f"{some(names)}: {words}, so a run here scores {'it' if len(names) == 1 else 'them'} again")
    for model_id, note in planner.notes.items():
        warn(f"{model_id} {note}")
