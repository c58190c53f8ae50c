"""What small work costs: starting a verb, four rows, one row's tokens, two rewards, responses to some prompts.

Each task runs in a process of its own, as a user runs it, with everything fetched and compiled. One commit can be
measured beside another: they take turns task by task, so that what slows the machine for a while slows both.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.data.load import load_data
from bench.schema import Example, UsageError

SMALL = ("task", "code", "round", "wall_s", "cpu_s")
"""`code` is "this" or the name of the other commit. `cpu_s` is user and system time of the process and its children."""

NEEDED_S = {
    "drsow --help": 0.3,
    "drsow pairs": 1.0,
    "drsow run, four new rows": 10.0,
    "drsow show": 6.0,
    "bench.reward, first call": 5.0,
    "bench.reward, second call": 0.5,
}
"""Task -> the most seconds that it may take on two idle cores. A task that is not here has no bar."""

PAIR = "smollm2-over-gemma"
AGAIN = "drsow run, the same rows again"
SAMPLE = "drsow sample, 16 prompts, 8 responses each"
PROMPTS, N, NEW_TOKENS = 16, 8, 40
"""Prompts of the sampling, responses to each, and the most tokens of one."""
ROUNDS, ROWS = 3, 4
ROOT = Path(__file__).parents[2]
THIS = "this"

COMMAND = "import sys; from bench.cli import main; sys.argv[0] = 'drsow'; sys.exit(main())"
REWARD = """
import json, time
def now(): return time.monotonic(), time.process_time()
began = now()
import bench
for _ in range(2):
    bench.reward("PAIR", "Name a prime number.", ["7 is one.", "8 is one."])
    ended = now()
    print(json.dumps([ended[0] - began[0], ended[1] - began[1]]))
    began = ended
""".replace("PAIR", PAIR)

Cost = tuple[float, float]
"""Seconds by the clock, and CPU seconds."""


class Code(NamedTuple):
    """The code of one commit."""

    name: str
    tree: Path
    """Where its `bench` lies."""
    scratch: Path
    """A folder for its results."""

    def python(self, *words: str) -> tuple[str, Cost]:
        """What a Python process with this code prints, and what it costs.

        Raises:
            UsageError: it fails.
        """
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        before, began = _children_s(), time.monotonic()
        done = subprocess.run(
            [sys.executable, *words], cwd=self.scratch, env=env | {"PYTHONPATH": str(self.tree)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        cost = time.monotonic() - began, _children_s() - before
        if done.returncode:
            raise UsageError(f"{self.name}: {' '.join(words[-6:])} failed: {done.stderr.strip()[-400:]}")
        return done.stdout, cost

    def drsow(self, *words: str) -> Cost:
        """What a verb costs."""
        return self.python("-c", COMMAND, *words)[1]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def small(against: str | None = None, *, rounds: int = ROUNDS) -> Iterator[pd.DataFrame]:
    """SMALL so far, after each round.

    Args:
        against: A commit whose code is measured beside this one's, such as HEAD~1.
        rounds: How often each task runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        codes = [Code(THIS, ROOT, _made(Path(folder) / "this"))]
        if against is not None:
            codes.append(Code(against, _checked_out(against, Path(folder) / "tree"), _made(Path(folder) / "other")))
        files = _files(Path(folder), rounds)
        for code in codes:
            _warm(code, files[0])
        rows: list[tuple] = []
        for turn in range(1, rounds + 1):
            for task in _tasks(files[turn]):
                for code in codes if turn % 2 else codes[::-1]:
                    rows += [(name, code.name, turn, *cost) for name, cost in task(code)]
            yield pd.DataFrame(rows, columns=list(SMALL))


Task = Callable[[Code], list[tuple[str, Cost]]]


def _tasks(file: Path) -> list[Task]:
    """The tasks of a round. Each gives names, as in NEEDED_S, with their costs."""
    run = ("run", "--pair", PAIR, "--data", str(file))
    show = ("show", "--pair", PAIR, "--data", "sample", "--id", load_data("sample").examples[0].example_id)
    return [
        lambda code: [("drsow --help", code.drsow("--help"))],
        lambda code: [("drsow pairs", code.drsow("pairs"))],
        lambda code: [(name, code.drsow(*run)) for name in ("drsow run, four new rows", AGAIN)],
        lambda code: [("drsow show", code.drsow(*show))],
        _rewards,
        _sampled,
    ]


def _rewards(code: Code) -> list[tuple[str, Cost]]:
    first, second = (tuple(json.loads(line)) for line in code.python("-c", REWARD)[0].splitlines())
    return [("bench.reward, first call", first), ("bench.reward, second call", second)]


def _sampled(code: Code) -> list[tuple[str, Cost]]:
    """Sampling: a shared start-up of some seconds, then the tokens."""
    prompts, out = code.scratch / "prompts.jsonl", code.scratch / "candidates.jsonl"
    lines = (ROOT / "pairs" / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    prompts.write_text("".join(lines[:PROMPTS]), encoding="utf-8")
    # An earlier round's file is complete: nothing would be sampled again.
    for old in code.scratch.glob(f"{out.name}*"):
        old.unlink()
    words = ("sample", "--model", "smollm2-135m-instruct-q4", "--prompts", str(prompts), "--out", str(out))
    return [(SAMPLE, code.drsow(*words, "--n", str(N), "--max-new-tokens", str(NEW_TOKENS)))]


def _warm(code: Code, file: Path) -> None:
    """Compile the code's modules, and measure what is kept: the check of the models and their precision."""
    code.drsow("--help")
    code.drsow("run", "--pair", PAIR, "--data", str(file))


def _files(folder: Path, rounds: int) -> list[Path]:
    """Files of different built-in rows: ROWS for each round, and twice as many to warm up with, first."""
    examples = iter(load_data("sample").examples)
    sizes = [2 * ROWS] + rounds * [ROWS]
    return [_written(folder / f"rows-{i}.jsonl", list(itertools.islice(examples, n))) for i, n in enumerate(sizes)]


def _written(path: Path, examples: Sequence[Example]) -> Path:
    lines = [
        json.dumps({"id": e.example_id, "subset": e.subset, "prompt": e.messages[-1].content, **dict(e.responses)})
        for e in examples
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit.

    Raises:
        UsageError: there is no such commit.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise UsageError(f"--against {commit}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def table(found: pd.DataFrame) -> str:
    """The median seconds of each task, and CPU seconds of this code over the other commit's, as aligned text."""
    others = [name for name in pd.unique(found["code"]) if name != THIS]
    lines = [("task", "wall s", "CPU s", *(f"{name}: CPU s" for name in others), *("ratio" for _ in others))]
    for task, rows in found.groupby("task", sort=False):
        costs = {name: own.set_index("round") for name, own in rows.groupby("code")}
        mine = costs[THIS]
        cells = [task, f"{mine['wall_s'].median():.2f}", f"{mine['cpu_s'].median():.2f}"]
        cells += [f"{costs[name]['cpu_s'].median():.2f}" for name in others]
        # A ratio a round first: both codes ran side by side there.
        cells += [f"{statistics.median(mine['cpu_s'] / costs[name]['cpu_s']):.2f}" for name in others]
        lines.append(tuple(cells))
    minutes = found[(found["task"] == SAMPLE) & (found["code"] == THIS)]["wall_s"].median() / 60
    said = [] if pd.isna(minutes) else ["", f"{PROMPTS / minutes:.0f} prompts per minute: {SAMPLE}, start-up included"]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [zip(line, widths, strict=True) for line in lines]
    shown = ["  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(row)) for row in rows]
    return "\n".join([*shown, *said])
