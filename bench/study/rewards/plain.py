"""The log-ratio of a response, as it is and by its length (arXiv 2411.02481).

log-ratio = sum_t log p_strong(y_t | x, y_<t) - sum_t log p_weak(y_t | x, y_<t), end of turn included.
"""

import pandas as pd


def whole(both: pd.DataFrame) -> pd.Series:
    """The log-ratio, nats. Needs sums. Source: arXiv 2411.02481."""
    return both["difference"] / 1.0


def by_token(both: pd.DataFrame) -> pd.Series:
    """log-ratio / number of the strong model's tokens, nats per token. Needs sums. Source: arXiv 2411.02481."""
    return both["difference"] / both["n_tokens"].astype(float)


def by_byte(both: pd.DataFrame) -> pd.Series:
    """log-ratio / UTF-8 bytes of the rendered response, nats per byte. Needs sums. Source: arXiv 2411.02481."""
    return both["difference"] / both["n_bytes"].astype(float)
