"""Recognises the format of a file of preferences by its columns, and turns its rows into examples.

drsow's own columns (prompt, chosen, rejected; candidates; the benchmarks') are `labelled`'s. Every other format is one
entry of FORMATS, whose rows `published` or `unpaired` reads. Preferences, prompts and candidates of a format come from
one reader.
"""

import contextlib
import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from bench.data import published, unpaired
from bench.data.labelled import has_lists, labelled
from bench.data.labelled import prompt as own_prompt
from bench.data.published import EQUAL, OTHER_TURNS, Compared
from bench.data.rows import candidates, example_of
from bench.data.sources import JUDGE_BENCH, Row
from bench.data.transcripts import transcript
from bench.schema import CHOSEN, REJECTED, Example, UsageError


class Use(Enum):
    """What is read from each row."""

    preferences = "preferences"
    prompts = "prompts"
    candidates = "prompts with candidates"


class Format(NamedTuple):
    """A format that is recognised by its columns."""

    name: str
    columns: tuple[str, ...]
    compared: Callable[[Row], Compared] | None
    """Reads a row; None if a row has one response, so that rows of one prompt belong together."""

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.columns)})"


FORMATS = (
    Format("UltraFeedback", ("instruction", "completions"), published.ultra_feedback),
    Format("distilabel", ("instruction", "generations", "ratings"), published.distilabel),
    Format("distilabel", ("input", "generations", "rating"), published.distilabel),
    Format("distilabel", ("instruction", "chosen_response", "rejected_response"), published.rated_responses),
    Format("distilabel", ("prompt", "chosen_response", "rejected_response"), published.rated_responses),
    Format("HelpSteer 2", ("prompt", "response_1", "response_2", "preference_strength"), published.help_steer),
    Format("HelpSteer 3", ("context", "response1", "response2", "overall_preference"), published.help_steer),
    Format("ShareGPT", ("conversations", "chosen", "rejected"), published.share_gpt),
    Format("Arena votes", ("conversation_a", "conversation_b", "winner"), published.arena),
    Format("Arena votes", ("prompt", "response_a", "response_b", "winner"), published.arena_texts),
    Format(
        "Arena votes",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        published.arena_texts,
    ),
    Format("TRL's unpaired preferences", ("prompt", "completion"), None),
    Format("TRL's unpaired preferences", ("messages", "completion"), None),
)

OWN_COLUMNS = ("prompt", "chosen", "rejected", "candidates", "right")

_RESPONSES = ("chosen", "rejected", "candidates")

NEAR = 2
"""A format is named as the nearest if a file has so many of its columns."""


@dataclass
class Reading:
    """What a file turned out to be; complete once every row was read."""

    source: str
    use: Use
    name: str = ""
    """Name of the format and its columns; "" for drsow's own."""
    n_read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that prefer no response, by reason."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows with a system prompt that is not read, by its column."""
    bad: list[UsageError] | None = None
    """What is wrong with each row that cannot be read; None: the first such row stops the reading."""

    @contextlib.contextmanager
    def listing_bad_rows(self) -> Iterator[None]:
        """Lists what is wrong with a row, if bad rows are listed."""
        try:
            yield
        except UsageError as error:
            if self.bad is None:
                raise
            self.bad.append(error)

    def told(self) -> str:
        """One line about what was recognised, left out and not read; "" if drsow's own columns are all there is."""
        if not self.name and not self.left_out and not self.unread:
            return ""
        words = f"{self.source}: " + (f"read as {self.name}; " if self.name else "")
        words += f"{self.use.value}: {self.n_read:,}"
        words += f"; left out: {self.reasons()}" if self.left_out else ""
        for column, n in self.unread.items():
            words += f"; column {column} of {n:,} rows is not read; its text belongs into a system turn of the prompt"
        return words

    def reasons(self) -> str:
        """The rows that are left out, by reason."""
        return ", ".join(f"{reason} {n:,}" for reason, n in self.left_out.items())


def examples_of(reading: Reading, rows: Iterable[Row]) -> Iterator[tuple[Row, Example]]:
    """The examples of a file with the row that each is from. Counts in `reading` what it yields and leaves out.

    Raises:
        UsageError: The columns fit no format or two, or a row is bad. The message names its line.
    """
    known: Format | None = None
    single: list[unpaired.Completion] = []
    for number, row in enumerate(rows):
        if number == 0:
            known = _recognised(row, reading.use)
            reading.name = str(known) if known else _own_name(row, reading.use)
        else:
            _check_format(row, known, reading.use)
        with reading.listing_bad_rows():
            if known is None:
                yield from _kept(reading, row, *_own(row, reading.use, of_others=bool(reading.name)))
            elif known.compared or reading.use is Use.prompts:
                yield from _kept(reading, row, *_published(row, known, reading.use))
            else:
                single.append(_completion(row, reading.use))
    for members in unpaired.groups(single):
        with reading.listing_bad_rows():
            yield from _kept(reading, members[0].row, *_of_group(members, reading.use))


def transcripts_of(reading: Reading, rows: Iterable[Row]) -> Iterator[tuple[Row, Example]]:
    """`examples_of` for rows whose conversations are transcripts."""
    for number, row in enumerate(rows):
        if number == 0 and "prompt" not in row.names:
            reading.name = "HH-RLHF (chosen, rejected)"
        yield from _kept(reading, row, *transcript(row))


def _kept(reading: Reading, row: Row, example: Example, reason: str) -> Iterator[tuple[Row, Example]]:
    # Candidates and prompts need no label, but a prompt without a common beginning is none.
    left_out = not example.right if reading.use is Use.preferences else reason == OTHER_TURNS
    if left_out:
        reading.left_out[reason] += 1
    else:
        reading.n_read += 1
        if column := published.unread_system(row, example.messages):
            reading.unread[column] += 1
        yield row, example


def _own(row: Row, use: Use, *, of_others: bool) -> tuple[Example, str]:
    """An example from a row with drsow's own columns, and why it has no label if it has none.

    In a format of others (`of_others`) two equal responses are no label. In a file of the user's own they are an error.
    """
    is_pair = of_others and _own_sides(row) and not has_lists(row)
    if use is Use.prompts and not is_pair:
        return own_prompt(row), ""
    if use is Use.candidates and not _own_sides(row):
        return candidates(row), ""
    if is_pair or (_own_sides(row) and published.scores_equal(row)):
        return _compared(row, published.named_pair(row), use)
    example = labelled(row)
    if use is Use.candidates:
        numbered = tuple((str(i), text) for i, (_, text) in enumerate(example.responses))
        return example._replace(responses=numbered, right=()), ""
    return example, ""


def _own_sides(row: Row) -> bool:
    """Whether a row has no list of candidates, but a chosen and a rejected response, or JudgeBench's two."""
    names = set(row.names)
    return "candidates" not in names and ({CHOSEN, REJECTED} <= names or set(JUDGE_BENCH) <= names)


def _published(row: Row, known: Format, use: Use) -> tuple[Example, str]:
    """An example from a row of a published format, and why it has no label if it has none."""
    if known.compared is None:
        return example_of(row, unpaired.completion(row).prompt, (), right=()), ""
    return _compared(row, known.compared(row), use)


def _compared(row: Row, found: Compared, use: Use) -> tuple[Example, str]:
    """An example from the responses of a row, and why it has no label if it has none."""
    if use is Use.prompts:
        return example_of(row, found.prompt, (), right=()), ""
    if use is Use.candidates or found.better is None:
        return _unlabelled(row, found), "" if found.better else found.reason
    chosen, rejected = (found.texts[i] for i in found.better)
    if chosen == rejected:
        return _unlabelled(row, found), EQUAL
    return example_of(row, found.prompt, ((CHOSEN, chosen), (REJECTED, rejected)), right=(CHOSEN,)), ""


def _unlabelled(row: Row, found: Compared) -> Example:
    responses = tuple((str(i), text) for i, text in enumerate(found.texts))
    return example_of(row, found.prompt, responses, right=())


def _completion(row: Row, use: Use) -> unpaired.Completion:
    return unpaired.labelled_completion(row) if use is Use.preferences else unpaired.completion(row)


def _of_group(members: Sequence[unpaired.Completion], use: Use) -> tuple[Example, str]:
    """An example from the rows of one prompt, and why it has no label if it has none."""
    return (unpaired.candidates_of(members), "") if use is Use.candidates else unpaired.preference_of(members)


def _recognised(row: Row, use: Use) -> Format | None:
    """The format that the columns of a file's first row fit; None for drsow's own."""
    names = set(row.names)
    fits = _fitting(names)
    if use is Use.prompts and "prompt" in names and len(fits) != 1:
        return None
    own = _is_own(names, fits)
    if own and all(each.name == "distilabel" for each in fits):
        # The last step of a distilabel pipeline writes chosen and rejected beside what it made them from.
        return None
    if len(fits) + own > 1:
        first, second, *_ = [*(f"drsow's own ({', '.join(_own_present(names))})" for _ in range(own)), *map(str, fits)]
        raise UsageError(
            f"{row.where}: its columns fit two formats, {first} and {second}; remove the columns of one of them"
        )
    if fits:
        return fits[0]
    if _is_nearly_own(names, use):
        return None
    raise UsageError(f"{row.where}: {_unknown(names)}")


def _check_format(row: Row, known: Format | None, use: Use) -> None:
    """Checks a later row, whose columns may differ from the first row's in a file of JSON objects."""
    names = set(row.names)
    fits = _fitting(names)
    if use is Use.prompts or known in fits or (known is None and _is_own(names, fits)):
        return
    # A row that fits no format lacks a column of the file's format, whose reader names it.
    if fits or (known and _is_own(names, [])):
        other = str(fits[0]) if fits else "drsow's own"
        raise UsageError(f"{row.where}: its columns are those of {other}; the first row has another format")


def _fitting(names: set[str]) -> list[Format]:
    return [each for each in FORMATS if set(each.columns) <= names]


def _is_own(names: set[str], fits: Sequence[Format]) -> bool:
    has_pair = {CHOSEN, REJECTED} <= names and ("prompt" in names or not fits)
    return has_pair or "candidates" in names or set(JUDGE_BENCH) <= names


def _is_nearly_own(names: set[str], use: Use) -> bool:
    """Whether the reader of drsow's own columns names best what is missing, or mistyped."""
    if _is_own(names, []) or not names - {"prompt", "id", "subset"} or (use is Use.prompts and "prompt" in names):
        return True
    return any(difflib.get_close_matches(name, names, n=1) for name in _RESPONSES)


def _own_present(names: Collection[str]) -> list[str]:
    return [name for name in OWN_COLUMNS if name in names]


def _own_name(row: Row, use: Use) -> str:
    """The name of a format of others that has drsow's own columns, "" for drsow's."""
    names = set(row.names)
    scores = [name for pair in published.SCORE_COLUMNS if set(pair) <= names for name in pair]
    columns = ", ".join([*_own_present(names), *scores])
    if not {CHOSEN, REJECTED} <= names:
        return ""
    if "score_chosen" in scores:
        return f"UltraFeedback's pairs ({columns})"
    if published.is_distilabel(names):
        return f"distilabel's pairs ({columns})"
    # One message or a list of them; a list of texts is a benchmark's. Prompts alone need no responses.
    turn = None if use is Use.prompts else row.value(CHOSEN)
    turn = turn[-1] if isinstance(turn, list) and turn else turn
    return f"TRL's conversations ({columns})" if isinstance(turn, dict) else ""


def _unknown(names: set[str]) -> str:
    """The message about columns that fit no format."""
    held = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
    near = max(FORMATS, key=lambda each: (len(names & set(each.columns)), -len(each.columns)))
    lacking = [name for name in near.columns if name not in names]
    words = f"; the nearest is {near.name}, which also needs {', '.join(lacking)}"
    known = ", ".join(dict.fromkeys(each.name for each in FORMATS))
    ask = f"; name them prompt, chosen and rejected, or as one of these has them: {known}"
    return f"its columns ({held}) fit no known format" + (words if len(names & set(near.columns)) >= NEAR else ask)
