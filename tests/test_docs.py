"""What the documentation tells a user to type: every command is one that the program takes, every page is there."""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from bench.cli import app
from bench.registry import load_registry
from bench.schema import ABLATION, ACCURACY, CORRELATION, LEADERBOARD, MARGINS, SCORES, ScoreKey

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "results").glob("**/README.md")),
]
COMMANDS = typer.main.get_command(app).commands


def blocks(page: Path) -> list[str]:
    """Lines of the fenced blocks that are no code of another language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line.strip() for kind, block in found if kind in {"", "sh", "bash"} for line in block.splitlines()]


def typed() -> list[tuple[str, str]]:
    """(page, command) of everything that is typed in a block or stands in the text as code."""
    for page in PAGES:
        inline = re.findall(r"(?<!`)`((?:drsow|make) [^`|\\]+)`", page.read_text(encoding="utf-8"))
        for line in [*blocks(page), *inline]:
            for part in re.split(r"&&|;", line.partition(" #")[0]):
                yield str(page.relative_to(ROOT)), part.strip().removeprefix(".venv/bin/")


SAID = ("drsow needs ", "drsow -")
"""How a message begins, and a command without a verb."""
DRSOW = sorted({
    (page, line)
    for page, line in typed()
    if line.startswith("drsow ") and "..." not in line and not line.startswith(SAID)
})  # fmt: skip
MAKE = sorted({(page, line) for page, line in typed() if line.startswith("make ")})


@pytest.mark.parametrize(("page", "line"), DRSOW)
def test_a_command_is_one_that_the_program_takes(page, line):
    verb, *words = shlex.split(line)[1:]
    assert verb in COMMANDS
    # `drsow fetch` in a sentence names the verb alone; options that stand there have to be right all the same.
    COMMANDS[verb].make_context(verb, words, resilient_parsing=not words)


@pytest.mark.parametrize(("page", "line"), MAKE)
def test_a_make_verb_is_there_with_what_it_names(page, line):
    known = load_registry()
    targets = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    targets = {name for line in targets for name in line.split()}
    verbs = [word for word in shlex.split(line)[1:] if "=" not in word]
    assert verbs and set(verbs) <= targets
    for name, value in re.findall(r"\b(PAIR|STUDY)=([a-z][\w.-]+)", line):
        assert known.models_of(value), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def constants() -> str:
    """Every piece of text that the program can say, a line each."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "bench").rglob("*.py"))]
    texts = [n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str]
    return "\n".join([*(" ".join(text.split()) for text in texts), (ROOT / "Makefile").read_text(encoding="utf-8")])


def messages() -> list[str]:
    """The messages that the troubleshooting page explains."""
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)`", page, flags=re.M)


def test_the_messages_of_the_troubleshooting_page_are_the_programs():
    said = constants()
    assert len(messages()) >= 25
    # Words in capital letters stand for what differs; one word alone may be anything.
    pieces = {m: [p.strip(" :;,.()…'") for p in re.split(r"\b[A-Z]+\b|…|\b\d+\b", m)] for m in messages()}
    strange = {m: [p for p in found if " " in p and p not in said] for m, found in pieces.items()}
    assert {m: found for m, found in strange.items() if found} == {}


@pytest.mark.parametrize("columns", [SCORES, MARGINS, ACCURACY, LEADERBOARD, CORRELATION, ABLATION, ScoreKey._fields])
def test_every_column_is_explained(columns):
    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    assert [name for name in columns if not re.search(rf"\b{name}\b", page)] == []


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """`make` in a folder, as if the environment were installed."""
    names = {name: value for name, value in os.environ.items() if name not in {"ARGS", "MAKEFLAGS", "MFLAGS"}}
    command = ["make", "-C", str(folder), "-f", str(ROOT / "Makefile"), "-o", ".venv/.installed", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=names | variables)


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["PAIR=embedded"], {"STUDY": "paper-221"}, '--pair embedded --data "sample"'),
        (["STUDY=packaged"], {"PAIR": "embedded"}, '--study packaged --data "reward-bench"'),
        (["STUDY=packaged"], {"DATA": "sample"}, '--study packaged --data "sample"'),
        (["STUDY=packaged", "DATA=sample"], {"DATA": "judge-bench"}, '--study packaged --data "sample"'),
        ([], {"STUDY": "packaged", "DATA": ""}, '--study packaged --data "reward-bench"'),
    ],
)
def test_make_takes_variables_of_the_command_line_before_those_of_the_environment(tmp_path, words, variables, said):
    assert f"drsow run {said}" in make(tmp_path, "-n", "bench", *words, **variables).stdout


def test_make_slurm_keeps_quotes_and_refuses_no_shards(tmp_path):
    done = make(tmp_path, "slurm", "STUDY=packaged", "ARGS=--results 'my results'")
    last = (tmp_path / "drsow.sbatch").read_text().splitlines()[-1]
    assert done.returncode == 0 and shlex.split(last)[-2:] == ["--results", "my results"]
    for shards in ("0", "-1", "two", ""):
        done = make(tmp_path, "slurm", "STUDY=packaged", f"SHARDS={shards}")
        assert done.returncode == 2 and f"SHARDS is '{shards}'; it must be a whole number from 1 on" in done.stderr
