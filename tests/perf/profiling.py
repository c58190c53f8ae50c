"""Where this engine's time goes: operations by the time that they themselves take."""

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from perf.scorers import OURS, SCORERS
from perf.workloads import STRONG, Workload, folder

PROFILE = ("workload", "dtype", "operation", "share", "calls", "mean_ms")
"""`share` is of the time of all operations, without those that they call; a profiled run is slower than a timed one."""

N_OPERATIONS = 12


def profiled(work: Workload, dtype: str) -> pd.DataFrame:
    """PROFILE of scoring a workload the second time, the N_OPERATIONS that take most."""
    _, score = SCORERS[OURS](folder(STRONG), dtype)
    # One thread, so steps in turn: the profiler sees no other thread's operations.
    torch.set_num_threads(1)
    score(work)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        score(work)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total_us = sum(event.self_cpu_time_total for event in events)
    rows = [
        (work.name, dtype, e.key, e.self_cpu_time_total / total_us, e.count, e.self_cpu_time_total / e.count / 1000)
        for e in events[:N_OPERATIONS]
    ]
    return pd.DataFrame(rows, columns=list(PROFILE))
