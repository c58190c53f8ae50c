"""Scores texts that a caller has at hand: rewards of responses, and the log-probability of every token."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from bench.registry import Pair
from bench.schema import Dataset, Example, Message, UsageError
from bench.scoring import passes
from bench.verbs.session import Session


def reward(session: Session, pair: Pair, messages: Sequence[Message], responses: Sequence[str]) -> list[float]:
    """Reward of each response to one conversation: log p_strong - log p_weak, nats (arXiv 2411.02481)."""
    example = Example("messages", "", tuple(messages), tuple((str(i), text) for i, text in enumerate(responses)))
    if not responses or not messages or messages[-1].role == "assistant":
        raise UsageError("a reward needs messages that end on a user turn, and at least one response")
    dataset = Dataset("", "", "", (example,))
    logps = [scorer.response_logps(example) for scorer in scorers(session, pair, dataset)]
    return [float(a.sum() - b.sum()) for a, b in zip(*logps, strict=True)]


def scorers(session: Session, pair: Pair, dataset: Dataset) -> list:
    """Both models of a pair, ready to score texts under the pair's chat template."""
    from bench.scoring.scorer import Scorer

    registry, options = session.registry, session.options
    owner = registry.model(pair.template)
    works = [passes.Work(registry.model(model_id), owner, dataset) for model_id in (pair.strong, pair.weak)]
    return [Scorer(passes.make_ready(work, options), options) for work in works]


class TokenTable(NamedTuple):
    """One example's tokens."""

    strong: pd.DataFrame
    """TOKENS under the strong model."""
    weak: pd.DataFrame
    texts: dict[str, str]
    """response_id -> the response as both models' chat template renders it."""


def token_table(session: Session, pair: Pair, dataset: Dataset, example: Example) -> TokenTable:
    """The tokens of one example under a pair's strong and weak model."""
    from bench.scoring.tokens import rendered_texts, tokens

    both = scorers(session, pair, dataset)
    return TokenTable(*(tokens(scorer, example) for scorer in both), rendered_texts(both[0], example))
