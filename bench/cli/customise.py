"""The verbs `route` and `ablate`: find each prompt's domain, and measure the effect of domain instructions."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import CUSTOMISE, app
from bench.cli.options import (
    RESULTS,
    Data,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Format,
    Limit,
    OnePair,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    TemplateMode,
)
from bench.cli.printed import emit
from bench.cli.session import load, select
from bench.cli.views import VIEWS
from bench.faults import warn
from bench.files import check_not_read, check_ours
from bench.schema import UsageError

ASKED = "smollm2-135m-instruct-q4"
"""The model that `route --router model` asks by default."""


class Router(StrEnum):
    """What `--router` takes."""

    section = "section"
    classifier = "classifier"
    model = "model"


@app.command(rich_help_panel=CUSTOMISE)
def route(
    out: Annotated[Path, typer.Option("--out", help="The .csv file to write.")],
    data: Data = "reward-bench",
    limit: Limit = None,
    router: Annotated[
        Router, typer.Option("--router", help="A text classifier, the known section, or a language model.")
    ] = Router.classifier,
    model: Annotated[
        str | None, typer.Option("--model", help=f"The model that --router model asks; default: {ASKED}.")
    ] = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Find each prompt's domain, and how often the router is right."""
    from bench.data.load import load_prompts
    from bench.files import write_csv
    from bench.prefer.route import confusion
    from bench.registry import load_registry
    from bench.schema import ROUTES
    from bench.verbs.route import asked_routes, plain_routes
    from bench.verbs.session import open_session

    _check(router, model)
    check_not_read(out, "--data", data)
    check_ours(out, "route", lambda line: line == ",".join(ROUTES))
    known = load_registry(registry)
    dataset = load_prompts(data, limit_per_subset=limit)
    if router is Router.model:
        session = open_session(known, dtype=dtype.value, device=device.value, results=results)
        table = asked_routes(session, dataset, model or ASKED)
    else:
        table = plain_routes(known, dataset, router.value)
    write_csv(out, table, ROUTES)
    warn(str(out))
    if len(right := confusion(table, dataset, known.domains)):
        emit(right.rename(columns={name: f"to {name}" for name in known.domains}), Format.table, VIEWS["route"])
    else:
        emit(table["domain"].value_counts().reset_index(), Format.table, VIEWS["domains"])


def _check(router: Router, model: str | None) -> None:
    """Refuses a model that the router does not ask."""
    if model is not None and router is not Router.model:
        raise UsageError(f"--model is for --router model; --router {router.value} asks no language model")


@app.command(rich_help_panel=CUSTOMISE)
def ablate(
    pair: OnePair,
    data: Data = "reward-bench",
    limit: Limit = None,
    router: Annotated[
        list[Router] | None, typer.Option("--router", help="How to find the domains; default: all that can be used.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of each prompt's exemplar.")] = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    reward: RewardOption = Reward.sum,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Measure the effect of telling a pair what a good answer is."""
    from bench.files import read_csv
    from bench.study.draw import write_ablation
    from bench.verbs.ablate import Ablation, ablate_pair
    from bench.verbs.route import usable_routers
    from bench.verbs.session import open_session

    known, (subject,) = select(registry, [pair], None, TemplateMode.shared)
    dataset = load(data, limit)
    routers = [each.value for each in router] if router else usable_routers(known, dataset)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    folder = ablate_pair(session, subject, dataset, Ablation(routers, seed, reward.value))
    words = f"Seed {seed}. Data and versions: manifest.json of {folder.parent.name}/{folder.name}."
    write_ablation(folder, known, subject.name, provenance=words)
    emit(read_csv(folder / "ablation.csv"), Format.table, VIEWS["ablate"])
    warn(str(folder / "ablation.csv"))
