"""One scorer on one workload in one dtype, in a process of its own; and all of them in turns of seconds."""

import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from perf.gauge import TokenCount, demand, peak
from perf.scorers import DPO, DTYPES, LM_EVAL, OURS, SCORERS, TOKENS, TRANSFORMERS
from perf.turns import in_turns, spent
from perf.workloads import Workload

CONTESTS = {
    "plain": ({OURS: 4, LM_EVAL: 7, DPO: 16, TRANSFORMERS: 7}, ("fp32", "bf16"), 2),
    "tokens": ({OURS: 4, TOKENS: 4}, ("bf16",), 4),
    "customised": ({OURS: 4, LM_EVAL: 24}, ("bf16",), 2),
    "annotate": ({OURS: 4, LM_EVAL: 30}, ("bf16",), 2),
}
"""Workload -> the scorers that run it with the seconds of their turns, the dtypes, and how often.

Turns are to each other about as whole runs were: all end together, and none has the machine's better minutes for
itself."""
TURNS = {"fp32": 1.0, "bf16": 0.25}
"""Dtype -> factor of the turns: a run in bfloat16 takes a quarter of the time, and has as many turns."""


class Timing(NamedTuple):
    """One run of one scorer on one workload."""

    scorer: str
    workload: str
    dtype: str
    device: str
    rows: int
    unique_tokens: int
    """Tokens of one trie over the whole workload."""
    computed_tokens: int
    """Tokens that went through the model, padding and repeats included."""
    wall_s: float
    peak_bytes: int
    """Memory over what the process held with the model loaded."""
    share_of_matmul_rate: float
    """FLOP of the unique tokens, over what square products in that dtype would have done in the same seconds."""


PERF = (*Timing._fields, "round")


def contest(work: Workload, folder: Path) -> Iterator[tuple[pd.DataFrame, dict[tuple, np.ndarray]]]:
    """Time the scorers of a workload beside each other, the order of turns reversed in every second round.

    Args:
        work: What to score.
        folder: The model's files.

    Yields:
        After each run PERF so far, and (scorer, dtype) -> nats of each response.
    """
    turn_s, dtypes, n_rounds = CONTESTS[work.name]
    rows, sums = [], {}
    for turn, dtype in itertools.product(range(1, n_rounds + 1), dtypes):
        order = list(turn_s) if turn % 2 else list(turn_s)[::-1]
        calls, turns = [(scorer, dtype, work, folder) for scorer in order], [TURNS[dtype] * turn_s[s] for s in order]
        for at, (timing, found) in in_turns(timed, calls, turn_s=turns, dtype=DTYPES[dtype]):
            sums[order[at], dtype] = found
            rows.append((*timing, turn))
            said = f"{timing.wall_s:.1f} s, {timing.share_of_matmul_rate:.0%} of the matmul rate"
            print(f"{work.name}, {dtype}, round {turn}: {order[at]} {said}", file=sys.stderr)
            yield pd.DataFrame(rows, columns=list(PERF)), sums


def timed(scorer: str, dtype: str, work: Workload, folder: Path) -> tuple[Timing, np.ndarray]:
    """Load a scorer, warm it up, time it once; gives each response's nats too.

    The peers score a short row before the clock starts. This engine does not.
    """
    model, score = SCORERS[scorer](folder, dtype)
    if scorer not in (OURS, TOKENS):
        score(shortest_row(work))
    need = demand(model, work)
    count = TokenCount(model)
    with peak() as memory, spent() as clock:
        sums = score(work)
    share = round(need.flop / clock.possible_flop, 4)
    facts = (scorer, work.name, dtype, "cpu", len(set(work.rows)), need.unique_tokens, count.n)
    return Timing(*facts, round(clock.wall_s, 3), memory.n_bytes, share), sums


def shortest_row(work: Workload) -> Workload:
    """The row with the fewest tokens."""
    sizes = np.bincount(work.rows, weights=[len(ids) for ids in work.ids])
    chosen = np.flatnonzero(np.array(work.rows) == sizes.argmin())
    return work.take(chosen)._replace(rows=[0] * len(chosen))


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process: neither memory nor caches come from an earlier run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
