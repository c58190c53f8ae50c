"""Puts a text before the prompts of a data set, such as the principle that one side of a pair of one model reads."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from bench.data.load import digest
from bench.schema import Dataset, Message

Told = tuple[str, str]
"""A text, and the role of the turn that gets it."""


def under(messages: tuple[Message, ...], text: str, *, turn: str) -> tuple[Message, ...]:
    """A conversation with `text` at the start of its first turn of the role `turn`; a system turn is the first turn."""
    at = next((i for i, message in enumerate(messages) if message.role == turn), None)
    if at is None or (turn == "system" and at > 0):
        return (Message(turn, text), *messages)
    content = "\n\n".join(part for part in (text, messages[at].content) if part)
    return (*messages[:at], Message(turn, content), *messages[at + 1 :])


def told(dataset: Dataset, texts: Mapping[str, Told], of_row: Sequence[str], *, name: str) -> Dataset:
    """A data set with a text before each prompt.

    Args:
        dataset: Rows without texts.
        texts: All texts that a prompt can get, by name.
        of_row: Name of the text of each row.
        name: Name of the change, `Dataset.domain`.

    Returns:
        The same rows under the same ids. `digest` covers the texts that the rows got, `domain_digest` all texts.
    """
    rows = tuple(
        example._replace(messages=under(example.messages, texts[row][0], turn=texts[row][1]))
        for example, row in zip(dataset.examples, of_row, strict=True)
    )
    words = hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()
    return dataset._replace(digest=digest(rows), examples=rows, domain=name, domain_digest=words)
