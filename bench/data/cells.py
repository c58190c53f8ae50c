"""Parses text cells that contain a structure: a list of messages, a list of candidates, or a transcript.

CSV files and some parquet files have no column type for lists, so their cells spell lists as text.
"""

import ast
import io
import itertools
import json
import re
import tokenize
import warnings

SPEAKERS = ("system", "user", "assistant", "developer", "tool", "function", "human", "gpt")
"""Role names that identify a message. `rows.ROLES` are the supported ones."""

_REMEDY = (
    'write it as JSON, [{"role": "user", "content": "…"}]; an ordinary text can be the content of one such message'
)

_QUOTE = r"""\\?["']+"""
_RECORDS = re.compile(rf"""\s*"?(?:[\w.]{{0,20}}[\[(]\s*)*\{{\s*{_QUOTE}""")
"""Start of a list of records, as JSON writes it or as pandas and numpy print it: `[{"`, `array([{'`, `[{\\"`."""

_SPEAKER = re.compile(rf"{_QUOTE}(?:role|from){_QUOTE}\s*:\s*{_QUOTE}(?:{'|'.join(SPEAKERS)}){_QUOTE}")
"""A role field. A list of messages has one; other lists of records do not."""

_PIECES = {
    quotes: re.compile(
        "|".join([*(rf"{quote}(?:[^{quote}\\]|\\.)*(?:({quote})|\\?\Z)" for quote in quotes), r"[\[\](){}]"]), re.DOTALL
    )
    for quotes in ("\"'", '"', "'", "")
}
"""Quotation marks -> what finds the next text in such marks, or the next bracket. A group holds the mark that closes
the text; without one the text is open and reaches to the end."""

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
"""The header of a turn in a transcript."""


def messages_in(text: str) -> list | None:
    """Parses a text that spells a list of messages, without checking its items; None for any other text.

    A text in which words follow the list is an ordinary text.

    Raises:
        ValueError: The text looks like a list of messages but cannot be parsed, for example because it is cut off.
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
    raise ValueError(f"looks like a list of messages, but is neither valid JSON nor a printed Python list: {_REMEDY}")


def spelled(text: str) -> object:
    """Parses a text as JSON, or as a value exactly as Python prints it; None for any other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            # Python warns about an unknown escape sequence; Python never prints one, so the text is no printed value.
            warnings.simplefilter("error")
            value = ast.literal_eval(text.strip())
        return value if _is_printed(text.strip()) else None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def is_empty(value: object) -> bool:
    """Whether a value has no content: it is missing or blank, or it contains only such values."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, dict | list | tuple):
            values += value.values() if isinstance(value, dict) else value
        elif value is not None and value == value and not (isinstance(value, str) and not value.strip()):
            return False
    return True


def transcript_turns(text: str) -> tuple[list[tuple[str, str]], bool]:
    """Splits a transcript "Human: …\\n\\nAssistant: …" into turns.

    Returns:
        (role, text) of each turn, and whether the text ends with the header "Assistant:" of the next turn.

    Raises:
        ValueError: The text is no transcript, a turn is empty, or the last turn is not the person's.
    """
    before, found = _split(text)
    is_open = bool(found) and found[-1] == ("assistant", "")
    found = found[:-1] if is_open else found
    if before or not found or found[-1][0] != "user" or not all(text for _, text in found):
        raise ValueError('is no transcript "Human: …\\n\\nAssistant: …" whose last turn is the person\'s')
    return found, is_open


def answered_turns(text: str) -> tuple[list[tuple[str, str]], str]:
    """Splits a whole transcript "Human: …\\n\\nAssistant: …" into its turns before the last answer, and this answer.

    Raises:
        ValueError: The text is no transcript, a turn is empty, or it does not end on an answer to the person.
    """
    before, found = _split(text)
    ends_on_answer = [role for role, _ in found[-2:]] == ["user", "assistant"]
    if before or not ends_on_answer or not all(text for _, text in found):
        raise ValueError('is no transcript "Human: …\\n\\nAssistant: …" that ends on the assistant\'s answer')
    return found[:-1], found[-1][1]


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What is before the first header of a transcript, and the (role, text) of each turn, all stripped."""
    before, *turns = _TURN.split(text)
    roles = ["user" if speaker == "Human" else "assistant" for speaker in turns[::2]]
    return before.strip(), list(zip(roles, [turn.strip() for turn in turns[1::2]], strict=True))


def _speaks(value: dict | list | tuple) -> bool:
    """Whether a value is a message, or contains one in a list or a list of lists. The message may be malformed."""
    values = [value] if isinstance(value, dict) else value
    inner = [turn for item in values for turn in (item if isinstance(item, list | tuple) else [item])]
    return any(
        {"role", "content"} <= set(turn) or {"from", "value"} <= set(turn) or turn.get("role") in SPEAKERS
        for turn in inner
        if isinstance(turn, dict)
    )


def _ends_early(text: str) -> bool:
    """Whether text follows the bracket that closes the first opening bracket."""
    depth, at, quotes = 0, 0, "\"'"
    while piece := _PIECES[quotes].search(text, at):
        at = piece.end()
        if piece[0][0] in quotes and not piece.lastindex:
            # This mark opens nothing, and neither does a later one: the same text would follow it.
            at, quotes = piece.start() + 1, quotes.replace(piece[0][0], "")
            continue
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(piece[0], 0)
        if depth == 0 and piece[0] in "])}":
            return bool(text[piece.end() :].strip())
    return False


def _is_printed(text: str) -> bool:
    """Whether Python parsed the text without loss.

    Python drops comments and joins adjacent strings. numpy prints two strings as "'a' 'b'", which would become one.
    """
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kinds = [token.type for token in tokens if token.type != tokenize.NL]
    return tokenize.COMMENT not in kinds and (tokenize.STRING, tokenize.STRING) not in itertools.pairwise(kinds)
