"""Writes annotated preferences for a trainer: parquet, jsonl, a data card and the list of skipped prompts."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.files import check_not_read, write_csv, write_json, write_whole
from bench.prefer.annotate import SKIPPED, Annotated
from bench.schema import OK, Example, PreconditionError, UsageError
from bench.store.places import stored_manifest
from bench.study.confidence import MIN_PROBLEMS

_COPIED = ("margin", "chosen_reward", "rejected_reward", "chosen_id", "rejected_id", "n_candidates")
"""Columns that PREFERENCES and FEATURES share."""

FEATURES = ("prompt", "chosen", "rejected", "example_id", "domain", *_COPIED, "confidence", "rewards")
"""One row per preference. `prompt`, `chosen` and `rejected` are lists of {"role", "content"} messages, TRL's
conversational preference format. `rewards` lists the rewards of all candidates in their order; a candidate that was not
scored has none. `confidence` is the probability that the label is right, 0 to 1; none where no labelled rows are
known."""


ANNOTATION, UNFINISHED = "annotation", "unfinished"
"""The variant in the manifest of a folder of preferences, and the field that it has while the folder is written."""

_FILES = ("preferences.parquet", "preferences.jsonl", "skipped.csv", "README.md")
"""What a folder of preferences holds beside its manifest."""

_CONFIDENCE = (
    "- the column confidence: the probability that the label is right, from its margin, fitted on labelled rows "
    "(`calibration` above). Below 0.5 the label is more likely wrong than right"
)
_NO_CONFIDENCE = (
    f"- the column confidence is empty: it needs labels of {MIN_PROBLEMS} or more different prompts that are scored "
    "under one pair"
)


def records(
    examples: Sequence[Example], annotated: Annotated, rewards: pd.DataFrame, domains: Mapping[str, str]
) -> list[dict]:
    """FEATURES of each kept preference.

    Args:
        examples: Prompts with their candidates.
        annotated: The result of `annotate` for these examples.
        rewards: example_id, response_id, reward, status.
        domains: domain_id by example_id.
    """
    known = {example.example_id: example for example in examples}
    values = {
        name: dict(zip(rows["response_id"], rows["reward"], strict=True))
        for name, rows in rewards.groupby("example_id")
    }
    return [
        {
            "prompt": [message._asdict() for message in known[row.example_id].messages],
            **{side: _answer(known[row.example_id], getattr(row, f"{side}_id")) for side in ("chosen", "rejected")},
            "example_id": row.example_id,
            "domain": domains[row.example_id],
            **{name: getattr(row, name) for name in _COPIED},
            "confidence": _number(row.confidence),
            "rewards": [_number(values[row.example_id].get(name)) for name, _ in known[row.example_id].responses],
        }
        for row in annotated.preferences.itertuples()
    ]


def _answer(example: Example, response_id: str) -> list[dict]:
    return [{"role": "assistant", "content": dict(example.responses)[response_id]}]


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def length_bias(examples: Sequence[Example], annotated: Annotated, rewards: pd.DataFrame) -> dict[str, float]:
    """Measures how strongly the reward depends on the length of a response.

    Returns:
        `chosen_is_longer`, the fraction of preferences whose chosen text has more bytes (equal lengths count half);
        `chosen_bytes` and `rejected_bytes`, mean lengths in bytes; `rho_length`, the mean over prompts of Spearman's
        rho between the reward and the bytes of the candidates, NaN if rho is undefined for every prompt.
    """
    frame = annotated.preferences
    longer = (frame["chosen_bytes"] > frame["rejected_bytes"]) + 0.5 * (
        frame["chosen_bytes"] == frame["rejected_bytes"]
    )
    sizes = {(e.example_id, name): len(text.encode()) for e in examples for name, text in e.responses}
    scored = rewards[rewards["status"] == OK]
    n_bytes = [sizes[key] for key in zip(scored["example_id"], scored["response_id"], strict=True)]
    ranks = scored.assign(n_bytes=n_bytes).groupby("example_id")[["reward", "n_bytes"]].rank()
    # Spearman's rho is the correlation of the ranks. Of equal values it is undefined, which is 0 / 0 here.
    ranks -= ranks.groupby(scored["example_id"]).transform("mean")
    sums = ranks.assign(both=ranks.prod(axis=1), reward=ranks["reward"] ** 2, n_bytes=ranks["n_bytes"] ** 2)
    sums = sums.groupby(scored["example_id"]).sum()
    rhos = (sums["both"] / np.sqrt(sums["reward"] * sums["n_bytes"])).dropna()
    return {
        "chosen_is_longer": float(longer.mean()),
        "chosen_bytes": float(frame["chosen_bytes"].mean()),
        "rejected_bytes": float(frame["rejected_bytes"].mean()),
        "rho_length": float(rhos.mean()),
    }


def check_folder(folder: Path, candidates: str) -> None:
    """Checks that a folder can take preferences: it is empty or absent, or holds preferences that `annotate` wrote.

    Raises:
        UsageError: It holds other files, or the candidates themselves.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder")
    # A run that was killed while it wrote its first file leaves a part of it under a hidden name.
    there = folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir())
    if there and stored_manifest(folder).get("variant") != ANNOTATION:
        raise UsageError(f"{folder}: the folder has files that drsow annotate did not write; name another folder")
    for name in _FILES:
        check_not_read(folder / name, "--candidates", candidates)


def check_finished(folder: Path) -> None:
    """Checks that a folder is none in which `annotate` was stopped while it wrote the preferences.

    Raises:
        PreconditionError: It is one.
    """
    if stored_manifest(folder).get(UNFINISHED):
        raise PreconditionError(
            f"{folder}: drsow annotate was stopped while it wrote this folder, so it is not complete; run it again"
        )


def write_preferences(
    folder: Path, rows: list[dict], skipped: pd.DataFrame, card: str, manifest: Mapping[str, object]
) -> None:
    """Write preferences.parquet, preferences.jsonl, skipped.csv, README.md and manifest.json.

    Each file is written whole or not. The files of an earlier run go first, and until all are written the manifest says
    so: no reader takes files of two runs for one.
    """
    write_json(folder / "manifest.json", {"variant": ANNOTATION, UNFINISHED: True})
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    buffer = io.BytesIO()
    # Without the type, a column in which no row has a confidence would have none in the file.
    pd.DataFrame(rows, columns=list(FEATURES)).astype({"confidence": float}).to_parquet(buffer, index=False)
    write_whole(folder / "preferences.parquet", buffer.getvalue())
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_whole(folder / "preferences.jsonl", lines.encode())
    write_csv(folder / "skipped.csv", skipped, SKIPPED)
    write_whole(folder / "README.md", card.encode())
    write_json(folder / "manifest.json", dict(manifest))


def data_card(annotated: Annotated, bias: Mapping[str, float], facts: Mapping[str, object]) -> str:
    """The data set's README: how the preferences were made, how many prompts were skipped, and the length bias.

    Args:
        annotated: The result of `annotate`.
        bias: The result of `length_bias`.
        facts: Further facts, one line each: the pair, revisions, template, dtype, filters.
    """
    n_kept, counts = len(annotated.preferences), annotated.skipped["reason"].value_counts()
    margins, sure = annotated.preferences["margin"], annotated.preferences["confidence"]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files: preferences.parquet",
        "---",
        "# Preferences annotated by a density ratio",
        "",
        "The reward of a response is log p_strong - log p_weak (arXiv 2411.02481): no person labelled these rows.",
        "",
        *[f"- {name}: {value}" for name, value in facts.items()],
        f"- prompts: {n_kept + len(annotated.skipped):,}, preferences: {n_kept:,}",
        *[f"- skipped, {reason}: {count:,}" for reason, count in counts.items()],
        f"- margin: {_three(margins)}",
        *([_CONFIDENCE, f"- confidence: {_three(sure)}"] if sure.notna().any() else [_NO_CONFIDENCE]),
        f"- the chosen response is the longer one in {bias['chosen_is_longer']:.1%} "
        f"(mean bytes {bias['chosen_bytes']:.0f} against {bias['rejected_bytes']:.0f}); "
        f"Spearman's rho of reward and length among a prompt's candidates: {bias['rho_length']:.2f} on average",
        "",
    ]
    return "\n".join(lines)


def _three(values: pd.Series) -> str:
    """Text of the median, the least and the largest value."""
    return f"median {values.median():.3g}, least {values.min():.3g}, largest {values.max():.3g}"
