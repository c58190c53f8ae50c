"""RewardBench rows -> token ids, made once per run: every scorer reads the same ones."""

from collections import Counter
from collections.abc import Sequence as Seq
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from bench.data.load import load_data
from bench.registry import load_registry
from bench.schema import Example, Message, PreconditionError
from bench.scoring import fetch, models
from bench.scoring.render import Sequence, Template, render

STRONG, WEAK = "smollm2-135m-instruct-q4", "gemma-3-270m-q4"
"""The pair smollm2-over-gemma; the strong one is what all timings run."""

BLOCK_TOKENS = 800
N_PROMPTS, PROMPT_TOKENS = 64, 300
N_RESPONSES, RESPONSE_TOKENS = 16, 64

INSTRUCTION = "You judge which of two answers a careful reader would keep. Here are worked examples.\n\n"


class Workload(NamedTuple):
    """Sequences to score, those of one row beside each other."""

    name: str
    ids: list[np.ndarray]
    """Prompt, response and end-of-turn token ids of each sequence, (n_i,), int32."""
    starts: list[int]
    """Index of each sequence's first response token."""
    rows: list[int]
    """Number of each sequence's row: one prompt with its responses."""

    def take(self, chosen: Seq[int]) -> "Workload":
        """Some of the sequences, in the order given."""
        return Workload(self.name, *([column[i] for i in chosen] for column in self[1:]))


@cache
def folder(model_id: str) -> Path:
    """Where a model's files lie; fetched where they are missing."""
    return fetch.fetch(load_registry().model(model_id)).folder


@cache
def tokenizer(model_id: str) -> PreTrainedTokenizerFast:
    """A model's tokenizer."""
    return models.load_tokenizer(folder(model_id))


def plain(per_subset: int, *, model_id: str = STRONG) -> Workload:
    """The first rows of each RewardBench subset under the strong model's chat template."""
    return _workload("plain", _rendered(examples(per_subset), model_id))


def customised(per_subset: int) -> Workload:
    """The plain rows, each under one block of at least BLOCK_TOKENS tokens."""
    block = Message("system", _block())
    under = [e._replace(messages=(block, *e.messages)) for e in examples(per_subset)]
    return _workload("customised", _rendered(under, STRONG))


def annotate(n_prompts: int = N_PROMPTS) -> Workload:
    """Long RewardBench prompts, each with the first tokens of N_RESPONSES responses to it and its neighbours.

    Raises:
        PreconditionError: the data set has too few long prompts.
    """
    sequences = _rendered(load_data("reward-bench").examples, STRONG)
    long = [s for s in sequences if s.start >= PROMPT_TOKENS]
    prompts = list({s.ids[: s.start].tobytes(): at for at, s in reversed(list(enumerate(long)))}.values())[::-1]
    if len(prompts) < n_prompts:
        raise PreconditionError(f"{len(prompts)} prompts of {PROMPT_TOKENS} tokens, {n_prompts} are needed")
    ids, starts, rows = [], [], []
    for row, at in enumerate(prompts[:n_prompts]):
        head = long[at].ids[: long[at].start]
        for tail in _tails(long[at:] + long[:at]):
            ids.append(np.concatenate([head, tail]))
            starts.append(len(head))
            rows.append(row)
    return Workload("annotate", ids, starts, rows)


def _tails(sequences: Seq[Sequence]) -> list[np.ndarray]:
    """The first distinct responses, cut to RESPONSE_TOKENS, the end of turn last."""
    tails: dict[bytes, np.ndarray] = {}
    for sequence in sequences:
        tail = sequence.ids[sequence.start :]
        tail = np.append(tail[:-1][: RESPONSE_TOKENS - 1], tail[-1])
        tails.setdefault(tail.tobytes(), tail)
        if len(tails) == N_RESPONSES:
            break
    return list(tails.values())


def examples(per_subset: int) -> Seq[Example]:
    """The first rows of each RewardBench subset: since the first measurements the same ones."""
    taken: Counter[str] = Counter()
    found = []
    for example in load_data("reward-bench").examples:
        taken[example.subset] += 1
        found += [example] if taken[example.subset] <= per_subset else []
    return found


def _rendered(examples: Seq[Example], model_id: str) -> list[Sequence]:
    return render(examples, tokenizer(model_id), Template(tokenizer(STRONG))).sequences


def _block() -> str:
    """An instruction and as many of the package's own sample rows as fill BLOCK_TOKENS."""
    text = INSTRUCTION
    for example in load_data("sample").examples:
        if len(tokenizer(STRONG)(text).input_ids) >= BLOCK_TOKENS:
            return text
        good, bad = (response for _, response in example.responses)
        text += f"Question: {example.messages[-1].content}\nKept: {good}\nDropped: {bad}\n\n"
    raise PreconditionError(f"the sample has fewer than {BLOCK_TOKENS} tokens")


def _workload(name: str, sequences: Seq[Sequence]) -> Workload:
    numbers = {example_id: row for row, example_id in enumerate(dict.fromkeys(s.example_id for s in sequences))}
    return Workload(
        name, [s.ids for s in sequences], [s.start for s in sequences], [numbers[s.example_id] for s in sequences]
    )
