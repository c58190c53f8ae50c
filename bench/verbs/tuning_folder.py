"""Keeps a tuning's folder to one run: its settings are in a file, and one run at a time holds its lock."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.files import locked, write_json
from bench.prefer.resumed import changed, stored_settings
from bench.schema import UsageError

TEMPLATE_DIGEST = "template_digest"
"""The setting with the sha256 of the chat template that `--template` gives. Earlier versions recorded its name only."""


def begin(out: Path, settings: dict) -> None:
    """Record the run's settings in its folder.

    Raises:
        UsageError: the folder holds a run with other settings, or files that no tuning wrote, or damaged settings.
    """
    note = out / "settings.json"
    known = stored_settings(note)
    # Several processes may begin at once, and one of them be writing the note.
    if known is None and out.is_dir() and any(path.suffix != ".tmp" for path in out.iterdir()):
        raise UsageError(f"{out}: the folder has files that drsow tune did not write; name another folder")
    if known is not None and TEMPLATE_DIGEST not in known:
        # The folder of an earlier version continues; one without --template has no such setting.
        settings = {name: value for name, value in settings.items() if name != TEMPLATE_DIGEST}
    if known is not None and (told := changed(known, settings)):
        raise UsageError(f"{out}: holds a run with other settings: {'; '.join(told)}; name another folder")
    write_json(note, settings)


def is_first() -> bool:
    """Whether this is the first of the processes that tune together, which torchrun and accelerate number."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the folder of a tuning, of whose processes the first one holds the lock.

    Raises:
        DrsowError: another run tunes into the folder.
    """
    if not is_first():
        yield
        return
    file = out / "tuning.lock"
    with locked(file, busy=f"{out}: another process tunes into this folder; wait for it, or name another folder"):
        yield
        # Only after the last step: whoever locks another file from now on finds the model finished.
        file.unlink(missing_ok=True)
