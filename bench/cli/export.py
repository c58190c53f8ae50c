"""The verb `export`: writes responses, reference log-probabilities or accuracies in formats that other tools read."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import EXCHANGE, app
from bench.cli.options import (
    RESULTS,
    Data,
    Dtype,
    DtypeOption,
    Limit,
    OpsOption,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    TemplateMode,
)
from bench.cli.session import load, select
from bench.schema import Dataset, UsageError


class Target(StrEnum):
    """What `--to` takes."""

    alpaca_eval = "alpaca-eval"
    arena_hard = "arena-hard"
    trl_reference = "trl-reference"
    hf_eval_results = "hf-eval-results"


NEEDED = {
    Target.alpaca_eval: ("--responses", "--generator"),
    Target.arena_hard: ("--responses", "--generator"),
    Target.trl_reference: ("--model",),
    Target.hf_eval_results: ("--pair",),
}
"""The options that each format needs."""


@app.command(rich_help_panel=EXCHANGE)
def export(
    to: Annotated[Target, typer.Option("--to", help="The format to write.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    responses: Annotated[
        str | None, typer.Option("--responses", help="Boards: the file that `drsow sample --n 1` wrote.")
    ] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="Boards: the model's name there.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="trl-reference: the scored model.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="hf-eval-results: the pair.")] = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Write responses for AlpacaEval 2 or Arena-Hard-Auto, TRL's reference columns, or the hub's results."""
    given = {"--responses": responses, "--generator": generator, "--model": model, "--pair": pair}
    if missing := [name for name in NEEDED[to] if given[name] is None]:
        raise UsageError(f"--to {to.value} needs {' and '.join(missing)}")
    if strange := [name for name, value in given.items() if value is not None and name not in NEEDED[to]]:
        raise UsageError(f"--to {to.value} takes no {strange[0]}")
    if responses is not None and generator is not None:
        _board(to, responses, generator, out)
    elif model is not None:
        dataset = load(data, limit, offline=True)
        _reference(model, dataset, out, lookup=(dtype, ops), results=results, registry=registry)
    elif pair is not None:
        from bench.store.folder import Store, write_whole
        from bench.verbs import publish

        known, (subject,) = select(registry, [pair], None, TemplateMode.shared)
        rows = publish.hub_results(Store(results), subject, load(data, limit, offline=True), reward=reward.value)
        write_whole(out, publish.yaml_text(rows).encode())
        repo = known.model(subject.pairs[0].strong).source.location
        words = f"hf upload {repo} {out} .eval_results/{out.name} --create-pr"
        print(f"nothing is uploaded; this command would propose it: {words}", file=sys.stderr)
    print(out)


def _board(to: Target, responses: str, generator: str, out: Path) -> None:
    from bench.prefer import outputs
    from bench.store.folder import write_whole
    from bench.verbs.sample import first_responses

    written = {Target.alpaca_eval: outputs.alpaca_eval, Target.arena_hard: outputs.arena_hard}[to]
    dataset, texts = first_responses(responses)
    write_whole(out, written(dataset.examples, texts, generator=generator))


def _reference(
    model: str, dataset: Dataset, out: Path, *, lookup: tuple[Dtype, str | None], results: Path, registry: Path | None
) -> None:
    from bench.registry import load_registry
    from bench.verbs import publish
    from bench.verbs.run import lookup_of
    from bench.verbs.session import open_session

    publish.check_suffix(out)
    known = load_registry(registry)
    session = open_session(known, device="cpu", results=results)
    wanted = lookup_of(known, dtype=lookup[0].value, ops=lookup[1])
    frame = publish.reference_rows(session, known.model(model).model_id, None, dataset, lookup=wanted)
    publish.write_reference(frame, out)
    if left := len(dataset.examples) - len(frame):
        print(f"{left} rows are left out: a score is missing, because a response is too long", file=sys.stderr)
