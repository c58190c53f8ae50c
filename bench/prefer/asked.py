"""Says how a model reads prompts, where its responses end, and from which random numbers they are drawn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bench.prefer.customise import row_number
from bench.prefer.resumed import Sampling
from bench.schema import DrsowError, Example, UsageError
from bench.scoring.chat import Template
from bench.scoring.render import end_id, prompt_ids


class Speaker(NamedTuple):
    """How a model reads prompts."""

    tokenizer: PreTrainedTokenizerFast
    template: Template
    """Its own chat template, or that of another model."""
    limit: int
    """The most tokens that the model reads."""

    def head(self, example: Example) -> list[int]:
        """A prompt's token ids.

        Raises:
            UsageError: The template rejects the prompt, or it fills the model's context.
        """
        ids = prompt_ids(example, self.tokenizer, self.template)
        if len(ids) >= self.limit:
            raise UsageError(
                f"{example.example_id}: the prompt has {len(ids):,} tokens, but the model reads at most "
                f"{self.limit - 1:,}"
            )
        return ids


class Asked(NamedTuple):
    """A prompt."""

    name: str
    """example_id."""
    ids: list[int]
    n_new: int
    """The most tokens of a response."""


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """The tokens that end a response: the end-of-turn token that is scored, and those that the model's files name."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    found = dict.fromkeys([end_id(tokenizer, template), *named, tokenizer.eos_token_id])
    size = model.config.get_text_config().vocab_size
    ends = [token for token in found if token is not None and token < size]
    if not ends:
        raise DrsowError(
            "the policy has no embedding for its end-of-turn token: its tokenizer does not belong to its weights"
        )
    return ends


def generators(name: str, numbers: Sequence[int], wish: Sampling) -> list[np.random.Generator]:
    """A generator for each response, by its number."""
    return [np.random.default_rng([row_number(name, seed=wish.seed), number]) for number in numbers]
