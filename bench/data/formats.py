"""Recognises the format of a file of preferences by its columns.

drsow's own columns are prompt, chosen and rejected; candidates; and the benchmarks'. Every other format is one entry of
FORMATS, whose rows `published` or `unpaired` reads.
"""

import contextlib
import difflib
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import NamedTuple

from bench.data import published
from bench.data.published import Compared
from bench.data.rows import messages_spelled, question_columns
from bench.data.sources import JUDGE_BENCH, Row
from bench.schema import CHOSEN, REJECTED, UsageError


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


def recognised(row: Row, use: Use) -> Format | None:
    """The format that the columns of a file's first row fit; None for drsow's own."""
    names = set(row.names)
    fits = _fitting(names)
    if use is Use.prompts and ("prompt" in {*names, *question_columns(names)}) and len(fits) != 1:
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
    raise UsageError(f"{row.where}: {_unknown(names, use)}")


def check_format(row: Row, known: Format | None, use: Use) -> None:
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


def own_name(row: Row, use: Use) -> str:
    """The name of a format of others that has drsow's own columns, "" for drsow's."""
    names = set(row.names)
    scores = [name for pair in published.SCORE_COLUMNS if set(pair) <= names for name in pair]
    columns = ", ".join([*_own_present(names), *scores])
    if use is Use.prompts and (theirs := question_columns(names)):
        board = "AlpacaEval" if "prompt" in theirs else "Arena-Hard"
        return f"{board}'s questions ({', '.join([*_own_present(names), *theirs.values()])})"
    if not {CHOSEN, REJECTED} <= names:
        return ""
    if "score_chosen" in scores:
        return f"UltraFeedback's pairs ({columns})"
    if published.is_distilabel(names):
        return f"distilabel's pairs ({columns})"
    # Prompts alone need no responses.
    return f"TRL's conversations ({columns})" if use is not Use.prompts and _has_messages(row) else ""


def _has_messages(row: Row) -> bool:
    """Whether the responses are messages: one, a list of them, or texts that spell lists of them."""
    turn = row.value(CHOSEN)
    turn = turn[-1] if isinstance(turn, list) and turn else turn
    # What is wrong with a row is said when it is read. A list of texts is a benchmark's.
    with contextlib.suppress(UsageError):
        return isinstance(turn, dict) or all(messages_spelled(row, field) for field in (CHOSEN, REJECTED))
    return False


def own_sides(row: Row) -> bool:
    """Whether a row has no list of candidates, but a chosen and a rejected response, or JudgeBench's two."""
    names = set(row.names)
    return "candidates" not in names and ({CHOSEN, REJECTED} <= names or set(JUDGE_BENCH) <= names)


def _unknown(names: set[str], use: Use) -> str:
    """The message about columns that fit no format."""
    held = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
    if use is Use.prompts:
        return f"its columns ({held}) fit no known format; if one of them has the prompts, name it prompt"
    near = max(FORMATS, key=lambda each: (len(names & set(each.columns)), -len(each.columns)))
    lacking = [name for name in near.columns if name not in names]
    words = f"; the nearest is {near.name}, which also needs {', '.join(lacking)}"
    known = ", ".join(dict.fromkeys(each.name for each in FORMATS))
    ask = f"; name them prompt, chosen and rejected, or as one of these has them: {known}"
    return f"its columns ({held}) fit no known format" + (words if len(names & set(near.columns)) >= NEAR else ask)
