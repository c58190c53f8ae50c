"""Verbs that weigh pairs against each other."""

from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Dtype,
    DtypeOption,
    Format,
    Limit,
    OpsOption,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    Seed,
    TemplateMode,
    TemplateOption,
)  # fmt: skip
from bench.cli.select import emit, load, select

Section = Annotated[str | None, typer.Option("--section", help="chat, chat-hard, safety or reasoning; default: all.")]
MaxParams = Annotated[float | None, typer.Option("--max-params", help="Most parameters of both models together.")]
Budget = Annotated[float | None, typer.Option("--budget-flop", help="Most FLOP a row, both models.")]
Licences = Annotated[str, typer.Option("--licence", help="Comma-separated; both models' must be among them.")]


@app.command()
def choose(
    study: Annotated[str, typer.Option("--study", help="Study whose pairs are weighed.")],
    data: Data = "reward-bench",
    limit: Limit = None,
    section: Section = None,
    max_params: MaxParams = None,
    budget_flop: Budget = None,
    licence: Licences = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many places.")] = 3,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    output: As = Format.table,
) -> None:
    """Choose an annotator pair from stored scores, with what it is worth on rows that did not choose it."""
    from bench.stages import lookup_of
    from bench.store import Store
    from bench.study.board import chosen_pairs
    from bench.study.choose import Wish
    from bench.subject import stored_sets

    known, (subject,) = select(registry, None, study, template)
    dataset = load(data, limit)
    sets = stored_sets(Store(results), subject, dataset, lookup_of(known, dtype=dtype.value, ops=ops))
    wish = Wish(section, max_params, budget_flop, tuple(name.strip() for name in licence.split(",") if name.strip()))
    found = chosen_pairs(known, subject, dataset, sets, wish, reward=reward.value, top=top, seed=seed)
    emit(found.table, output)
    if output is Format.table:
        print(f"\n{found.words()}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A pair.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    output: As = Format.table,
) -> None:
    """Compare two pairs on the same rows: difference with its interval, exact McNemar, paired bootstrap."""
    from bench.stages import compared_pairs, lookup_of
    from bench.store import Store

    known, subjects = select(registry, [first, second], None, template)
    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    frame = compared_pairs(subjects, load(data, limit), Store(results), lookup=lookup, reward=reward.value)
    emit(frame, output)
