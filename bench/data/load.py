"""A data id, a file or a hub data set -> checked examples. A bad row is an error, never dropped."""

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
"""The data ids that are no path and no hub id."""

REWARD_BENCH_VARIABLE = "DRSOW_REWARDBENCH"
"""Environment variable that names a local file to be read as the data id "reward-bench"."""


_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::(.+))?")


def load_data(data: str, *, limit_per_subset: int | None = None, offline: bool = False) -> Dataset:
    """Loads preferences: rows with prompt, chosen and rejected, and with subset and id where there are any.

    Args:
        data: "reward-bench", "sample", a path to .jsonl, .parquet or .csv, or a hub id "org/name[:split]".
        limit_per_subset: How many rows of each subset to take, in their order; None for all.
        offline: Whether a hub data set may come from the cache alone; no socket is opened then.

    Raises:
        UsageError: An unknown name, or a bad row, with its file, line and field.
        PreconditionError: The data set is not on this machine and cannot be fetched.
    """
    return _load(data, preference, limit_per_subset, offline=offline)


def load_candidates(path: str) -> Dataset:
    """Loads rows with a prompt and two or more candidates (texts), and with subset and id where there are any.

    Args:
        path: A .jsonl, .parquet or .csv file.

    Returns:
        Examples whose response ids are "0" to "n-1", in the order of the candidates.

    Raises:
        UsageError: No such file, or a bad row, with its line and field.
    """
    examples = _examples(path, file_rows(path), candidates)
    return Dataset(path, safe_name(Path(path).stem), digest(examples), tuple(examples))


def load_prompts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads prompts alone, of preferences or of rows that have nothing else; arguments and errors of `load_data`."""
    return _load(data, prompt, limit_per_subset)


def fetch_data(data: str) -> int:
    """Brings a data set onto this machine, where it is not yet; its rows are not checked.

    Returns:
        How many rows it has.

    Raises:
        UsageError: An unknown name.
        PreconditionError: The hub does not give it.
    """
    return sum(1 for _ in _source(data, offline=False)[1])


def load_transcripts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads preferences whose prompts are transcripts "Human: …\\n\\nAssistant: …" (HH-RLHF), each prompt as its turns.

    A transcript may end on an open "Assistant:", which the responses go on. Arguments and errors of `load_data`.
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
    """(slug, rows) of what a user calls a data set."""
    if data == REWARD_BENCH:
        return REWARD_BENCH, _reward_bench_rows(offline=offline)
    if data == SAMPLE:
        return SAMPLE, file_rows(str(_sample_path()))
    if Path(data).suffix.lower() in READERS or Path(data).is_file():
        stem = Path(data).stem
        # A user's file of that name is not the data set of that name.
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
    """In the installed package, or beside it in a checkout."""
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
        raise UsageError(f"{source}: has no rows")
    return examples
