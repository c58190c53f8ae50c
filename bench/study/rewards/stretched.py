"""Log-ratios of the tokens of a response, for the rewards that need them.

Models with one tokenizer are compared token by token. Other models are compared by stretches between the bytes at
which a token of both ends, so that the sum over a response stays the log-ratio.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import OK, DrsowError, PreconditionError


class Stretches(NamedTuple):
    """A response's stretches in order, the end of turn last."""

    ratios: np.ndarray
    """log p_strong - log p_weak, nats, (n,), float64."""
    lead: np.ndarray
    """Least log p_strong(y_t) - max log p_strong of the tokens in a stretch, nats, (n,); NaN where it is not stored."""


def each_response(both: pd.DataFrame) -> Iterator[Stretches | None]:
    """The stretches of each response, None unless its status is ok.

    Raises:
        PreconditionError: The tokens are not stored, or their places in the text are not.
        DrsowError: The two models read different texts.
    """
    if "logp_nats" not in both or "logp_nats_weak" not in both:
        raise PreconditionError(
            "this reward needs the scores of tokens, which are not stored; `drsow run --tokens` stores them"
        )
    fits = _one_tokenizer(both)
    names = ["example_id", "response_id", "status", "logp_nats", "logp_nats_weak", "top_logp_nats", "byte_end"]
    for row, weak_ends in zip(both[names].itertuples(index=False), both["byte_end_weak"], strict=True):
        if row.status != OK:
            yield None
            continue
        try:
            yield _stretches(row._asdict(), weak_ends, fits=fits)
        except ValueError as error:
            raise DrsowError(f"{row.example_id}, response {row.response_id}: {error}") from error


def _one_tokenizer(both: pd.DataFrame) -> bool:
    """Whether both models divide every response into equally many tokens; then they have one tokenizer."""
    ok = both[both["status"] == OK]
    return bool((ok["n_tokens"] == ok["n_tokens_weak"]).all())


def _stretches(row: dict, weak_ends: np.ndarray | None, *, fits: bool) -> Stretches:
    strong, weak = (np.asarray(row[name], dtype=np.float64) for name in ("logp_nats", "logp_nats_weak"))
    top = row["top_logp_nats"]
    lead = np.full(len(strong), np.nan) if top is None else strong - np.asarray(top, dtype=np.float64)
    ends = row["byte_end"]
    if ends is None or weak_ends is None:
        if not fits:
            raise ValueError("its tokens' places in the text are not stored, and the models have other tokenizers")
        return Stretches(strong - weak, lead)
    if len(strong) == len(weak) and np.array_equal(ends, weak_ends):
        return Stretches(strong - weak, lead)
    own, other = (np.maximum.accumulate(np.asarray(side)[:-1]) for side in (ends, weak_ends))
    if own[-1] != other[-1]:
        raise ValueError("the two models read different texts (native chat templates), so their tokens do not compare")
    shared = np.intersect1d(own, other)
    # The last token of each stretch, and one more for the end of turn.
    cuts = [np.concatenate([np.searchsorted(side, shared, side="right"), [len(side) + 1]]) for side in (own, other)]
    sums = [
        np.add.reduceat(values, np.concatenate([[0], cut[:-1]]))
        for values, cut in zip((strong, weak), cuts, strict=True)
    ]
    return Stretches(sums[0] - sums[1], np.minimum.reduceat(lead, np.concatenate([[0], cuts[0][:-1]])))
