"""Rewards from the prefix sums of the token log-ratios, which are an implicit process reward.

Q_t = sum_{s <= t} log p_strong(y_s | x, y_<s) - log p_weak(y_s | x, y_<s) is what a response is worth up to token t
(arXiv 2412.01981, proposition 3.1; arXiv 2502.01456 uses its steps). The last Q_t is the log-ratio `sum`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from bench.study.rewards.stretched import each_response

LAST = 32
"""Number of stretches at the end of a response that `last` adds up, end of turn included."""


def _of_ratios(both: pd.DataFrame, value: Callable[[np.ndarray], float]) -> pd.Series:
    found = [np.nan if each is None else value(each.ratios) for each in each_response(both)]
    return pd.Series(found, index=both.index, dtype=float)


def peak(both: pd.DataFrame) -> pd.Series:
    """max_t Q_t, nats. Needs tokens. Source: arXiv 2412.01981."""
    return _of_ratios(both, lambda ratios: float(np.cumsum(ratios).max()))


def lowest(both: pd.DataFrame) -> pd.Series:
    """min_t Q_t, nats: how a chain of steps is judged by its worst one. Needs tokens. Source: arXiv 2412.01981."""
    return _of_ratios(both, lambda ratios: float(np.cumsum(ratios).min()))


def mean(both: pd.DataFrame) -> pd.Series:
    """Mean over t of Q_t, nats. Needs tokens. Source: arXiv 2412.01981."""
    return _of_ratios(both, lambda ratios: float(np.cumsum(ratios).mean()))


def last(both: pd.DataFrame) -> pd.Series:
    """Q_n - Q_(n - LAST): the log-ratio of the last LAST tokens, nats. Needs tokens. Source: arXiv 2502.01456."""
    return _of_ratios(both, lambda ratios: float(ratios[-LAST:].sum()))
