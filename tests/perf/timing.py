"""One scorer on one workload in one dtype, in a process of its own; and all of them in turns."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch._dynamo.utils import compilation_time_metrics

from perf.gauge import TokenCount, demand, matmul_rate, peak
from perf.scorers import DPO, DTYPES, LM_EVAL, OURS, SCORERS, TRANSFORMERS
from perf.workloads import Workload

PERF = (
    "scorer", "workload", "dtype", "device", "rows", "unique_tokens", "computed_tokens", "wall_s", "peak_bytes",
    "share_of_matmul_rate", "round",
)  # fmt: skip

CONTESTS = {
    "plain": ((OURS, LM_EVAL, DPO, TRANSFORMERS), ("fp32", "bf16")),
    "customised": ((OURS, LM_EVAL), ("bf16",)),
    "annotate": ((OURS, LM_EVAL), ("bf16",)),
}
"""Workload -> the scorers that run it, and in which dtypes."""
ROUNDS = 2


class Timing(NamedTuple):
    """One run of one scorer."""

    row: tuple
    """PERF."""
    sums: np.ndarray
    """Nats of each sequence's response, (sequences,)."""


def contest(work: Workload, folder: Path) -> Iterator[tuple[pd.DataFrame, dict[tuple, np.ndarray]]]:
    """Time every scorer of a workload, the order turned round in every second round.

    Args:
        work: What to score.
        folder: The model's files.

    Yields:
        After each run PERF so far, and (scorer, dtype) -> nats of each response.
    """
    scorers, dtypes = CONTESTS[work.name]
    rows, sums = [], {}
    for turn, dtype in itertools.product(range(1, ROUNDS + 1), dtypes):
        for scorer in scorers if turn % 2 else scorers[::-1]:
            timing = apart(timed, scorer, dtype, work, folder)
            rows.append((*timing.row, turn))
            sums[scorer, dtype] = timing.sums
            frame = pd.DataFrame(rows, columns=list(PERF))
            last = frame.iloc[-1]
            print(
                f"{work.name}, {dtype}, round {turn}: {scorer} {last['wall_s']:.1f} s, "
                f"{last['share_of_matmul_rate']:.0%} of the matmul rate",
                file=sys.stderr,
            )
            yield frame, sums


def timed(scorer: str, dtype: str, work: Workload, folder: Path) -> Timing:
    """Load a scorer, warm it up, time it once.

    The peers score a short row before the clock starts. This engine does not: what it compiles while it
    scores is inside the clock, and what it compiles while the model is loaded is added.
    """
    model, score = SCORERS[scorer](folder, dtype)
    compiled_s = sum(map(sum, compilation_time_metrics.values()))
    if scorer != OURS:
        score(shortest_row(work))
    need = demand(model, work)
    count = TokenCount(model)
    before = matmul_rate(DTYPES[dtype])
    with peak() as memory:
        began = time.perf_counter()
        sums = score(work)
        wall_s = time.perf_counter() - began + compiled_s
    rate = max(before, matmul_rate(DTYPES[dtype]))
    n_rows = len(set(work.rows))
    row = (scorer, work.name, dtype, "cpu", n_rows, need.unique_tokens, count.n)
    return Timing((*row, round(wall_s, 3), memory.n_bytes, round(need.flop / wall_s / rate, 4)), sums)


def shortest_row(work: Workload) -> Workload:
    """The row with the fewest tokens."""
    sizes = np.bincount(work.rows, weights=[len(ids) for ids in work.ids])
    chosen = np.flatnonzero(np.array(work.rows) == sizes.argmin())
    return work.take(chosen)._replace(rows=[0] * len(chosen))


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process: neither memory nor caches come from an earlier run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
