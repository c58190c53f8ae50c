"""Measures how much the run's dtype changes scores: a small sample is scored in that dtype and in float32."""

import hashlib
import sys
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import numpy as np

from bench.schema import DrsowError
from bench.scoring.passes import PRECISION_RESPONSES
from bench.scoring.render import Sequence

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer


def precision(scorer: "Scorer", by_example: Seq[Seq[Sequence]], budget: int) -> dict:
    """The shift of a sample of responses between the run's dtype and float32, for the manifest.

    Args:
        scorer: The run's scorer.
        by_example: The sequences of each example.
        budget: The most tokens of one step.

    Returns:
        `precision` with `n_responses`, `mean_shift_nats`, `max_shift_nats` and, for each response, both sums in nats;
        empty in float32, for a model on a server, and if nothing could be measured.
    """
    if scorer.ready.key.dtype == "float32" or scorer.served:
        return {}
    sample = [s for row in _sampled(by_example, scorer.limit) for s in row]
    try:
        both = [scorer.logps(sample, budget, dtype=name) for name in (None, "float32")]
    except DrsowError as error:
        print(f"{error}; its precision is not measured", file=sys.stderr)
        return {}
    pairs = list(zip(sample, *both, strict=True))
    broken = {s.example_id for s, low, high in pairs if not np.isfinite(low.sum() + high.sum())}
    kept = {
        f"{s.example_id} {s.response_id}": [float(low.sum()), float(high.sum())]
        for s, low, high in pairs
        if s.example_id not in broken
    }
    if not kept:
        return {}
    shifts = np.abs([low - high for low, high in kept.values()])
    facts = {"mean_shift_nats": float(shifts.mean()), "max_shift_nats": float(shifts.max()), "sums_nats": kept}
    return {"precision": {"n_responses": len(kept)} | facts}


def _sampled(by_example: Seq[Seq[Sequence]], limit: int) -> Seq[Seq[Sequence]]:
    """Whole examples with at most PRECISION_RESPONSES responses, at least one example; the same ones in every run."""
    whole = [row for row in by_example if all(len(s.ids) <= limit for s in row)]
    rows = sorted(whole, key=lambda r: hashlib.sha256(r[0].example_id.encode()).digest())
    ends = np.cumsum([len(row) for row in rows])
    return rows[: max(1, int((ends <= PRECISION_RESPONSES).sum()))]
