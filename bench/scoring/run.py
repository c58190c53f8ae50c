"""Scores what is missing in the store, part by part. A model needs one pass, however many pairs it belongs to."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from bench.schema import (
    DrsowError,
    ScoreKey,
)
from bench.scoring.passes import WHOLE, Options, Ready, Share
from bench.store.folder import ScoreSet, Store

SHARE_WAIT_S = 60.0
"""How long to wait for another process that holds the same share."""


class Spread(NamedTuple):
    """How a run's work is divided among processes."""

    shard: int = 1
    """Number of this process, from 1."""
    n_shards: int = 1
    n_tasks: int = 0
    """Tasks on a Ray cluster; 0: this process does its work itself."""
    address: str | None = None
    """Of that cluster; None starts one on this machine."""
    stall_s: float = 1800.0
    """How long no part may come of any task before all that run are begun again."""


def shares(n_passes: int, *, shard: int, n_shards: int) -> list[Share | None]:
    """What one of several processes does of each pass: a stretch of all of them in a row, so that it loads few models.

    Args:
        n_passes: Passes of the run.
        shard: Number of the process, from 1.
        n_shards: How many there are.

    Returns:
        One share a pass, None where it does nothing of it.
    """
    first, last = (Fraction(n_passes * place, n_shards) for place in (shard - 1, shard))
    limits = [(max(first - i, Fraction(0)), min(last - i, Fraction(1))) for i in range(n_passes)]
    return [Share(low, high) if low < high else None for low, high in limits]


def score_missing(
    ready: Ready, store: Store, options: Options, share: Share = WHOLE, following: Path | None = None
) -> ScoreSet:
    """The pass's score set: read from the store where it is, scored where it is not; meanwhile the next model is read.

    It is complete, unless `share` is not the whole and others have not done theirs.
    """
    score_set = store.score_set(ready.key)
    if score_set.complete:
        return score_set
    lock = score_set.lock()
    if not share.whole:
        # A task whose worker died may start again before the dead worker's lock is released.
        lock = score_set.lock(f".{float(share.first):.6f}-{float(share.last):.6f}", wait_s=SHARE_WAIT_S)
    with lock:
        # Another process may have finished the set while this one waited for the lock.
        if not score_set.complete:
            from bench.scoring.scorer import OtherOps, Scorer

            _keep_apart(store, ready.key, share)
            try:
                Scorer(ready, options).fill(score_set, share, following)
                return score_set
            except OtherOps as other:
                ready = ready._replace(key=ready.key._replace(ops=str(other)))
    return score_set if score_set.complete else score_missing(ready, store, options, share, following)


def _keep_apart(store: Store, key: ScoreKey, share: Share) -> None:
    """Say that what other arithmetic began stays apart; of several shards this one could never complete it.

    Raises:
        DrsowError: this process does a share only.
    """
    fields = key._asdict()
    del fields["ops"]
    for other in store.begun(**fields):
        if other.key.ops == key.ops or other.complete or not other.has_parts:
            continue
        words = f"{other.folder} was begun by {other.key.ops}, and this process computes by {key.ops}"
        if not share.whole:
            raise DrsowError(
                f"{words}: the shards of a set must compute alike. Run this shard on a machine like the one that "
                "began, or delete that folder and begin anew"
            )
        print(f"{key.model_id}: {words}: it begins a set of its own", file=sys.stderr)
