"""Models from a hub that is gated, empty, moving, slow to finish or lying; the client is huggingface_hub's own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import leftovers
from hub import WEIGHTS, Hub
from tiny_models import save_lora

pytestmark = pytest.mark.slow  # a process of its own for every fact: minutes

OLD, NEW = "a" * 40, "b" * 40


def entry(model_id: str, repo: str, *more: str) -> str:
    source = ", ".join([f'repo = "{repo}"', *more])
    return f'[[models]]\nmodel_id = "{model_id}"\nsource = {{ {source} }}\nformat = "safetensors"\nmethod = "sft"\n\n'


@pytest.fixture
def hub(tiny_registry) -> Iterator[Hub]:
    found = Hub()
    found.add("tiny/strong", tiny_registry / "strong", OLD)
    found.add("tiny/weak", tiny_registry / "weak", OLD)
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def registry(tmp_path) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "models.toml").write_text(entry("hub-strong", "tiny/strong") + entry("hub-weak", "tiny/weak"))
    (folder / "pairs.toml").write_text('[[pairs]]\npair_id = "hub"\nstrong = "hub-strong"\nweak = "hub-weak"\n')
    return folder


@pytest.fixture
def call(drsow, hub, registry, tmp_path):
    """Run the command against the hub with a cache of its own."""

    def run(*words: object, offline: bool = False, **more: str):
        cache = str(tmp_path / "cache")
        names = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": cache, "HF_HOME": cache, "HF_HUB_DISABLE_XET": "1"}
        return drsow(*words, "--registry", registry, **names, HF_HUB_OFFLINE="1" if offline else "0", **more)

    return run


def test_a_pair_of_the_hub_is_fetched_once_and_runs_offline_then(call, hub, data, tmp_path):
    done = call("fetch", "hub")
    assert done.returncode == 0, done.stderr
    n_asked = len(hub.asked)
    words = ["run", "--pair", "hub", "--data", data, "--dtype", "fp32", "--results", tmp_path / "out"]
    ran = call(*words, offline=True)
    assert ran.returncode == 0, ran.stderr
    assert len(hub.asked) == n_asked
    assert json.loads((tmp_path / "out/hub/rows/manifest.json").read_text())["score_sets"][0]["key"]["revision"] == OLD


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda hub: hub.gated.add("tiny/strong"),
            "tiny/strong is gated: accept its licence on the hub and set HF_TOKEN",
        ),
        (lambda hub: hub.repos.pop("tiny/strong"), "the hub has no repository tiny/strong, or it needs HF_TOKEN"),
    ],
    ids=["gated", "missing"],
)
def test_what_the_hub_does_not_give_is_one_line(call, hub, tmp_path, spoil, said):
    spoil(hub)
    done = call("fetch", "hub")
    assert (done.returncode, done.stdout) == (4, "")
    assert said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_repository_of_pickles_is_refused_and_none_is_fetched(call, hub, tiny_registry, tmp_path):
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "pickles")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    hub.repos["tiny/strong"] = {OLD: folder}
    done = call("fetch", "hub-strong")
    assert done.returncode == 4 and "no safetensors weights; pickled ones are not read" in done.stderr
    assert not any("pytorch_model" in path for _, path, _ in hub.asked)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(call, hub, tiny_registry, tmp_path):
    # More than the client takes at once; nothing here loads them.
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "large")
    (folder / WEIGHTS).write_bytes(np.random.default_rng(0).bytes(30_000_000))
    hub.repos["tiny/strong"] = {OLD: folder}
    hub.broken["tiny/strong"] = 1
    hub.slow.add("tiny/strong")
    done = call("fetch", "hub-strong")
    assert done.returncode == 0, done.stderr
    fetched = Path(done.stdout.split()[-1]) / WEIGHTS
    assert fetched.read_bytes() == (folder / WEIGHTS).read_bytes()
    assert "bytes=" in "".join(asked for _, path, asked in hub.asked if path.endswith(WEIGHTS))


def test_weights_other_than_promised_are_refused_and_fetched_again(call, hub, tmp_path):
    hub.lies.add("tiny/strong")
    done = call("fetch", "hub-strong")
    assert done.returncode == 1, done.stderr
    assert "hub-strong: model.safetensors: sha256 is " in done.stderr.splitlines()[-1]
    assert not [name for name in leftovers(tmp_path / "cache") if name.endswith(WEIGHTS)]
    hub.lies.clear()
    assert call("fetch", "hub-strong").returncode == 0


def test_a_lock_holds_a_run_to_its_files_when_the_repository_moves(call, hub, tiny_registry, data, tmp_path):
    lock = tmp_path / "pairs.lock"
    assert call("fetch", "hub", "--lock", lock).returncode == 0
    entries = json.loads(lock.read_text())
    assert {name: entry["revision"] for name, entry in entries.items()} == {"hub-strong": OLD, "hub-weak": OLD}
    assert WEIGHTS in entries["hub-strong"]["files"]
    hub.add("tiny/strong", tiny_registry / "weak", NEW)
    words = ["run", "--pair", "hub", "--data", data, "--dtype", "fp32", "--results", tmp_path / "out", "--frozen", lock]
    done = call(*words, offline=True)
    assert done.returncode == 0, done.stderr
    # Another file in its place, and another commit in the lock.
    (weights,) = (tmp_path / "cache").glob("models--tiny--weak/snapshots/*/model.safetensors")
    weights.unlink()
    shutil.copy(tiny_registry / "strong" / WEIGHTS, weights)
    other = call(*words, offline=True)
    assert other.returncode == 1 and f"hub-weak: {WEIGHTS} is not the file that" in other.stderr
    entries["hub-strong"]["revision"] = NEW
    lock.write_text(json.dumps(entries))
    moved = call(*words, offline=True)
    assert moved.returncode == 4 and f"names revision {NEW}, which is not here" in moved.stderr


def test_a_lock_without_the_model_or_without_sense_is_one_line(call, data, tmp_path):
    lock = tmp_path / "pairs.lock"
    words = ["run", "--pair", "hub", "--data", data, "--results", tmp_path / "out", "--frozen", lock]
    for text, code, said in (
        (None, 4, "not found; `drsow fetch NAME --lock"),
        ("{}", 4, "hub-strong is not in it"),
        ("[]", 2, "is not a lock"),
        ("{", 2, "pairs.lock: "),
    ):
        if text is not None:
            lock.write_text(text)
        done = call(*words, offline=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
        assert said in done.stderr


def test_an_adapter_and_a_file_of_the_hub_are_fetched_once(call, hub, registry, tiny_registry, data, tmp_path):
    lora = save_lora(tmp_path / "lora", tiny_registry / "strong", base_name="tiny/strong")
    hub.add("tiny/lora", lora, NEW)
    source = '{ adapter = "tiny/lora", base = "hub-strong" }'
    more = entry("tuned", "x").replace('{ repo = "x" }', source)
    more += entry("odd", "tiny/lora", 'file = "odd.gguf"').replace("safetensors", "gguf")
    more += entry("gone", "tiny/lora", 'file = "gone.gguf"').replace("safetensors", "gguf")
    (lora / "odd.gguf").write_bytes(b"GGUF, and no more")
    (registry / "models.toml").write_text((registry / "models.toml").read_text() + more)
    (registry / "pairs.toml").write_text('[[pairs]]\npair_id = "hub"\nstrong = "tuned"\nweak = "hub-weak"\n')
    done = call("fetch", "hub")
    assert done.returncode == 0, done.stderr
    assert "tuned: fetching hub-strong + adapter tiny/lora\n" in done.stderr
    words = ["run", "--pair", "hub", "--data", data, "--dtype", "fp32", "--results", tmp_path / "out"]
    ran = call(*words, offline=True)
    assert ran.returncode == 0, ran.stderr
    sets = json.loads((tmp_path / "out/hub/rows/manifest.json").read_text())["score_sets"]
    assert sets[0]["key"]["revision"].startswith(f"{OLD}+lora-{NEW}-sha256:")
    # The file is downloaded alone; what is in it is the converter's to say.
    odd, gone = call("fetch", "odd", DRSOW_CACHE=str(tmp_path / "c")), call("fetch", "gone")
    assert (odd.returncode, gone.returncode) == (1, 4)
    assert odd.stderr.splitlines()[-1].startswith("drsow: odd.gguf cannot be loaded: ")
    assert "drsow: gone: tiny/lora has no file gone.gguf; correct `source` in models.toml" in gone.stderr
