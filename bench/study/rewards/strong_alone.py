"""The strong model without the weak one: the reference-free row of RewardBench (arXiv 2403.13787).

The weak model is a reference that both responses to a prompt share; arXiv 2506.23235 shows that the strong model's
log-probability is itself a reward, up to a potential of the prompt.
"""

import pandas as pd


def total(both: pd.DataFrame) -> pd.Series:
    """sum_t log p_strong(y_t | x, y_<t), end of turn included, nats. Needs sums. Source: arXiv 2506.23235."""
    return both["logp_sum_nats"] + both["logp_end_nats"]


def by_token(both: pd.DataFrame) -> pd.Series:
    """The same / number of the strong model's tokens, nats per token. Needs sums. Source: arXiv 2403.13787."""
    return total(both) / both["n_tokens"].astype(float)
