"""Reads preferences whose conversations are transcripts "Human: …\\n\\nAssistant: …", as in HH-RLHF."""

from bench.data.cells import answered_turns, is_empty, transcript_turns
from bench.data.published import EQUAL, OTHER_TURNS
from bench.data.rows import example_of, preference, text_of
from bench.data.sources import Row
from bench.schema import CHOSEN, REJECTED, Example, Message

Turns = tuple[Message, ...]


def transcript(row: Row) -> tuple[Example, str]:
    """An example from a row with transcripts, and why it has no label if it has none.

    The prompt is a transcript and the responses are texts. Without a prompt, as HH-RLHF is published, the responses are
    whole transcripts.
    """
    if not is_empty(row.value("prompt")):
        return _prompted(row), ""
    (turns, chosen), (others, rejected) = _answered(row, CHOSEN), _answered(row, REJECTED)
    reason = OTHER_TURNS if turns != others else EQUAL if chosen == rejected else ""
    responses = ((CHOSEN, chosen), (REJECTED, rejected))
    return example_of(row, turns, responses, right=() if reason else (CHOSEN,)), reason


def _prompted(row: Row) -> Example:
    example = preference(row)
    try:
        turns, is_open = transcript_turns(example.messages[0].content if len(example.messages) == 1 else "")
    except ValueError as error:
        raise row.error("prompt", str(error)) from None
    # After an open header "Assistant:" each response is a turn, so it is stripped like every other turn.
    responses = tuple((name, text.strip() if is_open else text) for name, text in example.responses)
    if responses[0][1] == responses[1][1]:
        raise row.error(REJECTED, "equal to chosen")
    return example._replace(messages=tuple(Message(*turn) for turn in turns), responses=responses)


def _answered(row: Row, field: str) -> tuple[Turns, str]:
    """The turns of a whole transcript before its last answer, and this answer."""
    try:
        turns, answer = answered_turns(text_of(row, field, row.value(field)))
    except ValueError as error:
        raise row.error(field, f"{error}, and the row has no prompt") from None
    return tuple(Message(*turn) for turn in turns), answer
