"""Runs the command in processes that are forked from one that has imported the libraries already.

Importing torch and transformers takes seconds, which most tests of the command would spend again and again. A forked
process is otherwise what the user starts: its own arguments, folder, streams and exit code.

It writes figures as SVG alone, because PDF and PNG take half the time of a run; ALL_FORMATS asks for them too.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = (
    "bench.cli",
    "bench.data.load",
    "bench.scoring.models",
    "bench.study.figures",
    "bench.study.report",
    "bench.verbs.run",
    "datasets",
    "peft",
    "scipy.stats",
    "transformers",
)
"""What the first process imports; a module that is missing here costs time, nothing else."""

ALL_FORMATS = "DRSOW_TEST_ALL_FORMATS"
"""Environment variable of a command whose figures are written in every format."""


class Warm:
    """A process that waits for commands."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Begin the process, which imports the libraries while the caller goes on."""
        self.environment = dict(environment)
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        )

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with these variables may be forked: libraries read theirs while they are imported."""
        ours, theirs = (
            {k: v for k, v in each.items() if not _read_late(k)} for each in (self.environment, environment)
        )
        return ours == theirs

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess:
        """Run one command to its end."""
        with tempfile.TemporaryDirectory() as folder, self._turn:
            files = [str(Path(folder, name)) for name in ("out", "err")]
            assert self._process.stdin and self._process.stdout
            request = {"words": list(words), "files": files, "cwd": str(Path.cwd()), "environment": dict(environment)}
            print(json.dumps(request), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            out, err = (Path(file).read_text() for file in files)
        return subprocess.CompletedProcess(words, code, out, err)

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def _read_late(variable: str) -> bool:
    """Whether a variable is read by a command, not by an import. pytest's own changes with every test."""
    return variable.startswith("DRSOW_") or variable == "PYTEST_CURRENT_TEST"


def _serve() -> None:
    for name in LIBRARIES:
        __import__(name)
    for line in sys.stdin:
        request = json.loads(line)
        if not (child := os.fork()):
            _command(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _command(request: dict) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["words"]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, file in enumerate(request["files"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    from bench.cli import main
    from bench.study import figures

    if ALL_FORMATS not in os.environ:
        figures.FORMATS = ("svg",)
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
