"""The verb `perform`: measures a model's performance by IFEval's rules or on preferences."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    FOLDERS,
    RESULTS,
    As,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Format,
    PolicyName,
    RegistryDir,
    Results,
)
from bench.cli.printed import emit
from bench.cli.session import load
from bench.cli.views import VIEWS
from bench.schema import UsageError


class Task(StrEnum):
    """What `--task` takes."""

    ifeval = "ifeval"
    preferences = "preferences"


TaskName = Annotated[Task, typer.Option("--task", help="Answers checked by IFEval's rules, or held-out preferences.")]
Instructed = Annotated[
    str | None, typer.Option("--prompts", help="ifeval: a .jsonl file in IFEval's columns; default: the hub's.")
]
Preferences = Annotated[str | None, typer.Option("--data", help="preferences: what `drsow run --data` takes.")]
FirstOnly = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only the first N prompts; preferences: N drawn of each subset."),
]
Lender = Annotated[
    str | None, typer.Option("--template", help="Model whose chat template is used; default: the model itself.")
]
Longest = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="ifeval: most tokens of an answer; default 256.")
]
MAX_NEW_TOKENS = 256
ScoresFile = Annotated[
    Path | None, typer.Option("--scores", help="Add the score to this scores.toml of a registry folder.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of answers and tables; default: in the results.", rich_help_panel=FOLDERS),
]


@app.command(rich_help_panel=SCORE)
def perform(
    model: PolicyName,
    task: TaskName,
    prompts: Instructed = None,
    data: Preferences = None,
    limit: FirstOnly = None,
    template: Lender = None,
    max_new_tokens: Longest = None,
    scores: ScoresFile = None,
    out: Out = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    output: As = Format.table,
    registry: RegistryDir = None,
) -> None:
    """Measure how good a model is: by IFEval's rules, or on held-out preferences."""
    _check(task, prompts, data, max_new_tokens)
    from bench.measured import add_score, check_place
    from bench.registry import load_registry
    from bench.verbs import perform as verb
    from bench.verbs.session import open_session

    known = load_registry(registry)
    speech = verb.Speech(model, template, max_new_tokens or MAX_NEW_TOKENS)
    for name in filter(None, (model, template)):
        if name not in known.models:
            known.policy(name)
    if scores:
        check_place(scores, model, task.value, known.models, known.measured)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    if task is Task.ifeval:
        found = verb.measure_ifeval(session, speech, prompts, limit=limit, out=out)
    else:
        found = verb.measure_preferences(session, speech, load(str(data), limit), out=out)
    if scores:
        add_score(scores, found.score)
    emit(found.table[found.table["level"] == "overall"], output, VIEWS["perform"])
    print(found.file, file=sys.stdout if output is Format.table else sys.stderr)


def _check(task: Task, prompts: str | None, data: str | None, max_new_tokens: int | None) -> None:
    """Refuse an option that the task does not read."""
    if task is Task.ifeval and data is not None:
        raise UsageError("--task ifeval reads --prompts, not --data")
    if task is Task.preferences and prompts is not None:
        raise UsageError("--task preferences reads --data, not --prompts")
    if task is Task.preferences and max_new_tokens is not None:
        raise UsageError("--task preferences samples no answers; leave --max-new-tokens out")
    if task is Task.preferences and data is None:
        raise UsageError("--task preferences: name the preferences with --data")
