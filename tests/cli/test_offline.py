"""Verbs that read only what is stored open no socket, whether or not HF_HUB_OFFLINE forbids it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import environment
from tiny_models import entry, pair_entry

SEVERAL = """
import json, socket, sys

def refuse(event, args):
    internet = event == "socket.__new__" and args[1] in (socket.AF_INET, socket.AF_INET6)
    if internet or event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        print(f"a socket was used: {event} {args[1:]}", file=sys.stderr)

sys.addaudithook(refuse)
from bench.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["drsow", *words]
    try:
        main()
    except SystemExit as leave:
        print(f"exit {leave.code}: {words}", file=sys.stderr)
"""


@pytest.fixture
def online(tmp_path) -> dict[str, str]:
    """A user's environment that forbids nothing, with empty caches."""
    kept = {name: value for name, value in environment().items() if not name.startswith("HF_")}
    return kept | {"HF_HOME": str(tmp_path / "hub"), "DRSOW_CACHE": str(tmp_path / "cache")}


def said(commands: list[list], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess:
    """What several commands say, one after the other in one process."""
    words = json.dumps([list(map(str, command)) for command in commands])
    process = [sys.executable, "-c", SEVERAL, words]
    return subprocess.run(process, capture_output=True, text=True, env=variables, cwd=folder, check=False)


@pytest.mark.slow  # eleven verbs, some of which draw: a minute
def test_verbs_on_what_is_stored_open_no_socket(tiny_registry, data, results, online, tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    models = [
        entry(name, os.fspath(tiny_registry / name.removeprefix("tiny-"))) for name in ("tiny-strong", "tiny-weak")
    ]
    (folder / "models.toml").write_text("".join(models))
    swapped = pair_entry("swapped", "tiny-weak", "tiny-strong") + 'template = "tiny-strong"\n'
    (folder / "pairs.toml").write_text(pair_entry("tiny", "tiny-strong", "tiny-weak") + swapped)
    stored = ["--registry", folder, "--data", data, "--results", results]
    done = said(
        [
            ["models"],
            ["pairs", "--study", "paper-221"],
            ["plan", "--pair", "tiny", *stored],
            ["plan", "--pair", "mistral-7b", "--data", data],
            ["leaderboard", "--pair", "tiny", *stored],
            ["figures", "--pair", "tiny", *stored],
            ["report", "--pair", "tiny", *stored],
            ["compare", "tiny", "swapped", *stored],
            ["scores", "--model", "tiny-weak", "--out", tmp_path / "scores.csv", *stored],
            ["import", tmp_path / "scores.csv", "--model", "tiny-weak", *stored],
            ["verify", "--model", "tiny-weak", "--template", "tiny-strong", "--rows", 1, "--dtype", "fp32", *stored],
        ],
        tmp_path,
        online,
    )
    assert "a socket was used" not in done.stderr
    assert "exit" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_data_that_is_not_here_is_named_at_once_with_the_command_that_fetches_it(online, tmp_path):
    commands = [
        [verb, *more, "--data", data]
        for data in ("reward-bench", "nobody/nothing:test")
        for verb, *more in (
            ["plan", "--pair", "mistral-7b"],
            ["leaderboard", "--pair", "mistral-7b"],
            ["figures", "--pair", "mistral-7b"],
            ["report", "--pair", "mistral-7b"],
            ["choose", "--study", "paper-221"],
            ["compare", "mistral-7b", "tulu-2-7b"],
            ["scores", "--model", "tulu-2-7b", "--out", "x.csv"],
        )
    ]
    began = time.monotonic()
    done = said(commands, tmp_path, online)
    assert time.monotonic() - began < 5 * len(commands)
    lines = done.stderr.splitlines()
    assert [line for line in lines if "socket" in line] == []
    assert [line.partition(":")[0] for line in lines[1::2]] == ["exit 4"] * len(commands)
    fetched = "`drsow fetch reward-bench` fetches it, or DRSOW_REWARDBENCH=FILE names a copy"
    assert set(lines[0:14:2]) == {
        f"drsow: allenai/reward-bench: not on this machine; with access to the hub, {fetched}"
    }
    missing = "drsow: nobody/nothing: not on this machine; with access to the hub, "
    assert set(lines[14::2]) == {f"{missing}`drsow fetch nobody/nothing:test` fetches it"}


def test_fetch_takes_data_sets_beside_models(tiny_registry, data, online, tmp_path):
    named = online | {"DRSOW_REWARDBENCH": str(data)}
    command = [sys.executable, "-c", "from bench.cli import main; main()", "fetch", "--registry", str(tiny_registry)]
    done = subprocess.run(
        [*command, "reward-bench", "tiny-weak"], capture_output=True, text=True, env=named, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["reward-bench 24 rows", f"tiny-weak {tiny_registry / 'weak'}"]
