"""Reads TRL's unpaired preferences: a row has one response, and the rows of one prompt belong together."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.data.published import BOTH_LABELS, ONE_LABEL
from bench.data.rows import example_of, response_of, turns_of
from bench.data.sources import Row
from bench.schema import CHOSEN, REJECTED, Example, Message


class Completion(NamedTuple):
    """A row of TRL's unpaired preferences: one response."""

    row: Row
    prompt: tuple[Message, ...]
    text: str
    label: bool | None
    """Whether the response is a good one; None if the row does not say it."""


def completion(row: Row) -> Completion:
    """A prompt (or messages), one completion, and whether it is a good one."""
    prompt = turns_of(row, "messages" if "messages" in row.names else "prompt")
    head, text = response_of(row, "completion")
    if head and head != prompt:
        raise row.error("completion", "its earlier turns differ from the prompt")
    if "label" not in row.names:
        return Completion(row, prompt, text, None)
    labels = {"true": True, "1": True, "false": False, "0": False}
    value = row.value("label")
    if str(value).lower() not in labels:
        raise row.error("label", f"must be true or false, is {value!r:.40}")
    return Completion(row, prompt, text, labels[str(value).lower()])


def labelled_completion(row: Row) -> Completion:
    """`completion` of a row that must have a label."""
    found = completion(row)
    if found.label is None:
        raise row.error("label", "missing: one response alone is no preference")
    return found


def groups(found: Iterable[Completion]) -> list[list[Completion]]:
    """The rows of each prompt and subset, in the order of their first rows."""
    members: dict[tuple, list[Completion]] = {}
    for each in found:
        members.setdefault((each.prompt, str(each.row.value("subset"))), []).append(each)
    return list(members.values())


def candidates_of(members: Sequence[Completion]) -> Example:
    """The responses to one prompt, without labels; the first row names the example."""
    row, prompt, *_ = members[0]
    if len(members) < 2:
        raise row.error("completion", "no other row has this prompt, and it takes two or more responses")
    return example_of(row, prompt, tuple((str(i), each.text) for i, each in enumerate(members)), right=())


def preference_of(members: Sequence[Completion]) -> tuple[Example, str]:
    """The responses to one prompt with the right ones, and why there are none if there are none."""
    row, prompt, *_ = members[0]
    good, bad = ([each.text for each in members if each.label is label] for label in (True, False))
    if not good or not bad:
        return example_of(row, prompt, (), right=()), ONE_LABEL
    if set(good) & set(bad):
        return example_of(row, prompt, (), right=()), BOTH_LABELS
    if len(good) == len(bad) == 1:
        return example_of(row, prompt, ((CHOSEN, good[0]), (REJECTED, bad[0])), right=(CHOSEN,)), ""
    named = [(f"{side}-{i}", text) for side, texts in ((CHOSEN, good), (REJECTED, bad)) for i, text in enumerate(texts)]
    return example_of(row, prompt, tuple(named), right=tuple(name for name, _ in named[: len(good)])), ""
