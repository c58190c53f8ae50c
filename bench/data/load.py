"""Loads a data set, by its name, from a file or from the hub, into checked examples.

A bad row stops the loading with an error; no row is dropped silently.
"""

import difflib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.data.examples import Reading, examples_of, transcripts_of
from bench.data.formats import Use
from bench.data.labelled import ties_number
from bench.data.named import BENCHMARKS, Found, benchmark_rows, local_files
from bench.data.sources import READERS, Row, file_rows, hub_rows
from bench.faults import warn
from bench.files import safe_name
from bench.schema import CHOSEN, Dataset, Example, PreconditionError, UsageError
from bench.units import tally

REWARD_BENCH, SAMPLE = "reward-bench", "sample"
NAMES = (REWARD_BENCH, SAMPLE, *BENCHMARKS)
"""Names of the built-in data sets."""

REWARD_BENCH_VARIABLE = "DRSOW_REWARDBENCH"
"""Environment variable with the path of a local copy of "reward-bench"."""


_SLUGS = {*NAMES, *(f"{name}-{split}" for name, source in BENCHMARKS.items() for split in source.files)}
"""Folder names of the built-in data sets."""

_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::(.+))?")


def load_data(data: str, *, limit_per_subset: int | None = None, offline: bool = False) -> Dataset:
    """Loads labelled responses: preferences, or the rows of a benchmark, which are recognised by their columns.

    What was recognised in a user's file or hub data set goes to stderr, with the number of rows that prefer no response
    and are left out.

    Args:
        data: One of NAMES, with ":split" for a benchmark that has splits; a path to .jsonl, .parquet, .csv or .json; or
            a hub id "org/name[:split]".
        limit_per_subset: Number of rows to draw from each subset; None for all. The first rows of a subset are no
            sample of it, as many are sorted. The draw depends on the ids alone; a larger one holds the smaller ones. A
            prompt of RewardBench 2's Ties is drawn in both forms, so an odd number gives one row more there.
        offline: Read a hub data set only from the cache, without opening a socket.

    Raises:
        UsageError: The name is unknown, or a row is bad. The message names its file, line and field.
        PreconditionError: The data set is not on this machine and cannot be fetched.
    """
    return _load(data, Use.preferences, limit_per_subset, offline=offline)


def load_readable(data: str) -> tuple[Dataset, list[UsageError]]:
    """`load_data`, which leaves out rows that cannot be read: no text, or two equal responses.

    Returns:
        The data set, and what is wrong with each row that is left out.

    Raises:
        UsageError: The name or the format is unknown, two rows have one id, or no row can be read.
        PreconditionError: The data set is not on this machine and cannot be fetched.
    """
    bad: list[UsageError] = []
    return _load(data, Use.preferences, None, bad=bad), bad


def load_candidates(path: str) -> Dataset:
    """Loads prompts with two or more candidates (texts), from rows of candidates or of any format of preferences.

    Args:
        path: A .jsonl, .parquet, .csv or .json file.

    Returns:
        Examples whose response ids are "0" to "n-1", in the order of the candidates.

    Raises:
        UsageError: The file does not exist, or a row is bad. The message names its line and field.
    """
    reading = Reading(path, Use.candidates)
    examples = _read(reading, examples_of(reading, file_rows(path)))
    _tell(reading)
    slug = safe_name(Path(path).stem)
    return Dataset(path, slug, digest(examples), tuple(examples), left_out=_left_out(reading))


def load_prompts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads only the prompts, from preferences or from rows without responses; arguments and errors of `load_data`."""
    return _load(data, Use.prompts, limit_per_subset)


def fetch_data(data: str) -> int:
    """Downloads a data set if it is not on this machine yet, without checking its rows.

    Returns:
        Its number of rows.

    Raises:
        UsageError: The name is unknown.
        PreconditionError: The data set cannot be downloaded.
    """
    add = f"`drsow models add {data.partition(':')[0]} --registry DIR`"
    advice = f"it was looked up as a data set; for a model, {add} writes an entry"
    return sum(1 for _ in _source(data, offline=False, advice=advice)[1].rows)


def check_preferences(dataset: Dataset) -> None:
    """Check that every row has one chosen and one rejected response.

    Raises:
        UsageError: A row has several candidates; names the row.
    """
    for example in dataset.examples:
        if not example.is_preference:
            raise UsageError(
                f"{dataset.data_id}: {example.example_id}: this verb takes preferences, one chosen and one rejected "
                f"response per row, and this row has {len(example.responses)} responses"
            )


def is_data(name: str) -> bool:
    """Whether a name is that of a data set to download: a benchmark, or a hub id, which has a slash."""
    return name.partition(":")[0] in (REWARD_BENCH, *BENCHMARKS) or "/" in name


def load_transcripts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads preferences whose prompts are transcripts "Human: …\\n\\nAssistant: …" (HH-RLHF), split into turns.

    A transcript may end with the header "Assistant:"; the responses then continue it. In rows without a prompt, chosen
    and rejected are whole transcripts. Arguments and errors are those of `load_data`.
    """
    slug, found = _source(data, offline=False)
    reading = Reading(data, Use.preferences)
    examples = _read(reading, transcripts_of(reading, found.rows))
    _tell(reading)
    whole = Dataset(data, slug, "", tuple(examples), revision=found.revision, left_out=_left_out(reading))
    read = _limited(whole, limit_per_subset)
    return read._replace(slug=f"{read.slug}-turns")


def _load(
    data: str, use: Use, limit: int | None, *, offline: bool = False, bad: list[UsageError] | None = None
) -> Dataset:
    slug, found = _source(data, offline=offline)
    reading = Reading(data, use, bad=bad)
    examples = _read(reading, examples_of(reading, found.rows))
    # A verb that only reads the store loads the rows again and says nothing; a built-in data set is not recognised.
    if not offline and data.partition(":")[0] not in NAMES:
        _tell(reading)
    whole = Dataset(data, slug, "", tuple(examples), revision=found.revision, left_out=_left_out(reading))
    return _limited(whole, limit)


def _limited(whole: Dataset, limit: int | None) -> Dataset:
    """A data set with its digest, and with so many rows drawn of each subset."""
    if limit is None:
        return whole._replace(digest=digest(whole.examples))
    if limit < 1:
        raise UsageError(f"limit per subset: must be 1 or more, is {limit}")
    examples = tuple(_drawn_of_each_subset(whole.examples, limit))
    slug = f"{whole.slug}-{limit}-per-subset"
    return whole._replace(slug=slug, digest=digest(examples), examples=examples, limit=limit)


def _source(data: str, *, offline: bool, advice: str | None = None) -> tuple[str, Found]:
    """The slug of the data set that the user names, and its rows. The advice is for a hub data set that is not here."""
    if data == REWARD_BENCH:
        return REWARD_BENCH, Found(_reward_bench_rows(offline=offline), "")
    if data == SAMPLE:
        return SAMPLE, Found(file_rows(str(_sample_path())), "")
    name, _, split = data.partition(":")
    if name in BENCHMARKS:
        return data.replace(":", "-"), benchmark_rows(name, split, offline=offline)
    if Path(data).suffix.lower() in READERS or Path(data).is_file():
        stem = Path(data).stem
        # A user's file "sample.jsonl" must not share a results folder with the built-in "sample".
        return f"{stem}-file" if stem in _SLUGS else safe_name(stem), Found(file_rows(data), "")
    _check_no_path(data)
    if hub_id := _HUB_ID.fullmatch(data):
        advice = advice or f"with access to the hub, `drsow fetch {data}` fetches it"
        return safe_name(data), Found(hub_rows(hub_id[1], hub_id[2], advice=advice, offline=offline), "")
    close = difflib.get_close_matches(data.lower(), NAMES, n=1)
    raise UsageError(
        f"unknown data set {data!r}"
        + (f", did you mean {close[0]!r}?" if close else "")
        + f" (known: {', '.join(NAMES)}, a {', '.join(READERS)} file, a hub id org/name[:split])"
    )


def _check_no_path(data: str) -> None:
    """Refuses the name of a folder, and that of a file without its ending."""
    if data and Path(data).is_dir():
        found = [str(path) for path in sorted(Path(data).iterdir()) if path.suffix.lower() in READERS]
        near = f", such as {found[0]}" if found else f" ({', '.join(READERS)})"
        raise UsageError(f"{data}: is a folder; name a file in it{near}")
    if found := [name for name in (f"{data}{ending}" for ending in READERS) if Path(name).is_file()]:
        raise UsageError(f"{data}: no such file, did you mean {found[0]!r}?")


def _reward_bench_rows(*, offline: bool) -> Iterator[Row]:
    files = sorted(local_files(REWARD_BENCH), key=lambda path: not path.name.startswith("filtered"))
    local = os.environ.get(REWARD_BENCH_VARIABLE) or next(map(str, files), None)
    if not local:
        advice = f"with access to the hub, `drsow fetch {REWARD_BENCH}` fetches it, or "
        advice += f"{REWARD_BENCH_VARIABLE}=FILE names a copy"
        return hub_rows("allenai/reward-bench", "filtered", advice=advice, offline=offline)
    if not Path(local).is_file():
        raise PreconditionError(f"{REWARD_BENCH_VARIABLE}: no such file: {local}")
    return file_rows(local)


def _sample_path() -> Path:
    """Path of the sample: inside the installed package, or beside the package in a checkout."""
    installed = Path(__file__).parents[1] / "pairs" / "sample.jsonl"
    return installed if installed.exists() else Path(__file__).parents[2] / "pairs" / "sample.jsonl"


def _drawn_of_each_subset(examples: Sequence[Example], limit: int) -> Iterator[Example]:
    """The rows of each subset whose ids have the smallest hashes, in the order of the data set.

    Both forms of a prompt of RewardBench 2's Ties are drawn together, as its score compares them.
    """
    together: dict[tuple[str, str], list[Example]] = {}
    for example in sorted(examples, key=_hash):
        together.setdefault((example.subset, ties_number(example) or example.example_id), []).append(example)
    taken: Counter[str] = Counter()
    drawn: set[str] = set()
    for (subset, _), rows in together.items():
        if taken[subset] < limit:
            taken[subset] += len(rows)
            drawn.update(example.example_id for example in rows)
    return (example for example in examples if example.example_id in drawn)


def _hash(example: Example) -> str:
    return hashlib.sha256(example.example_id.encode("utf-8", "surrogatepass")).hexdigest()


def digest(examples: Iterable[Example]) -> str:
    """sha256 over every example, in order: all fields but scores; the right responses only where they are not "chosen".

    Preferences and responses without labels had a digest before labels were a field, and they keep it.
    """
    found = hashlib.sha256()
    for example in examples:
        told = list(example)[: 4 if example.right in ((), (CHOSEN,)) else 5]
        found.update(json.dumps(told, separators=(",", ":")).encode() + b"\n")
    return found.hexdigest()


def _read(reading: Reading, found: Iterable[tuple[Row, Example]]) -> list[Example]:
    """The examples of a source; what it turned out to be is in `reading`."""
    examples = _checked(found)
    if not examples and reading.bad:
        raise UsageError(f"no row can be read; the first: {reading.bad[0]}")
    if not examples and reading.left_out:
        raise UsageError(f"{reading.source}: no row prefers a response (left out: {tally(reading.left_out)})")
    if not examples:
        raise UsageError(f"{reading.source} has no rows")
    return examples


def _left_out(reading: Reading) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(reading.left_out.items()))


def _tell(reading: Reading) -> None:
    if line := reading.told():
        warn(line)


def _checked(found: Iterable[tuple[Row, Example]]) -> list[Example]:
    """Examples of which no two have one id."""
    examples: list[Example] = []
    places: dict[str, str] = {}
    for row, example in found:
        if example.example_id in places:
            raise row.error("id", f"{example.example_id!r} is also the id of {places[example.example_id]}")
        places[example.example_id] = row.where.rpartition(", ")[2]
        examples.append(example)
    return examples
