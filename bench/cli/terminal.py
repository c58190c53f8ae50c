"""Makes the streams safe for any encoding and any caller, and says whether to colour."""

import io
import os
import sys
from typing import TextIO


def forgiving_streams() -> None:
    """Let stdout and stderr write a replacement for each character that their encoding lacks.

    A stream that the user has closed (`>&-`) takes everything and shows nothing.
    """
    # Opened before any file of ours, which would otherwise get the number of the closed stream.
    sys.stdout = sys.stdout or _nothing()
    sys.stderr = sys.stderr or _nothing()
    for stream in (sys.stdout, sys.stderr):
        # A Python caller may have replaced the streams by objects of another class.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _nothing() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def coloured() -> bool:
    """Whether stdout is a terminal and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
