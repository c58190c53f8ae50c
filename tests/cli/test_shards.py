"""`drsow run --shard i/n`: however many processes share the work, the tables are those of one."""

import os
import signal
import subprocess
import time
from fractions import Fraction

import pytest
from commands import COMMAND, environment, lasting

from bench.scoring.run import shares


@pytest.mark.parametrize("n_passes", [1, 2, 3, 44])
@pytest.mark.parametrize("n_shards", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("n_parts", [1, 2, 7])
def test_shards_do_every_part_of_every_pass_once(n_passes, n_shards, n_parts):
    done = [
        (number, part)
        for shard in range(1, n_shards + 1)
        for number, share in enumerate(shares(n_passes, shard=shard, n_shards=n_shards))
        if share
        for part in share.parts(n_parts)
    ]
    assert sorted(done) == [(number, part) for number in range(n_passes) for part in range(n_parts)]


def test_a_shard_loads_few_models():
    loaded = [sum(share is not None for share in shares(44, shard=i, n_shards=10)) for i in range(1, 11)]
    assert max(loaded) <= 6
    assert shares(2, shard=1, n_shards=4) == [(Fraction(0), Fraction(1, 2)), None]


@pytest.mark.parametrize("text", ["0/2", "1", "-1/2"])
def test_a_shard_that_is_none_is_one_line(drsow, tiny_run, tmp_path, text):
    done = drsow(*tiny_run, f"--shard={text}", "--results", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"drsow: --shard {text}: must be i/n with i from 1 to n\n"


def test_a_shard_on_ray_is_one_line(drsow, tiny_run, tmp_path):
    done = drsow(*tiny_run, "--shard=1/2", "--executor=ray", "--results", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "drsow: --shard and --executor ray both share the work out: name one\n"


def begin(tiny_run, folder, shard: int, n: int) -> subprocess.Popen:
    command = [COMMAND, *map(str, tiny_run), "--shard", f"{shard}/{n}", "--results", str(folder)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5])
def test_tables_and_scores_of_shards_at_once_are_those_of_one_process(finished, tiny_run, tmp_path, n):
    runs = [begin(tiny_run, tmp_path, i, n) for i in range(1, n + 1)]
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * n, said
    assert lasting(tmp_path) == lasting(finished[0])
    assert any("tiny" in out for out, _ in said)


@pytest.mark.slow
def test_a_killed_shard_is_made_up_for_and_no_part_is_scored_twice(finished, tiny_run, drsow, tmp_path):
    first, second = (begin(tiny_run, tmp_path, i, 2) for i in (1, 2))
    while not list(tmp_path.glob("scores/tiny-strong-*/part-*.parquet")) and first.poll() is None:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second.communicate()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("scores/*/part-*.parquet")}
    again = drsow(*tiny_run, "--shard", "1/2", "--results", tmp_path)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert lasting(tmp_path) == lasting(finished[0])
