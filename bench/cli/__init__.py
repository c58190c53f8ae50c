"""The command `drsow`. Results go to stdout; progress, warnings and errors go to stderr."""

import gc
import os
import sys

import typer

from bench.cli.app import app
from bench.cli.terminal import forgiving_streams
from bench.faults import DEBUG_VARIABLE, explained, warn
from bench.schema import DrsowError, UsageError

# Importing a module adds its verbs to the app. `--help` lists groups and verbs in the order of these imports.
from bench.cli import run, perform, show, plan, report, choose, rewards, customise  # isort: skip
from bench.cli import sampling, select, annotate, tuning, ladder, export, scores, lists, bits, doctor  # isort: skip

__all__ = [
    "annotate",
    "app",
    "bits",
    "choose",
    "customise",
    "doctor",
    "export",
    "ladder",
    "lists",
    "main",
    "perform",
    "plan",
    "report",
    "rewards",
    "run",
    "sampling",
    "scores",
    "select",
    "show",
    "tuning",
]


STOPPED = 130
"""The exit code after Ctrl-C."""

MISTYPED: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""The base of all errors in a command line: click's UsageError, from the copy of click inside typer, which has no name
of its own there. It has what BadParameter has."""


NEW_OBJECTS = 10_000
"""The number of new objects after which Python looks for garbage, instead of 700: nearly all objects of a command are
modules and tables, which stay. Repeating a small run takes 3.5 instead of 3.9 seconds."""


def main() -> None:
    """Run the command. Every error becomes one line on stderr and an exit code."""
    gc.set_threshold(NEW_OBJECTS)
    try:
        _main()
    finally:
        # Python looks for garbage once more before it ends: for half a second after torch's import, for a whole one
        # after figures.
        gc.freeze()


def _main() -> None:
    forgiving_streams()
    words = _without_debug(sys.argv[1:])
    try:
        # typer returns the exit codes of `--help` and of Ctrl-C, and prints nothing for Ctrl-C.
        code = app(words, standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MISTYPED as error:
        code = _fail(_mistyped(error))
    except Exception as error:
        code = _fail(explained(error))
    if code == STOPPED:
        print("drsow: stopped; scores so far are stored, run the command again to continue", file=sys.stderr)
    if code:
        sys.exit(code)


def _fail(error: DrsowError) -> int:
    warn(f"drsow: {error}")
    return error.code


def _mistyped(error: typer.BadParameter) -> UsageError:
    """The error for a wrong verb, option or value; it names the command that lists the right ones."""
    path = error.ctx.command_path if error.ctx else "drsow"
    return UsageError(f"{error.format_message().rstrip('.')}; see `{path} --help`")


def _without_debug(words: list[str]) -> list[str]:
    """A command's words without --debug, which may be anywhere among them. It turns tracebacks on."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    if len(kept) < end:
        os.environ[DEBUG_VARIABLE] = "1"
    return kept + words[end:]
