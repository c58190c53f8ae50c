"""The commands of the documentation as a user types them, one after the other, in an empty folder.

A hub on the loopback has a tiny model under every name of the registry, so that the words stay what the pages say.
"""

import functools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_templates import CHATML
from commands import COMMAND, environment, write_rows
from hub import Hub
from test_docs import ROOT, blocks
from tiny_models import save_tiny
from tiny_tokenizers import byte_level

from bench.registry import load_registry
from bench.schema import SECTIONS

pytestmark = pytest.mark.slow  # every command of seven pages: minutes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTEXT = 16384

ELSEWHERE = {
    "make bench",
    "make test",
    "make pipeline PROMPTS=mine.jsonl PIPELINE=mine",
    "make ladders TUNE_ON=preferences.jsonl PREFERENCES=held_out.jsonl INSTRUCTIONS=ifeval.jsonl",
    "make perf",
    "sbatch drsow.sbatch",
}
"""What other tests run, or another machine: the README's first two, pipeline, ladders (test_ladder_verb.py), SLURM."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[Hub]:
    folder, found = tmp_path_factory.mktemp("hub"), Hub()
    tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    tokenizer.chat_template = CHATML
    sources = [model.source for model in load_registry().models.values()]
    repos = dict.fromkeys(source.repo for source in sources if hasattr(source, "repo"))
    for seed, repo in enumerate([*repos, "me/my-dpo", "me/my-sft"]):
        found.add(repo, save_tiny(folder / str(seed), tokenizer=tokenizer, seed=seed, context=CONTEXT), COMMIT)
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A user's empty folder, but for the files that the pages take as given."""
    folder = tmp_path_factory.mktemp("desk")
    subsets = [subset for section in SECTIONS.values() for subset in section]
    for name in ("ultrafeedback", "held_out", "alpaca_eval"):
        prompts = [{"id": i, "prompt": f"{name}: {i} and {i}?"} for i in range(3)]
        write_rows(folder / f"{name}.jsonl", prompts)
    preferences = [
        {"id": i, "subset": subset, "prompt": f"{subset} {i}?", "chosen": f"yes {i}", "rejected": f"no, {i * i}"}
        for i, subset in enumerate(subsets * 4)  # so many does choose need
    ]
    write_rows(folder / "rewardbench.jsonl", preferences)
    return folder


@pytest.fixture(scope="module")
def typed(hub, desk):
    """Run a line as it stands on a page; what two pages say is typed once."""

    @functools.cache
    def call(line: str) -> None:
        words = shlex.split(line)
        assert words[0] == "drsow", line
        names = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(desk / "cache"), "HF_HOME": str(desk / "cache")}
        names |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        data = {"DRSOW_REWARDBENCH": str(desk / "rewardbench.jsonl")}
        done = subprocess.run(
            [COMMAND, *words[1:]],
            capture_output=True,
            text=True,
            env=environment(**names, **data),
            cwd=desk,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"

    return call


def commands(page: str) -> list[str]:
    """What a page's blocks say to type; a `make` verb as the command that it stands for."""
    lines = [part.strip() for line in blocks(ROOT / page) for part in line.partition(" #")[0].split("&&")]
    outside = {"ARGS", "MAKEFLAGS", "MFLAGS"}  # of the `make` that runs the tests
    names, found = {name: value for name, value in os.environ.items() if name not in outside}, []
    for line in dict.fromkeys(line for line in lines if line and line not in ELSEWHERE):
        if line.startswith("make "):
            dry = ["make", "--no-print-directory", "-n", *shlex.split(line)[1:]]
            done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True, env=names)
            typed_out = re.findall(r"^\.venv/bin/(drsow .*?)\s*$", done.stdout, flags=re.M)
            found += [shlex.join(shlex.split(each)) for each in typed_out]
        elif re.match(r"(\.venv/bin/)?drsow ", line):
            found.append(line.removeprefix(".venv/bin/"))
    return found


def test_the_study_step_by_step(typed, desk):
    lines = commands("docs/guides/gpu.md")
    assert len(lines) > 10
    for line in lines:
        typed(line)
    assert (desk / "results/paper-221/reward-bench/report.html").is_file()
    assert json.loads((desk / "judged/manifest.json").read_text())


def test_the_readme(typed):
    lines = commands("README.md")
    assert "drsow run --pair mistral-7b --data reward-bench" in lines
    for line in lines:
        typed(line)


def test_the_walk_through(typed, desk):
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    (desk / "mine.jsonl").write_text(re.search(r"```json\n(.*?)```", page, flags=re.S)[1])
    lines = [*commands("docs/start.md"), *commands("docs/guides/label.md")]
    assert lines[0] == "drsow run --pair embedded --data sample --limit-per-subset 2"
    for line in lines:
        typed(line)


def test_choosing_a_pair(typed):
    lines = commands("docs/guides/choose.md")
    assert len(lines) > 8
    for line in lines:
        typed(line)


def test_scale(typed):
    for line in commands("docs/guides/machines.md"):
        typed(line)


def test_a_judge_of_ones_own(typed, desk):
    for line in commands("docs/guides/gpu.md"):
        typed(line)
    (desk / "OUT").symlink_to(desk / "tuned")
    lines = commands("docs/guides/tune.md")
    assert len(lines) == 3
    for line in lines:
        typed(line)


def test_a_registry_of_ones_own(typed, desk):
    page = (ROOT / "docs/guides/add.md").read_text(encoding="utf-8")
    (desk / "DIR").mkdir()
    for name, text in re.findall(r"```toml\n# DIR/(\S+)\n(.*?)```", page, flags=re.S):
        (desk / "DIR" / name).write_text(text)
    typed("drsow run --registry DIR --pair mine --data sample")
    domain = re.search(r"```toml\n(\[\[domains\]\].*?)```", (ROOT / "docs/guides/customise.md").read_text(), flags=re.S)
    (desk / "DIR/domains.toml").write_text(domain[1])
    typed("drsow route --data reward-bench --out routes.csv --registry DIR")
