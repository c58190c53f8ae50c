"""The verbs `scores`, `import` and `verify`: export, import and check stored scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import EXCHANGE, app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Device,
    DeviceOption,
    Dtype,
    Format,
    Limit,
    ModelName,
    OpsOption,
    Owner,
    RegistryDir,
    Results,
    ScoredDtype,
    ScoredIn,
    StoredDtype,
    StudyName,
    TemplateMode,
)
from bench.cli.printed import emit
from bench.cli.replaced import with_columns
from bench.cli.session import load, select
from bench.cli.views import VIEWS
from bench.faults import warn
from bench.files import check_not_read, check_ours
from bench.schema import SCORES, TOKEN_SCORES, UsageError

AnyOwner = Annotated[
    str | None,
    typer.Option("--template", help="Model whose chat template rendered the text; default: whichever is stored."),
]
TokensFile = Annotated[
    Path | None, typer.Option("--tokens", help="Scores of tokens: a .jsonl of vLLM's prompt_logprobs, or a .parquet.")
]


@app.command(rich_help_panel=EXCHANGE)
def scores(
    out: Annotated[Path, typer.Option("--out", help="A .csv or .parquet file to write; with --study, a folder.")],
    model: Annotated[str | None, typer.Option("--model", help="A model_id of the registry.")] = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: AnyOwner = None,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", metavar="", help="With --model: write the scores of tokens, as .parquet.")
    ] = False,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Write one model's stored scores to a file, or those of a study to a folder that `import` restores."""
    from bench.registry import load_registry

    if (model is None) == (study is None):
        raise UsageError("name whose scores to write: --model MODEL to a file, or --study STUDY to a folder")
    if study is not None:
        _check_study_options(template, tokens=tokens)
        known, (subject,) = select(registry, None, study, TemplateMode.shared)
    else:
        known = load_registry(registry)
        known.weights(str(model))
        owner = template and known.model(template).model_id

    from bench.store.folder import Store
    from bench.verbs.bundle import export_study
    from bench.verbs.exchange import export_scores, export_tokens
    from bench.verbs.told import lookup_of

    _check_out(out, data, TOKEN_SCORES if tokens else SCORES)
    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    dataset = load(data, limit, offline=True)
    if study is None:
        (export_tokens if tokens else export_scores)(Store(results), str(model), owner, dataset, out, lookup=lookup)
    else:
        print(*export_study(Store(results), subject, dataset, out, lookup=lookup), sep="\n")


def _check_out(out: Path, data: str, columns: Sequence[str]) -> None:
    """Refuses to replace the file that --data reads, or one of other columns."""
    check_not_read(out, "--data", data)
    check_ours(out, "scores", with_columns(out, columns))


def _check_study_options(template: str | None, *, tokens: Path | bool | None = None) -> None:
    if tokens:
        raise UsageError("--tokens does not go with --study: name a model with --model")
    if template:
        raise UsageError("--template does not go with --study: the study's families name each model's chat template")


@app.command("import", rich_help_panel=EXCHANGE)
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file of scores; with --study, a folder of them.")],
    model: Annotated[str | None, typer.Option("--model", help="A model_id of the registry.")] = None,
    study: StudyName = None,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: Owner = None,
    dtype: ScoredDtype = ScoredIn.fp32,
    tokens: TokensFile = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Store another engine's scores of one model or a study, or restore a study that `scores` exported."""
    from bench.registry import load_registry
    from bench.store.folder import Store
    from bench.verbs.bundle import import_study, is_bundle
    from bench.verbs.exchange import import_folder, import_scores
    from bench.verbs.told import rows_for

    store = Store(results)
    if study is not None and model is None:
        _check_study_options(template, tokens=tokens)
        if not file.is_dir():
            raise UsageError(f"{file}: no such folder; --study takes a folder with a file for each model")
        known, (subject,) = select(registry, None, study, TemplateMode.shared)
        dataset = load(data, limit, offline=True)
        if is_bundle(file):
            stored = import_study(store, file, subject, dataset)
        else:
            stored = import_folder(store, file, subject, known, dataset, dtype=dtype.value)
        for folder in stored:
            print(folder)
    elif model is not None and study is None:
        known = load_registry(registry)
        spec, owner = known.weights(model), known.weights(template or model).model_id
        dataset = rows_for(known, model, load(data, limit, offline=True))
        print(import_scores(store, file, spec.model_id, owner, dataset, dtype=dtype.value, tokens=tokens))
    else:
        raise UsageError("name whose scores they are: --model MODEL for a file, or --study STUDY for a folder")


@app.command(rich_help_panel=EXCHANGE)
def verify(
    model: ModelName,
    data: Data = "reward-bench",
    n_rows: Annotated[int, typer.Option("--rows", min=1, help="Rows to score again.")] = 32,
    limit: Limit = None,
    template: Owner = None,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    device: DeviceOption = Device.auto,
    output: As = Format.table,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Compare a sample of stored scores with plain float32 passes."""
    from bench.registry import load_registry
    from bench.scoring.passes import Work
    from bench.verbs.exchange import verify_scores
    from bench.verbs.session import open_session
    from bench.verbs.told import lookup_of, rows_for

    known = load_registry(registry)
    rows = rows_for(known, model, load(data, limit, offline=True))
    work = Work(known.weights(model), known.weights(template or model), rows)
    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    table = verify_scores(session, work, lookup=lookup, n_rows=n_rows)
    emit(table, output, VIEWS["verify"])

    from bench.scoring.verify import summary

    warn(summary(table))
