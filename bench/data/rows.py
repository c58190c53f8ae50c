"""Checks one row of a data set and turns it into an example. An error about a bad row names file, line and field."""

import difflib
import unicodedata
from collections.abc import Collection

from bench.data.cells import is_empty, messages_in, spelled
from bench.data.sources import Row
from bench.schema import CHOSEN, REJECTED, Example, Message

ROLES = ("system", "user", "assistant")

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs", "images", "image")
"""TRL's columns with what a chat template gets beside the messages, and so writes into the prompt."""

_EMPTY_TEXTS = ("[]", "{}", "null", "None")
"""What a cell of text holds that spells nothing."""

_NO_CONTENT = ("num_tokens",)
"""Keys of a message that no model reads; Arena's conversations have them."""

SHARE_GPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""Our role for what a message of ShareGPT has in `from`."""


def preference(row: Row) -> Example:
    prompt, chosen, rejected = sides(row)
    if chosen == rejected:
        raise row.error(REJECTED, "equal to chosen")
    return example_of(row, prompt, ((CHOSEN, chosen), (REJECTED, rejected)), right=(CHOSEN,))


def sides(row: Row) -> tuple[tuple[Message, ...], str, str]:
    """(turns of the prompt; text of chosen; text of rejected), which may be equal."""
    (chosen_head, chosen), (rejected_head, rejected) = (
        ((), text_of(row, field, row.value(field))) if _holds_a_message(row, field) else response_of(row, field)
        for field in (CHOSEN, REJECTED)
    )
    # A row without a prompt column may have whole conversations as chosen and rejected; they start with the prompt.
    head = chosen_head or rejected_head
    prompt = head if head and is_empty(row.value("prompt")) else turns_of(row, "prompt")
    # Published files give one user turn of the conversations as a text beside them: the instruction, or the first turn.
    if chosen_head == rejected_head and prompt != head and _is_one_turn_of(row, prompt, head):
        prompt = head
    for field, head in ((CHOSEN, chosen_head), (REJECTED, rejected_head)):
        if head and head != prompt:
            raise row.error(field, "its earlier turns differ from the prompt")
    return prompt, chosen, rejected


def _is_one_turn_of(row: Row, prompt: tuple[Message, ...], head: tuple[Message, ...]) -> bool:
    """Whether the prompt is a text, and one of the user turns of a conversation."""
    return prompt[0] in head and not isinstance(_unpacked(row, "prompt"), list)


def prompt(row: Row) -> Example:
    if is_empty(row.value("prompt")) and not is_empty(row.value(CHOSEN)):
        return example_of(row, sides(row)[0], (), right=())
    theirs = question_columns(row.names)
    cells = {our: row.cells.get(their) for our, their in theirs.items()}
    named = row._replace(cells={**row.cells, **cells}, names=(*row.names, *cells))
    return example_of(named, turns_of(row, theirs.get("prompt", "prompt")), (), right=())


def question_columns(names: Collection[str]) -> dict[str, str]:
    """Columns of the files of questions of Arena-Hard and AlpacaEval, by our names for them.

    A file with responses has none: its rows have the same ids, whatever is read from it.
    """
    if {CHOSEN, REJECTED, "candidates"} & set(names):
        return {}
    found = {"id": "uid"} if "uid" in names and "id" not in names else {}
    # Where `input` continues the instruction, as in Alpaca's own data, the instruction alone is no prompt.
    if "instruction" in names and not {"prompt", "input"} & set(names):
        found["prompt"] = "instruction"
        if "dataset" in names and "subset" not in names:
            found["subset"] = "dataset"
    return found


def candidates(row: Row) -> Example:
    texts = candidate_list(row)
    if len(texts) < 2:
        raise row.error("candidates", "must be a list of two or more texts")
    responses = tuple((str(i), text_of(row, f"candidates[{i}]", text)) for i, text in enumerate(texts))
    return example_of(row, turns_of(row, "prompt"), responses, right=())


def candidate_list(row: Row) -> list:
    """The row's list of candidates, whose items are not checked. A text that spells a list is parsed."""
    value = _required(row, "candidates")
    value = spelled(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    if not isinstance(value, list):
        raise row.error("candidates", 'must be a list of texts; a CSV cell holds it as JSON, ["…", "…"]')
    return value


def example_of(
    row: Row,
    prompt: tuple[Message, ...],
    responses: tuple[tuple[str, str], ...],
    *,
    right: tuple[str, ...],
) -> Example:
    """The example of a row, with its subset and id checked.

    Args:
        row: Has the subset and the id.
        prompt: The turns of the prompt.
        responses: (response_id, text), checked.
        right: response_ids of the right responses.
    """
    if prompt[-1].role == "assistant":
        raise row.error("prompt", "ends on an assistant turn")
    subset, row_id = _name(row, "subset", ""), _name(row, "id", row.number)
    if not row_id:
        raise row.error("id", "empty")
    return Example(example_id(subset, row_id), subset, prompt, responses, right)


def example_id(subset: str, row_id: str) -> str:
    """`subset/id`, or just the id if there is no subset. Different (subset, id) never give the same example_id.

    In the subset, "/" becomes "%2F" and "%" becomes "%25", so the first "/" always ends the subset. If an id contains
    "/" and has no subset, the example_id starts with "/".
    """
    if not subset and "/" not in row_id:
        return row_id
    return f"{subset.replace('%', '%25').replace('/', '%2F')}/{row_id}"


def own_id(example: Example) -> str:
    """The row's id in its source: the second argument that `example_id` got."""
    return example.example_id.partition("/")[2] or example.example_id


def check_template_columns(row: Row) -> None:
    """Refuses a row whose prompt needs more than its messages, because the models would read another prompt.

    Raises:
        UsageError: A column of TEMPLATE_COLUMNS has content.
    """
    for field in TEMPLATE_COLUMNS:
        value = row.value(field)
        if not is_empty(value) and not (isinstance(value, str) and value.strip() in _EMPTY_TEXTS):
            raise row.error(field, "would be lost: chat templates get the messages alone; empty it or remove the row")


def _required(row: Row, field: str) -> object:
    value = row.value(field)
    if value is not None and value == value:
        return value
    close = [] if field in row.names else difflib.get_close_matches(field, row.names, n=1)
    raise row.error(field, "missing" + (f", did you mean {close[0]!r}?" if close else ""))


def _unpacked(row: Row, field: str) -> object:
    """The value of a required column; a text that spells a list of messages is parsed."""
    value = _required(row, field)
    try:
        found = messages_in(value) if isinstance(value, str) else None
    except ValueError as error:
        raise row.error(field, str(error)) from None
    return value if found is None else found


def _holds_a_message(row: Row, field: str) -> bool:
    """Whether a response is an answer that spells one message: neither the prompt nor the other response does."""
    others = [messages_spelled(row, name) for name in ("prompt", CHOSEN, REJECTED) if name != field]
    return messages_spelled(row, field) is True and others == [False, False] and len(_messages(row, field)) == 1


def messages_spelled(row: Row, field: str) -> bool | None:
    """Whether a column has a text that spells a list of messages; None if it has no text."""
    return isinstance(_unpacked(row, field), list) if isinstance(row.value(field), str) else None


def _messages(row: Row, field: str) -> list:
    """The messages that a text of a column spells."""
    value = _unpacked(row, field)
    return value if isinstance(value, list) else []


def response_of(row: Row, field: str) -> tuple[tuple[Message, ...], str]:
    """(turns before the response, if any; text of the response), from a text, one message or a list of messages."""
    value = _unpacked(row, field)
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        return (), text_of(row, field, value)
    *head, last = _turns(row, field, value)
    if last.role != "assistant":
        raise row.error(field, "does not end on an assistant turn")
    return tuple(head), last.content


def turns_of(row: Row, field: str) -> tuple[Message, ...]:
    """The turns of a prompt: a text is one turn of the user."""
    value = _unpacked(row, field)
    if not isinstance(value, list):
        return (Message("user", text_of(row, field, value)),)
    return _turns(row, field, value)


def _turns(row: Row, field: str, value: list) -> tuple[Message, ...]:
    if not value:
        raise row.error(field, "empty")
    return tuple(_message(row, f"{field}[{i}]", turn) for i, turn in enumerate(value))


def _message(row: Row, field: str, turn: object) -> Message:
    """A message with role and content, or ShareGPT's with from and value."""
    keys = set(turn) if isinstance(turn, dict) else set()
    speaker, text = ("from", "value") if {"from", "value"} <= keys and "role" not in keys else ("role", "content")
    if not isinstance(turn, dict) or not {speaker, text} <= keys:
        raise row.error(field, "not a message with role and content")
    role, content = turn[speaker], _only_text(turn[text])
    known = SHARE_GPT_ROLES if speaker == "from" else dict(zip(ROLES, ROLES, strict=True))
    if not isinstance(role, str) or role not in known:
        raise row.error(f"{field}.{speaker}", f"unknown role {role!r:.40} (known: {', '.join(known)})")
    read = (speaker, text, *_NO_CONTENT)
    if more := [name for name, value in turn.items() if name not in read and not is_empty(value)]:
        raise row.error(field, f"{more[0]!r} would be lost: only {speaker} and {text} are read")
    if known[role] == "system" and content == "":
        return Message("system", "")
    return Message(known[role], text_of(row, f"{field}.{text}", content))


def _only_text(content: object) -> object:
    """The text of a content that is a list with one part, a text; any other content as it is."""
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return content
    part = content[0]
    more = [name for name, value in part.items() if name not in ("type", "text") and not is_empty(value)]
    return part["text"] if part.get("type") == "text" and "text" in part and not more else content


def text_of(row: Row, field: str, value: object) -> str:
    """A value of a row as a text with content."""
    if value is None:
        raise row.error(field, "missing")
    if not isinstance(value, str):
        raise row.error(field, f"must be text, is {type(value).__name__}")
    if not value.strip():
        raise row.error(field, "only whitespace" if value else "empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise row.error(field, "contains half of a surrogate pair, which is not valid text") from error
    return value


def _name(row: Row, field: str, default: str | int) -> str:
    value = row.value(field) if field in row.names else default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(field, "missing" if value is None else f"must be text or a whole number, is {value!r:.40}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(value)):
        raise row.error(field, "contains control characters")
    return str(value)
