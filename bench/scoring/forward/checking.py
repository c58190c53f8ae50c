"""Judges from the scores of two short rows whether the engine gives a model's own log-probabilities.

The rows are the same up to a fork. The engine scores them once with the fork inside a step and once with it behind a
trunk. In float32 every log-probability must be the model's own.

In bfloat16 rounding moves the tokens of a sound model by 0.03 to 0.08 nats on average, and a model whose layers read
the first branch too may move the second one by as little. There the engine also scores the rows with another first
branch. This must not change the second one's log-probabilities: both packings have the same layout, so a sound model
computes the same numbers, to the bit. A mixture of experts need not, because the number of tokens of an expert changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.scoring.forward.context import Call

TRUNK, BRANCH = 72, 8
"""Number of tokens before the fork, and of each branch."""

EXACT_NATS = 1e-3
"""Every token of a float32 model must be nearer to the model's own."""

LOW_NATS = 0.25
"""Half of the tokens of each branch of a bfloat16 model must be nearer to the model's own. One token may be nats away
in a sound model, where two experts are almost equally likely. The largest median measured is 0.07 (SmolLM2-135M and
Gemma-3-270M, with three kinds of kernels)."""

UNCALLED = "no layer calls drsow's attention"
"""Why a model is refused that does not ask transformers for its attention, or has none."""


class Rows(NamedTuple):
    """Token ids of the two rows of a check."""

    plain: list[np.ndarray]
    """The trie lays the first one out before the second one."""
    changed: list[np.ndarray]
    """The first row has another end, and the same place in the layout."""


def rows(n_words: int) -> Rows:
    """The rows for a vocabulary of a size, (TRUNK + BRANCH,) each."""
    ids = np.arange(TRUNK + 3 * BRANCH) * 37 % n_words
    fork, end = TRUNK + BRANCH, TRUNK + 2 * BRANCH
    plain = sorted((ids[:fork], np.concatenate([ids[:TRUNK], ids[fork:end]])), key=list)
    # The first token of a branch decides where it lies, so it stays.
    return Rows(plain, [np.concatenate([plain[0][: TRUNK + 1], ids[end + 1 :]]), plain[1]])


def differing(expected: np.ndarray, found: Sequence[np.ndarray], *, low: bool) -> str:
    """Says how far the engine's log-probabilities are from the model's own, "" if they are near enough.

    Args:
        expected: The model's own, nats, (2, TRUNK + BRANCH - 1).
        found: The engine's, of each packing, in the same shape.
        low: Whether the model is in bfloat16.
    """
    apart = [np.where(np.isfinite(expected), np.abs(each - expected), 0.0) for each in found]
    if low:
        worst, bar = np.max([np.median(each[:, -BRANCH:], axis=1) for each in apart]), LOW_NATS
    else:
        worst, bar = np.max(apart), EXACT_NATS
    # A number that is none is not below the bar.
    return "" if worst < bar else f"its own forward pass differs by {worst:.3g} nats"


def mixing(plain: np.ndarray, changed: np.ndarray, calls: Sequence[Call], *, n_layers: int, routed: bool) -> str:
    """Says that a bfloat16 model reads the texts beside a response, "" if it does not.

    Args:
        plain: The engine's log-probabilities of the rows with the fork inside a step, (2, TRUNK + BRANCH - 1).
        changed: The same of the changed rows.
        calls: All calls of drsow's attention.
        n_layers: The number of layers that the model's configuration names.
        routed: Whether the model has experts.
    """
    if not calls:
        return UNCALLED
    before, after = (each[1, -BRANCH:] for each in (plain, changed))
    moved = np.abs(after - before)[np.isfinite(before)].max(initial=0.0)
    whole = routed and len({call.layer for call in calls}) >= n_layers
    if moved < EXACT_NATS or whole:
        return ""
    return f"a response moves by {moved:.3g} nats where the text beside it changes"
