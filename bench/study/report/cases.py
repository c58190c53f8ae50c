"""Finds the rows that a pair gets wrong by the largest margin, and shades their text by log-ratio."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CHOSEN, REJECTED, Example, Message
from bench.study.reward import rewards
from bench.study.stretches import pieces

N_PAIRS, N_ROWS = 10, 20
"""Number of best pairs in the report, and number of rows for each."""

PROMPT_BYTES, RESPONSE_BYTES = 2000, 6000
"""Most bytes of a turn and of a response in the page, including the marks of its shades. They keep the page of a full
study, with 400 responses, under 8 MB. The page says how many characters it does not show."""

MARK_BYTES = 15
"""Bytes of the marks around a shaded run."""

SHADES = ((2.0, "F"), (0.5, "f"), (-0.5, ""), (-2.0, "a"), (-np.inf, "A"))
"""Smallest log-ratio of a stretch, in nats -> its class in the page: f for the response, a against it, a capital letter
for strongly."""


class Run(NamedTuple):
    """A run of text in one shade."""

    shade: str
    text: str


class Text(NamedTuple):
    """The beginning of a text that the page shows."""

    runs: tuple[Run, ...]
    n_hidden: int
    """Number of characters that are not shown."""


class Answer(NamedTuple):
    """One response of a case."""

    response_id: str
    reward: float
    """In the report's unit: nats, nats per token or nats per byte."""
    text: Text
    shaded: bool


class Case(NamedTuple):
    """A row that a pair gets wrong."""

    pair_id: str
    example_id: str
    margin: float
    """reward(chosen) - reward(rejected), below 0."""
    prompt: tuple[tuple[str, Text], ...]
    """(role, text) of each turn."""
    answers: tuple[Answer, ...]


def worst_rows(strong: pd.DataFrame, weak: pd.DataFrame, *, reward: str, n_rows: int = N_ROWS) -> pd.DataFrame:
    """The preferences for which the rejected response leads by the largest margin, worst first.

    Args:
        strong: SCORES of the strong model.
        weak: SCORES of the weak model.
        reward: One of `schema.REWARDS`.
        n_rows: Largest number of rows.

    Returns:
        Index example_id; `chosen` and `rejected`, the rewards, and `margin`, below 0.
    """
    table = rewards(strong, weak, reward=reward).pivot(index="example_id", columns="response_id", values="reward")
    table = table.assign(margin=table[CHOSEN] - table[REJECTED])
    # Rows with equal margins are sorted by id, so that a report is always the same.
    return table[table["margin"] < 0].sort_index().sort_values("margin", kind="stable").head(n_rows)


def cases(pair_id: str, worst: pd.DataFrame, examples: dict[str, Example], stretches: pd.DataFrame) -> list[Case]:
    """The worst rows with their texts.

    Args:
        pair_id: The pair that gets the rows wrong.
        worst: Result of `worst_rows`.
        examples: The data set by example_id.
        stretches: example_id, response_id and STRETCHES of the pair's rows, where known.
    """
    grouped = dict(iter(stretches.groupby(["example_id", "response_id"], sort=False)))
    found = []
    for key, row in worst.to_dict("index").items():
        example_id = str(key)
        example = examples[example_id]
        answers = [
            _answer(response_id, row[response_id], text, grouped.get((example_id, response_id)))
            for response_id, text in example.responses
        ]
        found.append(Case(pair_id, example_id, row["margin"], _prompt(example.messages), tuple(answers)))
    return found


def shown(parts: Iterable[tuple[str, float]], *, limit: int) -> Text:
    """Join stretches of text of one shade into runs, and count what exceeds the limit.

    Args:
        parts: (text, log-ratio in nats); NaN where there is none.
        limit: Most bytes, including MARK_BYTES for each run.
    """
    runs: list[Run] = []
    hidden = 0
    for text, ratio in parts:
        shade = _shade(ratio)
        joins = bool(runs) and runs[-1].shade == shade
        limit -= 0 if joins or not text else MARK_BYTES
        # A character that the limit cuts in two is hidden.
        kept = text.encode()[: max(limit, 0)].decode(errors="ignore")
        hidden += len(text) - len(kept)
        # Nothing is shown after the first cut, because a short stretch could otherwise follow a gap.
        limit = 0 if len(kept) < len(text) else limit - len(text.encode())
        if joins:
            runs[-1] = Run(shade, runs[-1].text + kept)
        elif kept:
            runs.append(Run(shade, kept))
    return Text(tuple(runs), hidden)


def _answer(response_id: str, reward: float, text: str, rows: pd.DataFrame | None) -> Answer:
    """One response; its text is not shaded if no stretches are known."""
    if rows is None:
        return Answer(response_id, reward, shown([(text, np.nan)], limit=RESPONSE_BYTES), shaded=False)
    return Answer(response_id, reward, shown(pieces(rows), limit=RESPONSE_BYTES), shaded=True)


def _prompt(messages: Sequence[Message]) -> tuple[tuple[str, Text], ...]:
    return tuple((message.role, shown([(message.content, np.nan)], limit=PROMPT_BYTES)) for message in messages)


def _shade(ratio: float) -> str:
    return "" if np.isnan(ratio) else next(shade for least, shade in SHADES if ratio >= least)
