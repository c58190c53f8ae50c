"""Lets a model that `decode` cannot compute answer prompts one at a time, through transformers' own loop."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from bench.prefer.asked import Asked, generators
from bench.prefer.draw import drawn
from bench.prefer.resumed import Sampling


class _Draws(LogitsProcessor):
    """Draws each row's next token, and leaves transformers no other."""

    def __init__(self, draws: list[np.random.Generator], wish: Sampling) -> None:
        self.draws, self.wish = draws, wish

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = drawn(scores, self.wish, np.array([draw.random() for draw in self.draws]))
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(tokens)), tokens] = 0
        return only


def alone(
    model: PreTrainedModel, asked: Sequence[Asked], wish: Sampling, ends: list[int]
) -> Iterator[tuple[str, list[list[int]]]]:
    """Yields each prompt's responses, token ids, computed by transformers for one prompt at a time."""
    for name, ids, n_new in asked:
        inputs = torch.tensor([ids] * wish.n, device=model.device)
        # The tokenizer's own padding token may have no embedding. Padding only follows an end token, so any token does.
        told = GenerationConfig(do_sample=False, max_new_tokens=n_new, eos_token_id=ends, pad_token_id=ends[0])
        draws = _Draws(generators(name, range(wish.n), wish), wish)
        with torch.inference_mode(), _own_distribution(model):
            out = model.generate(
                inputs, attention_mask=torch.ones_like(inputs), generation_config=told, logits_processor=[draws]
            )
        said = out[:, len(ids) :].tolist()
        yield name, [list(itertools.takewhile(lambda token: token not in ends, row)) for row in said]


@contextlib.contextmanager
def _own_distribution(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's generation settings, because `generate` takes every setting that it is not given from them."""
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept
