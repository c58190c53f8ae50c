"""A model that passed the engine's check is loaded without it the next time, and only if nothing has changed."""

import numpy as np
import pytest
import torch
from tiny_models import save_tiny
from tiny_tokenizers import byte_level
from transformers import LlamaForCausalLM

from bench.schema import DrsowError
from bench.scoring import checked, models
from bench.scoring.forward import engine, kernels, trie


class CheckedError(Exception):
    """The check ran."""


REVISION = "sha256:0"
ROWS = [np.arange(40), np.concatenate([np.arange(20), np.arange(30, 50)])]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny model; what is kept of its checks goes into a folder of the test."""
    # A process loads the kernels once, and not a second time from the test's cache.
    kernels.ready()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return save_tiny(tmp_path / "model", tokenizer=byte_level(eos="<end>"), seed=1)


def load(folder, *, dtype=torch.float32, **more):
    return models.load_model(folder, dtype=dtype, device="cpu", **{"revision": REVISION} | more)


def forbid(monkeypatch):
    """From now on a model's own forward pass, which only the check runs, is an error."""

    def forward(*args, **kwargs):
        raise CheckedError("the model was checked")

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "drsow" / "checks").glob("*"))


def test_a_model_that_passed_is_not_checked_again_and_scores_the_same(folder, tmp_path, monkeypatch):
    packed = trie.pack(ROWS, [20, 20], budget=100)
    first = engine.score(load(folder), packed)
    assert len(kept(tmp_path)) == 1
    forbid(monkeypatch)
    assert np.array_equal(engine.score(load(folder), packed), first)


@pytest.mark.parametrize(
    "change", [{"revision": "sha256:1"}, {"revision": None}, {"dtype": torch.bfloat16}, {"trust_remote_code": True}]
)
def test_another_model_dtype_or_code_is_checked(folder, monkeypatch, change):
    load(folder)
    forbid(monkeypatch)
    with pytest.raises(CheckedError, match="the model was checked"):
        load(folder, **change)


@pytest.mark.parametrize("name", ["_code", "_processor"])
def test_another_processor_and_another_version_of_drsow_check_again(folder, monkeypatch, name):
    load(folder)
    forbid(monkeypatch)
    monkeypatch.setattr(checked, name, lambda: "another")
    with pytest.raises(CheckedError, match="the model was checked"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"passed_utc": "2026-01-01T00:00:00Z"}'])
def test_a_damaged_file_counts_as_no_check(folder, tmp_path, monkeypatch, text):
    load(folder)
    kept(tmp_path)[0].write_text(text)
    forbid(monkeypatch)
    with pytest.raises(CheckedError, match="the model was checked"):
        load(folder)


def test_a_refusal_is_not_kept(folder, tmp_path, monkeypatch):
    own = LlamaForCausalLM.forward

    def other(self, *args, **kwargs):
        out = own(self, *args, **kwargs)
        out.logits = -out.logits
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", other)
    for _ in range(2):
        with pytest.raises(DrsowError, match="its own forward pass differs"):
            load(folder)
    assert kept(tmp_path) == []


def test_a_cache_that_cannot_be_written_stops_nothing(folder, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert load(folder).model.dtype == torch.float32
