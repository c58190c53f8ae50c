"""The log-ratio over the tokens that the strong model finds plausible (contrastive decoding, arXiv 2210.15097)."""

import math

import numpy as np
import pandas as pd

from bench.schema import PreconditionError
from bench.study.rewards.stretched import each_response

PLAUSIBLE = 0.1
"""A token counts if its probability is at least this share of the most likely token's, as in arXiv 2210.15097."""


def plausible(both: pd.DataFrame) -> pd.Series:
    """sum of the token log-ratios where p_strong(y_t) >= PLAUSIBLE x max_v p_strong(v), nats.

    Between models with different tokenizers a stretch counts if all of the strong model's tokens in it do. Needs tokens
    with the largest log-probability. Source: arXiv 2210.15097, equation 2.

    Raises:
        PreconditionError: The strong model's largest log-probabilities are not stored.
    """
    found = []
    for name, each in zip(both["example_id"], each_response(both), strict=True):
        if each is not None and np.isnan(each.lead).any():
            raise PreconditionError(
                f"{name}: this reward needs the largest log-probability at each token, which is not stored for the "
                "strong model: a server or an import gave none. `drsow run --tokens` with the model here stores it"
            )
        found.append(np.nan if each is None else float(each.ratios[each.lead >= math.log(PLAUSIBLE)].sum()))
    return pd.Series(found, index=both.index, dtype=float)
