"""Scorers that take turns in the measurement of speed."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from perf import gauge, turns

pytestmark = pytest.mark.slow  # clocks, which stumble where other tests run beside them

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


def taken(found: dict[int, tuple[list[float], float]]) -> list[tuple[int, float, float]]:
    """Who ran, from when to when: each stretch in which none but one did. Two at once would make hundreds."""
    moments = sorted((moment, at) for at, (seen, _) in found.items() for moment in seen)
    stretches = [(at, list(group)) for at, group in itertools.groupby(moments, key=lambda m: m[1])]
    return [(at, group[0][0], group[-1][0]) for at, group in stretches]


def test_one_scorer_runs_at_a_time_and_each_clock_counts_its_own_turns():
    found = dict(turns.in_turns(ticks, [(3.0,), (4.0,)], turn_s=[TURN_S] * 2, dtype=torch.float32))
    runs = taken(found)
    # 3.0 s are 4 turns, of the others' 5 the last two stand together; one more or less where a machine stumbles.
    assert 7 <= len(runs) <= 9
    for at, (_, counted) in found.items():
        assert counted == pytest.approx(sum(ended - began for who, began, ended in runs if who == at), abs=0.4)


def test_whose_whole_time_is_longer_has_longer_turns_and_all_end_together():
    turn_s, began = (0.4, 1.2), time.monotonic()
    ends, found = {}, {}
    for at, result in turns.in_turns(ticks, [(2.0,), (6.0,)], turn_s=turn_s, dtype=torch.float32):
        ends[at], found[at] = time.monotonic() - began, result
    for at, wanted_s in enumerate(turn_s):
        lengths = [ended - begun for who, begun, ended in taken(found) if who == at][1:-1]
        assert np.median(lengths) == pytest.approx(wanted_s, abs=0.2)
    assert abs(ends[0] - ends[1]) < 2.5


def possible(run_s: float) -> tuple[float, float]:
    with turns.spent() as spent:
        ticks(run_s)
    return spent.wall_s, spent.possible_flop


def test_what_was_possible_is_the_rate_of_each_turn_times_its_seconds(monkeypatch):
    rates = itertools.cycle([1e9, 1e9, 3e9, 3e9])
    monkeypatch.setattr(gauge.Cube, "rate", lambda self: next(rates))
    for _, (wall_s, flop) in turns.in_turns(possible, [(3.2,), (3.2,)], turn_s=[TURN_S] * 2, dtype=torch.float32):
        # Turns of both rates alternate; the first and the last are cut, by more on a busy machine.
        assert 1.3e9 < flop / wall_s < 2.7e9


def test_one_that_fails_is_an_error_and_the_other_ends():
    began = time.monotonic()
    with pytest.raises(TypeError):
        list(turns.in_turns(ticks, [("no number",), (0.1,)], turn_s=[TURN_S] * 2, dtype=torch.float32))
    assert time.monotonic() - began < 60
