"""Rewards on which no single token has much influence."""

import numpy as np
import pandas as pd

from bench.study.rewards.stretched import each_response

CLIP_NATS = 1.0
"""Largest log-ratio of one token that counts."""

TRIMMED = 0.1
"""Share of the tokens that is left out at each end."""


def clipped(both: pd.DataFrame) -> pd.Series:
    """sum_t of the token log-ratios clipped to [-CLIP_NATS, CLIP_NATS], nats.

    Needs tokens. Source: arXiv 2410.04350, which clamps the ratios that weigh tokens.
    """
    found = [
        np.nan if each is None else float(np.clip(each.ratios, -CLIP_NATS, CLIP_NATS).sum())
        for each in each_response(both)
    ]
    return pd.Series(found, index=both.index, dtype=float)


def trimmed(both: pd.DataFrame) -> pd.Series:
    """Mean of the middle 80% of the token log-ratios, nats per token. Needs tokens. Source: the trimmed mean."""
    found = [np.nan if each is None else _middle(each.ratios) for each in each_response(both)]
    return pd.Series(found, index=both.index, dtype=float)


def _middle(ratios: np.ndarray) -> float:
    n_out = int(TRIMMED * len(ratios))
    return float(np.sort(ratios)[n_out : len(ratios) - n_out].mean())
