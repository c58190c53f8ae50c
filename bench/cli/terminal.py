"""What a terminal can show: streams that take any text, lines without control characters, colour only where wanted."""

import io
import os
import sys


def forgiving_streams() -> None:
    """Let stdout and stderr write a replacement character where their encoding has none for a character."""
    for stream in (sys.stdout, sys.stderr):
        # A caller from Python may have put something else in their place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """A text on one line, without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def coloured() -> bool:
    """Whether stdout is a terminal whose user has not switched colour off (NO_COLOR, no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
