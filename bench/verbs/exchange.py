"""Exports stored scores to a file, imports scores that another engine computed, and verifies stored ones."""

import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.entries import HubSource, NoiseSource, UrlSource
from bench.files import csv_bytes, edited_text, read_csv, safe_name, write_whole
from bench.lookup import Lookup, one_set
from bench.registry import Registry
from bench.schema import DTYPES, IMPORTED, SCHEMA_VERSION, Dataset, DrsowError, ScoreKey, UsageError
from bench.scoring import passes
from bench.store.folder import Store
from bench.store.imported import check_imported
from bench.store.imported_tokens import check_imported_tokens, tokens_of_lines, tokens_of_parquet
from bench.store.parts import check_scores
from bench.store.token_parts import encode_tokens
from bench.subject import Subject
from bench.units import utc_now
from bench.verbs.session import Session

FORMATS = (".csv", ".parquet")
TOKEN_FORMATS = (".jsonl", ".parquet")


def export_tokens(
    store: Store, model_id: str, owner: str | None, dataset: Dataset, out: Path, *, lookup: Lookup
) -> None:
    """Write the scores of tokens of one model to a .parquet file; the arguments are those of `export_scores`.

    Raises:
        PreconditionError: they are not stored.
        UsageError: several score sets fit, or the file name does not end in .parquet.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"{out}: the file of tokens must end in .parquet, because a cell holds a list")
    write_whole(out, encode_tokens(one_set(store, dataset, lookup, model_id, owner).read_tokens()))


def export_scores(
    store: Store, model_id: str, owner: str | None, dataset: Dataset, out: Path, *, lookup: Lookup
) -> None:
    """Write one model's complete score set to a .csv or .parquet file.

    Args:
        store: The results folder that holds the scores.
        model_id: The model that was scored.
        owner: model_id of the chat template's owner; None accepts any.
        dataset: The rows that were scored.
        out: The file to write.
        lookup: Dtype and arithmetic of the scores.

    Raises:
        PreconditionError: there is no such score set.
        UsageError: several score sets fit, or the file name ends in neither .csv nor .parquet.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"{out}: the file must end in {' or '.join(FORMATS)}")
    frame = one_set(store, dataset, lookup, model_id, owner).read()
    if out.suffix == ".csv":
        write_whole(out, csv_bytes(frame))
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_whole(out, buffer.getvalue())


def verify_scores(session: Session, work: passes.Work, *, lookup: Lookup, n_rows: int) -> pd.DataFrame:
    """Compare a sample of one model's stored scores with transformers' own: a frame of `scoring.verify.VERIFIED`.

    Raises:
        PreconditionError: there is no complete score set of the model under this template, or the model's files are
            not on this machine.
        UsageError: several score sets fit, or it is a noise model.
    """
    model_id = work.spec.model_id
    if isinstance(work.spec.source, NoiseSource):
        raise UsageError(
            f"{model_id}: noise is added to its weights in memory, so transformers cannot load them; verify its base"
        )
    if isinstance(work.spec.source, UrlSource):
        raise UsageError(
            f"{model_id}: its weights are on a server, so transformers cannot load them; verify a model_id whose files "
            "are here"
        )
    score_set = one_set(session.store, work.dataset, lookup, model_id, work.owner.model_id)
    from bench.scoring.verify import verify

    # "none": the comparison computes with transformers' own arithmetic, so this machine's kernels need not compile.
    options = session.options._replace(dtype="float32")
    return verify(score_set, passes.make_ready(work, options, ops="none"), options, n_rows=n_rows)


class Given(NamedTuple):
    """A file of scores that passed all checks."""

    file: Path
    model_id: str
    owner: str
    """model_id whose chat template rendered the text."""
    frame: pd.DataFrame
    digest: str
    tokens: pd.DataFrame | None = None
    """TOKEN_SCORES, if they were given."""


def import_scores(
    store: Store, file: Path, model_id: str, owner: str, dataset: Dataset, *, dtype: str, tokens: Path | None = None
) -> Path:
    """Store scores that another engine computed.

    Args:
        store: The results folder that gets the scores.
        file: .csv or .parquet with the columns of SCORES, a row for every response of the data set.
        model_id: The model that was scored.
        owner: model_id whose chat template rendered the text.
        dataset: The rows that were scored.
        dtype: "bf16" or "fp32".
        tokens: .jsonl with vLLM's prompt_logprobs or .parquet with TOKEN_SCORES; None for sums alone.

    Returns:
        The score set's folder.

    Raises:
        UsageError: a row is missing, unknown or wrong; names the file, the row and the field.
    """
    given = _checked(file, model_id, owner, dataset)
    if tokens is not None:
        given = given._replace(tokens=_checked_tokens(tokens, given.frame))
    return _stored(store, given, dataset, dtype)


def _checked_tokens(file: Path, scores: pd.DataFrame) -> pd.DataFrame:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if file.suffix not in TOKEN_FORMATS:
        raise UsageError(f"{file}: the file of tokens must end in {' or '.join(TOKEN_FORMATS)}")
    try:
        if file.suffix == ".parquet":
            frame = tokens_of_parquet(file.read_bytes())
        else:
            frame = tokens_of_lines(edited_text(file))
        return check_imported_tokens(frame, scores)
    except (DrsowError, ValueError, OSError) as error:
        raise UsageError(f"{file}: {str(error).removeprefix(f'{file}: ').splitlines()[0]}") from None


def import_folder(
    store: Store, folder: Path, subject: Subject, registry: Registry, dataset: Dataset, *, dtype: str
) -> list[Path]:
    """Store a study's scores from a folder with one file for each model. All files are checked before one is stored.

    Args:
        store: The results folder that gets the scores.
        folder: Holds MODEL.csv or MODEL.parquet, where MODEL is a model_id, or its repository as owner__name.
        subject: The study: which models were scored, each under which chat template.
        registry: Knows the models.
        dataset: The rows that were scored.
        dtype: "bf16" or "fp32".

    Returns:
        The score sets' folders.

    Raises:
        UsageError: the files do not match the study's models, or a row is wrong.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in FORMATS and not path.name.startswith("."))
    sides = dict(subject.passes())
    fitting = {model_id: [f for f in files if f.stem in _stems(registry, model_id)] for model_id in sides}
    taken = Counter(file for found in fitting.values() for file in found)
    problems = [
        ("files that fit no model", [file.name for file in files if not taken[file]]),
        ("models without a file", [model_id for model_id, found in fitting.items() if not found]),
        ("files that fit several models, to be named by model_id", [file.name for file in files if taken[file] > 1]),
        ("models with several files", [model_id for model_id, found in fitting.items() if len(found) > 1]),
    ]
    if any(names for _, names in problems):
        words = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names)
        raise UsageError(f"{folder}: its files do not match {subject.name}, so nothing is stored: {words}")
    given = [_checked(found[0], model_id, sides[model_id], dataset) for model_id, found in fitting.items()]
    return [_stored(store, each, dataset, dtype) for each in given]


def _stems(registry: Registry, model_id: str) -> set[str]:
    """The names that a model's file may have, without the ending."""
    source = registry.model(model_id).source
    names = [model_id, *([source.repo] if isinstance(source, HubSource) else [])]
    return {form for name in names for form in (name, safe_name(name), name.replace("/", "__"))}


def _checked(file: Path, model_id: str, owner: str, dataset: Dataset) -> Given:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if file.suffix not in FORMATS:
        raise UsageError(f"{file}: the file must end in {' or '.join(FORMATS)}")
    try:
        csv = file.suffix == ".csv"
        frame = _of_csv(file, dataset) if csv else pd.read_parquet(file, use_threads=False)
        frame = check_imported(frame.reset_index(drop=True), dataset)
        check_scores(frame)
    except (DrsowError, ValueError, OSError) as error:
        raise UsageError(f"{file}: {str(error).removeprefix(f'{file}: ').splitlines()[0]}") from None
    return Given(file, model_id, owner, frame, hashlib.sha256(file.read_bytes()).hexdigest())


def _of_csv(file: Path, dataset: Dataset) -> pd.DataFrame:
    """A table of drsow, which puts an apostrophe before some ids, or of another program, which does not."""
    frame, cells = read_csv(file), pd.read_csv(file, dtype=str, keep_default_na=False)
    known = {
        "example_id": {example.example_id for example in dataset.examples},
        "response_id": {name for example in dataset.examples for name, _ in example.responses},
    }
    # If drsow wrote the file, the id with the most apostrophes has one more here, and is unknown.
    whole = [name for name, ids in known.items() if name in cells and ids.issuperset(cells[name])]
    return frame.assign(**{name: cells[name] for name in whole})


def _stored(store: Store, given: Given, dataset: Dataset, dtype: str) -> Path:
    score_set = store.score_set(_imported_key(given, dataset, dtype))
    names = {"data": dataset.slug, "template": given.owner}
    with score_set.lock():
        score_set.begin(1, {}, names)
        if given.tokens is not None:
            score_set.write_tokens(0, given.tokens)
        score_set.write_part(0, given.frame)
        facts = {"file": given.file.name, "sha256": given.digest, "n_examples": len(dataset.examples)}
        score_set.finish(facts | {"imported_utc": utc_now()})
    return score_set.folder


def _imported_key(given: Given, dataset: Dataset, dtype: str) -> ScoreKey:
    """The key of imported scores. Only the sha256 of their file identifies how they were computed."""
    return ScoreKey(
        model_id=given.model_id,
        revision=f"{IMPORTED}:{given.digest}",
        template_digest=f"{IMPORTED}:{given.owner}",
        domain=dataset.domain,
        domain_digest=dataset.domain_digest,
        data_digest=dataset.digest,
        dtype=DTYPES[dtype],
        ops=IMPORTED,
        attention=IMPORTED,
        span=IMPORTED,
        schema_version=SCHEMA_VERSION,
    )
