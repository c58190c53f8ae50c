"""`drsow run --executor ray` on a real local cluster of two nodes, one of which is killed in the middle."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from commands import COMMAND, environment, lasting

pytestmark = pytest.mark.slow

ray_cluster = pytest.importorskip("ray.cluster_utils", reason="needs the extra `ray`")


@pytest.fixture
def cluster() -> Iterator:
    """Two nodes of one processor each, beside a head that works on nothing."""
    found = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield found
    finally:
        found.shutdown()


def begin(tiny_run, out, address: str, *more: str) -> subprocess.Popen:
    options = ["--executor", "ray", "--tasks", "4", "--address", address, "--results", str(out), *more]
    words = [COMMAND, *map(str, tiny_run), *options]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_tables_of_two_nodes_are_those_of_one_process(cluster, tiny_run, finished, tmp_path):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    run = begin(tiny_run, tmp_path, cluster.address)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "4 of 4 tasks" in err and "tiny" in out
    assert lasting(tmp_path) == lasting(finished[0])


def test_a_node_that_dies_is_made_up_for(cluster, tiny_run, finished, tmp_path):
    doomed = cluster.add_node(num_cpus=1)
    run = begin(tiny_run, tmp_path, cluster.address)
    while not list(tmp_path.glob("scores/*/part-*.parquet")) and run.poll() is None:
        time.sleep(0.01)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.glob("scores/*/part-*.parquet")}
    assert stored and run.poll() is None
    cluster.remove_node(doomed, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    assert lasting(tmp_path) == lasting(finished[0])


def workers() -> set[int]:
    """Processes of Ray's that do a task of ours."""
    found = subprocess.run(["pgrep", "-f", "ray::score_some"], capture_output=True, text=True, check=False)
    return {int(line) for line in found.stdout.split()}


def test_a_worker_that_hangs_is_killed_and_made_up_for(cluster, tiny_run, finished, tmp_path):
    cluster.add_node(num_cpus=1)
    run = begin(tiny_run, tmp_path, cluster.address, "--stall", "20")
    while not list(tmp_path.glob("scores/*/part-*.parquet")) and run.poll() is None:
        time.sleep(0.01)
    (hung,) = workers()
    os.kill(hung, signal.SIGSTOP)
    _, err = run.communicate()
    assert run.returncode == 0, err
    assert "no part was stored for 20 s: drsow kills the running tasks and starts them again" in err
    assert hung not in workers()
    assert lasting(tmp_path) == lasting(finished[0])
