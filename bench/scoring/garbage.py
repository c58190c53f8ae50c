"""Pauses Python's garbage collector while many objects that stay are made."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Pauses the garbage collector.

    The collector looks at all objects each time when their number has grown by a quarter. Importing transformers and
    reading a large vocabulary make a million objects, none of which is garbage: a tokenizer of 262,000 tokens takes 2.0
    instead of 3.9 CPU seconds without the collector, and the import 3.9 instead of 4.7.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
