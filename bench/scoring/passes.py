"""Prepares one pass: finds its files, names its score set, divides its rows into parts, builds the table of a part."""

import importlib.metadata
import math
import platform
from collections.abc import Sequence as Seq
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import units
from bench.entries import AdapterSource, ModelSpec, UrlSource
from bench.schema import (
    DTYPES,
    NONFINITE,
    OK,
    SCHEMA_VERSION,
    SCORES,
    TOO_LONG,
    Dataset,
    PreconditionError,
    ScoreKey,
    UsageError,
)
from bench.scoring import SPAN, fetch, located, wire
from bench.scoring.forward import ATTENTION
from bench.scoring.forward.device import default_device, default_dtype
from bench.scoring.forward.trie import common_prefix
from bench.scoring.identity import ops_name, template_digest
from bench.sources import FileSource, FolderSource

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


PART_BUDGETS = 16
"""Size of a part, in token budgets. A killed run loses at most one part."""


PRECISION_RESPONSES = 32
"""Number of responses that are scored again in float32. They belong to whole examples, at least one."""

SMALL_RESPONSES = 8 * PRECISION_RESPONSES
"""Number of responses up to which a set takes the precision of an earlier set. For a larger one, scoring a sample again
in float32 costs little beside the scores."""


class Options(NamedTuple):
    """Settings of a pass. `resolved` makes them from the user's options."""

    dtype: str
    """"bfloat16" or "float32"."""
    device: str
    """"cpu" or "cuda"."""
    batch_tokens: int
    """The token budget: the most tokens of one step."""
    tokens: bool = False
    """Whether the scores of single tokens are stored too."""
    budget_given: bool = False
    """Whether the user gave the token budget, so that another one in a stored set is a surprise."""


def resolved(
    dtype: str = "auto", device: str = "auto", batch_tokens: int | None = None, *, tokens: bool = False
) -> Options:
    """The options that a user asks for, with this machine's choice wherever the user leaves it open.

    Args:
        dtype: "auto", "bf16" or "fp32".
        device: "auto", "cpu" or "cuda".
        batch_tokens: The token budget, None for the device's default.
        tokens: Whether the scores of single tokens are stored too.

    Raises:
        UsageError: There is no such dtype or device.
        PreconditionError: The user asks for a GPU and there is none.
    """
    for name, value, known in (("dtype", dtype, DTYPES), ("device", device, BATCH_TOKENS)):
        if value not in ("auto", *known):
            raise UsageError(f"{name} {value!r}: must be auto, {' or '.join(known)}")
    if device == "cuda" and default_device() != "cuda":
        raise PreconditionError("--device cuda: torch finds no GPU on this machine")
    device = default_device() if device == "auto" else device
    dtype = default_dtype(device) if dtype == "auto" else dtype
    given = batch_tokens is not None
    return Options(DTYPES[dtype], device, batch_tokens or BATCH_TOKENS[device], tokens, given)


class Work(NamedTuple):
    """One model's pass over one data set under one template."""

    spec: ModelSpec
    owner: ModelSpec
    """The owner of the chat template."""
    dataset: Dataset


class Ready(NamedTuple):
    """A pass whose files are on this machine, with the key of its score set."""

    work: Work
    model: located.Located
    owner: located.Located
    key: ScoreKey
    plain: bool
    """Whether the owner has no chat template."""

    @property
    def label(self) -> str:
        """What progress lines call the pass: the model, and the text before its prompts if there is one."""
        return f"{self.key.model_id} ({self.key.domain})" if self.key.domain else self.key.model_id

    @property
    def names(self) -> dict[str, str]:
        """What the user calls the data and the template's owner, for the manifest."""
        return {"data": self.work.dataset.slug, "template": self.work.owner.model_id}


def make_ready(work: Work, options: Options, *, ops: str | None = None) -> Ready:
    """Finds or fetches the files of a pass and names its score set; loads no model.

    Args:
        work: The pass.
        options: Device, dtype and token budget.
        ops: Name of the ops that compute the scores. None chooses this machine's, which may compile kernels.

    Raises:
        PreconditionError: A model is not on this machine and cannot be fetched, or its server cannot be used.
    """
    model = fetch.fetch(work.spec)
    owner = model if work.owner == work.spec else fetch.fetch(work.owner, weights=False)
    served = work.spec.source if isinstance(work.spec.source, UrlSource) else None
    key = ScoreKey(
        model_id=work.spec.model_id,
        revision=model.revision,
        template_digest=template_digest(owner.folder),
        domain=work.dataset.domain,
        domain_digest=work.dataset.domain_digest,
        data_digest=work.dataset.digest,
        dtype=DTYPES[served.dtype] if served else options.dtype,
        ops=ops or (wire.identify(served).name if served else ops_name(options.device, options.dtype)),
        attention=served.kind if served else ATTENTION,
        span=SPAN,
        schema_version=SCHEMA_VERSION,
    )
    return Ready(work, model, owner, key, plain=not fetch.template_text(owner.folder))


class Share(NamedTuple):
    """The parts of a pass that a process scores: from fraction `first` of all parts to before fraction `last`."""

    first: Fraction = Fraction(0)
    last: Fraction = Fraction(1)

    @property
    def whole(self) -> bool:
        """Whether the share is the whole pass."""
        return (self.first, self.last) == (0, 1)

    def parts(self, n_parts: int) -> range:
        """Numbers of the parts. Shares that touch each other leave out no part and have no part in common."""
        return range(math.ceil(self.first * n_parts), math.ceil(self.last * n_parts))


WHOLE = Share()


def cut_parts(rows: Seq[Seq], *, part_tokens: float) -> list[list[int]]:
    """Divides examples into parts, always in the same way.

    Examples whose prompts begin alike are neighbours, because a part computes text that its prompts share once; here
    too, such text counts once. The part with the longest sequence is the first, so a lack of memory shows at the start.

    Args:
        rows: The sequences of each example, which share its prompt.
        part_tokens: Number of tokens from which on a part takes no further example.

    Returns:
        Indices of the examples of each part.
    """
    heads = [row[0].ids[: row[0].start] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: heads[i].astype(">u4").tobytes())
    parts: list[list[int]] = []
    size, before = part_tokens, heads[0][:0]
    for index in order:
        if size >= part_tokens:
            parts.append([])
            size, before = 0, heads[0][:0]
        parts[-1].append(index)
        head = heads[index]
        size += len(head) - common_prefix(before, head) + sum(len(s.ids) - s.start for s in rows[index])
        before = head
    return sorted(parts, key=lambda part: -max(len(s.ids) for i in part for s in rows[i]))


def scores_frame(sequences: Seq, logps: Seq[np.ndarray | None]) -> pd.DataFrame:
    """Builds SCORES. A sequence without log-probabilities was too long for the model.

    Args:
        sequences: The rendered responses.
        logps: Log-probability of each token of a response in nats, the end of turn last, (n_i,); None if too long.
    """
    rows = []
    for sequence, values in zip(sequences, logps, strict=True):
        text = end = float("nan")
        status = TOO_LONG
        if values is not None:
            text, end = float(values[:-1].sum()), float(values[-1])
            status = OK if np.isfinite(values).all() else NONFINITE
            if status == NONFINITE:
                text = end = float("nan")
        n_tokens = len(sequence.ids) - sequence.start
        rows.append((sequence.example_id, sequence.response_id, text, end, n_tokens, sequence.n_bytes, status))
    frame = pd.DataFrame(rows, columns=list(SCORES))
    return frame.astype(
        {"logp_sum_nats": "float64", "logp_end_nats": "float64", "n_tokens": "int64", "n_bytes": "int64"}
    )


def provenance(ready: Ready, *, device: str) -> dict:
    """Facts that may differ between two equal runs, for the manifest."""
    return {
        "finished_utc": units.utc_now(),
        "device": device,
        "processor": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
        "repo": recorded(ready.work.spec.source),
    }


def recorded(source: Any) -> str:
    """What results call a source: they travel, so of a path outside of the working folder only its last part."""
    if isinstance(source, AdapterSource):
        return f"{source.base} + adapter {recorded(source.files)}"
    if not isinstance(source, FolderSource | FileSource):
        return source.location
    path = Path(source.location).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def versions() -> dict[str, str]:
    """Versions of the packages that can change a number."""
    return {name: importlib.metadata.version(name) for name in ("drsow", "torch", "transformers", "tokenizers")}


def group(sequences: Seq) -> list[list]:
    """Groups neighbouring sequences of the same example."""
    groups: list[list] = []
    for sequence in sequences:
        if groups and groups[-1][0].example_id == sequence.example_id:
            groups[-1].append(sequence)
        else:
            groups.append([sequence])
    return groups
