"""Measures how much the run's dtype changes scores: a small sample is scored in that dtype and in float32."""

import hashlib
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.faults import warn
from bench.schema import DrsowError, ScoreKey
from bench.scoring.passes import PRECISION_RESPONSES, SMALL_RESPONSES, versions
from bench.scoring.render import Sequence
from bench.store.folder import Store

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer


class Sampled(NamedTuple):
    """A sample of the run's sequences, scored in the run's dtype; or what an earlier set measured."""

    sequences: Seq[Sequence]
    logps: Seq[np.ndarray]
    """As `Scorer.logps` gives them. No sequence is too long."""
    earlier: dict
    """The result of `earlier`; empty if the sample was scored."""


def sampled(
    scorer: "Scorer", by_example: Seq[Seq[Sequence]], budget: int, store: Store | None = None
) -> Sampled | None:
    """Scores the sample in the run's dtype; None in float32, for a model on a server, and if memory runs out.

    Args:
        scorer: The run's scorer.
        by_example: The sequences of each example.
        budget: The most tokens of one step.
        store: Has earlier sets. A set of at most SMALL_RESPONSES takes what one of them measured.
    """
    if scorer.ready.key.dtype == "float32" or scorer.served:
        return None
    sample = [s for row in _whole_examples(by_example, scorer.limit) for s in row]
    small = sum(map(len, by_example)) <= SMALL_RESPONSES
    if store is not None and small and (found := earlier(store, scorer.ready.key, len(sample))):
        return Sampled([], [], found)
    try:
        return Sampled(sample, _known(scorer.logps(sample, budget)), {})
    except DrsowError as error:
        warn(f"{error}; its precision is not measured")
        return None


def precision(scorer: "Scorer", sample: Sampled | None, budget: int) -> dict:
    """The shift of the sample between the run's dtype and float32, for the manifest.

    Args:
        scorer: The run's scorer, which loads its model in float32.
        sample: The result of `sampled`.
        budget: The most tokens of one step.

    Returns:
        `precision` with `n_responses`, `mean_shift_nats`, `max_shift_nats`, both sums of each response in nats, and the
        names of the right responses; with `measured_earlier` if an earlier set measured it on its own rows. Empty
        without a sample, and if nothing could be measured.
    """
    if sample is None:
        return {}
    if sample.earlier:
        return {"precision": sample.earlier}
    try:
        exact = _known(scorer.logps(sample.sequences, budget, dtype="float32"))
    except DrsowError as error:
        warn(f"{error}; its precision is not measured")
        return {}
    pairs = list(zip(sample.sequences, sample.logps, exact, strict=True))
    broken = {s.example_id for s, low, high in pairs if not np.isfinite(low.sum() + high.sum())}
    kept = {
        f"{s.example_id} {s.response_id}": [float(low.sum()), float(high.sum())]
        for s, low, high in pairs
        if s.example_id not in broken
    }
    if not kept:
        return {}
    shifts = np.abs([low - high for low, high in kept.values()])
    right = {f"{e.example_id} {name}" for e in scorer.ready.work.dataset.examples for name in e.right}
    facts = {"mean_shift_nats": float(shifts.mean()), "max_shift_nats": float(shifts.max()), "sums_nats": kept}
    facts["right"] = sorted(right & kept.keys())
    return {"precision": {"n_responses": len(kept)} | facts}


def earlier(store: Store, key: ScoreKey, n_least: int) -> dict:
    """The precision that another set measured with the same model, template, dtype, arithmetic and versions.

    Args:
        store: The results folder.
        key: The key of the set that needs it; only its rows may differ.
        n_least: Responses that it was measured on, at least.

    Returns:
        That of the most responses, with `measured_earlier`: the name and digest of its rows and its time; empty if
        there is none.
    """
    fields = key._asdict()
    del fields["data_digest"]
    found = []
    # Not `find`: it would warn about the damaged part that this run scores again.
    for each in (known for known in store.begun(**fields) if known.complete):
        info = each.info()
        facts = info.get("precision", {})
        if "right" in facts and facts["n_responses"] >= n_least and info.get("versions") == versions():
            told = {"data": info.get("data", ""), "data_digest": each.key.data_digest, "utc": info["finished_utc"]}
            found.append({"measured_earlier": told} | facts)
    # The rows decide among equals, so that both models of a pair take what was measured on the same ones.
    return min(found, key=lambda f: (-f["n_responses"], f["measured_earlier"]["data_digest"]), default={})


def _known(logps: Seq[np.ndarray | None]) -> list[np.ndarray]:
    """The scores of a sample, of which no sequence is too long."""
    return [values for values in logps if values is not None]


def _whole_examples(by_example: Seq[Seq[Sequence]], limit: int) -> Seq[Seq[Sequence]]:
    """Whole examples with at most PRECISION_RESPONSES responses, at least one example; the same ones in every run."""
    whole = [row for row in by_example if all(len(s.ids) <= limit for s in row)]
    rows = sorted(whole, key=lambda r: hashlib.sha256(r[0].example_id.encode()).digest())
    ends = np.cumsum([len(row) for row in rows])
    return rows[: max(1, int((ends <= PRECISION_RESPONSES).sum()))]
