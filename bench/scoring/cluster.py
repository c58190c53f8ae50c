"""Runs passes as tasks on a Ray cluster. Another worker replaces one that dies; the parts that it stored remain."""

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from bench.faults import first_line, told, warn
from bench.schema import DrsowError, PreconditionError
from bench.scoring import passes, run
from bench.store.folder import Store

RETRIES = 5
"""How often a task restarts after its worker or node died or hung."""

SAID_EVERY_S = 30.0

Failure = tuple[str, int]
"""A line for the user and its exit code."""


class Stretch(NamedTuple):
    """The work of one task."""

    todo: list[tuple[passes.Work, passes.Share]]
    n_hung: int = 0
    """How often the task restarted because it stored no part."""


def score_on_ray(works: Seq[passes.Work], root: Path, options: passes.Options, spread: run.Spread) -> list[Failure]:
    """Scores the missing parts of some passes. The tasks divide the work in the same way as shards.

    Args:
        works: The passes.
        root: The results folder, which all nodes see under this path.
        options: Device, dtype and token budget. A task on "cuda" asks for one GPU.
        spread: Number of tasks, the cluster's address, and the time without a new part after which tasks restart.

    Returns:
        The failures.

    Raises:
        PreconditionError: Ray is not installed, or no cluster answers.
    """
    shares = [run.shares(len(works), shard=i, n_shards=spread.n_tasks) for i in range(1, spread.n_tasks + 1)]
    stretches = [[(work, share) for work, share in zip(works, each, strict=True) if share] for each in shares]
    ray = _connected(spread.address)
    gpus = 1 if options.device == "cuda" else 0
    remote = ray.remote(num_gpus=gpus, num_cpus=1, max_retries=RETRIES)(score_some)
    folder = str(root.resolve())
    try:
        tasks = {remote.remote(todo, folder, options): Stretch(todo) for todo in stretches if todo}
        return _gathered(ray, tasks, root, spread.stall_s, lambda todo: remote.remote(todo, folder, options))
    finally:
        ray.shutdown()


def _gathered(ray: ModuleType, tasks: dict, root: Path, stall_s: float, begin: Callable) -> list[Failure]:
    """Waits for the tasks to end. If no part is stored for `stall_s`, kills and restarts all running tasks."""
    failures: list[Failure] = []
    n_all, n_parts, since = len(tasks), _n_parts(root), time.monotonic()
    while tasks:
        done, _ = ray.wait(list(tasks), timeout=min(SAID_EVERY_S, stall_s / 4))
        for task in done:
            del tasks[task]
            try:
                failures += ray.get(task)
            except ray.exceptions.RayError as error:
                failures.append((f"a task failed: {first_line(error)}", DrsowError.code))
        if done or _n_parts(root) != n_parts:
            n_parts, since = _n_parts(root), time.monotonic()
        elif time.monotonic() - since > stall_s:
            warn(f"no part was stored for {stall_s:.0f} s: drsow kills the running tasks and starts them again")
            for task, stretch in list(tasks.items()):
                del tasks[task]
                ray.cancel(task, force=True)
                if stretch.n_hung < RETRIES:
                    tasks[begin(stretch.todo)] = stretch._replace(n_hung=stretch.n_hung + 1)
                else:
                    failures.append((f"a task stored nothing in {RETRIES + 1} attempts", DrsowError.code))
            since = time.monotonic()
        warn(f"{n_all - len(tasks)} of {n_all} tasks, {n_parts} parts stored")
    return failures


def _n_parts(root: Path) -> int:
    """Number of stored parts of all score sets. It grows while tasks make progress."""
    return sum(1 for _ in root.glob("scores/*/part-*.parquet"))


def score_some(todo: Seq[tuple[passes.Work, passes.Share]], root: str, options: passes.Options) -> list[Failure]:
    """Runs one task: scores shares of passes one after the other. A model that fails ends only its own share."""
    failures = []
    for work, share in todo:
        try:
            run.score_missing(passes.make_ready(work, options), Store(Path(root)), options, share)
        except Exception as error:
            said, code = told(error)
            failures.append((f"{work.spec.model_id}: {said}", code))
    return failures


def _connected(address: str | None) -> ModuleType:
    try:
        import ray
    except ImportError:
        raise PreconditionError("--executor ray: Ray is not installed (pip install 'drsow[ray]')") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PreconditionError(f"--executor ray: {first_line(error)}") from None
    return ray
