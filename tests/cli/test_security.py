"""What comes from elsewhere is data: pickles and code that come with a model are not run, tokens are not written."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import environment
from tiny_models import entry, pair_entry

pytestmark = pytest.mark.slow  # a process of its own for every fact: minutes

CANARY = "hf_canaryCANARYcanaryCANARYcanary00"


class Touches:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def mine(tiny_registry, tmp_path) -> Path:
    """A registry of one's own with a copy of the strong model to be spoilt."""
    folder = tmp_path / "mine"
    shutil.copytree(tiny_registry / "strong", folder / "strong")
    shutil.copytree(tiny_registry / "weak", folder / "weak")
    (folder / "models.toml").write_text(entry("mine-strong", "strong") + entry("mine-weak", "weak"))
    (folder / "pairs.toml").write_text(pair_entry("mine", "mine-strong", "mine-weak"))
    return folder


def words(mine: Path, data: Path, out: Path) -> list:
    return ["run", "--registry", mine, "--pair", "mine", "--data", data, "--dtype", "fp32", "--results", out]


def test_pickled_weights_are_refused_and_never_opened(drsow, mine, data, tmp_path):
    (mine / "strong" / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Touches(tmp_path / "ran")}, mine / "strong" / "pytorch_model.bin")
    done = drsow(*words(mine, data, tmp_path / "out"))
    assert done.returncode == 1 and "mine-strong" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not (tmp_path / "ran").exists()


def test_code_that_comes_with_a_model_is_not_run(drsow, mine, data, tmp_path):
    config = json.loads((mine / "strong" / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}}
    (mine / "strong" / "config.json").write_text(json.dumps(config))
    (mine / "strong" / "theirs.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    done = drsow(*words(mine, data, tmp_path / "out"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_stored_part_that_is_a_pickle_is_set_aside_and_scored_again(drsow, finished, tiny_run, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "out")
    part = sorted(out.rglob("part-*.parquet"))[0]
    part.write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    done = drsow(*tiny_run, "--results", out)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists() and part.with_name(f"{part.name}.damaged").exists()


def test_a_token_of_the_hub_is_in_no_file_and_no_line(drsow, mine, data, tmp_path):
    done = drsow(*words(mine, data, tmp_path / "out"), HF_TOKEN=CANARY, DRSOW_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    failed = drsow("fetch", "mistral-7b", HF_TOKEN=CANARY)
    assert failed.returncode == 4
    assert CANARY not in done.stdout + done.stderr + failed.stdout + failed.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(CANARY.encode() in path.read_bytes() for path in written)


NO_SOCKETS = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        raise AssertionError(f"a socket was used: {event} {args[1:]}")
sys.addaudithook(refuse)
from bench.cli import main
sys.argv = ["drsow", *sys.argv[1:]]
main()
"""


def test_offline_no_socket_is_used(mine, data, tmp_path):
    command = [sys.executable, "-c", NO_SOCKETS, *map(str, words(mine, data, tmp_path / "out"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    missing = [sys.executable, "-c", NO_SOCKETS, "run", "--pair", "mistral-7b", "--data", str(data)]
    done = subprocess.run(missing, capture_output=True, text=True, env=environment(), check=False, cwd=tmp_path)
    assert done.returncode == 4 and "drsow fetch" in done.stderr and "socket was used" not in done.stderr
