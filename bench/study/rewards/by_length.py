"""Log-ratios without the part that length explains. No label is used: what is fitted is fitted to the rewards.

A fit depends on all responses of the data set, so the reward of a response is that beside these rows.
"""

import numpy as np
import pandas as pd

SPAN = 0.9
"""Share of the responses that LOWESS weighs at each length, as arXiv 2409.17407 has it."""

LEAST = 10
"""Smallest number of responses with different lengths to which a curve is fitted; fewer get their mean alone."""


def regularised(both: pd.DataFrame) -> pd.Series:
    """log-ratio - a x bytes, nats; a makes the responses that it prefers as long as the others on average.

    For two responses to a prompt: the a at which sum |d| sign(r / d - a) is nearest 0, where r is the difference of
    their log-ratios and d that of their bytes: the weighted median of r / d. Of more responses, every two of a prompt
    count. Needs sums. Source: DICE, arXiv 2406.09760, equation 7, which counts characters.
    """
    size = both["n_bytes"].astype(float)
    return both["difference"] - price_of_length(both["example_id"], both["difference"], size) * size


def price_of_length(prompts: pd.Series, rewards: pd.Series, sizes: pd.Series) -> float:
    """The a of `regularised`, reward per byte; 0 if all responses to a prompt are equally long.

    Args:
        prompts: example_id of each response, (n,).
        rewards: (n,); NaN is left out.
        sizes: Bytes, (n,).
    """
    known = pd.DataFrame({"prompt": prompts, "reward": rewards, "size": sizes}).dropna()
    slopes, weights = [np.empty(0)], [np.empty(0)]
    for _, rows in known.groupby("prompt", sort=False):
        first, second = np.triu_indices(len(rows), k=1)
        gain, longer = (rows[name].to_numpy()[first] - rows[name].to_numpy()[second] for name in ("reward", "size"))
        differ = longer != 0
        slopes.append(gain[differ] / longer[differ])
        weights.append(np.abs(longer[differ]))
    slope, weight = np.concatenate(slopes), np.concatenate(weights)
    if not len(slope):
        return 0.0
    order = np.argsort(slope, kind="stable")
    slope, below = slope[order], np.cumsum(weight[order])
    # Between two neighbours, not on one of them: there the two responses of a prompt would tie.
    cuts = np.concatenate([[0.0], below])
    cut = int(np.argmin(np.abs(2 * cuts - cuts[-1])))
    low, high = slope[max(cut - 1, 0)], slope[min(cut, len(slope) - 1)]
    return float((low + high) / 2)


def calibrated(both: pd.DataFrame) -> pd.Series:
    """log-ratio - its LOWESS fit on the length in bytes, nats. Needs sums. Source: arXiv 2409.17407, section 3."""
    size, values = both["n_bytes"].to_numpy(float), both["difference"].to_numpy(float)
    known = np.isfinite(values)
    fit = np.full(len(values), np.nan)
    if known.any():
        fit[known] = _curve(size[known], values[known])
    return pd.Series(values - fit, index=both.index)


def _curve(size: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What LOWESS expects at each length, (n,)."""
    if len(np.unique(size)) < LEAST:
        return np.full(len(values), values.mean())
    # Imported here, because it takes seconds and no other reward needs it.
    from statsmodels.nonparametric.smoothers_lowess import lowess

    # Lengths within 1% of the range share a fit; that changes little and makes thousands of responses fast.
    return lowess(values, size, frac=SPAN, it=3, delta=0.01 * np.ptp(size), return_sorted=False)
