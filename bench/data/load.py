"""Loads a data set, by its name, from a file or from the hub, into checked examples.

A bad row stops the loading with an error; no row is dropped silently.
"""

import difflib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.data.rows import candidates, preference, prompt, transcript
from bench.data.sources import READERS, Row, file_rows, hub_rows
from bench.files import safe_name
from bench.schema import Dataset, Example, PreconditionError, UsageError

REWARD_BENCH, SAMPLE = "reward-bench", "sample"
"""Names of the built-in data sets."""

REWARD_BENCH_VARIABLE = "DRSOW_REWARDBENCH"
"""Environment variable with the path of a local copy of "reward-bench"."""


_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::(.+))?")


def load_data(data: str, *, limit_per_subset: int | None = None, offline: bool = False) -> Dataset:
    """Loads preferences: rows with prompt, chosen and rejected, and optionally subset and id.

    Args:
        data: "reward-bench", "sample", a path to .jsonl, .parquet or .csv, or a hub id "org/name[:split]".
        limit_per_subset: Number of rows to take from the start of each subset; None for all.
        offline: Read a hub data set only from the cache, without opening a socket.

    Raises:
        UsageError: The name is unknown, or a row is bad. The message names its file, line and field.
        PreconditionError: The data set is not on this machine and cannot be fetched.
    """
    return _load(data, preference, limit_per_subset, offline=offline)


def load_candidates(path: str) -> Dataset:
    """Loads rows with a prompt and two or more candidates (texts), and optionally subset and id.

    Args:
        path: A .jsonl, .parquet or .csv file.

    Returns:
        Examples whose response ids are "0" to "n-1", in the order of the candidates.

    Raises:
        UsageError: The file does not exist, or a row is bad. The message names its line and field.
    """
    examples = _examples(path, file_rows(path), candidates)
    return Dataset(path, safe_name(Path(path).stem), digest(examples), tuple(examples))


def load_prompts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads only the prompts, from preferences or from rows without responses; arguments and errors of `load_data`."""
    return _load(data, prompt, limit_per_subset)


def fetch_data(data: str) -> int:
    """Downloads a data set if it is not on this machine yet, without checking its rows.

    Returns:
        Its number of rows.

    Raises:
        UsageError: The name is unknown.
        PreconditionError: The data set cannot be downloaded.
    """
    return sum(1 for _ in _source(data, offline=False)[1])


def load_transcripts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads preferences whose prompts are transcripts "Human: …\\n\\nAssistant: …" (HH-RLHF), split into turns.

    A transcript may end with the header "Assistant:"; the responses then continue it. Arguments and errors are those of
    `load_data`.
    """
    found = _load(data, transcript, limit_per_subset)
    return found._replace(slug=f"{found.slug}-turns")


def _load(data: str, parse: Callable[[Row], Example], limit: int | None, *, offline: bool = False) -> Dataset:
    if limit is not None and limit < 1:
        raise UsageError(f"limit per subset: must be 1 or more, is {limit}")
    slug, rows = _source(data, offline=offline)
    examples = _examples(data, rows, parse)
    if limit is not None:
        slug = f"{slug}-{limit}-per-subset"
        examples = list(_first_of_each_subset(examples, limit))
    return Dataset(data, slug, digest(examples), tuple(examples), limit=limit)


def _source(data: str, *, offline: bool) -> tuple[str, Iterator[Row]]:
    """(slug, rows) of the data set that the user names."""
    if data == REWARD_BENCH:
        return REWARD_BENCH, _reward_bench_rows(offline=offline)
    if data == SAMPLE:
        return SAMPLE, file_rows(str(_sample_path()))
    if Path(data).suffix.lower() in READERS or Path(data).is_file():
        stem = Path(data).stem
        # A user's file "sample.jsonl" must not share a results folder with the built-in "sample".
        return f"{stem}-file" if stem in (REWARD_BENCH, SAMPLE) else safe_name(stem), file_rows(data)
    if hub_id := _HUB_ID.fullmatch(data):
        return safe_name(data), hub_rows(
            hub_id[1], hub_id[2], advice=f"`drsow fetch {data}` fetches it", offline=offline
        )
    close = difflib.get_close_matches(data.lower(), [REWARD_BENCH, SAMPLE], n=1)
    raise UsageError(
        f"unknown data set {data!r}"
        + (f", did you mean {close[0]!r}?" if close else "")
        + f" (known: {REWARD_BENCH}, {SAMPLE}, a {', '.join(READERS)} file, a hub id org/name[:split])"
    )


def _reward_bench_rows(*, offline: bool) -> Iterator[Row]:
    local = os.environ.get(REWARD_BENCH_VARIABLE)
    if not local:
        advice = f"`drsow fetch {REWARD_BENCH}` fetches it, or {REWARD_BENCH_VARIABLE}=FILE names a copy"
        return hub_rows("allenai/reward-bench", "filtered", advice=advice, offline=offline)
    if not Path(local).is_file():
        raise PreconditionError(f"{REWARD_BENCH_VARIABLE}: no such file: {local}")
    return file_rows(local)


def _sample_path() -> Path:
    """Path of the sample: inside the installed package, or beside the package in a checkout."""
    installed = Path(__file__).parents[1] / "pairs" / "sample.jsonl"
    return installed if installed.exists() else Path(__file__).parents[2] / "pairs" / "sample.jsonl"


def _first_of_each_subset(examples: Iterable[Example], limit: int) -> Iterator[Example]:
    taken: Counter[str] = Counter()
    for example in examples:
        taken[example.subset] += 1
        if taken[example.subset] <= limit:
            yield example


def digest(examples: Iterable[Example]) -> str:
    """sha256 over every field of every example, in order."""
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps(example, separators=(",", ":")).encode() + b"\n")
    return found.hexdigest()


def _examples(source: str, rows: Iterable[Row], parse: Callable[[Row], Example]) -> list[Example]:
    examples: list[Example] = []
    places: dict[str, str] = {}
    for row in rows:
        example = parse(row)
        if example.example_id in places:
            raise row.error("id", f"{example.example_id!r} is also the id of {places[example.example_id]}")
        places[example.example_id] = row.where.rpartition(", ")[2]
        examples.append(example)
    if not examples:
        raise UsageError(f"{source} has no rows")
    return examples
