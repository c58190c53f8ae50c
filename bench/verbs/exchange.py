"""Scores out of the store as one file, and in from another engine."""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.entries import HubSource, NoiseSource
from bench.registry import Registry
from bench.schema import DTYPES, IMPORTED, SCHEMA_VERSION, Dataset, DrsowError, ScoreKey, UsageError
from bench.scoring import passes
from bench.store.folder import Store, check_scores, csv_bytes, read_csv, safe_name, write_whole
from bench.store.imported import check_imported
from bench.subject import Lookup, Subject, one_set
from bench.verbs.session import Session

FORMATS = (".csv", ".parquet")


def export_scores(
    store: Store, model_id: str, owner: str | None, dataset: Dataset, out: Path, *, lookup: Lookup
) -> None:
    """Write one model's complete score set to a .csv or .parquet file.

    Args:
        store: Where from.
        model_id: Whose.
        owner: model_id of the chat template's owner, None for any.
        dataset: On which rows.
        out: The file.
        lookup: Dtype and arithmetic.

    Raises:
        PreconditionError: there is none.
        UsageError: several fit, or the file's ending is another one.
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
    """How far one model's stored scores are from transformers' own, on a sample: `scoring.verify.VERIFIED`.

    Raises:
        PreconditionError: there is no complete set of the model under this template, or its files are not here.
        UsageError: several fit, or its weights are noisy.
    """
    model_id = work.spec.model_id
    if isinstance(work.spec.source, NoiseSource):
        raise UsageError(f"{model_id}: a noise model's weights are in no file to be read plainly")
    score_set = one_set(session.store, work.dataset, lookup, model_id, work.owner.model_id)
    from bench.scoring.verify import verify

    # Asks for no arithmetic: transformers' own is what it compares with.
    options = session.options._replace(dtype="float32")
    return verify(score_set, passes.make_ready(work, options, ops="none"), options, n_rows=n_rows)


class Given(NamedTuple):
    """A checked file of scores."""

    file: Path
    model_id: str
    owner: str
    """model_id whose chat template rendered the text."""
    frame: pd.DataFrame
    digest: str


def import_scores(store: Store, file: Path, model_id: str, owner: str, dataset: Dataset, *, dtype: str) -> Path:
    """Store scores that another engine computed; returns the set's folder.

    Args:
        store: Where to.
        file: .csv or .parquet with the columns of SCORES, a row for every response of the data set.
        model_id: Whose they are.
        owner: model_id whose chat template rendered the text.
        dataset: What was scored.
        dtype: "bf16" or "fp32".

    Raises:
        UsageError: a row is missing, unknown or wrong; names the file, the row and the field.
    """
    return _stored(store, _checked(file, model_id, owner, dataset), dataset, dtype)


def import_folder(
    store: Store, folder: Path, subject: Subject, registry: Registry, dataset: Dataset, *, dtype: str
) -> list[Path]:
    """Store a study's scores from a folder, a file a model; nothing is stored before every file is checked.

    Args:
        store: Where to.
        folder: Holds MODEL.csv or MODEL.parquet, where MODEL is a model_id, or its repository as owner__name.
        subject: Says which models, and under whose chat template each was scored.
        registry: Knows the models.
        dataset: What was scored.
        dtype: "bf16" or "fp32".

    Raises:
        UsageError: files and models do not fit together, or a row is wrong.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in FORMATS and not path.name.startswith("."))
    sides = dict(subject.passes())
    fitting = {model_id: [f for f in files if f.stem in _stems(registry, model_id)] for model_id in sides}
    taken = {file for found in fitting.values() for file in found}
    problems = [
        ("files that fit no model", [file.name for file in files if file not in taken]),
        ("models without a file", [model_id for model_id, found in fitting.items() if not found]),
        ("models with several files", [model_id for model_id, found in fitting.items() if len(found) > 1]),
    ]
    if any(names for _, names in problems):
        words = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names)
        raise UsageError(f"{folder}: does not fit {subject.name}, nothing is stored: {words}")
    given = [_checked(found[0], model_id, sides[model_id], dataset) for model_id, found in fitting.items()]
    return [_stored(store, each, dataset, dtype) for each in given]


def _stems(registry: Registry, model_id: str) -> set[str]:
    """What a model's file may be called, without its ending."""
    source = registry.model(model_id).source
    names = [model_id, *([source.repo] if isinstance(source, HubSource) else [])]
    return {form for name in names for form in (name, safe_name(name), name.replace("/", "__"))}


def _checked(file: Path, model_id: str, owner: str, dataset: Dataset) -> Given:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if file.suffix not in FORMATS:
        raise UsageError(f"{file}: the file must end in {' or '.join(FORMATS)}")
    try:
        frame = read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
        frame = check_imported(frame.reset_index(drop=True), dataset)
        check_scores(frame)
    except (DrsowError, ValueError, OSError) as error:
        raise UsageError(f"{file}: {str(error).removeprefix(f'{file}: ').splitlines()[0]}") from None
    return Given(file, model_id, owner, frame, hashlib.sha256(file.read_bytes()).hexdigest())


def _stored(store: Store, given: Given, dataset: Dataset, dtype: str) -> Path:
    score_set = store.score_set(_imported_key(given, dataset, dtype))
    names = {"data": dataset.slug, "template": given.owner}
    with score_set.lock():
        score_set.begin(1, {}, names)
        score_set.write_part(0, given.frame)
        facts = {"file": given.file.name, "sha256": given.digest, "n_examples": len(dataset.examples)}
        score_set.finish(facts)
    return score_set.folder


def _imported_key(given: Given, dataset: Dataset, dtype: str) -> ScoreKey:
    """The key of numbers of which nothing is known but their file's sha256."""
    return ScoreKey(
        model_id=given.model_id,
        revision=f"{IMPORTED}:{given.digest}",
        template_digest=f"{IMPORTED}:{given.owner}",
        domain="",
        domain_digest="",
        data_digest=dataset.digest,
        dtype=DTYPES[dtype],
        ops=IMPORTED,
        attention=IMPORTED,
        span=IMPORTED,
        schema_version=SCHEMA_VERSION,
    )
