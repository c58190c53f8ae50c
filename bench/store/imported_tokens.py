"""Reads and checks imported scores of tokens: vLLM's `prompt_logprobs`, one JSON object a line, or our own parquet."""

import io
import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.schema import OK, TOKEN_LISTS, TOKEN_SCORES
from bench.store.token_parts import check_tokens

MOST_NATS = 1e-4
"""Rounding may raise a token's log-probability above 0 by at most this."""


def tokens_of_lines(text: str) -> pd.DataFrame:
    """TOKEN_SCORES from lines of JSON, a response each.

    A line has `example_id`, `response_id`, `prompt_token_ids` and `prompt_logprobs` as vLLM gives them for the prompt,
    the response and its end of turn, `start` (index of the response's first token) and, if known, `byte_end`.

    Raises:
        ValueError: A line is not such an object. The message names the line.
    """
    rows = []
    # Not splitlines: it also splits at U+2028, which a JSON string may contain.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_response(json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            words = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"line {number}: {words}") from None
    return pd.DataFrame(rows, columns=list(TOKEN_SCORES))


def _response(told: dict) -> tuple:
    ids, entries, start = told["prompt_token_ids"], told["prompt_logprobs"], told["start"]
    if len(ids) != len(entries):
        raise ValueError(f"prompt_logprobs has {len(entries)} entries for {len(ids)} tokens")
    if not 1 <= start < len(ids):
        raise ValueError(f"start is {start}, and must be from 1 to {len(ids) - 1}")
    own, top = [], []
    for token, entry in zip(ids[start:], entries[start:], strict=True):
        own.append(float(entry[str(token)]["logprob"]))
        top += [float(each["logprob"]) for each in entry.values() if each.get("rank") == 1][:1]
    # prompt_logprobs=1 gives the likeliest token too; 0 gives it only where it is the token itself.
    tops = np.array(top, dtype=np.float32) if len(top) == len(own) else None
    ends = told.get("byte_end")
    places = None if ends is None else np.array(ends)
    return told["example_id"], told["response_id"], np.array(own, dtype=np.float32), None, tops, places


def tokens_of_parquet(data: bytes) -> pd.DataFrame:
    """TOKEN_SCORES from a parquet file.

    Raises:
        ValueError: It is no parquet file, or has other columns.
    """
    frame = pd.read_parquet(io.BytesIO(data), use_threads=False)
    if tuple(frame.columns) != TOKEN_SCORES:
        raise ValueError(f"columns are {', '.join(map(str, frame.columns))}; expected {', '.join(TOKEN_SCORES)}")
    return frame


def check_imported_tokens(tokens: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """TOKEN_SCORES of every response of some imported SCORES; a response whose status is not ok may have no row.

    Raises:
        ValueError: An id is no text, a cell is no list of numbers, a log-probability is above 0, or the tokens are not
            those of the sums. Names the response.
    """
    ids = ["example_id", "response_id"]
    for number, row in enumerate(tokens.to_dict("records"), start=1):
        if not all(isinstance(row[name], str) for name in ids):
            raise ValueError(f"response {number}: example_id and response_id must be texts")
        if problem := _problem(row):
            raise ValueError(f"{row['example_id']}, {row['response_id']}: {problem}")
    doubled = tokens[tokens.duplicated(ids)]
    if len(doubled):
        raise ValueError(f"{doubled['example_id'].iloc[0]}, {doubled['response_id'].iloc[0]}: is there twice")
    empty = scores.loc[scores["status"] != OK, ids]
    absent = empty[~pd.MultiIndex.from_frame(empty).isin(pd.MultiIndex.from_frame(tokens[ids]))]
    filled = absent.assign(**dict.fromkeys((*TOKEN_LISTS, "byte_end")))
    whole = pd.concat([tokens.astype(object), filled.astype(object)], ignore_index=True)
    ends = [None if each is None else np.asarray(each, dtype=np.int32) for each in whole["byte_end"]]
    whole = whole.assign(byte_end=pd.Series(ends, index=whole.index, dtype=object))
    check_tokens(whole, scores)
    for name, values, size in _ends(whole, scores):
        if len(values) and ((np.diff(values, prepend=0) < 0).any() or values[-1] != size):
            raise ValueError(f"{name}: byte_end must rise from 0 or more to n_bytes, {size}, which the end of turn has")
    return whole


def _problem(row: dict) -> str:
    """What is wrong with the lists of a response, "" if nothing is."""
    for name in (*TOKEN_LISTS, "byte_end"):
        values = np.asarray([] if row[name] is None else row[name])
        if values.ndim != 1 or (values.size and values.dtype.kind not in "fiu"):
            return f"{name} is no list of numbers"
        if name == "byte_end" and not ((values == np.round(values)) & (np.abs(values) < 2**31)).all():
            return "byte_end has a value that is no whole number, or is too large"
        if name == "logp_nats" and (values > MOST_NATS).any():
            return "logp_nats has a value above 0"
    return ""


def _ends(tokens: pd.DataFrame, scores: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, byte_end and n_bytes of each response whose tokens have ends."""
    sizes = scores.set_index(["example_id", "response_id"])["n_bytes"]
    for row in tokens[tokens["byte_end"].notna()].itertuples(index=False):
        values = np.asarray(row.byte_end, dtype=np.int64)
        yield f"{row.example_id}, {row.response_id}", values, int(sizes[row.example_id, row.response_id])
