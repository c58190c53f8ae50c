"""`kill -9` at random moments: whatever is there stays, nothing is scored twice, the tables are the same."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from commands import COMMAND, environment, lasting

N_KILLS = int(os.environ.get("KILLS", "100"))


@pytest.mark.slow
def test_a_hundred_kills_end_in_the_bytes_of_an_undisturbed_run(finished, tiny_run, drsow, tmp_path):
    began = time.monotonic()
    assert drsow(*tiny_run, "--results", tmp_path / "timed").returncode == 0
    takes_s = time.monotonic() - began
    rng, n_kills, n_whole, at = np.random.default_rng(0), 0, 0, []
    while n_kills < N_KILLS:
        out = tmp_path / str(n_whole)
        scored: dict = {}
        while True:
            words = [COMMAND, *map(str, tiny_run), "--results", str(out)]
            run = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                if rng.random() < 0.5:
                    # Any moment but the first third, which is imports: nothing is there to be lost.
                    run.wait(timeout=float(rng.uniform(0.3, 1.1)) * takes_s)
                else:
                    # In the midst of the work, which is short beside its imports.
                    while run.poll() is None and len(list(out.rglob("part-*.parquet"))) <= len(scored):
                        time.sleep(0.002)
                    run.wait(timeout=float(rng.uniform(0, 0.5)))
            except subprocess.TimeoutExpired:
                os.kill(run.pid, signal.SIGKILL)
            n_kills += run.wait() == -signal.SIGKILL
            found = {path.name: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}
            assert scored.items() <= found.items()
            at.append(len(found))
            scored = found
            if run.returncode == 0:
                break
        assert lasting(out) == lasting(finished[0])
        n_whole += 1
    # The kills fell on different stages, not all before or after the work.
    print(f"{n_kills} kills, {n_whole} runs to the end, parts after each: {np.bincount(at).tolist()}")
    assert len(set(at)) > 2
