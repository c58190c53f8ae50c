"""Encodes and decodes the files of a score set: the parts (SCORES as parquet) and the manifest. Knows no path."""

import hashlib
import io
import json
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.schema import NONFINITE, OK, SCORES, TOO_LONG

_TYPES = {
    "example_id": pa.string(),
    "response_id": pa.string(),
    "logp_sum_nats": pa.float64(),
    "logp_end_nats": pa.float64(),
    "n_tokens": pa.int64(),
    "n_bytes": pa.int64(),
    "status": pa.string(),
}
_ARROW = pa.schema([(name, _TYPES[name]) for name in SCORES])
_ID = ["example_id", "response_id"]


class Damaged(Exception):
    """A stored file was changed or cut off after it was written."""


class Manifest(NamedTuple):
    """The contents of `manifest.json`, without the digest of all of them that it also contains."""

    key: dict
    n_parts: int
    settings: dict
    """Settings that may change the last bits of the numbers, so a resumed run uses them again."""
    complete: bool
    parts: list[str]
    """File names of the parts in order; empty until the set is complete."""
    info: dict
    """Provenance: versions, device, durations, and the run's report."""


def digest(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: object) -> bytes:
    """JSON bytes; equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def check_scores(frame: pd.DataFrame) -> None:
    """Rejects a frame that is not valid SCORES.

    Args:
        frame: Columns SCORES, one row per response; sums in nats, NaN only if the status is not ok.

    Raises:
        ValueError: The columns differ, an id is missing, duplicated or not text, a status is unknown, a count is not a
            whole number of 0 or more, or a row with status ok has no finite log-probability.
    """
    if tuple(frame.columns) != SCORES:
        raise ValueError(f"columns are {', '.join(map(str, frame.columns))}; expected {', '.join(SCORES)}")
    for name in (*_ID, "status"):
        if not all(isinstance(value, str) and value for value in frame[name]):
            raise ValueError(f"{name} has a missing value, or one that is no text")
    for name in ("n_tokens", "n_bytes"):
        if not pd.api.types.is_integer_dtype(frame[name]) or frame[name].isna().any() or (frame[name] < 0).any():
            raise ValueError(f"{name} has a value that is no count")
    finite = np.isfinite(frame[["logp_sum_nats", "logp_end_nats"]].to_numpy(np.float64)).all(axis=1)
    status = frame["status"].to_numpy(str)
    problems = {
        "unknown status": ~np.isin(status, [OK, TOO_LONG, NONFINITE]),
        "no finite log-probability": (status == OK) & ~finite,
        "stored twice": frame.duplicated(_ID).to_numpy(bool),
    }
    for problem, rows in problems.items():
        if rows.any():
            row = frame[rows].iloc[0]
            raise ValueError(f"{row['example_id']}, {row['response_id']}: {problem} (status {row['status']!r})")


def encode_part(frame: pd.DataFrame) -> bytes:
    """A valid frame of SCORES as parquet; equal frames give equal bytes."""
    columns = [pa.array(frame[name], type=_TYPES[name], from_pandas=False) for name in SCORES]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=_ARROW), buffer, compression="zstd")
    return buffer.getvalue()


def join_parts(parts: list[bytes]) -> pd.DataFrame:
    """Joins the parts of a set into one frame, columns SCORES, sorted by example_id and response_id.

    Raises:
        ValueError: A response is in two parts, or the parts lack the column of an id.
    """
    scores = pa.concat_tables(
        pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False) for data in parts
    ).to_pandas()
    if lacking := [name for name in _ID if name not in scores]:
        raise ValueError(f"the column {lacking[0]} is missing")
    doubled = scores[scores.duplicated(_ID)]
    if len(doubled):
        raise ValueError(f"{doubled['example_id'].iloc[0]}, {doubled['response_id'].iloc[0]} is in two parts")
    return scores.sort_values(_ID, ignore_index=True)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON with a digest of itself."""
    # Through JSON and back, because reading it gives lists for tuples and text keys; the digest must be that of these.
    fields = json.loads(json.dumps(manifest._asdict()))
    return (json.dumps(fields | {"digest": digest(canonical(fields))}, indent=2) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Reads a manifest that `encode_manifest` wrote.

    Raises:
        Damaged: The bytes are not those that were written.
    """
    try:
        fields = json.loads(data)
        recorded = fields.pop("digest")
        manifest = Manifest(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("its manifest cannot be read") from error
    if recorded != digest(canonical(fields)):
        raise Damaged("its manifest was changed after it was written")
    return manifest
