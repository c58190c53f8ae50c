"""The verb `report`: writes a results folder's HTML page."""

from typing import Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    RESULTS,
    Data,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Limit,
    OpsOption,
    Pairs,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    StudyName,
    TemplateMode,
    TemplateOption,
)
from bench.cli.session import Rows, select_stored
from bench.schema import UsageError


@app.command(rich_help_panel=SCORE)
def report(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", metavar="", help="Score the shown rows again and shade their tokens.")
    ] = False,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    ops: OpsOption = None,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Write one HTML page of the stored tables and scores."""
    if tokens and template is TemplateMode.native:
        raise UsageError(
            "--tokens needs one chat template for both models: under --template native they read different texts"
        )
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.store.folder import Store, write_whole
    from bench.study.report import gather, html, store_stretches, stretched_rows
    from bench.subject import result_folder
    from bench.verbs.run import lookup_of
    from bench.verbs.session import open_session
    from bench.verbs.texts import stretched_pairs

    store, lookup = Store(results), lookup_of(known, dtype=dtype.value, ops=ops)
    for subject in subjects:
        if tokens:
            rows = stretched_rows(store, subject, dataset, reward=reward.value, lookup=lookup)
            session = open_session(known, dtype=dtype.value, device=device.value, results=results)
            store_stretches(store, subject, dataset, stretched_pairs(session, rows, dataset), reward=reward.value)
        shown = gather(store, known, subject, dataset, reward=reward.value, lookup=lookup)
        path = result_folder(store, subject, dataset, reward=reward.value) / "report.html"
        write_whole(path, html(shown).encode())
        print(path)
