"""Shows the progress of a run on stderr: a bar on a terminal, otherwise one line every 30 s."""

import functools
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.faults import warn

EVERY_S = 30.0

OnShare = Callable[[float], None]
"""A function that gets the fraction of the work that is done, 0 to 1."""


def unheard(share: float) -> None:
    """An OnShare that does nothing."""


class Meter:
    """Counts the rows and tokens of one pass. Inside a part, it shows progress after each step."""

    def __init__(self, name: str, *, n_rows: int, n_tokens: int, unit: str = "rows") -> None:
        """Takes the name and the size of the pass. If the caller counts no tokens, `n_tokens` is `n_rows`."""
        self.name, self.n_rows, self.n_tokens, self.unit = name, n_rows, n_tokens, unit
        self.rows = self.tokens = 0
        self.ahead = (0.0, 0.0)
        """Rows and tokens that are done of the current part."""
        self.began = self.said = time.monotonic()
        self.rows_said = 0.0
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(file=sys.stderr))
            self.task = self.bar.add_task(name, total=n_tokens, rate="loading" if n_tokens != n_rows else "")

    def __enter__(self) -> "Meter":
        """Shows the bar."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Removes the bar, or prints the last line."""
        if self.bar:
            self.bar.stop()
        elif self.rows > self.rows_said:
            self._say()

    def restart(self) -> None:
        """Starts the clock again, after the model is loaded."""
        self.began = self.said = time.monotonic()
        if self.bar:
            self.bar.reset(self.task, rate="")

    def part(self, *, rows: int, tokens: int) -> Callable[[float], None]:
        """A function to call with the fraction of the part that is done, 0 to 1. `add` counts the whole part."""
        return functools.partial(self._ahead, rows, tokens)

    def _ahead(self, rows: int, tokens: int, share: float) -> None:
        self.ahead = (share * rows, share * tokens)
        self._show()

    def add(self, *, rows: int, tokens: int) -> None:
        """Counts finished work."""
        self.rows += rows
        self.tokens += tokens
        self.ahead = (0.0, 0.0)
        self._show()

    def _show(self) -> None:
        if self.bar:
            self.bar.update(self.task, completed=self.tokens + self.ahead[1], rate=self._rate())
        elif time.monotonic() - self.said >= EVERY_S:
            self._say()

    def _rate(self) -> str:
        spent_s = max(time.monotonic() - self.began, 1e-9)
        rate = f"{(self.rows + self.ahead[0]) / spent_s:.1f} {self.unit}/s"
        tokens = (self.tokens + self.ahead[1]) / spent_s
        return rate if self.n_tokens == self.n_rows else f"{rate}, {tokens:,.0f} tokens/s"

    def _say(self) -> None:
        rows, tokens = self.rows + self.ahead[0], self.tokens + self.ahead[1]
        self.said, self.rows_said = time.monotonic(), rows
        left_s = (self.said - self.began) * (self.n_tokens - tokens) / max(tokens, 1)
        line = f"{self.name}: {rows:.0f} of {self.n_rows} {self.unit}, {self._rate()}, {left_s:.0f} s left"
        warn(line)


def counting(n_tokens: int, on_share: OnShare) -> Callable[[int], None]:
    """An OnStep that reports the fraction of computed tokens. Steps may end at the same time, hence the lock."""
    done, lock = 0, threading.Lock()

    def on_step(n: int) -> None:
        nonlocal done
        with lock:
            done += n
            on_share(done / n_tokens)

    return on_step
