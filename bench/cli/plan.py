"""The verb `plan`: estimates what a run costs before it starts."""

import sys
from enum import StrEnum
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
from bench.cli.printed import emit
from bench.cli.session import Rows, select_stored
from bench.cli.views import VIEWS


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
    dtype: DtypeOption = Dtype.auto,
    template: TemplateOption = TemplateMode.shared,
    output: As = Format.table,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Say what a run would cost and what it lacks, without a network."""
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.scoring.plan import matmul_rate
    from bench.store.folder import Store
    from bench.verbs.plan import Planner, plan_passes, planned_options, summary
    from bench.verbs.run import lookup_of
    from bench.verbs.session import Session

    session = Session(known, Store(results), planned_options(dtype.value, on_cpu=calibrate))
    rate = matmul_rate(session.options.dtype) if calibrate else None
    planner = Planner(session, dataset, lookup_of(known, dtype=dtype.value))
    table = plan_passes(planner, subjects, gpu=gpu.value, cpu_rate=rate)
    emit(table, output, VIEWS["plan"])
    n_pairs = len({found.pair_id for subject in subjects for found in subject.pairs})
    for line in summary(table, dataset, gpu=gpu.value, n_pairs=n_pairs):
        print(line, file=sys.stderr)
    for model_id, note in planner.notes.items():
        print(f"{model_id} {note}", file=sys.stderr)
