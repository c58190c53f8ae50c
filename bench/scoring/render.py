"""Messages and responses -> token ids, with the response's span found by check, never assumed.

The rule (`scoring.SPAN`): the prompt's ids are the rendered prompt with its generation header, encoded alone, as a
model is prompted; the response's ids are what encoding prompt and response together adds to them; where
the prompt's ids are no prefix of that, the response is encoded alone and counted. One end-of-turn token
follows as an id, so that no text can merge with it.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from bench.schema import DrsowError, Example, Message, UsageError

_PROBE = "drsow probe"


class Sequence(NamedTuple):
    """One response under one prompt, as one model reads it."""

    example_id: str
    response_id: str
    ids: np.ndarray
    """Prompt, response and end-of-turn token ids, (n,), int32."""
    start: int
    """Index in `ids` of the response's first token, at least 1."""
    n_bytes: int
    """UTF-8 bytes of the response as the template renders it."""
    text: str
    """The response as the template renders it."""


class Rendered(NamedTuple):
    """Sequences in the order of the examples, and how many needed a rule of their own."""

    sequences: list[Sequence]
    n_start_fallback: int
    """Responses encoded alone, because the joint encoding straddles the start."""
    n_trimmed: int
    """Responses whose outer whitespace the template cut."""


@dataclass(frozen=True)
class Template:
    """A chat format: its owner's jinja template, or plain "User: … Assistant: …" where nothing names one."""

    owner: PreTrainedTokenizerFast | None
    """The tokenizer whose template renders; None for plain."""

    def text(self, messages: Seq[Message], *, generation: bool) -> str:
        """Render a conversation without its BOS; `generation` appends the assistant's header."""
        if self.owner is None:
            turns = "".join(f"{m.role.capitalize()}: {m.content}\n\n" for m in messages)
            return turns + "Assistant:" if generation else turns.removesuffix("\n\n")
        text = self._written(self._merged(messages), generation=generation)
        # A BOS that the template writes would be doubled by a tokenizer that adds its own.
        return text.removeprefix(self.owner.bos_token) if adds_bos(self.owner) else text

    def _written(self, messages: Seq[Message], *, generation: bool) -> str:
        turns = [m._asdict() for m in messages]
        return self.owner.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)

    def _merged(self, messages: Seq[Message]) -> Seq[Message]:
        """Put a system turn into the first user turn where the template knows no system role."""
        if messages[0].role != "system" or self.knows_system:
            return messages
        joined = messages[:2] if [m.role for m in messages[1:2]] == ["user"] else messages[:1]
        text = "\n\n".join(m.content for m in joined if m.content)
        return [Message("user", text), *messages[len(joined) :]]

    @cached_property
    def knows_system(self) -> bool:
        """Whether a system turn reaches the text, with and without a response behind it."""
        if self.owner is None:
            return True
        turns = [Message("system", _PROBE), Message("user", "x"), Message("assistant", "y")]
        try:
            prompt, whole = self._written(turns[:2], generation=True), self._written(turns, generation=False)
        except TemplateError:
            return False
        return _PROBE in prompt and _PROBE in whole

    @cached_property
    def around(self) -> tuple[str, str]:
        """What the template writes before and after a response: whitespace, and the end of turn."""
        prompt = [Message("user", "x")]
        head = self.text(prompt, generation=True)
        whole = self.text([*prompt, Message("assistant", _PROBE)], generation=False)
        before, found, after = whole.removeprefix(head).partition(_PROBE)
        if not whole.startswith(head) or not found or before.strip():
            raise UsageError(
                "chat template: a response does not directly follow the generation header; "
                "score it with --template shared and another owner"
            )
        return before, after

    @cached_property
    def end_token(self) -> str:
        """The special token that ends the assistant's turn, "" where the template writes none."""
        after = self.around[1].lstrip()
        if self.owner is None or not after:
            return ""
        names = [token for token in self.owner.get_added_vocab() if after.startswith(token)]
        return max(names, key=len, default="")


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer puts a BOS before plain text."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def end_id(tokenizer: PreTrainedTokenizerFast, template: Template) -> int:
    """The template's end-of-turn token if it is one special token of this tokenizer, else its EOS."""
    ids = tokenizer.get_added_vocab()
    if template.end_token in ids:
        return ids[template.end_token]
    if tokenizer.eos_token_id is None:
        raise DrsowError(f"tokenizer {tokenizer.name_or_path}: has neither the template's end of turn nor an EOS token")
    return tokenizer.eos_token_id


def render(examples: Seq[Example], tokenizer: PreTrainedTokenizerFast, template: Template) -> Rendered:
    """Turn every response of every example into the ids that one model reads.

    Raises:
        UsageError: a rendered prompt is no prefix of its rendered conversation, a template rewrites a
            response, a response renders to no token, or two BOS stand in a row; names the example.
    """
    texts = [_texts(example, template) for example in examples]
    prompt_ids = _encode(tokenizer, [prompt for prompt, _ in texts])
    joint_ids = _encode(tokenizer, [prompt + response for prompt, responses in texts for response in responses])
    joint = iter(joint_ids)
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    ending = end_id(tokenizer, template)
    sequences, n_fallback, n_trimmed = [], 0, 0
    for example, (_, responses), head in zip(examples, texts, prompt_ids, strict=True):
        if head[:1] == bos and bos:
            raise UsageError(f"{example.example_id}: the prompt begins with a second {tokenizer.bos_token}")
        for (response_id, given), response in zip(example.responses, responses, strict=True):
            tail = next(joint)
            if tail[: len(head)] == head:
                tail = tail[len(head) :]
            else:
                tail, n_fallback = encode_alone(tokenizer, response), n_fallback + 1
            if not tail:
                raise UsageError(f"{example.example_id}: response {response_id} has no token")
            n_trimmed += given not in response
            ids = np.array([*bos, *head, *tail, ending], dtype=np.int32)
            n_bytes = len(response.encode())
            sequences.append(Sequence(example.example_id, response_id, ids, len(bos + head), n_bytes, response))
    return Rendered(sequences, n_fallback, n_trimmed)


def _texts(example: Example, template: Template) -> tuple[str, list[str]]:
    """The rendered prompt and each response as rendered, without its end of turn."""
    after = template.around[1]
    try:
        prompt = template.text(example.messages, generation=True)
        wholes = [
            template.text([*example.messages, Message("assistant", r)], generation=False) for _, r in example.responses
        ]
    except TemplateError as error:
        raise UsageError(f"{example.example_id}: the chat template refuses it: {error}") from None
    responses = []
    for (response_id, given), whole in zip(example.responses, wholes, strict=True):
        if not whole.startswith(prompt):
            raise UsageError(f"{example.example_id}: the rendered prompt is no prefix of the rendered conversation")
        response = whole[len(prompt) :].removesuffix(after)
        if response.strip() != given.strip():
            raise UsageError(f"{example.example_id}: the template rewrites response {response_id}")
        if not response.strip():
            raise UsageError(f"{example.example_id}: response {response_id} is empty")
        responses.append(response)
    return prompt, responses


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids


def encode_alone(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Encode a text that stands in the middle of a conversation: without the dummy space of SentencePiece."""
    anchor = "\n"
    head, whole = _encode(tokenizer, [anchor, anchor + text])
    if tokenizer.convert_ids_to_tokens(head)[0].startswith("▁") and whole[: len(head)] == head:
        return whole[len(head) :]
    return _encode(tokenizer, [text])[0]
