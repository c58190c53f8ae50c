"""Turns the rewards of each prompt's candidates into a preference: the best candidate over the worst.

This is the paper's annotation (arXiv 2411.02481): the candidate with the highest reward is chosen, and the one with the
lowest reward is rejected. A prompt whose candidates tie, or have the same text, teaches nothing and is skipped.
Two filters come from R.I.P. (arXiv 2501.18578): a prompt is poor if its rejected response has a low reward, or a
reward far below that of the chosen response. The result lists every skipped prompt with its reason.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import OK, Example
from bench.study.ensemble import least_margins

UNSCORED, EQUAL, TIE, DISAGREE = "unscored", "equal", "tie", "disagree"
MARGIN, UNSURE, LENGTH, POOR, FAR = "margin", "confidence", "length_ratio", "rejected_quality", "reward_gap"
"""Reasons for skipping a prompt, in the order in which they are checked: fewer than two candidates were scored; all
scored candidates have the same text; the best and the worst reward are equal; the pairs of an ensemble by the minimum
agree on no two candidates; the margin is too small; the confidence is too small; the chosen text is too long compared
with the rejected one; the rejected reward is among the lowest; the margin is among the largest."""

PREFERENCES = (
    "example_id", "chosen_id", "rejected_id", "margin", "chosen_reward", "rejected_reward",
    "chosen_bytes", "rejected_bytes", "n_candidates", "confidence",
)  # fmt: skip
"""One row per kept prompt. Rewards are in nats, nats per token or nats per byte, as the reward variant says. The margin
is the chosen reward minus the rejected one. `n_candidates` counts the scored candidates. `confidence` is the
probability that the label is right, 0 to 1, or NaN where no labelled rows are known."""

Confidence = Callable[[pd.DataFrame], np.ndarray]
"""Maps rows of PREFERENCES to the probability that each label is right, (rows,)."""

SKIPPED = ("example_id", "reason")


class Filters(NamedTuple):
    """Conditions that a preference must meet; a limit of None is no condition."""

    rejected: str = "worst"
    """Which candidate is rejected: "worst", or "random" for any except the best; in an ensemble by the
    minimum, any to which all pairs prefer the best."""
    min_margin: float | None = None
    min_confidence: float | None = None
    """Least probability that the label is right, 0 to 1."""
    max_length_ratio: float | None = None
    """Upper limit of the bytes of the chosen text divided by the bytes of the rejected text."""
    poorest_share: float | None = None
    """Fraction of prompts, 0 to 1, that are skipped because their rejected reward is among the lowest (R.I.P.)."""
    widest_share: float | None = None
    """Fraction of prompts, 0 to 1, that are skipped because their margin is among the largest (R.I.P.)."""


class Annotated(NamedTuple):
    """The result of `annotate`."""

    preferences: pd.DataFrame
    """PREFERENCES, in the order of the prompts."""
    skipped: pd.DataFrame
    """SKIPPED, in the order of the prompts."""


def annotate(
    examples: Sequence[Example],
    rewards: pd.DataFrame,
    filters: Filters,
    *,
    rng: np.random.Generator,
    confidence: Confidence | None = None,
) -> Annotated:
    """Choose one candidate of each prompt and reject another.

    Args:
        examples: Prompts with their candidates.
        rewards: example_id, response_id, reward, status, as `study.reward.rewards` gives them; with `standard`, as
            `verbs.ensemble.combined` gives them, the margin is the smallest of the pairs' standardised margins.
        filters: Conditions for a preference. A fraction counts the prompts that all earlier filters kept.
        rng: Draws the rejected candidate if `filters.rejected` is "random".
        confidence: How sure the labels are; None if no labelled rows are known.
    """
    scored = rewards[rewards["status"] == OK]
    values = _by_example(scored, "reward")
    standard = _by_example(scored, "standard") if "standard" in scored else {}
    kept, skipped = [], {}
    for example in examples:
        mine = values.get(example.example_id, {})
        found = _preference(example, mine, filters, rng, standard.get(example.example_id, {}))
        if isinstance(found, str):
            skipped[example.example_id] = found
        else:
            kept.append(found)
    frame = pd.DataFrame(kept, columns=list(PREFERENCES[:-1]))
    frame["confidence"] = np.nan if confidence is None else confidence(frame)
    for reason, is_lost in _rules(filters):
        lost = is_lost(frame)
        skipped |= dict.fromkeys(frame.loc[lost, "example_id"], reason)
        frame = frame[~lost]
    order = [(e.example_id, skipped[e.example_id]) for e in examples if e.example_id in skipped]
    return Annotated(frame.reset_index(drop=True), pd.DataFrame(order, columns=list(SKIPPED)))


def _by_example(scored: pd.DataFrame, column: str) -> dict[str, dict]:
    """A column's values by example_id, then by response_id."""
    groups = scored.groupby("example_id")
    return {str(name): dict(zip(rows["response_id"], rows[column], strict=True)) for name, rows in groups}


def _preference(
    example: Example, rewards: dict[str, float], filters: Filters, rng: np.random.Generator, standard: dict
) -> tuple | str:
    """A row of PREFERENCES, or the reason why the prompt is skipped.

    `standard` has each pair's standardised reward of the candidates of an ensemble by the minimum, otherwise nothing.
    """
    texts = {name: text for name, text in example.responses if name in rewards}
    if len(texts) < 2:
        return UNSCORED
    if len(set(texts.values())) == 1:
        return EQUAL
    best, worst = _agreed(texts, standard) if standard else _extremes(texts, rewards)
    if filters.rejected == "random":
        others = [name for name in texts if texts[name] != texts[best]]
        if standard:
            # Only a candidate to which all pairs prefer the best one. If there is none, the prompt is skipped below.
            others = [name for name in others if (standard[best] - standard[name]).min() > 0] or [worst]
        worst = others[rng.integers(len(others))]
    margin = float((standard[best] - standard[worst]).min()) if standard else rewards[best] - rewards[worst]
    if margin <= 0:
        return DISAGREE if standard else TIE
    sizes = [len(texts[name].encode()) for name in (best, worst)]
    return (example.example_id, best, worst, margin, rewards[best], rewards[worst], *sizes, len(texts))


def _extremes(texts: dict[str, str], rewards: dict[str, float]) -> tuple[str, str]:
    """The candidate with the largest reward, and that with the smallest among those with another text."""
    # Among equal rewards, max and min take the first candidate, so the result does not depend on a sort.
    best = max(texts, key=lambda name: rewards[name])
    worst = min((name for name in texts if texts[name] != texts[best]), key=lambda name: rewards[name])
    return best, worst


def _agreed(texts: dict[str, str], standard: dict[str, np.ndarray]) -> tuple[str, str]:
    """The chosen and the rejected candidate with the largest of the pairs' smallest standardised margins."""
    names = list(texts)
    least = least_margins(np.stack([standard[name] for name in names], axis=1))
    same = np.array([[texts[one] == texts[other] for other in names] for one in names])
    best, worst = np.unravel_index(np.where(same, -np.inf, least).argmax(), least.shape)
    return names[best], names[worst]


def _rules(filters: Filters) -> Iterator[tuple[str, Callable[[pd.DataFrame], pd.Series]]]:
    """For each active filter, its reason and a function that marks the rows of PREFERENCES to remove."""
    if (least := filters.min_margin) is not None:
        yield MARGIN, lambda frame: frame["margin"] < least
    if (at_least := filters.min_confidence) is not None:
        yield UNSURE, lambda frame: ~(frame["confidence"] >= at_least)
    if (ratio := filters.max_length_ratio) is not None:
        yield LENGTH, lambda frame: frame["chosen_bytes"] / frame["rejected_bytes"] > ratio
    if (poorest := filters.poorest_share) is not None:
        yield POOR, lambda frame: _lowest(frame["rejected_reward"], poorest)
    if (widest := filters.widest_share) is not None:
        yield FAR, lambda frame: _lowest(-frame["margin"], widest)


def _lowest(values: pd.Series, share: float) -> pd.Series:
    """Marks the lowest `share` of the values. The number is rounded down; among equal values the first ones count."""
    # A share such as 0.29 is stored as a little less, and 29 of 100 would become 28.
    return values.rank(method="first") <= int(round(share * len(values), 6))
