"""A data id, a file or a hub data set -> checked examples. A bad row is an error, never dropped."""

import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.cells import is_empty, messages_in, spelled, transcript_turns
from bench.files import safe_name
from bench.schema import CHOSEN, REJECTED, Dataset, Example, Message, PreconditionError, UsageError
from bench.sources import READERS, Row, file_rows, hub_rows

REWARD_BENCH, SAMPLE = "reward-bench", "sample"
"""The data ids that are no path and no hub id."""

REWARD_BENCH_VARIABLE = "DRSOW_REWARDBENCH"
"""Environment variable that names a local file to be read as the data id "reward-bench"."""

ROLES = ("system", "user", "assistant")

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
    return _load(data, _preference, limit_per_subset, offline=offline)


def load_candidates(path: str) -> Dataset:
    """Loads rows with a prompt and two or more candidates (texts), and with subset and id where there are any.

    Args:
        path: A .jsonl, .parquet or .csv file.

    Returns:
        Examples whose response ids are "0" to "n-1", in the order of the candidates.

    Raises:
        UsageError: No such file, or a bad row, with its line and field.
    """
    examples = _examples(path, file_rows(path), _candidates)
    return Dataset(path, safe_name(Path(path).stem), digest(examples), tuple(examples))


def load_prompts(data: str, *, limit_per_subset: int | None = None) -> Dataset:
    """Loads prompts alone, of preferences or of rows that have nothing else; arguments and errors of `load_data`."""
    return _load(data, _prompt, limit_per_subset)


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
    found = _load(data, _transcript, limit_per_subset)
    return found._replace(slug=f"{found.slug}-turns")


def _transcript(row: Row) -> Example:
    example = _preference(row)
    try:
        turns, is_open = transcript_turns(example.messages[0].content if len(example.messages) == 1 else "")
    except ValueError as error:
        raise row.error("prompt", str(error)) from None
    # Behind an open header the responses are turns themselves, and lose their outer whitespace as the others do.
    responses = tuple((name, text.strip() if is_open else text) for name, text in example.responses)
    if responses[0][1] == responses[1][1]:
        raise row.error(REJECTED, "equal to chosen")
    return example._replace(messages=tuple(Message(*turn) for turn in turns), responses=responses)


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
    installed = Path(__file__).parent / "pairs" / "sample.jsonl"
    return installed if installed.exists() else Path(__file__).parents[1] / "pairs" / "sample.jsonl"


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


def _preference(row: Row) -> Example:
    chosen_head, chosen = _response(row, CHOSEN)
    rejected_head, rejected = _response(row, REJECTED)
    # Where the row has no prompt of its own, whole conversations begin with it.
    head = chosen_head or rejected_head
    prompt = head if head and is_empty(row.value("prompt")) else _messages(row, "prompt")
    for field, head in ((CHOSEN, chosen_head), (REJECTED, rejected_head)):
        if head and head != prompt:
            raise row.error(field, "its earlier turns are not the prompt")
    if chosen == rejected:
        raise row.error(REJECTED, "equal to chosen")
    return _example(row, prompt, ((CHOSEN, chosen), (REJECTED, rejected)))


def _prompt(row: Row) -> Example:
    if is_empty(row.value("prompt")) and not is_empty(row.value(CHOSEN)):
        return _preference(row)._replace(responses=())
    return _example(row, _messages(row, "prompt"), ())


def _candidates(row: Row) -> Example:
    texts = candidate_list(row)
    if len(texts) < 2:
        raise row.error("candidates", "must be a list of two or more texts")
    responses = tuple((str(i), _text(row, f"candidates[{i}]", text)) for i, text in enumerate(texts))
    return _example(row, _messages(row, "prompt"), responses)


def candidate_list(row: Row) -> list:
    """What a row has as candidates, unchecked; a text that spells a list is that list."""
    value = _required(row, "candidates")
    value = spelled(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if not isinstance(value, list):
        raise row.error("candidates", 'must be a list of texts; a CSV cell holds it as JSON, ["…", "…"]')
    return value


def _example(row: Row, prompt: tuple[Message, ...], responses: tuple[tuple[str, str], ...]) -> Example:
    if prompt[-1].role == "assistant":
        raise row.error("prompt", "ends on an assistant turn")
    subset, row_id = _name(row, "subset", ""), _name(row, "id", row.number)
    if not row_id:
        raise row.error("id", "empty")
    return Example(example_id(subset, row_id), subset, prompt, responses)


def example_id(subset: str, row_id: str) -> str:
    """`subset/id`, or the id alone where there is no subset; no two rows of different names share one.

    A "/" in a subset is written "%2F" and a "%" "%25", so the first "/" always ends the subset. An id that has a "/"
    itself and no subset begins with "/".
    """
    if not subset and "/" not in row_id:
        return row_id
    return f"{subset.replace('%', '%25').replace('/', '%2F')}/{row_id}"


def own_id(example: Example) -> str:
    """The id that its source gave a row, as `example_id` took it."""
    return example.example_id.partition("/")[2] or example.example_id


def _required(row: Row, field: str) -> object:
    value = row.value(field)
    if value is not None and value == value:
        return value
    close = [] if field in row.names else difflib.get_close_matches(field, row.names, n=1)
    raise row.error(field, "missing" + (f", did you mean {close[0]!r}?" if close else ""))


def _unpacked(row: Row, field: str) -> object:
    """What a row must have in a column; a text that spells a list of messages is that list."""
    value = _required(row, field)
    try:
        found = messages_in(value) if isinstance(value, str) else None
    except ValueError as error:
        raise row.error(field, str(error)) from None
    return value if found is None else found


def _response(row: Row, field: str) -> tuple[tuple[Message, ...], str]:
    """(turns that stand before the response, if any; its text)."""
    value = _unpacked(row, field)
    if not isinstance(value, list):
        return (), _text(row, field, value)
    *head, last = _turns(row, field, value)
    if last.role != "assistant":
        raise row.error(field, "does not end on an assistant turn")
    return tuple(head), last.content


def _messages(row: Row, field: str) -> tuple[Message, ...]:
    value = _unpacked(row, field)
    if not isinstance(value, list):
        return (Message("user", _text(row, field, value)),)
    return _turns(row, field, value)


def _turns(row: Row, field: str, value: list) -> tuple[Message, ...]:
    if not value:
        raise row.error(field, "empty")
    return tuple(_message(row, f"{field}[{i}]", turn) for i, turn in enumerate(value))


def _message(row: Row, field: str, turn: object) -> Message:
    if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
        raise row.error(field, "not a message with role and content")
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        raise row.error(f"{field}.role", f"unknown role {role!r:.40} (known: {', '.join(ROLES)})")
    if more := [name for name, value in turn.items() if name not in ("role", "content") and not is_empty(value)]:
        raise row.error(field, f"{more[0]!r} would be lost: only role and content are read")
    if role == "system" and content == "":
        return Message(role, "")
    return Message(role, _text(row, f"{field}.content", content))


def _text(row: Row, field: str, value: object) -> str:
    if value is None:
        raise row.error(field, "missing")
    if not isinstance(value, str):
        raise row.error(field, f"must be text, is {type(value).__name__}")
    if not value.strip():
        raise row.error(field, "only whitespace" if value else "empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise row.error(field, "holds half of a surrogate pair, which is no text") from error
    return value


def _name(row: Row, field: str, default: str | int) -> str:
    value = row.value(field) if field in row.names else default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(field, "missing" if value is None else f"must be text or a whole number, is {value!r:.40}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(value)):
        raise row.error(field, "holds control characters")
    return str(value)
