"""The command `drsow`: each verb is one straight run through the stages. stdout is data, stderr is progress."""

import os
import sys

from bench.cli.app import app
from bench.cli.select import printable
from bench.schema import DrsowError

# Importing a module of verbs puts them on the app, in this order.
from bench.cli import lists, bench, choose, scores, bits, report, customise, sampling, selection, annotate, tuning, plan  # isort: skip

__all__ = [
    "annotate",
    "app",
    "bench",
    "bits",
    "choose",
    "customise",
    "lists",
    "main",
    "plan",
    "report",
    "sampling",
    "scores",
    "selection",
    "tuning",
]


STOPPED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Run the command; a mistake that a user can mend is one line on stderr and its exit code."""
    try:
        app(standalone_mode=True)
    except DrsowError as error:
        print(f"drsow: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.code)
    except (KeyboardInterrupt, SystemExit) as leave:
        # typer turns Ctrl-C into an exit of its own and says nothing.
        if isinstance(leave, SystemExit) and leave.code != STOPPED:
            raise
        print("drsow: stopped; what is scored is stored, run again to go on", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
