"""The verb `export`: writes responses, reference log-probabilities or accuracies in formats that other tools read."""

import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.cli.app import EXCHANGE, app
from bench.cli.options import (
    RESULTS,
    Data,
    Dtype,
    Limit,
    OpsOption,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    StoredDtype,
    TemplateMode,
)
from bench.cli.replaced import list_with, with_columns
from bench.cli.session import load, select
from bench.faults import warn
from bench.files import check_not_read, check_ours
from bench.schema import Dataset, UsageError


class Target(StrEnum):
    """What `--to` takes."""

    alpaca_eval = "alpaca-eval"
    arena_hard = "arena-hard"
    trl_reference = "trl-reference"
    hf_eval_results = "hf-eval-results"
    lm_eval = "lm-eval"
    every_eval_ever = "every-eval-ever"


class Relationship(StrEnum):
    """What `--relationship` takes."""

    first_party = "first_party"
    third_party = "third_party"
    collaborative = "collaborative"
    other = "other"


NEEDED = {
    Target.alpaca_eval: ("--responses", "--generator"),
    Target.arena_hard: ("--responses", "--generator"),
    Target.trl_reference: ("--model",),
    Target.hf_eval_results: ("--pair",),
    Target.lm_eval: ("--pair",),
    Target.every_eval_ever: ("--pair", "--organization"),
}
"""The options that each format needs."""

TAKEN = {Target.every_eval_ever: ("--relationship",)}
"""The options that a format takes besides."""


@app.command(rich_help_panel=EXCHANGE)
def export(
    to: Annotated[Target, typer.Option("--to", help="The format to write.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write; the folder for lm-eval, every-eval-ever.")],
    responses: Annotated[
        str | None, typer.Option("--responses", help="alpaca-eval, arena-hard: what `drsow sample --n 1` wrote.")
    ] = None,
    generator: Annotated[str | None, typer.Option("--generator", help="With --responses: the model's name.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="trl-reference: the scored model.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="Other formats: the scored pair.")] = None,
    organization: Annotated[
        str | None, typer.Option("--organization", help="every-eval-ever: who ran the evaluation.")
    ] = None,
    relationship: Annotated[
        Relationship | None,
        typer.Option("--relationship", help="every-eval-ever: what you are to the strong model. Default: third_party."),
    ] = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    reward: RewardOption = Reward.sum,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Write responses, reference log-probabilities or results in the formats of other tools."""
    given = {"--responses": responses, "--generator": generator, "--model": model, "--pair": pair}
    given |= {"--organization": organization, "--relationship": relationship}
    _check(to, {name for name, value in given.items() if value is not None})
    stored = _Stored(data, limit, reward, (dtype, ops), results, registry)
    _check_stored(to, stored)
    _check_out(to, out, {"--responses": responses, "--data": data})
    if responses is not None and generator is not None:
        _board(to, responses, generator, out)
    elif model is not None:
        _reference(model, out, stored)
    elif pair is not None and to is Target.hf_eval_results:
        _hub_results(pair, out, stored)
    elif pair is not None:
        _evaluation(pair, out, stored, (organization, relationship or Relationship.third_party))


class _Stored(NamedTuple):
    """Which stored scores an export is of."""

    data: str
    limit: int | None
    reward: Reward
    lookup: tuple[Dtype, str | None]
    """`--dtype` and `--ops`."""
    results: Path
    registry: Path | None

    def dataset(self) -> Dataset:
        """The rows. The hub is not asked."""
        return load(self.data, self.limit, offline=True)


_DEFAULTS = _Stored("reward-bench", None, Reward.sum, (Dtype.auto, None), RESULTS, None)


def _check(to: Target, given: set[str]) -> None:
    """Refuses a format without an option that it needs, and options that it does not take."""
    if missing := [name for name in NEEDED[to] if name not in given]:
        raise UsageError(f"--to {to.value} needs {' and '.join(missing)}")
    if strange := sorted(given - {*NEEDED[to], *TAKEN.get(to, ())}):
        raise UsageError(f"--to {to.value} takes no {strange[0]}")


def _check_stored(to: Target, stored: "_Stored") -> None:
    """Refuses options of stored scores that a format does not read."""
    if "--responses" in NEEDED[to] and stored != _DEFAULTS:
        raise UsageError(
            f"--to {to.value} reads --responses alone, without --data, --limit-per-subset, --reward, --dtype, --ops, "
            "--results and --registry"
        )
    if to is Target.trl_reference and stored.reward is not Reward.sum:
        raise UsageError(f"--to {to.value} takes no --reward: TRL's columns are sums")


def _check_out(to: Target, out: Path, read: Mapping[str, str | None]) -> None:
    """Refuses to replace a file that an option reads, or one that is no export to this format."""
    for option, source in read.items():
        check_not_read(out, option, source)
    check_ours(out, f"export --to {to.value}", _ours(to, out))


def _ours(to: Target, out: Path) -> Callable[[str], bool]:
    """Tells whether a file is an export to this format; lm-eval and every-eval-ever are folders."""
    if to is Target.alpaca_eval:
        from bench.prefer.outputs import OUTPUT

        return list_with(out, OUTPUT)
    if to is Target.arena_hard:
        from bench.prefer.outputs import ANSWER

        return with_columns(out, ANSWER)
    if to is Target.trl_reference:
        from bench.verbs.publish import REFERENCE

        return with_columns(out, REFERENCE)
    return lambda line: to is not Target.hf_eval_results or line.startswith('- {"dataset": ')


def _tell(command: str) -> None:
    """Says which command would upload what is written."""
    warn(f"nothing is uploaded; this command would propose it: {command}")


def _evaluation(pair: str, out: Path, stored: _Stored, told: tuple[str | None, Relationship]) -> None:
    """Write a pair's results and instance rows; print the files."""
    import time

    known, (subject,) = select(stored.registry, [pair], None, TemplateMode.shared)
    dataset = stored.dataset()
    from bench.store.folder import Store
    from bench.verbs import harness, shared_schema
    from bench.verbs.evaluation import evaluation_of
    from bench.verbs.told import lookup_of

    wanted = lookup_of(known, dtype=stored.lookup[0].value, ops=stored.lookup[1])
    reward = stored.reward.value
    found = evaluation_of(Store(stored.results), known, subject, dataset, lookup=wanted, reward=reward)
    organization, relationship = told
    if organization is None:
        files = harness.write(found, out)
        _tell(f"hf upload OWNER/lm-eval-results {shlex.quote(str(out))} . --repo-type dataset")
    else:
        about = shared_schema.Told(organization, relationship.value, int(time.time()))
        files = shared_schema.write(found, about, out)
        inner = shlex.quote(str(out / "data"))
        _tell(f"hf upload {shared_schema.DATA_STORE} {inner} data --repo-type dataset --create-pr")
    print(*files, sep="\n")


def _hub_results(pair: str, out: Path, stored: _Stored) -> None:
    """Write a pair's accuracies as the hub's results."""
    known, (subject,) = select(stored.registry, [pair], None, TemplateMode.shared)
    dataset = stored.dataset()
    from bench.files import write_whole
    from bench.store.folder import Store
    from bench.verbs import publish
    from bench.verbs.evaluation import LOCAL, hub_name
    from bench.verbs.told import lookup_of

    wanted = lookup_of(known, dtype=stored.lookup[0].value, ops=stored.lookup[1])
    rows = publish.hub_results(Store(stored.results), subject, dataset, lookup=wanted, reward=stored.reward.value)
    write_whole(out, publish.yaml_text(rows).encode())
    repo = hub_name(known.weights(subject.pairs[0].strong))
    named = "OWNER/MODEL" if repo.startswith(f"{LOCAL}/") else repo
    inner = shlex.quote(f".eval_results/{out.name}")
    _tell(f"hf upload {named} {shlex.quote(str(out))} {inner} --create-pr")
    print(out)


def _board(to: Target, responses: str, generator: str, out: Path) -> None:
    from bench.files import write_whole
    from bench.prefer import outputs
    from bench.verbs.sample import single_responses

    written = {Target.alpaca_eval: outputs.alpaca_eval, Target.arena_hard: outputs.arena_hard}[to]
    dataset, texts = single_responses(responses)
    write_whole(out, written(dataset.examples, texts, generator=generator))
    print(out)


def _reference(model: str, out: Path, stored: _Stored) -> None:
    from bench.registry import load_registry

    dataset = stored.dataset()
    from bench.verbs import publish
    from bench.verbs.session import open_session
    from bench.verbs.told import lookup_of

    publish.check_suffix(out)
    known = load_registry(stored.registry)
    session = open_session(known, device="cpu", results=stored.results)
    wanted = lookup_of(known, dtype=stored.lookup[0].value, ops=stored.lookup[1])
    found = publish.reference_rows(session, known.model(model).model_id, dataset, lookup=wanted)
    publish.write_reference(found.table, out)
    if found.left_out:
        warn(found.told())
    print(out)
