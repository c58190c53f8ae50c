"""The verb that writes a results folder's page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from bench.schema import Dataset, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from bench.registry import Pair
    from bench.verbs.session import Session


@app.command(rich_help_panel=SCORE)
def report(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", metavar="", help="Score the rows that are shown again, and shade their tokens.")
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
        raise UsageError("--tokens: two models under their own templates read different texts")
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.store.folder import Store, write_whole
    from bench.study.report import gather, html, store_stretches, stretched_rows
    from bench.subject import result_folder
    from bench.verbs.run import lookup_of
    from bench.verbs.session import open_session

    store, lookup = Store(results), lookup_of(known, dtype=dtype.value, ops=ops)
    for subject in subjects:
        if tokens:
            rows = stretched_rows(store, subject, dataset, reward=reward.value, lookup=lookup)
            session = open_session(known, dtype=dtype.value, device=device.value, results=results)
            frame = _stretches(session, rows, dataset)
            store_stretches(store, subject, dataset, frame, reward=reward.value)
        shown = gather(store, known, subject, dataset, reward=reward.value, lookup=lookup)
        path = result_folder(store, subject, dataset, reward=reward.value) / "report.html"
        write_whole(path, html(shown).encode())
        print(path)


def _stretches(session: "Session", rows: list[tuple["Pair", list[str]]], dataset: Dataset) -> "pd.DataFrame":
    """Stretches of the given rows and the revisions of the models that read them; each model is loaded once a pair."""
    import pandas as pd

    from bench.study.report import STORED_STRETCHES

    frames = [frame for pair, ids in rows for frame in _of_pair(session, pair, ids, dataset)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(STORED_STRETCHES))


def _of_pair(session: "Session", pair: "Pair", ids: list[str], dataset: Dataset) -> Iterator["pd.DataFrame"]:
    from bench.scoring.tokens import rendered_texts, tokens
    from bench.study.stretches import stretches
    from bench.verbs.texts import scorers

    examples = {example.example_id: example for example in dataset.examples}
    models = scorers(session, pair, dataset) if ids else []
    for example_id in ids:
        sides = [dict(iter(tokens(model, examples[example_id]).groupby("response_id"))) for model in models]
        for response_id, text in rendered_texts(models[0], examples[example_id]).items():
            yield stretches(*(side[response_id] for side in sides), text).assign(
                pair_id=pair.pair_id,
                example_id=example_id,
                response_id=response_id,
                strong_revision=models[0].ready.key.revision,
                weak_revision=models[1].ready.key.revision,
            )
