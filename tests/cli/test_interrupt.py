"""A run that is killed, stopped or started twice: what is scored stays, what comes out is the same to the byte."""

import signal
import subprocess
import time

import pytest
from commands import COMMAND, environment, lasting, rows, write_rows

pytestmark = pytest.mark.slow  # a process of its own for every fact: minutes

KILLED = 137
"""Exit code after `kill -9`."""


@pytest.mark.parametrize("moment", ["before-rename:part-0001", "after-rename:part-0002"])
def test_a_killed_run_goes_on_and_ends_as_if_it_had_never_been(drsow, tiny_run, finished, tmp_path, moment):
    out = tmp_path / "results"
    killed = drsow(*tiny_run, "--results", out, DRSOW_CRASH_AT=moment)
    assert (killed.returncode, killed.stdout) == (KILLED, "")
    done = {path.name: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}
    written = sorted(finished[0].rglob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    when, part = moment.split(":")
    reached = next(at for at, path in enumerate(written) if path.name.startswith(part))
    assert set(done) == {path.name for path in written[: reached + (when == "after-rename")]} != set()
    again = drsow(*tiny_run, "--results", out)
    assert again.returncode == 0, again.stderr
    assert lasting(out) == lasting(finished[0])
    # What was scored before the kill was not scored again.
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}.items()


def test_ctrl_c_keeps_what_is_scored_and_says_so(drsow, tiny_run, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", rows(1500))
    words = [COMMAND, *map(str, [*tiny_run[:6], path, *tiny_run[7:], "--results", tmp_path / "out"])]
    # A shell starts what stands behind "&" deaf to Ctrl-C, and the tests may stand there.
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list((tmp_path / "out").rglob("part-*.parquet")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "drsow: stopped; scores so far are stored, run the command again to continue"
    assert "Traceback" not in err
    assert list((tmp_path / "out").rglob("part-*.parquet"))
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_two_processes_at_once_do_no_harm(drsow, tiny_run, finished, tmp_path):
    out = tmp_path / "results"
    words = [COMMAND, *map(str, [*tiny_run, "--results", out])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, env=environment(), **pipes) for _ in range(2)]
    for process in both:
        _, err = process.communicate()
        assert "Traceback" not in err
        assert process.returncode == 0 or "is being scored by another process" in err.splitlines()[-1]
    last = drsow(*tiny_run, "--results", out)
    assert last.returncode == 0, last.stderr
    assert lasting(out) == lasting(finished[0])
