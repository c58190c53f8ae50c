"""How far a run is, on stderr: a bar on a terminal, one line every 30 s elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

EVERY_S = 30.0


class Meter:
    """Counts rows and tokens of one model's pass."""

    def __init__(self, name: str, *, n_rows: int, n_tokens: int, unit: str = "rows") -> None:
        """Name the pass and say how much there is to do; a pass that counts no tokens gives its rows as such."""
        self.name, self.n_rows, self.n_tokens, self.unit = name, n_rows, n_tokens, unit
        self.rows = self.tokens = self.rows_said = 0
        self.began = self.said = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task(name, total=n_tokens, rate="")

    def __enter__(self) -> "Meter":
        """Show the bar."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the bar away, or say the last line."""
        if self.bar:
            self.bar.stop()
        elif self.rows > self.rows_said:
            self._say()

    def add(self, *, rows: int, tokens: int) -> None:
        """Count work that was done."""
        self.rows += rows
        self.tokens += tokens
        if self.bar:
            self.bar.update(self.task, completed=self.tokens, rate=self._rate())
        elif time.monotonic() - self.said >= EVERY_S:
            self._say()

    def _rate(self) -> str:
        spent_s = max(time.monotonic() - self.began, 1e-9)
        rate = f"{self.rows / spent_s:.1f} {self.unit}/s"
        return rate if self.n_tokens == self.n_rows else f"{rate}, {self.tokens / spent_s:,.0f} tokens/s"

    def _say(self) -> None:
        self.said, self.rows_said = time.monotonic(), self.rows
        left_s = (self.said - self.began) * (self.n_tokens - self.tokens) / max(self.tokens, 1)
        line = f"{self.name}: {self.rows} of {self.n_rows} {self.unit}, {self._rate()}, {left_s:.0f} s left"
        print(line, file=sys.stderr, flush=True)
