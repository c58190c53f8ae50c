"""Work in several threads: what it gives, and how it ends."""

import signal
import subprocess
import sys
import threading

import pytest

from bench.scoring.together import together

STUCK = """
import os, signal, time
from bench.scoring.together import together
signal.signal(signal.SIGINT, signal.default_int_handler)
def wait(item):
    os.write(1, b"begun\\n")
    time.sleep(60)
try:
    list(together(wait, [1, 2, 3], n_threads=2))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_each_item_comes_once_with_its_own_value():
    assert sorted(together(lambda n: n * n, range(20), n_threads=3)) == [(n, n * n) for n in range(20)]
    assert list(together(lambda n: n, [], n_threads=3)) == []


def test_so_many_items_are_under_way_at_once():
    both = threading.Barrier(2, timeout=5)  # breaks if the second item waits for the first
    assert len(list(together(lambda _: both.wait(), [1, 2], n_threads=2))) == 2


def test_after_an_error_no_further_item_is_begun():
    begun = []

    def work(n: int) -> int:
        begun.append(n)
        if n == 1:
            raise ValueError("one")
        return n

    with pytest.raises(ValueError, match="one"):
        list(together(work, range(10), n_threads=1))
    assert begun == [0, 1]


def test_ctrl_c_ends_the_process_although_items_are_under_way():
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True)
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[0] == "stopped\n"
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
