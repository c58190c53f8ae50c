"""The verb `report`: writes a results folder's HTML page."""

from typing import Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    COMPUTING,
    RESULTS,
    Data,
    Device,
    Dtype,
    Limit,
    OpsOption,
    Pairs,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    StoredDtype,
    StudyName,
    TemplateMode,
    TemplateOption,
)
from bench.cli.session import Rows, select_stored
from bench.schema import UsageError

TokensOption = Annotated[
    bool, typer.Option("--tokens", metavar="", help="Score the shown rows again and shade their tokens.")
]
DeviceOption = Annotated[
    Device | None,
    typer.Option(
        "--device", help="With --tokens; auto (default): the GPU where there is one.", rich_help_panel=COMPUTING
    ),
]


def _check_tokens(template: TemplateMode, device: Device | None, *, tokens: bool) -> None:
    """Refuses options that do not go with --tokens, or with its absence."""
    if tokens and template is TemplateMode.native:
        raise UsageError(
            "--tokens needs one chat template for both models: under --template native they read different texts"
        )
    if device is not None and not tokens:
        raise UsageError("--device needs --tokens, which scores the shown rows again")


@app.command(rich_help_panel=SCORE)
def report(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    tokens: TokensOption = False,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    device: DeviceOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Write one HTML page of the stored tables and scores."""
    _check_tokens(template, device, tokens=tokens)
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.files import write_whole
    from bench.store.folder import Store
    from bench.study.report import gather, html, store_stretches, stretched_rows
    from bench.subject import result_folder
    from bench.verbs.session import open_session
    from bench.verbs.texts import stretched_pairs
    from bench.verbs.told import lookup_of

    store, lookup = Store(results), lookup_of(known, dtype=dtype.value, ops=ops)
    for subject in subjects:
        if tokens:
            rows = stretched_rows(store, subject, dataset, reward=reward.value, lookup=lookup)
            session = open_session(known, dtype=dtype.value, device=(device or Device.auto).value, results=results)
            store_stretches(store, subject, dataset, stretched_pairs(session, rows, dataset), reward=reward.value)
        shown = gather(store, known, subject, dataset, reward=reward.value, lookup=lookup)
        path = result_folder(store, subject, dataset, reward=reward.value) / "report.html"
        write_whole(path, html(shown).encode())
        print(path)
