"""What reaches a terminal: groups of verbs, one line for any mistake or fault, text in any encoding."""

import os
import re
import subprocess
import sys

import pytest
from commands import COMMAND, environment, write_rows
from typer.testing import CliRunner

from bench.cli import app

GROUPS = {
    "Score": ["run", "leaderboard", "figures", "perform", "show", "plan", "report"],
    "Choose": ["choose", "compare", "board", "rewards"],
    "Customise": ["route", "ablate"],
    "Label": ["sample", "select", "annotate", "agree"],
    "Tune": ["tune", "judge", "ladder"],
    "Exchange": ["export", "scores", "import", "verify"],
    "Look up": ["models", "pairs", "fetch", "bits", "doctor"],
}

HEAVY = {"torch", "transformers", "matplotlib", "pandas", "pyarrow", "scipy", "numpy"}

BROKEN = """
import sys
import bench.registry
from bench.cli import main

def load_registry(extra=None):
    raise {error}

bench.registry.load_registry = load_registry
sys.argv = ["drsow", *sys.argv[1:]]
main()
"""


def modules(stderr: str) -> set[str]:
    """Top-level modules that PYTHONPROFILEIMPORTTIME=1 tells of."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in stderr.splitlines() if "|" in line}


def broken(error: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """The command where the registry cannot be read for a reason that nobody foresaw."""
    process = [sys.executable, "-c", BROKEN.format(error=error), *words]
    return subprocess.run(process, capture_output=True, text=True, env=environment(**variables), check=False)


ENDING = """
import atexit, gc, sys
atexit.register(lambda: print(len(gc.get_objects())))
from bench.cli import main
sys.argv = ["drsow", *sys.argv[1:]]
main()
"""


def test_a_command_ends_without_a_look_for_garbage_among_its_objects():
    for words in (["models"], ["no such verb"]):
        done = subprocess.run([sys.executable, "-c", ENDING, *words], capture_output=True, text=True, check=False)
        # Those that Python makes on the way out; a command has 50,000 and more, after torch a million.
        assert int(done.stdout.split()[-1]) < 1_000, words


def test_help_lists_every_verb_in_its_group_and_imports_nothing_heavy(drsow):
    done = drsow("--help", PYTHONPROFILEIMPORTTIME="1", COLUMNS="80")
    assert done.returncode == 0
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if heading := re.match(r"\W+ ([A-Z][a-z ]+?) \W+$", line):
            found[heading[1]] = verbs = []
        elif verb := re.match(r"\W ([a-z]+)  +[A-Z]", line):
            verbs.append(verb[1])
    assert {name: verbs for name, verbs in found.items() if name != "Options"} == GROUPS
    assert modules(done.stderr) & HEAVY == set()


def test_a_wrong_name_is_told_before_anything_heavy_is_imported(drsow):
    done = drsow("run", "--pair", "embeded", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2 and "did you mean 'embedded'?" in done.stderr.splitlines()[-1]
    assert modules(done.stderr) & HEAVY == set()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--pear", "x"], "drsow: No such option: --pear"),
        (["rnu"], "drsow: No such command 'rnu'"),
        (["run", "--dtype", "fp16"], "drsow: Invalid value for '--dtype'"),
        (["bits"], "drsow: Missing argument"),
    ],
)
def test_a_mistyped_command_is_one_line_that_names_the_help(drsow, words, line):
    done = drsow(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith(line) and said.endswith("--help`")


def test_a_fault_is_one_line_and_its_traceback_comes_with_debug_wherever_it_stands():
    done = broken("LookupError('odd\\x1b[31m')", "models")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "drsow: unexpected LookupError: odd [31m; this is a fault in drsow: please report it with the command and the "
        "output of --debug to the project's issue tracker"
    ]
    asked = broken("LookupError('odd')", "models", "--debug")
    assert asked.returncode == 1 and "Traceback (most recent call last)" in asked.stderr
    assert asked.stderr.splitlines()[-1].startswith("drsow: unexpected LookupError: odd; ")
    assert "Traceback" in broken("LookupError('odd')", "models", DRSOW_DEBUG="1").stderr


def test_an_error_of_the_system_is_no_fault_of_ours():
    done = broken("OSError(30, 'Read-only', '/d/f')", "models")
    assert done.stderr == "drsow: /d/f: read-only file system; name a place that can be written\n"


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C"}])
def test_a_character_that_the_encoding_lacks_is_replaced(drsow, tiny_registry, tmp_path, variables):
    rude = {"id": "r", "prompt": "🎉 é", "chosen": "yes 🎉", "rejected": "no"}
    path = write_rows(tmp_path / "rows.jsonl", [rude])
    words = ["--registry", str(tiny_registry), "--pair", "tiny", "--data", str(path), "--dtype", "fp32", "--id", "r"]
    command, kept = [COMMAND, "show", *words], environment(**variables)
    done = subprocess.run(command, capture_output=True, env=kept, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("user: 🎉 é".encode() if "LC_ALL" in variables else b"user: ? ")


def test_tables_and_help_need_no_box_characters(drsow):
    for words in (["pairs"], ["--help"]):
        done = drsow(*words, PYTHONIOENCODING="ascii", COLUMNS="80")
        assert done.returncode == 0, done.stderr
        assert "?" not in done.stdout


def test_on_a_terminal_headings_are_bold_and_without_colour_where_that_is_not_wanted():
    pty = pytest.importorskip("pty")
    said = {}
    for name, variables in {"plain": {"NO_COLOR": "1"}, "bold": {}}.items():
        ours, theirs = pty.openpty()
        names = environment(COLUMNS="80", TERM="xterm-256color", **variables)
        done = subprocess.run([COMMAND, "pairs"], stdout=theirs, stderr=theirs, env=names, check=False)
        os.close(theirs)
        assert done.returncode == 0
        said[name] = os.read(ours, 100_000).decode()
        os.close(ours)
    assert "\x1b[1mpair" in said["bold"]
    assert re.search(r"\x1b\[[34]\d", said["plain"]) is None


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("words", [["models"], ["models", "--format", "json"], ["--help"]])
def test_a_closed_stream_is_quiet(words, closed):
    shell = ["sh", "-c", f'"$0" "$@" {closed}', COMMAND, *words]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
def test_an_error_beside_a_closed_stdout_is_one_line():
    shell = ["sh", "-c", '"$0" "$@" >&-', COMMAND, "show", "--pair", "embeded", "--id", "1"]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "did you mean 'embedded'?" in done.stderr


@pytest.mark.parametrize(
    "verb", ["leaderboard", "choose", "compare", "rewards", "report", "scores", "export", "verify"]
)
def test_where_scores_are_read_the_help_of_dtype_says_so(verb):
    said = " ".join(CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "Read the stored scores of this dtype; auto: whichever is stored." in said
    assert "where the hardware has it" not in said
