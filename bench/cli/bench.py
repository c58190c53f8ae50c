"""Verbs that score pairs and show what came out."""

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import app
from bench.cli.options import (
    RESULTS,
    AsJson,
    Data,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Limit,
    OnePair,
    OpsOption,
    Pairs,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    Seed,
    StudyName,
    TemplateMode,
    TemplateOption,
)
from bench.cli.select import load, one_example, printable, select, show_boards
from bench.schema import UsageError

if TYPE_CHECKING:
    from bench.registry import Registry
    from bench.subject import Subject

PARTLY = 3
"""Exit code where some models failed and the others' pairs are done, or tables are printed and cannot be written."""


def held_to(known: "Registry", subjects: Sequence["Subject"], lock: Path | None) -> "Registry":
    """The registry with the models of some subjects held to a lock, if there is one."""
    if lock is None:
        return known
    from bench.lockfile import frozen

    names = dict.fromkeys(name for subject in subjects for side in subject.passes() for name in side)
    return frozen(known, list(names), lock)


class Executor(StrEnum):
    """What `--executor` takes."""

    local = "local"
    ray = "ray"


def shard_of(text: str, executor: Executor) -> tuple[int, int]:
    """Number of a shard, from 1, and how many there are."""
    if executor is Executor.ray and text != "1/1":
        raise UsageError("--shard and --executor ray both share the work out: name one")
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}: must be i/n with i from 1 to n")
    return int(found[1]), int(found[2])


@app.command()
def run(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    batch_tokens: Annotated[int | None, typer.Option("--batch-tokens", min=1, help="Tokens a forward pass.")] = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    shard: Annotated[str, typer.Option("--shard", help="i/n: this process's share of the work of n.")] = "1/1",
    frozen: Annotated[Path | None, typer.Option("--frozen", help="A lock: other files are refused.")] = None,
    executor: Annotated[Executor, typer.Option("--executor", help="Who works.")] = Executor.local,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Tasks on Ray.")] = 8,
    address: Annotated[str | None, typer.Option("--address", help="Of a Ray cluster; none: one here.")] = None,
    stall: Annotated[float, typer.Option("--stall", min=1, help="Seconds without a part, then begin again.")] = 1800,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Score what is missing, then write and print the leaderboard and the figures."""
    from bench.scoring.run import Options, Spread
    from bench.stages import run_subjects
    from bench.store import Store

    spread = Spread(*shard_of(shard, executor), tasks if executor is Executor.ray else 0, address, stall)
    known, subjects = select(registry, pair, study, template)
    known = held_to(known, subjects, frozen)
    dataset = load(data, limit)
    options = Options(dtype.value, device.value, batch_tokens)
    outcome = run_subjects(
        known, subjects, dataset, Store(results), options=options, reward=reward.value, spread=spread, seed=seed
    )
    if not outcome.written and not outcome.errors:
        print("this shard is done; the last one to end writes the tables", file=sys.stderr)
    show_boards(outcome.written, as_json=as_json)
    for line in outcome.errors:
        print(f"drsow: {printable(line)}", file=sys.stderr)
    if outcome.errors:
        sys.exit(PARTLY if outcome.written else outcome.code)


@app.command()
def leaderboard(
    pair: Pairs = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Make the leaderboard again from stored scores, without a model, and print it; it is printed unwritten too."""
    from bench.stages import lookup_of, redo_subjects
    from bench.store import Store

    known, subjects = select(registry, pair, study, template)
    dataset = load(data, limit)
    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    wish = {"lookup": lookup, "reward": reward.value, "seed": seed}
    written = redo_subjects(known, subjects, dataset, Store(results), **wish)
    show_boards(written, as_json=as_json)
    problems = [each.problem for each in written if each.problem]
    for line in problems:
        print(f"drsow: {printable(line)}", file=sys.stderr)
    if problems:
        sys.exit(PARTLY)


@app.command()
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
    """Draw the figures and printable tables again from the stored CSVs."""
    from bench.stages import draw
    from bench.store import Store
    from bench.subject import result_folder

    known, subjects = select(registry, pair, study, template)
    dataset = load(data, limit)
    for subject in subjects:
        for path in draw(known, subject, result_folder(Store(results), subject, dataset, reward=reward.value)):
            print(path)


@app.command()
def show(
    pair: OnePair,
    example_id: Annotated[str, typer.Option("--id", help="A row's example_id, subset/id.")],
    data: Data = "reward-bench",
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Print one row's responses, each stretch coloured by its log-ratio, with both sums."""
    from bench.cli.show import row_lines
    from bench.scoring.run import Options
    from bench.stages import token_table

    known, (subject,) = select(registry, [pair], None, TemplateMode.shared)
    dataset = load(data, None)
    example = one_example(dataset, example_id)
    options = Options(dtype.value, device.value)
    strong, weak = token_table(known, subject.pairs[0], dataset, example, options)
    for line in row_lines(example, strong, weak, colour=sys.stdout.isatty()):
        print(line)
