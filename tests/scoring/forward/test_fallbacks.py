"""A GPU's operations where a part of them does not compile: others take its place, and say so."""

import shutil

import numpy as np
import pytest
import torch
from plain import plain_logps
from tiny_models import tiny_model
from torch.nn.attention.flex_attention import flex_attention
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, PreTrainedModel

from bench.schema import DrsowError
from bench.scoring.forward import attention, compiling, engine, flex, fused, ops, preparing, tiles, trie

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
NO_COMPILER = "g++-that-is-not-here"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing that was compiled before counts, and heads of 8 are wide enough."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(flex, "LEAST_HEAD_DIM", 8)

    def forget() -> None:
        torch._dynamo.reset()
        flex._compiled.cache_clear()
        fused._compiled.cache_clear()

    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def no_compiler():
    with torch._inductor.config.patch({"cpp.cxx": (NO_COMPILER,), "fx_graph_cache": False}):
        yield


def assert_plain_numbers(model: PreTrainedModel, chosen: ops.Ops) -> engine.Prepared:
    """The model scores under operations as a plain loop does."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, 97, 70)
    ids = [np.concatenate([prompt, rng.integers(3, 97, n)]) for n in (5, 30)]
    plain = np.concatenate([plain_logps(model, row, 70) for row in ids])
    prepared = preparing.prepare(model, ops=chosen)
    packed = trie.pack(ids, [70, 70], budget=80)
    np.testing.assert_allclose(engine.score(prepared, packed), plain, rtol=0, atol=3e-5)
    return prepared


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_without_a_compiler_a_gpu_has_tiles_and_an_eager_head(no_compiler, capsys):
    prepared = assert_plain_numbers(tiny_model(LlamaConfig(**SHAPE), seed=3), ops.gpu_ops("flex", "compiled", ""))
    assert prepared.ops.name == "cuda-tiles-eager"
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("The head's sum does not compile here (") and "No working C++ compiler found" in first
    assert first.endswith("drsow uses cuda-flex-eager instead, which is slower")
    assert second.startswith("FlexAttention does not compile here (") and "No working C++ compiler found" in second
    assert second.endswith("drsow uses cuda-tiles-eager instead, which is slower")


def test_an_attention_that_does_not_compile_leaves_the_head_as_it_was(monkeypatch, capsys):
    def broken(*_args, **_kwargs):
        raise torch._dynamo.exc.TorchDynamoException("out of shared memory\nand more")

    monkeypatch.setattr(flex, "_compiled", lambda: compiling.caught(broken, flex.NAME))
    prepared = assert_plain_numbers(tiny_model(LlamaConfig(**SHAPE), seed=3), ops.gpu_ops("flex", "eager", "sm90"))
    assert prepared.ops.name == "cuda-tiles-eager-sm90"
    said = "drsow uses cuda-tiles-eager-sm90 instead, which is slower\n"
    assert capsys.readouterr().err == f"FlexAttention does not compile here (out of shared memory): {said}"


def test_a_window_that_does_not_compile_shows_before_a_text_is_that_long(monkeypatch):
    def broken(*args, block_mask, **more):
        if block_mask.mask_mod.__name__ == "near":
            raise torch._dynamo.exc.TorchDynamoException("no windows")
        return flex_attention(*args, block_mask=block_mask, **more)

    monkeypatch.setattr(flex, "_compiled", lambda: compiling.caught(broken, flex.NAME))
    model = tiny_model(MistralConfig(**SHAPE, sliding_window=200), seed=3)
    prepared = preparing.prepare(model, ops=ops.gpu_ops("flex", "eager", ""))
    assert prepared.ops.name == "cuda-tiles-eager"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_without_a_compiler_the_layers_keep_their_own_passes(no_compiler):
    model = tiny_model(LlamaConfig(**SHAPE), seed=3)
    prepared = assert_plain_numbers(model, ops.gpu_ops("tiles", "eager", "", fuses=True))
    assert prepared.ops.name == "cuda-tiles-eager"
    assert not any("forward" in vars(layer) for layer in model.base_model.layers)


@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("kind", [LlamaConfig, pytest.param(Gemma3TextConfig, marks=pytest.mark.slow)])
def test_layers_are_compiled_once_for_all_lengths_and_give_the_plain_numbers(kind, monkeypatch):
    monkeypatch.setattr(engine, "_side_by_side", engine._in_turn)
    torch._dynamo.utils.counters.clear()
    model = tiny_model(kind(**SHAPE | {"head_dim": 8, "num_hidden_layers": 6}), seed=3)
    prepared = assert_plain_numbers(model, ops.gpu_ops("tiles", "eager", "", fuses=True))
    assert prepared.ops.name == "cuda-tiles-fused-eager"

    def n_graphs(*lengths: int) -> int:
        for n in lengths:
            engine.score(prepared, trie.pack([np.arange(n) % 90], [3], budget=256))
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    # A layer up to its attention, behind it, and the rest; for short texts and others; for a window or none.
    first = n_graphs(11, 90, 150)
    assert 0 < first <= 10
    assert n_graphs(20, 100, 200, 300, 411) == first


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_what_has_no_other_way_is_an_error_that_names_the_part(no_compiler):
    chosen = ops.gpu_ops("tiles", "compiled", "")._replace(without={})
    with pytest.raises(DrsowError, match="The head's sum does not compile here"):
        preparing.prepare(tiny_model(LlamaConfig(**SHAPE), seed=3), ops=chosen)


def test_an_error_of_our_own_is_not_put_down_to_the_model():
    # A call of `by_tiles` that lacks an argument.
    chosen = ops.gpu_ops("tiles", "eager", "")._replace(attend=tiles.by_tiles)
    with pytest.raises(TypeError, match="least"):
        preparing.prepare(tiny_model(LlamaConfig(**SHAPE), seed=3), ops=chosen)
    assert attention.__name__.startswith("bench.")
