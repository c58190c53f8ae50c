"""The verbs `run`, `leaderboard` and `figures`: score pairs, and show the results."""

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import (
    COMPUTING,
    MACHINES,
    RESULTS,
    AsJson,
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
    Seed,
    StoredDtype,
    StudyName,
    TemplateMode,
    TemplateOption,
    finite,
)
from bench.cli.session import Rows, load, select, select_stored
from bench.faults import warn
from bench.schema import UsageError

if TYPE_CHECKING:
    from bench.registry import Registry
    from bench.subject import Subject
    from bench.verbs.run import Outcome

PARTLY = 3
"""The exit code if only some pairs are done because a model failed, or if tables are printed but not written."""


N_TASKS, STALL_S = 8, 1800.0
"""Defaults of `--tasks` and `--stall`."""


def held_to(known: "Registry", subjects: Sequence["Subject"], lock: Path | None) -> "Registry":
    """The registry; with a lock, it accepts only the locked files of the subjects' models."""
    if lock is None:
        return known
    from bench.contrast import model_of
    from bench.verbs.lock import frozen

    names = dict.fromkeys(model_of(name) for subject in subjects for side in subject.passes() for name in side)
    return frozen(known, list(names), lock)


class Executor(StrEnum):
    """What `--executor` takes."""

    local = "local"
    ray = "ray"


def shard_of(text: str, executor: Executor) -> tuple[int, int]:
    """The number of a shard, from 1, and the number of all shards."""
    if executor is Executor.ray and text != "1/1":
        raise UsageError("--shard and --executor ray both share the work out: name one")
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}: must be i/n with i from 1 to n")
    return int(found[1]), int(found[2])


def tasks_of(
    executor: Executor, tasks: int | None, address: str | None, stall: float | None
) -> tuple[int, str | None, float]:
    """The number of Ray tasks, 0 without Ray, the cluster's address, and the seconds without progress that are borne.

    Raises:
        UsageError: An option is given that only `--executor ray` reads.
    """
    if executor is Executor.ray:
        return tasks or N_TASKS, address, stall or STALL_S
    for name, value in {"--tasks": tasks, "--address": address, "--stall": stall}.items():
        if value is not None:
            raise UsageError(f"{name} needs --executor ray")
    return 0, None, STALL_S


BatchTokensOption = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        min=1,
        help="Most tokens of one forward pass; changes bfloat16 scores by rounding.",
        rich_help_panel=COMPUTING,
    ),
]
TokensOption = Annotated[
    bool,
    typer.Option(
        "--tokens", metavar="", help="Store the scores of single tokens too, 12 bytes each.", rich_help_panel=COMPUTING
    ),
]
ShardOption = Annotated[
    str, typer.Option("--shard", help="i/n: do share i of n of the work.", rich_help_panel=MACHINES)
]
FrozenOption = Annotated[
    Path | None, typer.Option("--frozen", help="A lock file; refuse other model files.", rich_help_panel=MACHINES)
]
ExecutorOption = Annotated[Executor, typer.Option("--executor", help="Where the work runs.", rich_help_panel=MACHINES)]
TasksOption = Annotated[
    int | None, typer.Option("--tasks", min=1, help="Number of Ray tasks; default: 8.", rich_help_panel=MACHINES)
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster; default: start one here.", rich_help_panel=MACHINES)
]
StallOption = Annotated[
    float | None,
    typer.Option(
        "--stall",
        min=1,
        callback=finite,
        help="Restart Ray tasks after this many seconds without progress; default: 1800.",
        rich_help_panel=MACHINES,
    ),
]


@app.command(rich_help_panel=SCORE)
def run(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    batch_tokens: BatchTokensOption = None,
    tokens: TokensOption = False,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    shard: ShardOption = "1/1",
    frozen: FrozenOption = None,
    executor: ExecutorOption = Executor.local,
    tasks: TasksOption = None,
    address: AddressOption = None,
    stall: StallOption = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Score what is not scored yet; write and print the leaderboard."""
    n_tasks, address, stall = tasks_of(executor, tasks, address, stall)
    known, subjects = select(registry, pair, study, template)

    from bench.cli.boards import show_boards
    from bench.scoring.run import Spread
    from bench.verbs.run import run_subjects
    from bench.verbs.session import open_session

    spread = Spread(*shard_of(shard, executor), n_tasks, address, stall)
    known = held_to(known, subjects, frozen)
    session = open_session(
        known, dtype=dtype.value, device=device.value, batch_tokens=batch_tokens, results=results, tokens=tokens
    )
    dataset = load(data, limit)
    outcome = run_subjects(session, subjects, dataset, reward=reward.value, spread=spread, seed=seed)
    show_boards(outcome.written, as_json=as_json)
    _tell_rest(outcome)


def _tell_rest(outcome: "Outcome") -> None:
    """Print a line for each failure, and exit with its code; or say that another shard writes the tables."""
    if not outcome.written and not outcome.errors:
        print("this shard is done; the last shard to finish writes the tables", file=sys.stderr)
    for line in outcome.errors:
        warn(f"drsow: {line}")
    if outcome.errors:
        sys.exit(PARTLY if outcome.written else outcome.code)


@app.command(rich_help_panel=SCORE)
def leaderboard(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Print the leaderboard from stored scores, without loading a model."""
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.cli.boards import show_boards
    from bench.store.folder import Store
    from bench.store.places import data_option, results_option
    from bench.verbs.run import figures_are_older, redo_subjects
    from bench.verbs.told import lookup_of

    store, lookup = Store(results), lookup_of(known, dtype=dtype.value, ops=ops)
    written = redo_subjects(known, subjects, dataset, store, lookup=lookup, reward=reward.value, seed=seed)
    show_boards(written, as_json=as_json)
    for subject, each in zip(subjects, written, strict=True):
        if figures_are_older(each.folder):
            command = f"drsow figures {subject.option} {data_option(dataset)}{results_option(store)}"
            named = f" --reward {reward.value}" if reward is not Reward.sum else ""
            warn(f"{each.folder}: its figures are of earlier tables; `{command}{named}` draws them again")
    problems = [each.problem for each in written if each.problem]
    for line in problems:
        warn(f"drsow: {line}")
    if problems:
        sys.exit(PARTLY)


@app.command(rich_help_panel=SCORE)
def figures(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Draw the figures and tables again from the stored CSVs."""
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))

    from bench.current import check_tables
    from bench.store.folder import Store
    from bench.subject import result_folder
    from bench.verbs.run import draw
    from bench.verbs.told import lookup_of

    store, lookup = Store(results), lookup_of(known)
    for subject in subjects:
        folder = result_folder(store, subject, dataset, reward=reward.value)
        check_tables(folder, store, subject, dataset, lookup, reward=reward.value)
        for path in draw(known, subject, folder):
            print(path)
