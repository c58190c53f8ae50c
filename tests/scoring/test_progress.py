"""The meter: it moves after every step of the engine, and says rows, rates and what is left."""

import re

import pytest
from test_scorer import ROWS, scored

from bench.scoring import passes, progress
from bench.scoring.progress import Meter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test lets pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_comes_every_30_seconds_from_within_a_part(clock, capsys):
    with Meter("m", n_rows=100, n_tokens=10_000) as meter:
        meter.restart()
        told = meter.part(rows=50, tokens=5000)
        for seconds, share in ((10, 0.2), (20, 0.4), (29, 0.5), (40, 0.8), (50, 1.0)):
            clock[0] = 100 + seconds
            told(share)
        meter.add(rows=50, tokens=5000)
        clock[0] = 180
        meter.add(rows=50, tokens=5000)
    assert capsys.readouterr().err.splitlines() == [
        "m: 40 of 100 rows, 1.0 rows/s, 100 tokens/s, 60 s left",
        "m: 100 of 100 rows, 1.2 rows/s, 125 tokens/s, 0 s left",
    ]


def test_the_time_that_loading_takes_is_in_no_rate(clock, capsys):
    with Meter("m", n_rows=2, n_tokens=20) as meter:
        clock[0] = 160
        meter.restart()
        clock[0] = 162
        meter.add(rows=2, tokens=20)
    assert capsys.readouterr().err == "m: 2 of 2 rows, 1.0 rows/s, 10 tokens/s, 0 s left\n"


def test_a_pass_tells_of_every_step_of_a_part(tiny_registry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    options = passes.Options(dtype="float32", device="cpu", batch_tokens=32)
    _, info = scored(tiny_registry, ROWS, tmp_path, options=options)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= info["n_steps"] > 2
    done = [int(re.match(r"tiny-strong: (\d+) of 6 rows, ", line)[1]) for line in lines]
    assert done == sorted(done) and done[-1] == 6
