"""Lets a model answer prompts: several random responses each, or the likeliest tokens.

Responses to several prompts advance together. One that ends makes room for the next, so a step is full until the last
prompt. The random draws of a response depend only on its prompt's id, its number and the seed, and `decode` gives a
prompt the same logits beside any others. So a prompt's responses do not depend on the other prompts or their order.

A model whose attention `decode` cannot compute answers one prompt at a time, through transformers.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.faults import warn
from bench.prefer import decode
from bench.prefer.alone import alone
from bench.prefer.asked import Asked, Speaker, end_ids, generators
from bench.prefer.draw import drawn
from bench.prefer.resumed import CUT, ENDED, Said, Sampling
from bench.scoring.forward.device import out_of_memory
from bench.scoring.render import check_ids

TOGETHER = 8
"""Responses to one prompt that begin together. With more, more of them wait until there is room for all."""

CACHE_TOKENS = 65_536
"""Tokens of prompts and responses whose keys and values are kept at once, if the user names no number."""

SCHEME = "rows-2"
"""Names how responses are drawn. Another scheme gives other responses."""

OnShare = Callable[[float], None]


def texts_of(
    model: PreTrainedModel,
    speaker: Speaker,
    heads: Mapping[str, list[int]],
    wish: Sampling,
    *,
    cache_tokens: int = CACHE_TOKENS,
    on_share: OnShare = lambda share: None,
) -> Iterator[tuple[str, list[Said]]]:
    """A model's responses to some prompts. Of generation_config.json only the end tokens are used.

    A response ends before the template's end-of-turn text, even if that text is no token of the model.

    Args:
        model: From `load_policy`; it gets the engine's layers.
        speaker: How the model reads prompts.
        heads: Token ids of each prompt, by example_id.
        wish: How many responses, and how they are drawn.
        cache_tokens: The most tokens whose keys and values are kept at once. The responses do not depend on it.
        on_share: Called after every step with the prompts in the making, as a number of finished ones.

    Yields:
        An example_id and its responses, as soon as they are all there.

    Raises:
        DrsowError: The model has no embedding for a token of a prompt.
    """
    ends, end = end_ids(model, speaker.tokenizer, speaker.template), speaker.template.around[1].strip()
    asked = _asked(model, speaker, heads, wish)
    n_new = {each.name: each.n_new for each in asked}
    reason = decode.fit(model)
    if reason:
        warn(f"{model.config.name_or_path}: {reason}; it answers one prompt at a time")
    batch = _Batch(model, wish, ends, cache_tokens, on_share)
    for name, rows in alone(model, asked, wish, ends) if reason else batch.run(asked):
        texts = speaker.tokenizer.batch_decode(rows, skip_special_tokens=True)
        yield name, [_said(text, end, full=len(row) == n_new[name]) for text, row in zip(texts, rows, strict=True)]


def _said(text: str, end: str, *, full: bool) -> Said:
    """A response. `full`: it has as many tokens as it may have, and so no end token."""
    before, found, _ = text.partition(end) if end else (text, "", "")
    return Said(before.strip(), CUT if full and not found else ENDED)


def _asked(model: PreTrainedModel, speaker: Speaker, heads: Mapping[str, list[int]], wish: Sampling) -> list[Asked]:
    size = model.config.get_text_config().vocab_size
    for name, ids in heads.items():
        check_ids(ids, speaker.tokenizer, n_embedded=size, row=name, model="the model")
    return [Asked(name, ids, min(wish.max_new_tokens, speaker.limit - len(ids))) for name, ids in heads.items()]


class _Block(NamedTuple):
    """Responses to a prompt that begin together."""

    asked: Asked
    numbers: range

    @property
    def n_tokens(self) -> int:
        """The most tokens that it keeps."""
        return len(self.asked.ids) + len(self.numbers) * self.asked.n_new


@dataclass
class _Under:
    """A block whose responses are under way."""

    block: _Block
    group: decode.Group
    numbers: list[int]
    """Those of the responses that have not ended, in the group's order."""
    said: list[list[int]]
    """Their tokens so far."""
    draws: list[np.random.Generator]

    def uniforms(self) -> np.ndarray:
        """The next random number of each response."""
        return np.array([draw.random() for draw in self.draws])

    def hear(self, tokens: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Adds a token to each response; yields the responses that have ended, without their end."""
        going = []
        for row, token in enumerate(tokens):
            if token not in ends:
                self.said[row].append(token)
            if token in ends or len(self.said[row]) == self.block.asked.n_new:
                yield self.numbers[row], self.said[row]
            else:
                going.append(row)
        if len(going) < len(tokens):
            self.group.keep(going)
            self.numbers = [self.numbers[row] for row in going]
            self.said, self.draws = [self.said[row] for row in going], [self.draws[row] for row in going]


class _Batch:
    """Responses to several prompts that advance together."""

    def __init__(
        self, model: PreTrainedModel, wish: Sampling, ends: list[int], cache_tokens: int, on_share: OnShare
    ) -> None:
        self.model, self.wish, self.ends, self.budget, self.on_share = model, wish, ends, cache_tokens, on_share
        self.waiting: deque[_Block] = deque()
        self.under: list[_Under] = []
        self.found: dict[str, dict[int, list[int]]] = {}
        self.read: tuple[str, decode.Prompt] | None = None
        """The prompt that was read last, for its further blocks."""

    def run(self, asked: Sequence[Asked]) -> Iterator[tuple[str, list[list[int]]]]:
        """Yields each prompt's responses, token ids, when all have ended."""
        for each in asked:
            numbers = range(self.wish.n)
            self.waiting += [_Block(each, numbers[low : low + TOGETHER]) for low in numbers[::TOGETHER]]
        with decode.decoding(self.model):
            while self.waiting or self.under:
                begins = bool(self.waiting) and self._has_room()
                try:
                    self._begin() if begins else self._step()
                except Exception as error:
                    if not out_of_memory(error) or len(self.under) < (1 if begins else 2):
                        raise
                    self._halve()
                for name in [name for name, rows in self.found.items() if len(rows) == self.wish.n]:
                    rows = self.found.pop(name)
                    yield name, [rows[number] for number in range(self.wish.n)]
                self.on_share(sum(map(len, self.found.values())) / self.wish.n)

    def _has_room(self) -> bool:
        block, n_rows = self.waiting[0], sum(each.group.n_rows for each in self.under)
        n_tokens = sum(each.block.n_tokens for each in self.under)
        fits = n_rows + len(block.numbers) <= decode.SLOTS and n_tokens + block.n_tokens <= self.budget
        return fits or not self.under

    def _begin(self) -> None:
        """Reads a prompt and draws the first token of its responses."""
        block = self.waiting[0]
        asked, n = block.asked, len(block.numbers)
        if self.read is None or self.read[0] != asked.name:
            self.read = (asked.name, decode.read(self.model, asked.ids))
        prompt = self.read[1]
        under = _Under(
            block,
            decode.Group(prompt, n),
            list(block.numbers),
            [[] for _ in block.numbers],
            generators(asked.name, block.numbers, self.wish),
        )
        self._hear([under], prompt.logits.expand(n, -1))
        self.waiting.popleft()
        self.under += [under] if under.numbers else []
        if not (self.waiting and self.waiting[0].asked is asked):
            self.read = None

    def _step(self) -> None:
        tokens = [said[-1] for each in self.under for said in each.said]
        self._hear(self.under, decode.advance(self.model, [each.group for each in self.under], tokens))
        self.under = [each for each in self.under if each.numbers]

    def _hear(self, under: Sequence[_Under], logits: Tensor) -> None:
        uniforms = np.concatenate([each.uniforms() for each in under])
        tokens = iter(drawn(logits, self.wish, uniforms))
        for each in under:
            ended = each.hear(list(itertools.islice(tokens, len(each.numbers))), self.ends)
            self.found.setdefault(each.block.asked.name, {}).update(ended)

    def _halve(self) -> None:
        """Halves the budget, and lets all blocks begin again: they give the same responses. None can go on, because the
        step that failed may have moved it already."""
        blocks = [each.block for each in self.under]
        self.waiting.extendleft(reversed(blocks))
        self.under = []
        self.budget = sum(block.n_tokens for block in blocks[: max(1, len(blocks) // 2)])
        self.read = None
        torch.cuda.empty_cache()
        warn(f"out of memory: the batch is halved, to {self.budget:,} tokens")
