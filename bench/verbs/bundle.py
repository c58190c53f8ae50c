"""Exports a study's score sets with all that identifies them, and restores them, so that its tables need no model.

The folder has a parquet file for each model, and `sets.json` with each set's key and provenance. A restored set has
the key of the one that was exported. So the tables that are made of it are those of the run that computed it.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.faults import first_line
from bench.files import read_if_there, safe_name, write_json, write_whole
from bench.lookup import Lookup, stored_sets
from bench.schema import SCHEMA_VERSION, Dataset, ScoreKey, UsageError
from bench.store.folder import ScoreSet, Store
from bench.store.imported import check_imported
from bench.store.parts import check_scores, encode_part, join_parts
from bench.subject import Subject

INDEX = "sets.json"
"""Name of the file that lists the sets."""


class Carried(NamedTuple):
    """An exported set, whose file passed its checks."""

    key: ScoreKey
    info: dict
    data: bytes
    """SCORES as parquet."""


def export_study(store: Store, subject: Subject, dataset: Dataset, out: Path, *, lookup: Lookup) -> list[Path]:
    """Writes the score sets of a study into a folder.

    Args:
        store: The results folder that holds the scores.
        subject: The study.
        dataset: The rows that were scored.
        out: The folder.
        lookup: Dtype and arithmetic of the scores.

    Returns:
        The files, INDEX last.

    Raises:
        PreconditionError: A model is not scored on these rows.
    """
    rows, files = [], []
    for (model_id, owner), score_set in stored_sets(store, subject, dataset, lookup).items():
        data, file = encode_part(score_set.read()), out / f"{safe_name(model_id)}.parquet"
        write_whole(file, data)
        digest = hashlib.sha256(data).hexdigest()
        told = {"key": score_set.key._asdict(), "info": score_set.info() | {"template": owner}}
        rows.append({"file": file.name, "sha256": digest, **told})
        files.append(file)
    write_json(out / INDEX, {"study": subject.name, "data": dataset.slug, "sets": rows})
    return [*files, out / INDEX]


def is_bundle(folder: Path) -> bool:
    """Whether `export_study` wrote the folder."""
    return (folder / INDEX).is_file()


def import_study(store: Store, folder: Path, subject: Subject, dataset: Dataset) -> list[Path]:
    """Restores the score sets of a study from a folder that `export_study` wrote. It checks all before it stores one.

    Args:
        store: The results folder that gets the scores. A set that it has already stays as it is.
        folder: The exported sets.
        subject: The study.
        dataset: The rows that were scored.

    Returns:
        The score sets' folders.

    Raises:
        UsageError: A file was changed, the sets are of other rows, one of the study's passes has no set, or a row of
            scores is missing or wrong.
    """
    found = {(each.key.model_id, str(each.info.get("template"))): each for each in _carried(folder)}
    for each in found.values():
        if each.key.data_digest != dataset.digest:
            raise UsageError(
                f"{folder}: the scores of {each.key.model_id} are of other rows than {dataset.data_id} has"
            )
    missing = [side for side in subject.passes() if side not in found]
    if missing:
        names = ", ".join(f"{model_id} under the chat template of {owner}" for model_id, owner in missing)
        raise UsageError(f"{folder}: it has no scores of {names}, so nothing is stored")
    frames = {side: _frame(folder, found[side], dataset) for side in subject.passes()}
    return [_restored(store, found[side], frame) for side, frame in frames.items()]


def _frame(folder: Path, carried: Carried, dataset: Dataset) -> pd.DataFrame:
    """SCORES of an exported set, which has a possible score for each response of the data set and no other."""
    try:
        frame = check_imported(join_parts([carried.data]), dataset)
        check_scores(frame)
    except (ValueError, KeyError, TypeError, OSError) as error:
        words = f"{folder}: the scores of {carried.key.model_id} cannot be used: {first_line(error)}"
        raise UsageError(f"{words}; nothing is stored, export them again") from error
    return frame


def _carried(folder: Path) -> list[Carried]:
    where = folder / INDEX
    try:
        rows = json.loads(where.read_text(encoding="utf-8"))["sets"]
        # Only the name: a file outside the folder is not read.
        listed = [(Path(row["file"]).name, row["sha256"], _key(row["key"]), _info(row["info"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{where}: cannot be read: {error}") from error
    found = []
    for name, digest, key, info in listed:
        data = read_if_there(folder / name)
        if data is None:
            raise UsageError(f"{folder / name}: no such file, but {INDEX} lists it")
        if hashlib.sha256(data).hexdigest() != digest:
            raise UsageError(f"{folder / name}: was changed after it was exported; export it again")
        if key.schema_version != SCHEMA_VERSION:
            raise UsageError(f"{where}: {key.model_id}: another version of drsow wrote its scores; score it again")
        found.append(Carried(key, info, data))
    return found


def _key(fields: dict) -> ScoreKey:
    key = ScoreKey(**fields)
    for name, kind in ScoreKey.__annotations__.items():
        if type(getattr(key, name)) is not kind:
            raise ValueError(f"{name} of a key is {getattr(key, name)!r}, which is no {kind.__name__}")
    return key


def _info(fields: dict) -> dict:
    info = dict(fields)
    for name, kind, words in (("precision", dict, "object"), ("mean_tokens_a_row", int | float, "number")):
        if name in info and not isinstance(info[name], kind):
            raise ValueError(f"{name} of an info is {info[name]!r}, which is no {words}")
    return info


def _restored(store: Store, carried: Carried, frame: pd.DataFrame) -> Path:
    score_set: ScoreSet = store.score_set(carried.key)
    with score_set.lock():
        if score_set.complete:
            return score_set.folder
        score_set.begin(1, {}, carried.info)
        score_set.write_part(0, frame)
        score_set.finish({})
    return score_set.folder
