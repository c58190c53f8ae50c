"""The verbs `choose`, `compare` and `board`: choose a pair, compare two, show pairs over all benchmarks."""

import sys
from typing import Annotated

import typer

from bench.cli.app import CHOOSE, app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Dtype,
    Format,
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
)  # fmt: skip
from bench.cli.printed import emit
from bench.cli.session import Rows, select, select_stored
from bench.cli.views import VIEWS

Section = Annotated[
    str | None, typer.Option("--section", help="A section of the benchmark, such as safety or hard; default: all.")
]
MaxParams = Annotated[
    float | None, typer.Option("--max-params", callback=finite, help="Most parameters of both models together.")
]
Budget = Annotated[
    float | None, typer.Option("--budget-flop", callback=finite, help="Most FLOP per row, both models together.")
]
Licences = Annotated[str, typer.Option("--licence", help="Allowed licences of both models, comma-separated.")]

NBest = Annotated[int, typer.Option("--ensemble", min=0, help="Combine this many of the best pairs; 0: none.")]


@app.command(rich_help_panel=CHOOSE)
def choose(
    study: Annotated[str | None, typer.Option("--study", help="Study to choose a pair from.")] = None,
    pair: Annotated[list[str] | None, typer.Option("--pair", help="Instead of a study: the pairs; repeat.")] = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    section: Section = None,
    max_params: MaxParams = None,
    budget_flop: Budget = None,
    licence: Licences = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many pairs to list.")] = 3,
    ensemble: NBest = 3,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    output: As = Format.table,
) -> None:
    """Choose a pair or an ensemble, with its expected accuracy on other rows."""
    known, subjects, dataset = select_stored(registry, pair, study, template, rows=Rows(data, limit))
    # The models of all pairs are looked up together, so that they are scored in the same way.
    subject = subjects[0]._replace(pairs=tuple(each for found in subjects for each in found.pairs))

    from bench.cli.tables import gap_unit, with_gap
    from bench.lookup import stored_sets
    from bench.store.folder import Store
    from bench.study.board import chosen_pairs
    from bench.study.choose import Wish
    from bench.verbs.told import lookup_of

    sets = stored_sets(Store(results), subject, dataset, lookup_of(known, dtype=dtype.value, ops=ops))
    licences = tuple(name.strip() for name in licence.split(",") if name.strip())
    gap = known.performances[subject.performance].name
    wish = Wish(section, max_params, budget_flop, licences, gap_unit(gap))
    found = chosen_pairs(known, subject, dataset, sets, wish, reward=reward.value, top=top, n_best=ensemble, seed=seed)
    emit(found.table, output, with_gap(VIEWS["choose"], found.table, gap))
    if output is Format.table:
        print(f"\n{found.words()}")


@app.command(rich_help_panel=CHOOSE)
def compare(
    first: Annotated[str, typer.Argument(help="The first pair.")],
    second: Annotated[str, typer.Argument(help="The second pair.")],
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    output: As = Format.table,
) -> None:
    """Compare two pairs on the same rows, with intervals and tests."""
    known, subjects, dataset = select_stored(registry, [first, second], None, template, rows=Rows(data, limit))

    from bench.store.folder import Store
    from bench.verbs.run import compared_pairs
    from bench.verbs.told import lookup_of

    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    frame = compared_pairs(subjects, dataset, Store(results), lookup=lookup, reward=reward.value, seed=seed)
    emit(frame, output, VIEWS["compare"], title=f"Accuracy of {first} less that of {second}, in percentage points")


@app.command(rich_help_panel=CHOOSE)
def board(
    pair: Pairs = None,
    study: StudyName = None,
    template: TemplateOption = TemplateMode.shared,
    reward: RewardOption = Reward.sum,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    output: As = Format.table,
) -> None:
    """Show pairs over all benchmarks whose results are stored, with published rows."""
    known, subjects = select(registry, pair, study, template)

    from bench.cli.boards import overview_view
    from bench.store.folder import Store
    from bench.study.across import board as overview
    from bench.verbs.board import check_stored, write_board
    from bench.verbs.told import lookup_of

    check_stored(store := Store(results))
    frame = overview(store, known, subjects, reward=reward.value, lookup=lookup_of(known))
    emit(frame, output, overview_view(frame))
    for path in write_board(frame, store.board_dir([subject.name for subject in subjects])):
        print(path, file=sys.stdout if output is Format.table else sys.stderr)
