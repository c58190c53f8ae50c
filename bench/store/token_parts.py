"""Encodes, decodes and checks the scores of single tokens (TOKEN_SCORES as parquet). Knows no path.

A response has one row with a list for each number: 12 bytes per token in all, because zstd shortens them a little.
"""

import io
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.schema import OK, TOKEN_LISTS, TOKEN_SCORES, DrsowError

_FLOATS = pa.list_(pa.float32())
_TYPES = {"example_id": pa.string(), "response_id": pa.string(), "byte_end": pa.list_(pa.int32())}
_ARROW = pa.schema([(name, _TYPES.get(name, _FLOATS)) for name in TOKEN_SCORES])
_ID = ["example_id", "response_id"]

SUM_NATS = 3e-5
"""Largest difference a token between a stored sum and the sum of its tokens; float32 rounds that much."""


def encode_tokens(frame: pd.DataFrame) -> bytes:
    """A frame of TOKEN_SCORES as parquet; equal frames give equal bytes."""
    columns = [pa.array(list(frame[field.name]), type=field.type, from_pandas=False) for field in _ARROW]
    # Mantissas are noise and do not compress; ends of tokens grow by a few bytes each.
    encodings = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in TOKEN_LISTS}
    encodings["byte_end.list.element"] = "DELTA_BINARY_PACKED"
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(columns, schema=_ARROW)
    pq.write_table(table, buffer, compression="zstd", use_dictionary=_ID, column_encoding=encodings)
    return buffer.getvalue()


def join_tokens(parts: Iterable[bytes]) -> pd.DataFrame:
    """Joins the token parts of a set: columns TOKEN_SCORES, sorted by example_id and response_id; None is no list."""
    table = pa.concat_tables(pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False) for data in parts)
    return table.to_pandas().sort_values(_ID, ignore_index=True)


def check_tokens(tokens: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Checks that token scores are those of stored sums.

    Args:
        tokens: TOKEN_SCORES.
        scores: SCORES.

    Raises:
        ValueError: A response has no row, another number of tokens, lists of different lengths, or its tokens do not
            add up to its sum. The message names the response.
    """
    both = scores.merge(tokens, on=_ID, how="outer", indicator=True, validate="one_to_one")
    lone = both[both["_merge"] != "both"]
    if len(lone):
        words = "has a sum, but no tokens" if lone["_merge"].iloc[0] == "left_only" else "has tokens, but no sum"
        raise ValueError(f"{lone['example_id'].iloc[0]}, {lone['response_id'].iloc[0]}: {words}")
    for row in both.itertuples(index=False):
        if problem := _problem(row._asdict()):
            raise ValueError(f"{row.example_id}, {row.response_id}: {problem}")


def match_tokens(tokens: pd.DataFrame, scores: pd.DataFrame, where: str) -> None:
    """As `check_tokens`, for tokens and sums of a stored set.

    Raises:
        DrsowError: They are not of one computation; `where` is the name of the set's folder.
    """
    try:
        check_tokens(tokens, scores)
    except ValueError as error:
        advice = "Delete this folder and run again with --tokens, which stores both"
        raise DrsowError(f"{where}: its tokens are not those of its stored sums: {error}. {advice}") from error


def _problem(row: dict) -> str:
    """What is wrong with the tokens of a response, "" if nothing is."""
    lists = {name: row[name] for name in TOKEN_SCORES[2:] if row[name] is not None}
    if row["status"] != OK:
        return f"has tokens, although its status is {row['status']}" if lists else ""
    if "logp_nats" not in lists:
        return "logp_nats is missing"
    n_tokens = int(row["n_tokens"])
    for name, values in lists.items():
        if len(values) != n_tokens:
            return f"{name} has {len(values)} values, but the response has {n_tokens} tokens"
        if not np.isfinite(values).all():
            return f"{name} has a value that is not finite"
    logps = np.asarray(lists["logp_nats"], dtype=np.float64)
    room = SUM_NATS * n_tokens + 1e-6 * abs(row["logp_sum_nats"])
    for name, found in (("logp_sum_nats", logps[:-1].sum()), ("logp_end_nats", logps[-1])):
        if abs(found - row[name]) > room:
            return f"its tokens add up to {found:.6g} nats, but {name} is {row[name]:.6g}"
    if "top_logp_nats" in lists and (np.asarray(lists["top_logp_nats"]) < lists["logp_nats"]).any():
        return "a token is more likely than the most likely one (top_logp_nats)"
    return ""
