"""The verb `select`: chooses by similarity which pairs of responses to label (REAL, arXiv 2409.17169)."""

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.data.rows import own_id
from bench.faults import warn
from bench.files import write_whole
from bench.prefer.select import Picked, keep, pick_all
from bench.schema import CHOSEN, Dataset, Example, UsageError
from bench.verbs.session import Session


class Selection(NamedTuple):
    """How `select_pairs` chooses."""

    model_id: str
    """The model whose hidden states embed the responses."""
    strategy: str
    """"dissimilar", "similar", "centroid" or "random"."""
    fraction: float
    """The share of prompts that is kept."""
    seed: int


def select_pairs(session: Session, dataset: Dataset, wish: Selection, *, out: Path) -> pd.DataFrame:
    """Choose two responses of each prompt, keep a share of the prompts, and write them as rows that other verbs read.

    Returns:
        example_id, first, second (response_ids) and similarity of the kept prompts.
    """
    from bench.scoring.embed import embed_with

    embeddings = embed_with(session.registry.model(wish.model_id), dataset.examples, session.options)
    sizes = [len(example.responses) for example in dataset.examples]
    picked = pick_all(embeddings, sizes, wish.strategy, seed=wish.seed, n_jobs=-1)
    pairs = [(example, pair) for example, pair in zip(dataset.examples, picked, strict=True) if pair]
    if n_alike := len(picked) - len(pairs):
        warn(f"{n_alike} prompts left out: all of their responses have the same embedding")
    if not pairs:
        raise UsageError(f"{dataset.data_id}: no prompt has two responses with different embeddings")
    kept = keep([pair for _, pair in pairs], wish.strategy, fraction=wish.fraction, seed=wish.seed)
    rows = [_row(*pairs[i]) for i in kept]
    write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    found = [_named(*pairs[i]) for i in kept]
    return pd.DataFrame(found, columns=["example_id", "first", "second", "similarity"])


def is_selected(line: str) -> bool:
    """Whether a line is one that `select_pairs` writes."""
    try:
        return "similarity" in json.loads(line)
    except (TypeError, ValueError):
        return False


def _named(example: Example, picked: Picked) -> tuple:
    names = [name for name, _ in example.responses]
    return (example.example_id, names[picked.first], names[picked.second], picked.similarity)


def _row(example: Example, picked: Picked) -> dict:
    """A line of the file. Preferences keep chosen and rejected; of candidates the two chosen ones stay."""
    (first, one), (_, other) = example.responses[picked.first], example.responses[picked.second]
    texts = {"chosen": _answer(one), "rejected": _answer(other)} if first == CHOSEN else {"candidates": [one, other]}
    head = {"subset": example.subset} if example.subset else {}
    prompt = [message._asdict() for message in example.messages]
    return {"id": own_id(example), **head, "prompt": prompt, **texts, "similarity": picked.similarity}


def _answer(text: str) -> list[dict]:
    """A response as a list of one message: a bare text that itself spells such a list would be read as that list."""
    return [{"role": "assistant", "content": text}]
