"""What a text in a table says, where the table has no lists: messages, candidates, the turns of a transcript."""

import ast
import io
import itertools
import json
import re
import tokenize
import warnings

SPEAKERS = ("system", "user", "assistant", "developer", "tool", "function", "human", "gpt")
"""Roles by which a message is known, whether they are read or not."""

_REMEDY = (
    'write it as JSON, [{"role": "user", "content": "…"}]; a text that is meant so stands as the content of one message'
)

_QUOTE = r"""\\?["']+"""
_RECORDS = re.compile(rf"""\s*"?(?:[\w.]{{0,20}}[\[(]\s*)*\{{\s*{_QUOTE}""")
"""How a list of records begins, as JSON writes it or pandas and numpy print it: `[{"`, `array([{'`, `[{\\"`."""

_SPEAKER = re.compile(rf"{_QUOTE}(?:role|from){_QUOTE}\s*:\s*{_QUOTE}(?:{'|'.join(SPEAKERS)}){_QUOTE}")
"""What a list of messages holds and another list of records does not."""

_PIECES = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\[\](){}]""", re.DOTALL)
"""Quoted texts and brackets."""

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
"""The header of a turn in a transcript."""


def messages_in(text: str) -> list | None:
    """The list of messages that a text spells, its items unchecked; None for any other text.

    Words that only begin with such a list are a text.

    Raises:
        ValueError: The text looks like a list of messages and is none, or is cut off.
    """
    if not _RECORDS.match(text):
        return None
    value = spelled(text)
    if isinstance(value, list | tuple):
        return list(value) if _speaks(value) else None
    if isinstance(value, dict) and _speaks(value):
        raise ValueError(f"is one message, not a list of them: {_REMEDY}")
    if isinstance(value, dict) or not _SPEAKER.search(text) or _ends_early(text):
        return None
    raise ValueError(f"looks like a list of messages, but is neither JSON nor what Python prints for one: {_REMEDY}")


def spelled(text: str) -> object:
    """The value that a text spells as JSON, or exactly as Python prints it; None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            # An escape that Python does not know is a warning, and nothing that Python printed.
            warnings.simplefilter("error")
            value = ast.literal_eval(text.strip())
        return value if _is_printed(text.strip()) else None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def is_empty(value: object) -> bool:
    """Whether leaving a value out loses nothing: it is missing, blank, or holds such values alone."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, dict | list | tuple):
            values += value.values() if isinstance(value, dict) else value
        elif value is not None and value == value and not (isinstance(value, str) and not value.strip()):
            return False
    return True


def transcript_turns(text: str) -> tuple[list[tuple[str, str]], bool]:
    """The turns of "Human: …\\n\\nAssistant: …", whose last is the person's.

    Returns:
        (role, text) of each turn, and whether the header "Assistant:" of the next one ends the text.

    Raises:
        ValueError: The text is no transcript, a turn is empty, or the last one is not the person's.
    """
    before, *turns = _TURN.split(text)
    roles = ["user" if speaker == "Human" else "assistant" for speaker in turns[::2]]
    texts = [turn.strip() for turn in turns[1::2]]
    is_open = bool(texts) and (roles[-1], texts[-1]) == ("assistant", "")
    found = list(zip(roles, texts, strict=True))[: -1 if is_open else None]
    if before.strip() or not found or found[-1][0] != "user" or not all(text for _, text in found):
        raise ValueError('is no transcript "Human: …\\n\\nAssistant: …" that ends on a turn of the person')
    return found, is_open


def _speaks(value: object) -> bool:
    """Whether a value is a message, well formed or not, or a list, or a list of lists, that holds one."""
    values = [value] if isinstance(value, dict) else value
    inner = [turn for item in values for turn in (item if isinstance(item, list | tuple) else [item])]
    return any(
        {"role", "content"} <= set(turn) or {"from", "value"} <= set(turn) or turn.get("role") in SPEAKERS
        for turn in inner
        if isinstance(turn, dict)
    )


def _ends_early(text: str) -> bool:
    """Whether words follow behind the bracket that closes the first one."""
    depth = 0
    for piece in _PIECES.finditer(text):
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(piece[0], 0)
        if depth == 0 and piece[0] in "])}":
            return bool(text[piece.end() :].strip())
    return False


def _is_printed(text: str) -> bool:
    """Whether reading lost nothing: Python drops comments, and joins "'a' 'b'", which is how numpy prints two texts."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kinds = [token.type for token in tokens if token.type != tokenize.NL]
    return tokenize.COMMENT not in kinds and (tokenize.STRING, tokenize.STRING) not in itertools.pairwise(kinds)
