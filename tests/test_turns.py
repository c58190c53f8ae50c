"""Scorers that take turns in the measurement of speed."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from perf import gauge, turns

TURN_S = 0.8


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(gauge, "SIDE", 64)


def ticks(run_s: float) -> tuple[list[float], float]:
    """Moments at which either of two threads ran, until they ran for so long; and what the clock counted."""
    seen: list[float] = []
    end = threading.Event()

    def beat() -> None:
        while not end.is_set():
            seen.append(time.monotonic())
            time.sleep(0.002)

    with turns.spent() as spent:
        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        while turns._read()[0] < run_s:
            seen.append(time.monotonic())
            time.sleep(0.002)
        end.set()
        beating.join()
    return sorted(seen), spent.wall_s


def spans(seen: list[float]) -> list[tuple[float, float]]:
    """Begin and end of each stretch without a pause of half a turn."""
    cuts = np.flatnonzero(np.diff(seen) > TURN_S / 2)
    return [(seen[a], seen[b]) for a, b in zip([0, *(cuts + 1)], [*cuts, len(seen) - 1], strict=True)]


def test_one_scorer_runs_at_a_time_and_each_clock_counts_its_own_turns():
    found = dict(turns.in_turns(ticks, [(3.0,), (4.0,)], turn_s=[TURN_S] * 2, dtype=torch.float32))
    runs = sorted((began, ended, at) for at, (seen, _) in found.items() for began, ended in spans(seen))
    assert [at for *_, at in runs][:4] in ([0, 1] * 2, [1, 0] * 2)
    assert all(ended <= began for (_, ended, _), (began, *_) in itertools.pairwise(runs))
    for seen, counted in found.values():
        assert counted == pytest.approx(sum(ended - began for began, ended in spans(seen)), abs=0.4)


def test_whose_whole_time_is_longer_has_longer_turns_and_all_end_together():
    turn_s, began = (0.4, 1.2), time.monotonic()
    ends = {}
    for at, (seen, _) in turns.in_turns(ticks, [(2.0,), (6.0,)], turn_s=turn_s, dtype=torch.float32):
        ends[at] = time.monotonic() - began
        lengths = [ended - begun for begun, ended in spans(seen)][1:-1]
        assert np.median(lengths) == pytest.approx(turn_s[at], abs=0.2)
    assert abs(ends[0] - ends[1]) < 2.5


def possible(run_s: float) -> tuple[float, float]:
    with turns.spent() as spent:
        ticks(run_s)
    return spent.wall_s, spent.possible_flop


def test_what_was_possible_is_the_rate_of_each_turn_times_its_seconds(monkeypatch):
    rates = itertools.cycle([1e9, 1e9, 3e9, 3e9])
    monkeypatch.setattr(gauge.Cube, "rate", lambda self: next(rates))
    for _, (wall_s, flop) in turns.in_turns(possible, [(3.2,), (3.2,)], turn_s=[TURN_S] * 2, dtype=torch.float32):
        # Turns of one rate and of the other take turns themselves; the first and the last are cut.
        assert 1.5e9 < flop / wall_s < 2.5e9


def test_one_that_fails_is_an_error_and_the_other_ends():
    began = time.monotonic()
    with pytest.raises(TypeError):
        list(turns.in_turns(ticks, [("no number",), (0.1,)], turn_s=[TURN_S] * 2, dtype=torch.float32))
    assert time.monotonic() - began < 60
