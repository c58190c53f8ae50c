"""How the cost grows: with rows, with models, with pairs of models that are scored already."""

import gc
import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bench.registry import load_registry
from bench.schema import CHOSEN, OK, REJECTED, SCORES
from bench.study.reward import reward_matrix
from bench.verbs.listing import pairs_frame
from perf.gauge import peak
from perf.scorers import DTYPES, OURS, SCORERS
from perf.timing import apart, timed
from perf.turns import in_turns
from perf.workloads import STRONG, Workload, folder, plain

SCALING = ("grows", "rows", "models", "pairs", "tokens", "wall_s", "peak_bytes")
"""`grows` says which count is varied. `tokens` are computed ones, all models together; `wall_s` of `rows` is
scoring alone, of `models` loading and scoring, of `pairs` the subtraction alone."""

MODELS, PAIRS = (1, 2, 4, 8), (1, 2, 5, 10, 20, 50, 100, 221)
STUDY, REWARDBENCH_ROWS = "paper-221", 2985
REPEATS = 5
TURN_S = 60.0


def scaling(per_subset: int, row_factors: Sequence[int]) -> Iterator[pd.DataFrame]:
    """SCALING so far, after each measurement.

    Args:
        per_subset: Rows a subset at factor 1, and for the models.
        row_factors: The numbers of rows, over those at factor 1.
    """
    rows = []
    for factor in row_factors:
        rows.append(("rows", *scored(plain(per_subset * factor))))
        yield _frame(rows)
    for n in MODELS:
        rows.append(("models", *apart(_passes, plain(per_subset), n)))
        yield _frame(rows)
    for n in PAIRS:
        rows.append(("pairs", *apart(_subtracted, n)))
        yield _frame(rows)


def _frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SCALING))


def scored(work: Workload) -> tuple:
    """SCALING of one workload but for `grows`: this engine alone, all turns its own."""
    [(_, (row, _))] = in_turns(timed, [(OURS, "bf16", work, folder(STRONG))], turn_s=[TURN_S], dtype=DTYPES["bf16"])
    return row.rows, 1, 0, row.computed_tokens, row.wall_s, row.peak_bytes


def _passes(work: Workload, n: int) -> tuple:
    """One model after the other, each loaded, used and let go, as a study does it."""
    with peak() as memory:
        began = time.perf_counter()
        for _ in range(n):
            gc.collect()
            SCORERS[OURS](folder(STRONG), "bf16").score(work)
        wall_s = time.perf_counter() - began
    return max(work.rows) + 1, n, 0, float("nan"), round(wall_s, 3), memory.n_bytes


def _subtracted(n: int) -> tuple:
    """The margins of the study's first pairs on as many rows as RewardBench has; the scores are drawn, not scored."""
    registry = load_registry()
    pairs = pairs_frame(registry, registry.study_pairs(registry.study(STUDY))[:n])
    names = pd.unique(pd.concat([pairs["strong"], pairs["weak"]]))
    rng = np.random.default_rng(0)
    scores = {name: _drawn(rng) for name in names}
    spent_s = []
    with peak() as memory:
        for _ in range(REPEATS):
            began = time.perf_counter()
            reward_matrix(scores, pairs, reward="sum")
            spent_s.append(time.perf_counter() - began)
    return REWARDBENCH_ROWS, len(names), n, 0, round(statistics.median(spent_s), 6), memory.n_bytes


def _drawn(rng: np.random.Generator) -> pd.DataFrame:
    """SCORES of one model, drawn."""
    n = 2 * REWARDBENCH_ROWS
    return pd.DataFrame(
        {
            "example_id": np.repeat([f"row/{i}" for i in range(REWARDBENCH_ROWS)], 2),
            "response_id": [CHOSEN, REJECTED] * REWARDBENCH_ROWS,
            "logp_sum_nats": -rng.gamma(4, 50, n),
            "logp_end_nats": -rng.gamma(1, 1, n),
            "n_tokens": rng.integers(2, 500, n),
            "n_bytes": rng.integers(8, 2000, n),
            "status": OK,
        }
    )[list(SCORES)]
