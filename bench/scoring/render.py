"""Turns messages and responses into token ids, and determines which tokens belong to the response.

The rule (`scoring.SPAN`): The rendered prompt, with its generation header, is encoded alone, as for generation. Then
prompt and response are encoded together. If the result starts with the prompt's ids, the remaining ids are the
response's. Otherwise the response is encoded alone, and `Rendered` counts it. One end-of-turn token follows as an id,
so that no text can merge with it. If a response ends in end-of-turn text, that text is removed, and the response is
counted. Only the template's owner decides which text that is, so that both models of a pair read the same text.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Set
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from bench.schema import DrsowError, Example, Message, UsageError
from bench.scoring.added import added
from bench.scoring.chat import Template, adds_bos, first_line

_MARK, _AT_ONCE = "drsow's mark of a turn", 1000


class Sequence(NamedTuple):
    """The token ids of one prompt with one response, for one model."""

    example_id: str
    response_id: str
    ids: np.ndarray
    """Prompt, response and end-of-turn token ids, (n,), int32."""
    start: int
    """Index in `ids` of the response's first token, at least 1."""
    n_bytes: int
    """Number of UTF-8 bytes of `text`."""
    text: str
    """The response as the template renders it."""


class Rendered(NamedTuple):
    """Sequences in the order of the examples, and numbers of special cases."""

    sequences: list[Sequence]
    n_start_fallback: int
    """Responses encoded alone, because a token of the joint encoding crosses the boundary of prompt and response."""
    n_trimmed: int
    """Responses whose outer whitespace the template removed."""
    n_system_merged: int
    """Examples whose system turn went into the first user turn, because the template supports no system role."""
    n_end_cut: int
    """Responses that ended in end-of-turn text of the template or its owner, which was removed."""
    n_end_kept: int
    """Responses that end in the text of another end token of this model, so the model reads two ends."""
    n_same_ids: int
    """Examples with a right and a wrong response that differ as texts, but not as token ids of this model: a tie."""
    n_special_text: int
    """Examples whose prompt or responses contain the text of a special token of the model or of the template's owner.
    A model reads such text as that token."""

    def counts(self) -> dict[str, int]:
        """All fields except the sequences, by name."""
        return {name: value for name, value in self._asdict().items() if name != "sequences"}

    def lines(self) -> list[str]:
        """One sentence about each special case that the user should know."""
        said = {
            "n_system_merged": "examples have a system turn, which the chat template does not support: drsow moved it "
            "into the first user turn",
            "n_end_cut": "responses end in end-of-turn text: drsow removed it, so one end of turn is scored",
            "n_end_kept": "responses end in the text of this model's own end token, which the chat template does not "
            "use: drsow kept the text, so two ends of turn are scored",
            "n_same_ids": "examples have a right and a wrong response that are the same tokens: a tie, which is wrong",
            "n_special_text": "examples contain the text of special tokens, which a model reads as those tokens",
        }
        return [f"{value} {said[name]}" for name, value in self.counts().items() if value and name in said]


def end_id(tokenizer: PreTrainedTokenizerFast, template: Template) -> int:
    """The template's end-of-turn token if this tokenizer has it as one special token, else the tokenizer's EOS."""
    ids = added(tokenizer).ids
    if template.end_token in ids:
        return ids[template.end_token]
    if tokenizer.eos_token_id is None:
        raise DrsowError(f"tokenizer {tokenizer.name_or_path}: has neither the template's end of turn nor an EOS token")
    return tokenizer.eos_token_id


def render(examples: Seq[Example], tokenizer: PreTrainedTokenizerFast, template: Template) -> Rendered:
    """Turns every response of every example into token ids for one model.

    Raises:
        UsageError: A rendered conversation does not start with its rendered prompt, the template changes a response or
            loses a system turn, a prompt or response has no token, a right and a wrong response become the same text,
            or the prompt starts with two BOS. The message names the example.
    """
    texts = [_texts(example, template) for example in examples]
    prompt_ids = _encode(tokenizer, [prompt for prompt, _ in texts])
    joint = iter(_encode(tokenizer, [prompt + response for prompt, responses in texts for response in responses]))
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    ending = end_id(tokenizer, template)
    sequences, n_fallback, n_trimmed = [], 0, 0
    for example, (prompt, responses), head in zip(examples, texts, prompt_ids, strict=True):
        _check_bos(example, tokenizer, bos, prompt, head)
        if not bos and not head:
            raise UsageError(f"{example.example_id}: the prompt has no token")
        for (response_id, given), response in zip(example.responses, responses, strict=True):
            tail = next(joint)
            if tail[: len(head)] == head:
                tail = tail[len(head) :]
            else:
                tail, n_fallback = encode_alone(tokenizer, response), n_fallback + 1
            if not tail:
                raise UsageError(f"{example.example_id}: response {response_id} has no token")
            n_trimmed += template.without_end(given) not in response
            ids, start = np.array([*bos, *head, *tail, ending], dtype=np.int32), len(bos + head)
            sequences.append(Sequence(example.example_id, response_id, ids, start, len(response.encode()), response))
    return Rendered(sequences, n_fallback, n_trimmed, *_oddities(examples, sequences, tokenizer, template))


def prompt_ids(example: Example, tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """Token ids of a prompt, the same as in `render`, for a model that generates the response.

    Raises:
        UsageError: The template rejects the prompt or loses a system turn of it, or the prompt starts with two BOS. The
            message names the example.
    """
    with _refusing(example, template):
        text = template.text(example.messages, generation=True)
        _check_system(example, template, text)
        (head,) = _encode(tokenizer, [text])
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    _check_bos(example, tokenizer, bos, text, head)
    return [*bos, *head]


def check_ids(
    ids: Seq[int] | np.ndarray, tokenizer: PreTrainedTokenizerFast, *, n_embedded: int, row: str, model: str
) -> None:
    """Rejects token ids without an embedding. They occur if the tokenizer does not belong to the model's weights.

    Args:
        ids: Token ids of one row.
        tokenizer: The tokenizer that gave the ids.
        n_embedded: Number of tokens in the model's embedding.
        row: Name of the row in the error message.
        model: Name of the model in the error message.

    Raises:
        DrsowError: A token has no embedding. The message names the row and the token.
    """
    found = np.asarray(ids)
    if len(beyond := found[found >= n_embedded]):
        token, name = int(beyond[0]), tokenizer.convert_ids_to_tokens(int(beyond[0]))
        raise DrsowError(
            f"{row}: token {name!r} has id {token}, but the embedding of {model} ends "
            f"at {n_embedded - 1}: its tokenizer does not fit its weights; leave the row out or mend the tokenizer"
        )


def _oddities(
    examples: Seq[Example], sequences: Seq[Sequence], tokenizer: PreTrainedTokenizerFast, template: Template
) -> tuple[int, int, int, int, int]:
    """The last five counts of `Rendered`."""
    given = [text for example in examples for _, text in example.responses]
    n_cut = sum(template.without_end(text) != text for text in given)
    ends = tuple({tokenizer.eos_token, tokenizer.convert_ids_to_tokens(end_id(tokenizer, template))} - {None})
    n_kept = sum(sequence.text.rstrip().endswith(ends) for sequence in sequences)
    owners = [tokenizer, template.owner] if template.owner else [tokenizer]
    names = {name for each in owners for name in added(each).special.values()}
    holds_special = _finder({name for name in names if name.strip()})
    texts = {example.example_id: [m.content for m in example.messages] for example in examples}
    for sequence in sequences:
        texts[sequence.example_id].append(sequence.text)
    n_special = sum(any(map(holds_special, row)) for row in texts.values())
    n_merged = sum(template.merges(example.messages) for example in examples)
    return n_merged, n_cut, n_kept, _n_same_ids(examples, sequences), n_special


def _n_same_ids(examples: Seq[Example], sequences: Seq[Sequence]) -> int:
    """Number of examples with a right and a wrong response of other texts, but the same token ids."""
    found, place = 0, 0
    for example in examples:
        own = sequences[place : place + len(example.responses)]
        place += len(own)
        right, wrong = ([s for s in own if (s.response_id in example.right) is side] for side in (True, False))
        ids = {s.ids.tobytes(): s.text for s in right}
        found += any(ids.get(s.ids.tobytes(), s.text) != s.text for s in wrong)
    return found


def _finder(names: Set[str]) -> Callable[[str], bool]:
    """Tells whether a text holds one of many names.

    Looked up by the places where a name can begin: some tokenizers have thousands of names, and an expression of all of
    them takes half a second to compile.
    """
    if not names:
        return lambda _: False
    first = re.compile("|".join(sorted({re.escape(name[0]) for name in names})))
    lengths = sorted({len(name) for name in names})

    def holds(text: str) -> bool:
        starts = (found.start() for found in first.finditer(text))
        return any(text[start : start + length] in names for start in starts for length in lengths)

    return holds


def _check_bos(
    example: Example, tokenizer: PreTrainedTokenizerFast, bos: list[int], prompt: str, head: list[int]
) -> None:
    if bos and (head[:1] == bos or prompt.lstrip().startswith(tokenizer.bos_token)):
        raise UsageError(f"{example.example_id}: the prompt begins with a second {tokenizer.bos_token}")


def _check_system(example: Example, template: Template, prompt: str) -> None:
    """Rejects a prompt with a system turn that the template leaves out or writes as another role's."""
    for place, (role, content) in enumerate(example.messages):
        if role != "system":
            continue
        # The same words may stand elsewhere, so a text that stands nowhere else must be written too.
        marked = [*example.messages[:place], Message("system", _MARK), *example.messages[place + 1 :]]
        lost = content.strip() not in prompt or _MARK not in template.text(marked, generation=True)
        if not lost and place:
            other = [*example.messages[:place], Message("assistant", content), *example.messages[place + 1 :]]
            # A template that refuses an assistant turn here tells the two roles apart.
            with contextlib.suppress(TemplateError):
                lost = template.text(other, generation=True) == prompt
        if lost:
            raise UsageError(
                f"{example.example_id}: {template.words} does not write turn {place + 1}, a system turn, as one; "
                "leave the row out, or move that text into a user turn"
            )


@contextlib.contextmanager
def _refusing(example: Example, template: Template) -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        raise UsageError(f"{example.example_id}: {template.words} rejects it: {first_line(error)}") from None


def _texts(example: Example, template: Template) -> tuple[str, list[str]]:
    """The rendered prompt, and each rendered response without its end of turn."""
    after = template.around[1]
    given = dict(example.responses)
    cut = {response_id: template.without_end(text) for response_id, text in given.items()}
    with _refusing(example, template):
        prompt = template.text(example.messages, generation=True)
        _check_system(example, template, prompt)
        wholes = [template.text([*example.messages, Message("assistant", r)], generation=False) for r in cut.values()]
    responses = []
    for (response_id, text), whole in zip(cut.items(), wholes, strict=True):
        if not whole.startswith(prompt):
            raise UsageError(f"{example.example_id}: the rendered prompt is no prefix of the rendered conversation")
        response = whole[len(prompt) :].removesuffix(after)
        if response.strip() != text.strip():
            raise UsageError(f"{example.example_id}: the template rewrites response {response_id}")
        if not response.strip():
            words = "is empty" if text == given[response_id] else "has nothing but end-of-turn text"
            raise UsageError(f"{example.example_id}: response {response_id} {words}")
        responses.append(response)
    _check_differ(example, responses)
    return prompt, responses


def _check_differ(example: Example, rendered: Seq[str]) -> None:
    """Rejects a right and a wrong response of which only the given texts differ, not the rendered ones.

    Two equal given texts are a tie that the data holds, as in one row of JudgeBench.
    """
    both = [(name, given, text) for (name, given), text in zip(example.responses, rendered, strict=True)]
    for name, given, text in (each for each in both if each[0] in example.right):
        for other, given_too, same in (each for each in both if each[0] not in example.right):
            if text == same and given != given_too:
                raise UsageError(
                    f"{example.example_id}: responses {name} and {other} differ only in what is cut from their ends, "
                    "end-of-turn text or whitespace; leave the row out"
                )


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    # In pieces, because the tokenizer keeps some 90 bytes a token of all texts of a call until it returns.
    told = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    pieces = (texts[first : first + _AT_ONCE] for first in range(0, len(texts), _AT_ONCE))
    return [ids for piece in pieces for ids in tokenizer(piece, **told).input_ids]


def encode_alone(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Encodes a text from the middle of a conversation, without the space that its tokenizer adds before a text."""
    anchor = "\n"
    head, whole = _encode(tokenizer, [anchor, anchor + text])
    # "Ġ" before a line break is the space of a byte-level tokenizer. Some tokenizers have no token for a line break.
    adds_space = head and tokenizer.convert_ids_to_tokens(head)[0].startswith(("▁", "Ġ"))
    if adds_space and whole[: len(head)] == head:
        return whole[len(head) :]
    return _encode(tokenizer, [text])[0]
