"""Scores the missing parts of score sets. A model needs one pass, however many pairs it belongs to."""

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from bench.entries import UrlSource
from bench.faults import warn
from bench.schema import DrsowError, ScoreKey
from bench.scoring.garbage import import_frozen
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
    """Number of tasks on a Ray cluster; 0 if this process scores by itself."""
    address: str | None = None
    """Address of the Ray cluster; None starts a cluster on this machine."""
    stall_s: float = 1800.0
    """Seconds without a new part from any task, after which all running tasks are restarted."""


def shares(n_passes: int, *, shard: int, n_shards: int) -> list[Share | None]:
    """The share of each pass that one of several processes scores.

    The passes are lined up, and the line is cut into `n_shards` pieces of equal length. A process gets one piece, so it
    loads few models.

    Args:
        n_passes: Number of passes in the run.
        shard: Number of this process, from 1.
        n_shards: Number of processes.

    Returns:
        One share for each pass; None for a pass of which this process scores nothing.
    """
    first, last = (Fraction(n_passes * place, n_shards) for place in (shard - 1, shard))
    limits = [(max(first - i, Fraction(0)), min(last - i, Fraction(1))) for i in range(n_passes)]
    return [Share(low, high) if low < high else None for low, high in limits]


def is_done(score_set: ScoreSet, options: Options) -> bool:
    """Whether a set holds all that a run with these options stores."""
    return score_set.complete and (not options.tokens or score_set.has_tokens)


def check_kept(ready: Ready, score_set: ScoreSet, options: Options) -> None:
    """Compares a set that needs no more scores with the model that the server has now; other models have no server.

    Raises:
        DrsowError: The server has another model than the one that scored the set.
        PreconditionError: The server cannot be reached, or its numbers cannot be used.
    """
    if isinstance(ready.work.spec.source, UrlSource) and is_done(score_set, options):
        import_frozen("bench.scoring.served")
        from bench.scoring.served import ServedScorer

        ServedScorer(ready, options).check_model(score_set)


def score_missing(ready: Ready, store: Store, options: Options, share: Share = WHOLE) -> ScoreSet:
    """The score set of a pass. Only parts that the store lacks are scored.

    Args:
        ready: The pass.
        store: The results folder.
        options: Device, dtype and token budget, and whether tokens are stored.
        share: The parts that this process scores.

    Returns:
        The set. It is complete, unless other processes have not scored their shares yet.
    """
    return score_together([Job(ready, share)], store, options)[0]


class Job(NamedTuple):
    """A pass, and the parts of it that this process scores."""

    ready: Ready
    share: Share = WHOLE

    @property
    def weights(self) -> tuple[str, str]:
        """Passes that share this value need the same weights and the same chat template."""
        return self.ready.work.spec.model_id, self.ready.work.owner.model_id

    def with_ops(self, ops: str) -> "Job":
        """The pass with other ops than its key says."""
        return self._replace(ready=self.ready._replace(key=self.ready.key._replace(ops=ops)))


def score_together(
    jobs: Sequence[Job], store: Store, options: Options, following: Path | None = None
) -> list[ScoreSet]:
    """The score sets of passes with the same `Job.weights`. The weights are loaded once; otherwise as `score_missing`.

    Args:
        jobs: The passes. They differ in their rows.
        store: The results folder.
        options: Device, dtype and token budget.
        following: Folder of the next model; its weights are read from the disk while this model computes.
    """
    sets = [store.score_set(job.ready.key) for job in jobs]
    for job, score_set in zip(jobs, sets, strict=True):
        check_kept(job.ready, score_set, options)
    if all(is_done(score_set, options) for score_set in sets):
        return sets
    import_frozen("bench.scoring.served")
    from bench.scoring.scorer import OtherOps

    with contextlib.ExitStack() as locks:
        todo = []
        for job, score_set in zip(jobs, sets, strict=True):
            if is_done(score_set, options):
                continue
            locks.enter_context(_lock(score_set, job.share))
            # Another process may have finished the set while this one waited for the lock.
            if not is_done(score_set, options):
                _keep_apart(store, job.ready.key, job.share)
                todo.append((job, score_set))
        try:
            _fill(todo, store, options, following)
            return sets
        except OtherOps as other:
            known = {job.ready.key for job, _ in todo}
            jobs = [job.with_ops(str(other)) if job.ready.key in known else job for job in jobs]
    return score_together(jobs, store, options, following)


def _lock(score_set: ScoreSet, share: Share) -> contextlib.AbstractContextManager[None]:
    if share.whole:
        return score_set.lock()
    # A task whose worker died may start again before the dead worker's lock is released.
    return score_set.lock(f".{float(share.first):.6f}-{float(share.last):.6f}", wait_s=SHARE_WAIT_S)


def _fill(todo: Sequence[tuple[Job, ScoreSet]], store: Store, options: Options, following: Path | None) -> None:
    """Scores the passes with one scorer: first each in the run's dtype, then what needs float32."""
    from bench.scoring.scorer import OtherOps
    from bench.scoring.served import scorer_of

    if not todo:
        return
    with contextlib.closing(scorer_of(todo[0][0].ready, options)) as scorer:
        # The next model is read from the disk while the last pass computes, because then this model is loaded.
        after = [None] * (len(todo) - 1) + [following]
        both = zip(todo, after, strict=True)
        stages = [scorer.stages(score_set, job.share, folder, store=store) for (job, score_set), folder in both]
        failed: dict[int, Exception] = {}
        for _ in range(2):
            for number, (job, _) in enumerate(todo):
                scorer.ready = job.ready
                try:
                    if number not in failed:
                        next(stages[number], None)
                except OtherOps:
                    raise
                except Exception as error:
                    # A text that one pass cannot read does not stop the others.
                    failed[number] = error
    if failed:
        raise next(iter(failed.values()))


def _keep_apart(store: Store, key: ScoreKey, share: Share) -> None:
    """Prints a line if another run began to score this pass with other ops: that set stays as it is.

    Raises:
        DrsowError: This process is a shard. The other shards complete the other set, so neither would be complete.
    """
    fields = key._asdict()
    del fields["ops"]
    for other in store.begun(**fields):
        if other.key.ops == key.ops or other.complete or not other.has_parts:
            continue
        words = f"{other.folder} was begun with {other.key.ops}, and this process computes with {key.ops}"
        if not share.whole:
            raise DrsowError(
                f"{words}: all shards of a set must have the same ops. Run this shard on a machine like the one that "
                "began, or delete that folder and run all shards again"
            )
        warn(f"{key.model_id}: {words}: it begins a separate set")
