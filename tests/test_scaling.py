"""How the cost grows, measured outside the contest."""

import numpy as np
import pytest
from perf.scaling import SCALING, scored
from perf.workloads import Workload

TOKENS = 32


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_one_scorer_alone_is_timed_and_its_rows_and_tokens_are_counted():
    rng = np.random.default_rng(0)
    ids = [rng.integers(100, 1000, TOKENS).astype(np.int32) for _ in range(6)]
    work = Workload("plain", ids, [8] * len(ids), [0, 0, 1, 1, 2, 2])
    found = dict(zip(SCALING[1:], scored(work), strict=True))
    assert (found["rows"], found["models"], found["pairs"]) == (3, 1, 0)
    assert len(ids) * TOKENS <= found["tokens"] <= len(ids) * TOKENS + 64
    assert 0 < found["wall_s"] < 60 and found["peak_bytes"] > 0
