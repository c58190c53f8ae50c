"""Scores out of the store as one file, and in from another engine."""

import hashlib
import io
from pathlib import Path

import pandas as pd

from bench.entries import ModelSpec, NoiseSource
from bench.files import csv_bytes
from bench.schema import DTYPES, SCHEMA_VERSION, Dataset, PreconditionError, ScoreKey, UsageError
from bench.scoring import run
from bench.store import ScoreSet, Store, check_scores, read_csv, write_whole

IMPORTED = "imported"
"""What a key says of how imported numbers came to be."""


def export_scores(store: Store, model_id: str, dataset: Dataset, out: Path, *, dtype: str) -> None:
    """Write one model's complete score set to a .csv or .parquet file.

    Raises:
        PreconditionError: there is none.
        UsageError: several fit, or the file's ending is another one.
    """
    wanted = {"dtype": DTYPES[dtype]} if dtype in DTYPES else {}
    frame = _only(store.find(model_id=model_id, data_digest=dataset.digest, **wanted), model_id, dataset).read()
    if out.suffix == ".csv":
        write_whole(out, csv_bytes(frame))
    elif out.suffix == ".parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_whole(out, buffer.getvalue())
    else:
        raise UsageError(f"{out}: the file must end in .csv or .parquet")


def verify_scores(
    store: Store, model: ModelSpec, owner: ModelSpec, dataset: Dataset, options: run.Options, *, n_rows: int
) -> pd.DataFrame:
    """How far one model's stored scores are from transformers' own, on a sample: `scoring.verify.VERIFIED`.

    Raises:
        PreconditionError: there is no complete set of the model under this template, or its files are not here.
        UsageError: several fit, or its weights are noisy.
    """
    if isinstance(model.source, NoiseSource):
        raise UsageError(f"{model.model_id}: a noise model's weights are in no file to be read plainly")
    sets = store.find(model_id=model.model_id, data_digest=dataset.digest, domain="")
    wanted = DTYPES.get(options.dtype)
    sets = [s for s in sets if s.key.template in (owner.model_id, "plain") and wanted in (None, s.key.dtype)]
    score_set = _only(sets, model.model_id, dataset)
    from bench.scoring.verify import verify

    return verify(score_set, run.make_ready(run.Work(model, owner, dataset), options), options, n_rows=n_rows)


def _only(sets: list[ScoreSet], model_id: str, dataset: Dataset) -> ScoreSet:
    if not sets:
        raise PreconditionError(f"{model_id} is not scored on {dataset.slug}: run it first")
    if len(sets) > 1:
        names = ", ".join(f"{s.key.dtype} under {s.key.template} ({s.folder.name})" for s in sets)
        raise UsageError(f"{model_id}: several score sets fit, choose with --dtype or delete one: {names}")
    return sets[0]


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
        UsageError: a row is missing, unknown or wrong; names the file and the row.
    """
    frame = _read(file)
    wanted = [(e.example_id, response_id) for e in dataset.examples for response_id, _ in e.responses]
    given = set(zip(frame["example_id"], frame["response_id"], strict=True))
    if missing := [pair for pair in wanted if pair not in given]:
        raise UsageError(f"{file}: {missing[0][0]}, {missing[0][1]}: no row ({len(missing)} are missing)")
    if strange := given - set(wanted):
        example_id, response_id = min(strange)
        raise UsageError(f"{file}: {example_id}, {response_id}: no response of {dataset.slug}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    score_set = store.score_set(_imported_key(model_id, owner, dataset, digest, dtype))
    with score_set.lock():
        score_set.begin(1, {})
        score_set.write_part(0, frame)
        score_set.finish({"file": file.name, "sha256": digest, "n_examples": len(dataset.examples)})
    return score_set.folder


def _imported_key(model_id: str, owner: str, dataset: Dataset, digest: str, dtype: str) -> ScoreKey:
    """The key of numbers of which nothing is known but their file's sha256."""
    return ScoreKey(
        model_id=model_id,
        revision=f"{IMPORTED}:{digest}",
        template=owner,
        template_digest=IMPORTED,
        domain="",
        domain_digest="",
        data=dataset.slug,
        data_digest=dataset.digest,
        dtype=DTYPES[dtype],
        attention=IMPORTED,
        span=IMPORTED,
        schema_version=SCHEMA_VERSION,
    )


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if file.suffix not in {".csv", ".parquet"}:
        raise UsageError(f"{file}: the file must end in .csv or .parquet")
    try:
        frame = read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
        frame = frame.reset_index(drop=True)
        check_scores(frame)
    except ValueError as error:
        raise UsageError(f"{file}: {str(error).splitlines()[0]}") from None
    return frame
