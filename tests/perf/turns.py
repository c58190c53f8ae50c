"""Scorers in processes of their own that take turns of seconds: what slows a machine for a while slows all of them.

Whoever is not at turn is stopped by the system, with all its threads, wherever it is.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch

from perf.gauge import Cube

_mine: Sequence[float] = ()
"""In a process that takes turns: seconds and possible FLOP of its earlier turns, when this one began, its matmul rate.
Written while the process is stopped."""


class Spent:
    """Turns of this process between two moments, filled in at the second one."""

    wall_s = 0.0
    possible_flop = 0.0
    """Seconds of each turn, times the matmul rate at its beginning."""


@contextmanager
def spent() -> Iterator[Spent]:
    """Count the turns of this process while something runs."""
    found, (began_s, began_flop) = Spent(), _read()
    yield found
    ended_s, ended_flop = _read()
    found.wall_s, found.possible_flop = ended_s - began_s, ended_flop - began_flop


def _read() -> tuple[float, float]:
    while True:
        before, now = tuple(_mine), time.monotonic()
        # Otherwise a turn ended in between.
        if tuple(_mine) == before:
            ran_s, flop, since, rate = before
            return ran_s + now - since, flop + (now - since) * rate


def _join(mine: Sequence[float]) -> None:
    global _mine
    _mine = mine


class _Scorer(NamedTuple):
    pid: int
    turns: Any
    """What the process reads as _mine."""
    future: Future
    turn_s: float

    def take_turn(self, rate: float) -> bool:
        """Let the process run for a turn; whether it has ended."""
        self.turns[2:] = began, _ = time.monotonic(), rate
        os.kill(self.pid, signal.SIGCONT)
        ended = bool(wait([self.future], timeout=self.turn_s).done)
        if not ended:
            _stop(self.pid)
            ran_s = time.monotonic() - began
            self.turns[0] += ran_s
            self.turns[1] += ran_s * rate
        return ended


def in_turns(
    function: Callable[..., Any], calls: Sequence[tuple], *, turn_s: Sequence[float], dtype: torch.dtype
) -> Iterator[tuple[int, Any]]:
    """Call a function once for each tuple of arguments, each in a fresh process; gives number and result as they end.

    Args:
        function: Called in turns from its first line on; `spent` tells it what is its own.
        calls: Arguments, a tuple a process.
        turn_s: Seconds of each one's turns, as its whole time is to the others': all see the same minutes then.
        dtype: Of the products that tell the machine's rate, before each turn.
    """
    cube = Cube(dtype)
    with ExitStack() as stack:
        scorers = [_stopped(stack, function, args, at_turn) for args, at_turn in zip(calls, turn_s, strict=True)]
        waiting = deque(enumerate(scorers))
        try:
            while waiting:
                at, scorer = waiting.popleft()
                if scorer.take_turn(cube.rate()):
                    yield at, scorer.future.result()
                else:
                    waiting.append((at, scorer))
        finally:
            for scorer in scorers:
                with suppress(ProcessLookupError):
                    os.kill(scorer.pid, signal.SIGCONT)


def _stop(pid: int) -> None:
    """Stop a process of ours, and wait until every thread of it stands."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def _stopped(stack: ExitStack, function: Callable[..., Any], args: tuple, turn_s: float) -> _Scorer:
    """A process that will call the function at its first turn."""
    context = get_context("spawn")
    turns = context.Array("d", 4, lock=False)
    pool = stack.enter_context(ProcessPoolExecutor(1, context, _join, (turns,)))
    pid = pool.submit(os.getpid).result()
    _stop(pid)
    return _Scorer(pid, turns, pool.submit(function, *args), turn_s)
