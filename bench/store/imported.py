"""Checks imported scores of another engine, row by row.

A row is rejected if its numbers cannot be log-probabilities and lengths of its response. The limits are wide on
purpose, so that no correct row is rejected.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import NONFINITE, OK, SCORES, TOO_LONG, Dataset

ROUNDING_NATS = 1e-5
"""Rounding may raise a token's log-probability above 0 by at most this."""

LONGEST_TOKEN = 256
"""Upper limit of the bytes per token, on average over a response. The longest known tokens are runs of 128 spaces."""

ODD_TOKENS = 8
"""Upper limit of a response's tokens without bytes: the end of turn, and tokens that a tokenizer adds before a text."""

BYTES_RATIO, ODD_BYTES = 100, 1000
"""A rendered response is at most BYTES_RATIO times as long as its text plus ODD_BYTES bytes."""

SURE_TOKENS = 4
"""A model is never fully certain of this many tokens, so a sum of exactly 0 over them was not computed."""


class Problem(NamedTuple):
    """One kind of fault, and the rows that have it."""

    field: str
    rows: np.ndarray
    """Whether each row has the fault, (n,), bool."""
    words: str


def check_imported(frame: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Checks that a table can be the data set's SCORES, and converts its numbers.

    Args:
        frame: The imported table as it was read, one row per response.
        dataset: The data set that was scored.

    Raises:
        ValueError: A row is wrong. The message names the row's number, its ids and the field.
    """
    if tuple(frame.columns) != SCORES:
        raise ValueError(f"columns are {', '.join(map(str, frame.columns))}; expected {', '.join(SCORES)}")
    for problems in (_ids, _numbers, _rows_of):
        _refuse(frame, problems(frame, dataset))
    frame = frame.assign(**{name: _number(frame[name]) for name in ("logp_sum_nats", "logp_end_nats")})
    frame = frame.assign(**{name: _number(frame[name]).astype("int64") for name in ("n_tokens", "n_bytes")})
    _refuse(frame, _values(frame, dataset))
    return frame


def _refuse(frame: pd.DataFrame, problems: Iterator[Problem]) -> None:
    for field, rows, words in problems:
        if rows.any():
            place = int(np.argmax(rows))
            row = frame.iloc[place]
            more = f" ({int(rows.sum()):,} rows)" if rows.sum() > 1 else ""
            where = f"row {place + 1} ({row['example_id']}, {row['response_id']}), field {field}"
            raise ValueError(f"{where}: {row[field]!s:.40} {words}{more}")


def _number(column: pd.Series) -> pd.Series:
    """The column as float64, with NaN for every value that is not a number."""
    if column.dtype == bool:
        return pd.Series(np.nan, index=column.index)
    return pd.to_numeric(column, errors="coerce").astype("float64")


def _ids(frame: pd.DataFrame, _dataset: Dataset) -> Iterator[Problem]:
    for name in ("example_id", "response_id", "status"):
        bad = np.array([not (isinstance(value, str) and value) for value in frame[name]], dtype=bool)
        yield Problem(name, bad, "is missing, or no text")
    known = (OK, TOO_LONG, NONFINITE)
    yield Problem(
        "status", ~frame["status"].isin(known).to_numpy(), f"is an unknown status (known: {', '.join(known)})"
    )
    doubled = frame.duplicated(["example_id", "response_id"]).to_numpy(bool)
    yield Problem("response_id", doubled, "is stored twice for this example")


def _numbers(frame: pd.DataFrame, _dataset: Dataset) -> Iterator[Problem]:
    for name in ("n_tokens", "n_bytes"):
        counts = _number(frame[name])
        yield Problem(name, ~(counts == counts.round()).to_numpy() | (counts.abs() > 2**53).to_numpy(), "is no count")
    ok = (frame["status"] == OK).to_numpy()
    for name in ("logp_sum_nats", "logp_end_nats"):
        finite = np.isfinite(_number(frame[name])).to_numpy()
        yield Problem(name, ok & ~finite, "is no finite log-probability, and the status is ok")
        filled = frame[name].notna().to_numpy() & (frame[name].astype(str) != "").to_numpy()
        yield Problem(name, ~ok & filled & finite, "is given although the status is not ok; leave the cell empty")


def _rows_of(frame: pd.DataFrame, dataset: Dataset) -> Iterator[Problem]:
    wanted = {(e.example_id, response_id) for e in dataset.examples for response_id, _ in e.responses}
    given = list(zip(frame["example_id"], frame["response_id"], strict=True))
    if missing := sorted(wanted - set(given)):
        raise ValueError(f"{missing[0][0]}, {missing[0][1]}: no row ({len(missing)} are missing)")
    strange = np.array([pair not in wanted for pair in given], dtype=bool)
    yield Problem("example_id", strange, f"with this response_id is no response of {dataset.slug}")


def _values(frame: pd.DataFrame, dataset: Dataset) -> Iterator[Problem]:
    texts = {(e.example_id, name): text for e in dataset.examples for name, text in e.responses}
    given = zip(frame["example_id"], frame["response_id"], strict=True)
    size = np.array([len(texts[pair].strip().encode()) for pair in given], dtype=np.int64)
    n_tokens, n_bytes = frame["n_tokens"].to_numpy(), frame["n_bytes"].to_numpy()
    total, end = frame["logp_sum_nats"].to_numpy(), frame["logp_end_nats"].to_numpy()
    yield Problem("n_tokens", n_tokens < 1, "is less than 1: a response has a token, and its end of turn")
    yield Problem("n_bytes", n_bytes < 1, "is less than 1: the response has text")
    never = "is above 0, and a log-probability never is: is it a loss, or its negative?"
    yield Problem("logp_sum_nats", total > ROUNDING_NATS * n_tokens, never)
    yield Problem("logp_end_nats", end > ROUNDING_NATS, never)
    sure = (total == 0) & (n_tokens >= SURE_TOKENS)
    yield Problem("logp_sum_nats", sure, "is 0 over several tokens: was it filled in?")
    odd = (n_bytes > BYTES_RATIO * size + ODD_BYTES) | (BYTES_RATIO * n_bytes < size)
    yield Problem("n_bytes", odd, "is out of all proportion to the response's text")
    yield Problem("n_tokens", n_tokens > n_bytes + ODD_TOKENS, "is more than the response has bytes")
    few = n_tokens * LONGEST_TOKEN < n_bytes
    yield Problem("n_tokens", few, "is too few: no tokenizer has tokens that long")
