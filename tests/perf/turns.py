"""Scorers in processes of their own that take turns of seconds: what slows a machine for a while slows all of them.

A scorer passes its turn on before a forward pass, and its clock stands still until the turn comes back.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn

from perf.gauge import Cube

TURN_S = 5
LONGEST_WAIT_S = 1800
"""For a turn: a process that died never passes it on."""


class Turns:
    """Which of some processes runs; the others wait."""

    def __init__(self, n: int) -> None:
        """All wait until the first one is woken."""
        context = get_context("spawn")
        self.woken, self.running = [context.Semaphore(0) for _ in range(n)], context.Array("b", [1] * n)

    def wait(self, me: int) -> None:
        """Until the turn comes."""
        if not self.woken[me].acquire(timeout=LONGEST_WAIT_S):
            raise RuntimeError("another scorer kept its turn")

    def pass_on(self, me: int) -> None:
        """Wake the next one that still runs, which may be this one."""
        n = len(self.running)
        for other in ((me + step) % n for step in range(1, n + 1)):
            if self.running[other]:
                self.woken[other].release()
                return

    def leave(self, me: int) -> None:
        """Be passed over from now on."""
        self.running[me] = 0
        self.pass_on(me)


_mine: tuple[Turns, int] | None = None
"""In a process that takes turns: with whom, and which one it is."""


def _join(turns: Turns, me: int) -> None:
    global _mine
    _mine = (turns, me)


def _in_turn(function: Callable[..., Any], *args: Any) -> Any:
    turns, me = _mine
    turns.wait(me)
    try:
        return function(*args)
    finally:
        turns.leave(me)


def in_turns(function: Callable[..., Any], calls: list[tuple]) -> Iterator[tuple[int, Any]]:
    """Call a function once for each tuple of arguments, each in a fresh process; gives number and result as they end.

    The function makes its first turn last until a `Clock` of its passes it on.
    """
    turns = Turns(len(calls))
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _join, (turns, me)))
            for me in range(len(calls))
        ]
        # Nobody is still importing when the first one begins.
        for pool in pools:
            pool.submit(time.sleep, 0).result()
        futures = {
            pool.submit(_in_turn, function, *args): at for at, (pool, args) in enumerate(zip(pools, calls, strict=True))
        }
        turns.woken[0].release()
        for future in as_completed(futures):
            yield futures[future], future.result()


class Clock:
    """Seconds that a scorer ran, its turns alone, and what a square product would have reached in them."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Stands still."""
        self._cube = Cube(dtype)
        self.wall_s = 0.0
        self.possible_flop = 0.0
        """Seconds of each turn, times the matmul rate at its beginning."""

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[None]:
        """Run, but for the turns of others, which come before a forward pass of the model."""
        hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: self._tick())
        self._begin()
        try:
            yield
            self._end()
        finally:
            hook.remove()

    def _begin(self) -> None:
        self._rate = self._cube.rate()
        self._began = time.perf_counter()

    def _end(self) -> None:
        spent_s = time.perf_counter() - self._began
        self.wall_s += spent_s
        self.possible_flop += spent_s * self._rate

    def _tick(self) -> None:
        if time.perf_counter() - self._began < TURN_S:
            return
        self._end()
        if _mine:
            turns, me = _mine
            turns.pass_on(me)
            turns.wait(me)
        self._begin()
