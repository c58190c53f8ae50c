"""Turns any exception into an error message of one line that tells the user what to do; prints lines for the user."""

import errno
import os
import sys
import traceback

from bench.schema import DrsowError, PreconditionError

DEBUG_VARIABLE = "DRSOW_DEBUG"
"""Environment variable that turns tracebacks on; the option --debug sets it."""

HINTS = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some space and run the command again",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
"""Advice for errors of the operating system, by error number."""


def explained(error: Exception) -> DrsowError:
    """The error to show to the user for any exception; with DRSOW_DEBUG the traceback goes to stderr.

    A DrsowError stays unchanged. The user can solve a lack of memory, a killed worker process, a package that is not
    installed, or an error of the operating system. Any other exception is reported as a fault in drsow.
    """
    if isinstance(error, DrsowError):
        return error
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, ModuleNotFoundError) and type(error).__name__ == "PackageNotFoundError":
        return PreconditionError(
            f"the package {error.name} is not installed, so its version cannot be recorded; run `pip install -e .` in "
            "the checkout of drsow and try again"
        )
    return DrsowError(_words(error))


def told(error: Exception) -> tuple[str, int]:
    """The message and the exit code of `explained`, without the exception: its traceback would keep a model in memory
    while the next one is scored."""
    known = explained(error)
    return str(known), known.code


def printable(text: str) -> str:
    """A text on one line, without the control characters that a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text)


def warn(line: str) -> None:
    """Prints a line on stderr, without control characters: a file or a server may have written a part of it.

    Args:
        line: The whole line, without its end.
    """
    print(printable(line), file=sys.stderr, flush=True)


def debugging() -> bool:
    """Whether the user turned tracebacks on."""
    return os.environ.get(DEBUG_VARIABLE, "").upper() in {"1", "ON", "YES", "TRUE"}


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _words(error: Exception) -> str:
    # Compare names of classes, because importing torch and the process pools only to describe an error is slow.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(error):
        remedy = "close other programs; run and sample need less with a lower --batch-tokens"
        return f"out of memory ({first_line(error)}); {remedy}"
    if "BrokenProcessPool" in kinds:
        return "a worker process was killed, which the system does when memory runs out; free some and run again"
    if isinstance(error, OSError) and error.errno is not None:
        return _system_words(error, error.errno)
    return (
        f"unexpected {type(error).__name__}: {first_line(error)}; this is a fault in drsow: please report it with the "
        "command and the output of --debug to the project's issue tracker"
    )


def _system_words(error: OSError, number: int) -> str:
    """The message for an error of the operating system: where, what, and what to do."""
    # The file name of an OSError may also be bytes or the number of a file descriptor.
    names = [os.fsdecode(name) if isinstance(name, bytes) else str(name)
             for name in (error.filename, error.filename2) if name is not None]  # fmt: skip
    what = os.strerror(number)
    where = f"{' -> '.join(names)}: " if names else ""
    hint = f"; {HINTS[number]}" if number in HINTS else ""
    return f"{where}{what[:1].lower()}{what[1:]}{hint}"
