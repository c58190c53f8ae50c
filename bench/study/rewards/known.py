"""All rewards by name. A reward of a new family is a module beside this one and a line here.

`schema` names those that need tokens. Rewards of several pairs, or of one model under two texts, are pairs of their
own: they come as SCORES like any other.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from bench.study.rewards import by_length, contrastive, plain, prefix, robust, strong_alone


class Reward(NamedTuple):
    """A reward of single responses."""

    function: Callable[[pd.DataFrame], pd.Series]
    unit: str
    family: str
    words: str
    """The formula in words, for tables."""
    source: str

    @property
    def by_length(self) -> bool:
        """Whether it takes the length of a response into account: divides by it, or leaves out what it explains."""
        return self.unit != _NATS or self.family == _LENGTH


_NATS, _PER_TOKEN = "nats", "nats per token"
_LENGTH, _TOKENS, _STRONG = "without length", "tokens", "strong alone"

KNOWN: Mapping[str, Reward] = {
    "sum": Reward(plain.whole, _NATS, "log-ratio", "log-ratio", "2411.02481"),
    "mean": Reward(plain.by_token, _PER_TOKEN, "log-ratio", "log-ratio a token", "2411.02481"),
    "per-byte": Reward(plain.by_byte, "nats per byte", "log-ratio", "log-ratio a byte", "2411.02481"),
    "length-regularised": Reward(
        by_length.regularised, _NATS, _LENGTH, "less a x bytes, so that its labels are equally long", "2406.09760"
    ),
    "calibrated": Reward(by_length.calibrated, _NATS, _LENGTH, "less its LOWESS fit on bytes", "2409.17407"),
    "strong": Reward(strong_alone.total, _NATS, _STRONG, "strong's log-probability", "2506.23235"),
    "strong-mean": Reward(strong_alone.by_token, _PER_TOKEN, _STRONG, "the same a token", "2403.13787"),
    "prefix-mean": Reward(prefix.mean, _NATS, _TOKENS, "mean prefix sum", "2412.01981"),
    "prefix-min": Reward(prefix.lowest, _NATS, _TOKENS, "lowest prefix sum", "2412.01981"),
    "peak": Reward(prefix.peak, _NATS, _TOKENS, "highest prefix sum", "2412.01981"),
    "last": Reward(prefix.last, _NATS, _TOKENS, f"the last {prefix.LAST} tokens", "2502.01456"),
    "clipped": Reward(robust.clipped, _NATS, _TOKENS, f"tokens clipped to ±{robust.CLIP_NATS:g} nat", "2410.04350"),
    "trimmed": Reward(robust.trimmed, _PER_TOKEN, _TOKENS, "mean of the middle 80% of tokens", "trimmed mean"),
    "contrastive": Reward(
        contrastive.plausible, _NATS, _TOKENS, f"tokens over {contrastive.PLAUSIBLE:g} of the likeliest", "2210.15097"
    ),
}  # fmt: skip
"""In the order of tables."""

UNITS = {name: reward.unit for name, reward in KNOWN.items()}
"""The unit of each reward."""
