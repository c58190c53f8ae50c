"""The command `drsow`: each verb is one straight run through the stages. stdout is data, stderr is progress."""

import os
import sys

import typer

from bench.cli.app import app
from bench.cli.terminal import forgiving_streams, printable
from bench.faults import DEBUG_VARIABLE, explained
from bench.schema import DrsowError, UsageError

# Importing a module of verbs puts them on the app: help lists the groups, and the verbs of a group, in this order.
from bench.cli import run, show, plan, report, choose, customise  # isort: skip
from bench.cli import sampling, select, annotate, tuning, scores, lists, bits  # isort: skip

__all__ = [
    "annotate",
    "app",
    "bits",
    "choose",
    "customise",
    "lists",
    "main",
    "plan",
    "report",
    "run",
    "sampling",
    "scores",
    "select",
    "show",
    "tuning",
]


STOPPED = 130
"""Exit code after Ctrl-C."""

MISTYPED = typer.BadParameter.__base__
"""What every mistake in the words of a command is: the UsageError of the click that typer brings along."""


def main() -> None:
    """Run the command; whatever goes wrong is one line on stderr and an exit code."""
    forgiving_streams()
    words = _without_debug(sys.argv[1:])
    try:
        # Typer hands back the exit code of `--help`, and of Ctrl-C, about which it says nothing.
        code = app(words, standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, MISTYPED):
            error = _mistyped(error)
        code = _fail(explained(error))
    if code == STOPPED:
        print("drsow: stopped; what is scored is stored, run again to go on", file=sys.stderr)
    if code:
        sys.exit(code)


def _fail(error: DrsowError) -> int:
    print(f"drsow: {printable(str(error))}", file=sys.stderr)
    return error.code


def _mistyped(error: typer.BadParameter) -> UsageError:
    """A wrong verb, option or value, with the command that lists the right ones."""
    path = error.ctx.command_path if error.ctx else "drsow"
    return UsageError(f"{error.format_message().rstrip('.')}; see `{path} --help`")


def _without_debug(words: list[str]) -> list[str]:
    """The words of a command without --debug, which may stand anywhere and asks for tracebacks."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    if len(kept) < end:
        os.environ[DEBUG_VARIABLE] = "1"
    return kept + words[end:]
