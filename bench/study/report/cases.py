"""Finds the rows that a pair gets wrong by the largest margin, and shades their text by log-ratio."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CHOSEN, Example, Message
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
    is_right: bool
    reward: float
    """In the report's unit: nats, nats per token or nats per byte."""
    text: Text
    shaded: bool


class Case(NamedTuple):
    """A row that a pair gets wrong."""

    pair_id: str
    example_id: str
    margin: float
    """The best reward of a right response minus the best of a wrong one, below 0."""
    prompt: tuple[tuple[str, Text], ...]
    """(role, text) of each turn."""
    answers: tuple[Answer, ...]


def wrong_rows(
    strong: pd.DataFrame, weak: pd.DataFrame, *, reward: str, right: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """The examples of which a wrong response has the highest reward, largest margin first.

    Args:
        strong: SCORES of the strong model.
        weak: SCORES of the weak model.
        reward: A name of `rewards.known.KNOWN`.
        right: response_ids of the right responses by example_id; None for preferences.

    Returns:
        Index example_id; the rewards by response_id, missing where an example has no such response, and `margin`, below
        0. Examples of which a response is not scored are left out.
    """
    rows = rewards(strong, weak, reward=reward)
    ids = zip(rows["example_id"], rows["response_id"], strict=True)
    is_right = np.array([name == CHOSEN if right is None else name in right[example] for example, name in ids])
    right_best, wrong_best = (rows[side].groupby("example_id")["reward"].max() for side in (is_right, ~is_right))
    unscored = rows.loc[rows["reward"].isna(), "example_id"].unique()
    table = rows.pivot(index="example_id", columns="response_id", values="reward")
    table = table.assign(margin=(right_best - wrong_best).drop(unscored))
    # Rows with equal margins are sorted by id, so that a report is always the same.
    return table[table["margin"] < 0].sort_index().sort_values("margin", kind="stable")


def cases(pair_id: str, worst: pd.DataFrame, examples: dict[str, Example], stretches: pd.DataFrame) -> list[Case]:
    """The worst rows with their texts.

    Args:
        pair_id: The pair that gets the rows wrong.
        worst: The first rows of `wrong_rows`.
        examples: The data set by example_id.
        stretches: example_id, response_id and STRETCHES of the pair's rows, where known.
    """
    grouped = dict(iter(stretches.groupby(["example_id", "response_id"], sort=False)))
    found = []
    for key, row in worst.to_dict("index").items():
        example_id = str(key)
        example = examples[example_id]
        answers = [
            _answer(
                response_id,
                row[response_id],
                text,
                grouped.get((example_id, response_id)),
                is_right=response_id in example.right,
            )
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


def _answer(response_id: str, reward: float, text: str, rows: pd.DataFrame | None, *, is_right: bool) -> Answer:
    """One response; its text is not shaded if no stretches are known."""
    parts = [(text, np.nan)] if rows is None else pieces(rows)
    return Answer(response_id, is_right, reward, shown(parts, limit=RESPONSE_BYTES), shaded=rows is not None)


def _prompt(messages: Sequence[Message]) -> tuple[tuple[str, Text], ...]:
    return tuple((message.role, shown([(message.content, np.nan)], limit=PROMPT_BYTES)) for message in messages)


def _shade(ratio: float) -> str:
    return "" if np.isnan(ratio) else next(shade for least, shade in SHADES if ratio >= least)
