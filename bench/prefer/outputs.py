"""Writes a model's responses in the formats that AlpacaEval 2 and Arena-Hard judge."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from bench.data.rows import own_id
from bench.schema import Example, UsageError

OUTPUT = ("instruction", "output", "generator", "dataset")
"""The keys of an object of AlpacaEval's model_outputs.json."""

ANSWER = ("uid", "ans_id", "model", "messages")
"""The keys of a line of Arena-Hard's answers."""


def alpaca_eval(examples: Sequence[Example], texts: Mapping[str, str], *, generator: str) -> bytes:
    """AlpacaEval's model_outputs.json: a list of objects with the keys OUTPUT.

    Args:
        examples: Prompts of one user turn each.
        texts: Responses by example_id.
        generator: The model's name on the leaderboard.

    Raises:
        UsageError: a prompt has several turns.
    """
    rows = [dict(zip(OUTPUT, (_question(e), texts[e.example_id], generator, e.subset), strict=True)) for e in examples]
    return (json.dumps(rows, ensure_ascii=False, indent=2) + "\n").encode()


def arena_hard(examples: Sequence[Example], texts: Mapping[str, str], *, generator: str) -> bytes:
    """Arena-Hard-Auto's answers, one per line: ANSWER.

    The uid is the prompt's id in its source file, without the subset. Arena-Hard's judge reads only model and
    messages. Its script add_markdown_info.py adds the lengths that its style control needs. Arguments are those of
    `alpaca_eval`.

    Raises:
        UsageError: a prompt has several turns, or two prompts have one id.
    """
    lines = []
    owners: dict[str, Example] = {}
    for example in examples:
        uid = own_id(example)
        if (other := owners.setdefault(uid, example)) is not example:
            raise UsageError(
                f"{other.example_id} and {example.example_id}: Arena-Hard knows an answer by its prompt's id alone, "
                f"and both have the id {uid!r}; give each prompt an id of its own"
            )
        answer = {"role": "assistant", "content": {"answer": texts[example.example_id]}}
        ans_id = hashlib.sha256(f"{generator} {uid}".encode()).hexdigest()[:22]
        messages = [{"role": "user", "content": _question(example)}, answer]
        lines.append(dict(zip(ANSWER, (uid, ans_id, generator, messages), strict=True)))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def _question(example: Example) -> str:
    if [message.role for message in example.messages] != ["user"]:
        raise UsageError(
            f"{example.example_id}: AlpacaEval and Arena-Hard need prompts of one user turn, and this is not one"
        )
    return example.messages[0].content
