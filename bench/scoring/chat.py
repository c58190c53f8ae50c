"""Renders conversations as text with a chat template, and determines the text before and after a response."""

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from bench.schema import Message, UsageError
from bench.scoring import templates
from bench.scoring.added import added

_PROBE = "drsow probe"


@dataclass(frozen=True)
class Template:
    """A chat template: the jinja template of its owner, or the plain format "User: … Assistant: …"."""

    owner: PreTrainedTokenizerFast | None
    """The tokenizer that has the template; None for the plain format."""

    name: str = ""
    """The owner's model_id, for error messages."""

    @cached_property
    def source(self) -> str:
        """The jinja text, "" for the plain format."""
        return "" if self.owner is None else templates.choose(self.owner.chat_template).text

    def text(self, messages: Seq[Message], *, generation: bool) -> str:
        """Renders a conversation without a BOS; `generation` appends the assistant's header."""
        if not self.source:
            turns = "".join(f"{m.role.capitalize()}: {m.content}\n\n" for m in messages)
            return turns + "Assistant:" if generation else turns.removesuffix("\n\n")
        return self._written(self._merged(messages), generation=generation).removeprefix(self._bos)

    def _written(self, messages: Seq[Message], *, generation: bool) -> str:
        return templates.write(self.source, messages, generation=generation, special=self._special)

    @cached_property
    def _special(self) -> dict:
        return self._tokenizer.special_tokens_map

    @cached_property
    def _bos(self) -> str:
        """The BOS to remove from the template's output, because the tokenizer adds a BOS itself; "" if it does not."""
        return self._tokenizer.bos_token if adds_bos(self._tokenizer) else ""

    def merges(self, messages: Seq[Message]) -> bool:
        """Whether a conversation has a system turn that the template does not support."""
        return messages[0].role == "system" and not self.knows_system

    def _merged(self, messages: Seq[Message]) -> Seq[Message]:
        """Moves a system turn into the first user turn if the template supports no system role."""
        if not self.merges(messages):
            return messages
        joined = messages[:2] if [m.role for m in messages[1:2]] == ["user"] else messages[:1]
        text = "\n\n".join(m.content for m in joined if m.content)
        return [Message("user", text), *messages[len(joined) :]]

    @cached_property
    def knows_system(self) -> bool:
        """Whether the rendered text contains a system turn, both with and without a response after it."""
        if not self.source:
            return True
        turns = [Message("system", _PROBE), Message("user", "x"), Message("assistant", "y")]
        try:
            prompt, whole = self._written(turns[:2], generation=True), self._written(turns, generation=False)
        except TemplateError:
            return False
        return _PROBE in prompt and _PROBE in whole

    @cached_property
    def around(self) -> tuple[str, str]:
        """The template's text before a response (whitespace) and after it (the end of turn)."""
        prompt = [Message("user", "x")]
        try:
            head = self.text(prompt, generation=True)
            whole = self.text([*prompt, Message("assistant", _PROBE)], generation=False)
        except TemplateError as error:
            raise UsageError(f"{self.words} cannot write a user turn and a response: {first_line(error)}") from None
        before, found, after = whole.removeprefix(head).partition(_PROBE)
        if not whole.startswith(head) or not found or before.strip():
            raise UsageError(
                f"{self.words}: a response does not directly follow the generation header; "
                "score it with --template shared and another owner"
            )
        return before, after

    @cached_property
    def end_token(self) -> str:
        """The special token that ends the assistant's turn, "" if the template writes none."""
        after = self.around[1].lstrip()
        if not self.source or not after:
            return ""
        names = [token for token in added(self._tokenizer).ids if after.startswith(token)]
        return max(names, key=len, default="")

    @cached_property
    def _ends(self) -> re.Pattern:
        """Matches one or more end-of-turn texts at the end of a response, each with the whitespace after it."""
        after = self.around[1].strip()
        # The text after a response may be ordinary text such as "###", so only text that looks like a token counts.
        marks = [after] if re.fullmatch(r"[<\[].*[>\]]", after, re.DOTALL) else []
        marks += [self.end_token, self._tokenizer.eos_token] if self.source else []
        marks = sorted({re.escape(mark) for mark in marks if mark and mark.strip()}, key=len, reverse=True)
        return re.compile(f"(?:(?:{'|'.join(marks) or '(?!)'})\\s*)+\\Z")

    def without_end(self, response: str) -> str:
        """A response without end-of-turn text at its end, because drsow scores the end of turn as a separate token."""
        found = self._ends.search(response)
        return response[: found.start()] if found else response

    @property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        if self.owner is None:
            raise ValueError("the plain format has no tokenizer")
        return self.owner

    @property
    def words(self) -> str:
        """The template's name in error messages."""
        return f"the chat template of {self.name}" if self.name else "the chat template"


def own_template(tokenizer: PreTrainedTokenizerFast, purpose: str) -> Template:
    """The chat template of a policy's own tokenizer.

    Args:
        tokenizer: The policy's tokenizer.
        purpose: What the template is needed for, for the error message.

    Raises:
        UsageError: The tokenizer has no template, or several and no default.
    """
    template = Template(tokenizer)
    if not template.source:
        note = templates.choose(tokenizer.chat_template).note.partition(";")[0] or "has no chat template"
        raise UsageError(f"it {note}, so it cannot {purpose}")
    return template


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer puts a BOS before plain text."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def first_line(error: TemplateError) -> str:
    """The first line of a template's error message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
