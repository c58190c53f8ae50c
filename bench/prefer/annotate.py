"""Candidates and their rewards -> preferences: the best response of each prompt over its worst, and why not.

The paper's annotation (arXiv 2411.02481): of a prompt's candidates the one with the highest reward is chosen and the
one with the lowest rejected; a prompt whose candidates tie, or are one text, teaches nothing and is skipped.
Two of the filters are R.I.P.'s (arXiv 2501.18578): a prompt whose rejected response is poor, or far below the chosen
one, is a poor prompt. Every prompt that is left out is counted with its reason.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import OK, Example

UNSCORED, EQUAL, TIE = "unscored", "equal", "tie"
MARGIN, LENGTH, POOR, FAR = "margin", "length_ratio", "rejected_quality", "reward_gap"
"""Why a prompt is skipped, in the order in which it is asked: fewer than two candidates were scored; all scored ones
are one text; best and worst reward are equal; the margin is too small; the chosen text is too long beside the rejected
one; the rejected reward is among the lowest; the margin is among the highest."""

PREFERENCES = (
    "example_id", "chosen_id", "rejected_id", "margin", "chosen_reward", "rejected_reward",
    "chosen_bytes", "rejected_bytes", "n_candidates",
)  # fmt: skip
"""One row a prompt that is kept. Rewards are in the unit of the reward: nats, nats a token or nats a byte; the margin
is chosen - rejected; `n_candidates` counts the scored ones."""

SKIPPED = ("example_id", "reason")


class Filters(NamedTuple):
    """What a preference must be; nothing is asked where a limit is None."""

    rejected: str = "worst"
    """Who is rejected: "worst", or "random" among all but the best."""
    min_margin: float | None = None
    max_length_ratio: float | None = None
    """Bytes of the chosen text over bytes of the rejected one."""
    poorest_share: float | None = None
    """The share of prompts, 0 to 1, with the lowest rejected reward that goes (R.I.P.)."""
    widest_share: float | None = None
    """The share of prompts with the largest margin that goes (R.I.P.)."""


class Annotated(NamedTuple):
    """What candidates became."""

    preferences: pd.DataFrame
    """PREFERENCES, in the order of the prompts."""
    skipped: pd.DataFrame
    """SKIPPED, in the order of the prompts."""


def annotate(
    examples: Sequence[Example], rewards: pd.DataFrame, filters: Filters, *, rng: np.random.Generator
) -> Annotated:
    """Choose and reject among each prompt's candidates.

    Args:
        examples: Prompts with their candidates.
        rewards: example_id, response_id, reward, status, as `study.reward.rewards` gives them.
        filters: What a preference must be. Shares are of the prompts that all earlier filters kept.
        rng: Draws the rejected one where it is random.
    """
    scored = rewards[rewards["status"] == OK]
    values = {
        name: dict(zip(rows["response_id"], rows["reward"], strict=True)) for name, rows in scored.groupby("example_id")
    }
    kept, skipped = [], {}
    for example in examples:
        found = _preference(example, values.get(example.example_id, {}), filters, rng)
        if isinstance(found, str):
            skipped[example.example_id] = found
        else:
            kept.append(found)
    frame = pd.DataFrame(kept, columns=list(PREFERENCES))
    for reason, is_lost in _rules(filters):
        lost = is_lost(frame)
        skipped |= dict.fromkeys(frame.loc[lost, "example_id"], reason)
        frame = frame[~lost]
    order = [(e.example_id, skipped[e.example_id]) for e in examples if e.example_id in skipped]
    return Annotated(frame.reset_index(drop=True), pd.DataFrame(order, columns=list(SKIPPED)))


def _preference(example: Example, rewards: dict[str, float], filters: Filters, rng: np.random.Generator) -> tuple | str:
    """A row of PREFERENCES, or the reason for none."""
    texts = {name: text for name, text in example.responses if name in rewards}
    if len(texts) < 2:
        return UNSCORED
    if len(set(texts.values())) == 1:
        return EQUAL
    # Of equal rewards the first candidate: neither a dictionary's order nor a sort decides.
    best = max(texts, key=lambda name: rewards[name])
    others = [name for name in texts if texts[name] != texts[best]]
    worst = min(others, key=lambda name: rewards[name])
    if filters.rejected == "random":
        worst = others[rng.integers(len(others))]
    margin = rewards[best] - rewards[worst]
    if margin <= 0:
        return TIE
    sizes = [len(texts[name].encode()) for name in (best, worst)]
    return (example.example_id, best, worst, margin, rewards[best], rewards[worst], *sizes, len(texts))


def _rules(filters: Filters) -> Iterator[tuple[str, Callable[[pd.DataFrame], pd.Series]]]:
    """Each filter's reason, and which rows of PREFERENCES it takes away."""
    if filters.min_margin is not None:
        yield MARGIN, lambda frame: frame["margin"] < filters.min_margin
    if filters.max_length_ratio is not None:
        yield LENGTH, lambda frame: frame["chosen_bytes"] / frame["rejected_bytes"] > filters.max_length_ratio
    if filters.poorest_share is not None:
        yield POOR, lambda frame: _lowest(frame["rejected_reward"], filters.poorest_share)
    if filters.widest_share is not None:
        yield FAR, lambda frame: _lowest(-frame["margin"], filters.widest_share)


def _lowest(values: pd.Series, share: float) -> pd.Series:
    """Which values are the lowest, a share of all rounded down; of equals the first."""
    return values.rank(method="first") <= int(share * len(values))
