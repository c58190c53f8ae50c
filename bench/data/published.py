"""Reads one row of the formats in which preferences are published: which responses, and which of them is better.

`formats` recognises the format of a file by its columns. Each function here reads a row of one format.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from bench.data.cells import is_empty, spelled
from bench.data.rows import response_of, sides, text_of, turns_of
from bench.data.sources import Row
from bench.schema import CHOSEN, REJECTED, Message, UsageError

TIES = "ties"
EQUAL = "rows whose two responses are equal"
OTHER_TURNS = "conversations whose earlier answers differ"
ONE_LABEL = "prompts whose responses all have one label"
BOTH_LABELS = "prompts with a response under both labels"
"""Why a row has no better response, as the command counts it."""

SYSTEM_COLUMNS = ("system_prompt", "system")
"""Columns with the system prompt of a row."""

STRENGTH = 3
"""HelpSteer's strengths run from -3 (the first response is much better) to 3 (the second is)."""

_SIDES = {"a": 0, "b": 1}
_TURN_MARK = re.compile(r"\n?<extra_id_1>(Assistant|User)\n")
"""HelpSteer 2 writes the later turns of a prompt behind this mark."""


class Better(NamedTuple):
    """Positions of the best and of the worst response."""

    best: int
    worst: int


class Compared(NamedTuple):
    """The responses of a row, in the order of the row."""

    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    better: Better | None
    """None if the row prefers neither."""
    reason: str = TIES
    """Why `better` is None."""
    scores: tuple[float, ...] = ()
    """The score of each response, if the row has them."""


def ultra_feedback(row: Row) -> Compared:
    """UltraFeedback: an instruction, and completions with an `overall_score`."""
    found = _list(row, "completions")
    texts, scores = [], []
    for number, each in enumerate(found):
        place = f"completions[{number}]"
        if not isinstance(each, dict):
            raise row.error(place, "must be an object with response and overall_score")
        texts.append(text_of(row, f"{place}.response", each.get("response")))
        scores.append(_number(row, f"{place}.overall_score", each.get("overall_score")))
    return _by_score(row, turns_of(row, "instruction"), texts, scores, field="completions")


def distilabel(row: Row) -> Compared:
    """distilabel: an instruction, generations, and a rating of each; older versions say input and rating."""
    prompt, ratings = ("instruction", "ratings") if "instruction" in row.names else ("input", "rating")
    texts = [text_of(row, f"generations[{i}]", text) for i, text in enumerate(_list(row, "generations"))]
    scores = [_number(row, f"{ratings}[{i}]", value) for i, value in enumerate(_list(row, ratings))]
    if len(scores) != len(texts):
        raise row.error(ratings, f"has {len(scores)} numbers for {len(texts)} generations")
    return _by_score(row, _with_system(row, turns_of(row, prompt)), texts, scores, field="generations")


def rated_responses(row: Row) -> Compared:
    """distilabel's older pairs: chosen_response and rejected_response, which may have equal ratings."""
    prompt = turns_of(row, "instruction" if "instruction" in row.names else "prompt")
    texts = [text_of(row, name, row.value(name)) for name in ("chosen_response", "rejected_response")]
    return Compared(_with_system(row, prompt), tuple(texts), None if scores_equal(row) else Better(0, 1))


def help_steer(row: Row) -> Compared:
    """HelpSteer 2 and 3: two responses, and by how much the second is better."""
    if "response1" in row.names:
        fields, strength, prompt = ("response1", "response2"), "overall_preference", turns_of(row, "context")
    else:
        fields, strength, prompt = ("response_1", "response_2"), "preference_strength", _marked_turns(row)
    texts = tuple(text_of(row, name, row.value(name)) for name in fields)
    value = _number(row, strength, row.value(strength))
    if abs(value) > STRENGTH:
        raise row.error(strength, f"must be from -{STRENGTH} (the first is better) to {STRENGTH}, is {value:g}")
    return Compared(prompt, texts, None if value == 0 else Better(0, 1) if value < 0 else Better(1, 0))


def share_gpt(row: Row) -> Compared:
    """ShareGPT: the turns of the prompt in `conversations`, and a chosen and a rejected answer."""
    prompt = _with_system(row, turns_of(row, "conversations"))
    texts = []
    for field in (CHOSEN, REJECTED):
        head, text = response_of(row, field)
        if head and head != prompt:
            raise row.error(field, "its earlier turns differ from conversations")
        texts.append(text)
    return Compared(prompt, tuple(texts), Better(0, 1))


def arena(row: Row) -> Compared:
    """Votes of Chatbot Arena: two whole conversations, and who won."""
    better = _winner(row)
    (first, one), (second, other) = (_conversation(row, field) for field in ("conversation_a", "conversation_b"))
    if first != second:
        return Compared(first, (one, other), None, OTHER_TURNS)
    return Compared(first, (one, other), better)


def arena_texts(row: Row) -> Compared:
    """Votes of Chatbot Arena: a prompt and two responses, or the lists of turns that its table has."""
    better = _winner(row)
    fields = ("prompt", "response_a", "response_b")
    if "winner_tie" not in row.names and not all(isinstance(_parsed(row.value(field)), list) for field in fields):
        texts = tuple(text_of(row, field, row.value(field)) for field in fields[1:])
        return Compared(turns_of(row, "prompt"), texts, better)
    turns = [[text_of(row, f"{field}[{i}]", text) for i, text in enumerate(_list(row, field))] for field in fields]
    for field, texts_of_turns in zip(fields, turns, strict=True):
        if len(texts_of_turns) != len(turns[0]) or not texts_of_turns:
            raise row.error(field, f"has {len(texts_of_turns)} turns, the prompt has {len(turns[0])}")
    users, first, second = turns
    prompt = _interleaved(users, first)
    texts = (first[-1], second[-1])
    if first[:-1] != second[:-1]:
        return Compared(prompt, texts, None, OTHER_TURNS)
    return Compared(prompt, texts, better)


def named_pair(row: Row) -> Compared:
    """A pair in drsow's own columns, which may have scores: prompt, chosen and rejected."""
    prompt, *texts = sides(row)
    prompt = _with_system(row, prompt) if is_distilabel(row.names) else prompt
    return Compared(prompt, tuple(texts), None if scores_equal(row) else Better(0, 1))


def is_distilabel(names: Collection[str]) -> bool:
    """Whether columns beside chosen and rejected are those of distilabel: the generations, or the ratings of both."""
    return "generations" in names or any(set(pair) <= set(names) for pair in SCORE_COLUMNS[1:])


def scores_equal(row: Row) -> bool:
    """Whether a row gives chosen and rejected the same score, and so prefers neither."""
    for one, other in SCORE_COLUMNS:
        if {one, other} <= set(row.names):
            values = [row.value(name) for name in (one, other)]
            if not any(is_empty(value) for value in values):
                return _number(row, one, values[0]) == _number(row, other, values[1])
    return False


SCORE_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
"""Columns with the scores of chosen and rejected: in UltraFeedback's pairs, and in distilabel's."""


def _by_score(
    row: Row, prompt: tuple[Message, ...], texts: Sequence[str], scores: Sequence[float], *, field: str
) -> Compared:
    """The best and the worst by score; of equal ones the first in the row."""
    if len(texts) < 2:
        raise row.error(field, f"must have two or more responses, has {len(texts)}")
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    better = None if scores[best] == scores[worst] else Better(best, worst)
    return Compared(prompt, tuple(texts), better, scores=tuple(scores))


def _parsed(value: object) -> object:
    """A value; of a text, what it spells."""
    return spelled(value) if isinstance(value, str) else value


def _list(row: Row, field: str) -> list[object]:
    """The value of a column that holds a list; a text that spells a list is parsed."""
    value = _parsed(row.value(field))
    if not isinstance(value, list):
        raise row.error(field, "missing" if value is None else "must be a list; a CSV cell holds it as JSON")
    return value


def _number(row: Row, field: str, value: object) -> float:
    """A value as a finite number; a CSV cell spells it."""
    if is_empty(value):
        raise row.error(field, "missing")
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise row.error(field, f"must be a number, is {value!r:.40}")
    return number


def _with_system(row: Row, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt behind the system turn that another column holds, if it holds one."""
    for field in SYSTEM_COLUMNS:
        if not is_empty(row.value(field)) and prompt[0].role != "system":
            return (Message("system", text_of(row, field, row.value(field))), *prompt)
    return prompt


def unread_system(row: Row, prompt: tuple[Message, ...]) -> str:
    """The column with a system prompt that the prompt does not have; "" if there is none."""
    for field in SYSTEM_COLUMNS:
        try:
            value = row.value(field)
        except UsageError:
            # The column is not needed, so it may hold what cannot be read.
            continue
        if isinstance(value, str) and value.strip() and prompt[0].role != "system":
            return field
    return ""


def _marked_turns(row: Row) -> tuple[Message, ...]:
    """The turns of HelpSteer 2's prompt."""
    prompt = turns_of(row, "prompt")
    if len(prompt) != 1 or not _TURN_MARK.search(prompt[0].content):
        return prompt
    first, *rest = _TURN_MARK.split(prompt[0].content)
    turns = [("User", first), *zip(rest[::2], rest[1::2], strict=True)]
    return tuple(
        Message(speaker.lower(), text_of(row, f"prompt, turn {i}", text)) for i, (speaker, text) in enumerate(turns, 1)
    )


def _conversation(row: Row, field: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the last answer, and this answer."""
    head, text = response_of(row, field)
    if not head:
        raise row.error(field, "must be a list of messages that ends on the assistant's answer to a prompt")
    return head, text


def _interleaved(users: Sequence[str], answers: Sequence[str]) -> tuple[Message, ...]:
    """The turns before the last answer."""
    both = zip(users, answers, strict=True)
    turns = [turn for user, answer in both for turn in (Message("user", user), Message("assistant", answer))]
    return tuple(turns[:-1])


def _winner(row: Row) -> Better | None:
    """The positions of winner and loser, None for a tie."""
    if "winner_model_a" in row.names:
        columns = ("winner_model_a", "winner_model_b", "winner_tie")
        votes = [_number(row, name, row.value(name)) for name in columns]
        if sorted(votes) != [0, 0, 1]:
            raise row.error("winner_model_a", f"exactly one of {', '.join(columns)} must be 1")
        side = votes.index(1)
        return None if side == len(_SIDES) else Better(side, 1 - side)
    value = row.value("winner")
    word = value.strip().lower() if isinstance(value, str) else ""
    if re.fullmatch(r"tie( ?\(.*\))?|both_?bad", word):
        return None
    name = word.removeprefix("model_").removeprefix("response_").removeprefix("conversation_")
    if name not in _SIDES:
        raise row.error("winner", f"must be model_a, model_b, tie or tie (bothbad), is {value!r:.40}")
    return Better(_SIDES[name], 1 - _SIDES[name])
