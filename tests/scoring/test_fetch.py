"""A model's files in the hub's cache: complete, half there, and fetched where they lack a part."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub, reached_here
from transformers import AutoModelForCausalLM

from bench.entries import ModelSpec
from bench.registry import load_registry
from bench.schema import PreconditionError
from bench.scoring import fetch
from bench.verbs.lock import read_lock, write_lock

COMMIT = "a" * 40
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tiny_registry, tmp_path) -> Path:
    """A model in several files, and the index of its weights."""
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(tiny_registry / "strong")
    model.save_pretrained(folder, max_shard_size="50KB")
    return folder


@pytest.fixture
def hub(sharded, tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub with that model, and a cache that holds all of it but its last weights, as a stopped download leaves it."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with reached_here(monkeypatch, tmp_path / "cache") as found:
        found.add("tiny/strong", sharded, COMMIT)
        there = tmp_path / "cache" / "models--tiny--strong"
        shutil.copytree(sharded, there / "snapshots" / COMMIT)
        (there / "refs").mkdir()
        (there / "refs" / "main").write_text(COMMIT)
        sorted((there / "snapshots" / COMMIT).glob("*.safetensors"))[-1].unlink()
        yield found


@pytest.fixture
def spec(tmp_path) -> ModelSpec:
    fields = 'source = { repo = "tiny/strong" }\nformat = "safetensors"\nmethod = "sft"\n'
    (tmp_path / "models.toml").write_text(f'[[models]]\nmodel_id = "mine"\n{fields}')
    return load_registry(tmp_path).model("mine")


def test_a_model_that_lacks_a_file_of_its_index_is_fetched(hub, spec, sharded):
    assert fetch.locate(spec) is None
    found = fetch.fetch(spec)
    for path in sharded.glob("*.safetensors"):
        assert (found.folder / path.name).read_bytes() == path.read_bytes()
    n_asked = len(hub.asked)
    assert fetch.fetch(spec) == found == fetch.locate(spec)
    assert len(hub.asked) == n_asked


def test_its_tokenizer_needs_no_weights(hub, spec):
    assert fetch.locate(spec, weights=False).revision == COMMIT


def test_a_file_that_the_hub_lacks_too_is_one_line(hub, spec, sharded):
    last = sorted(sharded.glob("*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(PreconditionError) as error:
        fetch.fetch(spec)
    assert str(error.value) == (
        f"mine: {last.name} of tiny/strong, which its {INDEX} names, is not here, and the hub did not give it; "
        "run `drsow fetch mine` (with your --registry, if you gave one) where there is a network, or correct `source`"
    )


def test_an_index_beside_the_whole_weights_is_not_asked(hub, spec, tiny_registry, tmp_path):
    folder = tmp_path / "cache" / "models--tiny--strong" / "snapshots" / COMMIT
    shutil.copy(tiny_registry / "strong" / "model.safetensors", folder)
    # transformers reads model.safetensors alone.
    assert len(json.loads((folder / INDEX).read_text())["weight_map"]) > 1
    assert fetch.locate(spec).revision == COMMIT


def test_a_lock_names_the_weights_in_a_subfolder_too(hub, spec, sharded, tmp_path):
    last = sorted(sharded.glob("*.safetensors"))[-1].name
    there = tmp_path / "cache" / "models--tiny--strong" / "snapshots" / COMMIT
    (there / "w").mkdir()
    shutil.copy(sharded / last, there / "w")
    (there / INDEX).write_text((there / INDEX).read_text().replace(last, f"w/{last}"))
    write_lock(load_registry(tmp_path), ["mine"], tmp_path / "pairs.lock")
    assert f"w/{last}" in read_lock(tmp_path / "pairs.lock")["mine"]["files"]
