"""Turns the rows of a file into examples, in whichever format they are, and counts what is left out.

Preferences, prompts and candidates of a format come from one reader.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.data import published, unpaired
from bench.data.formats import Format, Use, check_format, own_name, own_sides, recognised
from bench.data.labelled import has_lists, labelled
from bench.data.labelled import prompt as own_prompt
from bench.data.published import EQUAL, OTHER_TURNS, Compared
from bench.data.rows import candidates, check_template_columns, example_of
from bench.data.sources import Row
from bench.data.transcripts import transcript
from bench.schema import CHOSEN, REJECTED, Example, UsageError
from bench.units import tally


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
        words += f"; left out: {tally(self.left_out)}" if self.left_out else ""
        for column, n in self.unread.items():
            words += f"; column {column} of {n:,} rows is not read; its text belongs in a system turn of the prompt"
        return words


def examples_of(reading: Reading, rows: Iterable[Row]) -> Iterator[tuple[Row, Example]]:
    """The examples of a file with the row that each is from. Counts in `reading` what it yields and leaves out.

    Raises:
        UsageError: The columns fit no format or two, or a row is bad. The message names its line.
    """
    known: Format | None = None
    single: list[unpaired.Completion] = []
    for number, row in enumerate(rows):
        if number == 0:
            known = recognised(row, reading.use)
            reading.name = str(known) if known else own_name(row, reading.use)
        else:
            check_format(row, known, reading.use)
        with reading.listing_bad_rows():
            check_template_columns(row)
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
        check_template_columns(row)
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
    is_pair = of_others and own_sides(row) and not has_lists(row)
    if use is Use.prompts and not is_pair:
        return own_prompt(row), ""
    if use is Use.candidates and not own_sides(row):
        return candidates(row), ""
    if is_pair or (own_sides(row) and published.scores_equal(row)):
        return _compared(row, published.named_pair(row), use)
    example = labelled(row)
    if use is Use.candidates:
        numbered = tuple((str(i), text) for i, (_, text) in enumerate(example.responses))
        return example._replace(responses=numbered, right=()), ""
    return example, ""


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
    return example_of(row, found.prompt, responses, right=())._replace(scores=found.scores)


def _completion(row: Row, use: Use) -> unpaired.Completion:
    return unpaired.labelled_completion(row) if use is Use.preferences else unpaired.completion(row)


def _of_group(members: Sequence[unpaired.Completion], use: Use) -> tuple[Example, str]:
    """An example from the rows of one prompt, and why it has no label if it has none."""
    return (unpaired.candidates_of(members), "") if use is Use.candidates else unpaired.preference_of(members)
