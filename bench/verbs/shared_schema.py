"""Writes a pair's evaluation in the shared schema of the evaluation community, Every Eval Ever, version 0.3.0.

The schema (github.com/evaleval/every_eval_ever, MIT licence) describes one JSON file of results with their
uncertainty and one JSONL file of instance rows. Both have the path that the community's data store asks for, below the
folder of `--out`. The schema knows models, not pairs: the record has the strong model's name, as RewardBench lists
implicit rewards, and names the weak model in `additional_details`.
"""

import hashlib
import json
import uuid
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.entries import PackageSource, UrlSource
from bench.files import write_whole
from bench.schema import IMPORTED
from bench.verbs.evaluation import (
    DIGITS,
    LOCAL,
    Evaluation,
    Judgement,
    Key,
    as_json,
    hub_data,
    hub_name,
    known,
    prompt_text,
)

VERSION = "0.3.0"
"""The version of the schema that the files follow."""

DATA_STORE = "evaleval/EEE_datastore"
"""The hub's data set that collects such files."""

SIGNED = frozenset({("subset", "ties-margin")})
"""Parts whose judgements run from -1 to 1; those of all others run from 0 to 1."""

INTERVAL = "Wilson's interval with the effective number of rows; rows of one problem count together"
STDERR = "analytic"


class Told(NamedTuple):
    """What the schema asks about the evaluation that drsow cannot know."""

    organization: str
    """Who ran the evaluation."""
    relationship: str
    """How they are related to the model: "first_party", "third_party", "collaborative" or "other"."""
    retrieved: int
    """When the files are made, in seconds since 1970."""


def write(evaluation: Evaluation, told: Told, out: Path) -> list[Path]:
    """Write the results and the instance rows below a folder; return both files, the results first.

    Another export of the same scores has the same names, so it takes the place of the first.
    """
    record = identity(evaluation)
    name = uuid.UUID(bytes=hashlib.sha256(record.encode()).digest()[:16], version=4)
    developer, _, model = hub_name(evaluation.models[0]).partition("/")
    inner = Path("data") / evaluation.dataset.slug / developer / model
    lines = [as_json(row) for row in instances(evaluation)]
    rows = "".join(f"{line}\n" for line in lines).encode()
    whole = results(evaluation, told) | {
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": (inner / f"{name}_samples.jsonl").as_posix(),
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(rows).hexdigest(),
            "total_rows": len(lines),
        }
    }
    files = [out / inner / f"{name}.json", out / inner / f"{name}_samples.jsonl"]
    # The rows first: results never name a file that is not there.
    write_whole(files[1], rows)
    write_whole(files[0], f"{as_json(whole, indent=2)}\n".encode())
    return files


def identity(evaluation: Evaluation) -> str:
    """The record's `evaluation_id`: data, pair, reward, and when and how the pair was scored."""
    strong = hub_name(evaluation.models[0]).replace("/", "_")
    how = hashlib.sha256(repr((evaluation.keys, evaluation.reward)).encode()).hexdigest()[:8]
    ended = int(evaluation.ended.timestamp())
    return f"{evaluation.dataset.slug}/{strong}/{evaluation.pair.pair_id}-{evaluation.reward}-{how}/{ended}"


def results(evaluation: Evaluation, told: Told) -> dict:
    """The content of the results file, without the reference to the instance rows."""
    rows = {(row["level"], row["name"]): row for _, row in evaluation.parts.iterrows()}
    ended = str(int(evaluation.ended.timestamp()))
    return {
        "schema_version": VERSION,
        "evaluation_id": identity(evaluation),
        "evaluation_timestamp": ended,
        "retrieved_timestamp": str(told.retrieved),
        "source_metadata": {
            "source_name": "drsow",
            "source_type": "evaluation_run",
            "source_organization_name": told.organization,
            "evaluator_relationship": told.relationship,
        },
        "eval_library": {"name": "drsow", "version": evaluation.version},
        "model_info": _model(evaluation),
        "evaluation_results": [_result(evaluation, key, row) for key, row in rows.items()],
    }


def _model(evaluation: Evaluation) -> dict:
    strong, weak = evaluation.models
    key, other = evaluation.keys
    here = evaluation.keys[0].ops != IMPORTED and not isinstance(strong.source, UrlSource)
    named = hub_name(strong)
    is_public = isinstance(strong.source, PackageSource) or not named.startswith(f"{LOCAL}/")
    details = {
        "deployment_type": "self_deployed" if here else "unknown",
        "model_availability": "open_weights" if is_public else "unknown",
        "model_type": "density-ratio reward: log-probability under this model minus that under the weak model",
        "pair": evaluation.pair.pair_id,
        "revision": key.revision,
        "weak_model": hub_name(weak),
        "weak_revision": other.revision,
        "chat_template_sha256": key.template_digest,
        "dtype": key.dtype,
        "arithmetic": key.ops,
    }
    return {
        "name": f"{strong.model_id} over {weak.model_id}",
        "id": named,
        "developer": named.partition("/")[0],
        "inference_engine": {"name": "drsow", "version": evaluation.version},
        "additional_details": details,
    }


def _result(evaluation: Evaluation, key: Key, row: pd.Series) -> dict:
    level, name = key
    low, high = _bounds(evaluation, key)
    mixed = level == "overall" and bool(evaluation.benchmark.sections)
    part = "the score" if level == "overall" else f"{level} {name}"
    made = evaluation.benchmark.words or "The share of rows whose best response is right."
    metric = {
        "evaluation_description": f"{evaluation.benchmark.title}, {part}. {made} A tie is wrong.",
        "metric_id": f"{evaluation.benchmark.name}.score" if mixed else "accuracy",
        "metric_name": "Score" if mixed else "Accuracy",
        "metric_kind": "accuracy",
        "metric_unit": "proportion",
        "metric_parameters": {"reward": evaluation.reward},
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": low,
        "max_score": high,
    }
    return {
        "evaluation_result_id": result_id(key),
        "evaluation_name": part_name(evaluation, key),
        "source_data": _source(evaluation),
        "evaluation_timestamp": str(int(evaluation.ended.timestamp())),
        "metric_config": metric,
        "score_details": _score(row),
    }


def _score(row: pd.Series) -> dict:
    """A part's accuracy with its standard error and interval, where the rows allow them."""
    stderr, low, high = (known(row, name) for name in ("stderr", "low", "high"))
    uncertainty: dict[str, object] = {"num_samples": int(row["n_examples"])}
    if stderr is not None:
        uncertainty["standard_error"] = {"value": stderr, "method": STDERR}
    if low is not None and high is not None:
        limits = {"lower": low, "upper": high, "confidence_level": 0.95, "method": INTERVAL}
        uncertainty["confidence_interval"] = limits
    counts = {"n_ties": str(int(row["n_ties"])), "n_excluded": str(int(row["n_excluded"]))}
    return {"score": float(row["accuracy"]), "details": counts, "uncertainty": uncertainty}


def _bounds(evaluation: Evaluation, key: Key) -> tuple[float, float]:
    """The least and the largest value that a part can have."""
    part = next(each for each in evaluation.layout.parts if each.key == key)
    shares = evaluation.layout.shares(part)
    lows = (share * (-1.0 if leaf in SIGNED else 0.0) for leaf, share in shares.items())
    # The weights of RewardBench 2's Ties sum to more than 1, and those of others differ from 1 by rounding.
    return sum(lows), max(1.0, round(sum(shares.values()), DIGITS))


def _source(evaluation: Evaluation) -> dict:
    """Where the rows are from. Of a file, only the name of the data set: a path can be private."""
    dataset = evaluation.dataset
    details = {"sha256": dataset.digest} | ({"revision": dataset.revision} if dataset.revision else {})
    about = {"dataset_name": dataset.slug, "additional_details": details}
    repository = hub_data(dataset)
    if repository is None:
        return {**about, "source_type": "other"}
    _, _, split = dataset.data_id.partition(":")
    return {
        **about,
        "source_type": "hf_dataset",
        "hf_repo": repository,
        **({"hf_split": split} if split else {}),
        "samples_number": len(dataset.examples),
    }


def result_id(key: Key) -> str:
    """The name that an instance row calls a part by."""
    return "/".join(key)


def part_name(evaluation: Evaluation, key: Key) -> str:
    """A part's `evaluation_name`."""
    level, name = key
    return evaluation.dataset.slug if level == "overall" else f"{evaluation.dataset.slug}/{name}"


def instances(evaluation: Evaluation) -> list[dict]:
    """The instance rows: one for each judgement, which belongs to its leaf alone.

    A larger part has no instance rows: its number follows from those of its leaves.
    """
    record, model = identity(evaluation), hub_name(evaluation.models[0])
    return [_instance(evaluation, judgement, record, model) for judgement in evaluation.judgements]


def _instance(evaluation: Evaluation, judgement: Judgement, record: str, model: str) -> dict:
    example = evaluation.example(judgement)
    names = [name for name, _ in example.responses]
    named = {name: round(float(reward), DIGITS) for name, reward in zip(names, judgement.rewards, strict=True)}
    best = [name for name, is_best in zip(names, judgement.rewards == judgement.rewards.max(), strict=True) if is_best]
    raw = prompt_text(example)
    reference = [text for name, text in example.responses if name in example.right]
    hashed = json.dumps({"raw": raw, "reference": reference}, sort_keys=True, separators=(",", ":"))
    attribution = {
        "turn_idx": 0,
        "source": "output.raw",
        "extracted_value": ", ".join(best),
        "extraction_method": "highest reward",
        "is_terminal": True,
    }
    return {
        "schema_version": VERSION,
        "evaluation_id": record,
        "model_id": model,
        "evaluation_name": part_name(evaluation, judgement.leaf),
        "evaluation_result_id": result_id(judgement.leaf),
        "sample_id": example.example_id,
        "sample_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": raw, "reference": reference, "choices": [text for _, text in example.responses]},
        # A pair writes no text: its whole answer is a reward for each response.
        "output": {"raw": [as_json(named)]},
        "answer_attribution": [attribution],
        "evaluation": {"score": judgement.value, "is_correct": judgement.value == 1},
        "metadata": {"subset": example.subset, "reward": evaluation.reward, "right": json.dumps(list(example.right))},
    }
