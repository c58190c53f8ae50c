"""Our own bfloat16 kernels: against float64, and a whole model against torch's operations."""

import copy
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_logps
from tiny_models import tiny_model

from bench.scoring.forward import engine, kernels, layers, trie
from bench.scoring.forward import head as heads

pytestmark = pytest.mark.skipif(not kernels.ready(), reason="for processors with AVX512_BF16, without AMX")

HALF_UNIT = 2.0**-8
"""Rounding to bfloat16 moves a number by so much of itself at most, with a little for the float32 sums."""

WORDS = 700


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_product_is_float64s_rounded_once(threads):
    x, weight, bias = drawn(192, 130, seed=0), drawn(320, 130, seed=1), drawn(320, seed=2)
    exact = x.double() @ weight.double().T
    with engine._threads(threads):
        plain = kernels.linear(x, kernels.panels(weight), None)
        biased = kernels.linear(x, kernels.panels(weight), bias)
    torch.testing.assert_close(plain.double(), exact, rtol=HALF_UNIT, atol=1e-4)
    torch.testing.assert_close(biased.double(), exact + bias.double(), rtol=HALF_UNIT, atol=1e-4)


@pytest.mark.parametrize("gelu", [True, False])
def test_a_gated_product_is_float64s_rounded_once(gelu):
    x, gate, up = drawn(128, 64, seed=0), drawn(192, 64, seed=1), drawn(192, 64, seed=2)
    inner = x.double() @ gate.double().T
    act = torch.nn.functional.gelu(inner, approximate="tanh") if gelu else torch.nn.functional.silu(inner)
    found = kernels.gated(x, kernels.panels(gate), kernels.panels(up), gelu=gelu)
    torch.testing.assert_close(found.double(), act * (x.double() @ up.double().T), rtol=HALF_UNIT, atol=1e-3)
    assert inner.min() < -30 and inner.max() > 30


@pytest.mark.parametrize("n_words", [1, 15, 64, 65, WORDS])
def test_a_sum_of_exponentials_has_float32s_digits(n_words):
    hidden, weight = drawn(128, 96, seed=0), drawn(n_words, 96, seed=1, scale=0.5)
    exact = (hidden.double() @ weight.double().T).exp().sum(dim=1)
    torch.testing.assert_close(kernels.exp_totals(hidden, weight), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_improbable_targets_keep_their_digits(spread, monkeypatch):
    taken = []
    monkeypatch.setattr(kernels, "exp_totals", lambda *args, own=kernels.exp_totals: taken.append(1) or own(*args))
    head = torch.nn.Linear(8, WORDS, bias=False).bfloat16()
    head.weight.data = drawn(WORDS, 8, seed=0, scale=spread)
    hidden, targets = drawn(40, 8, seed=1), torch.arange(40)
    with torch.inference_mode():
        got = heads.target_logps(head, hidden, targets, rescale=heads.as_is, words=1024)
        logits = hidden.double() @ head.weight.double().T
    exact = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-5)
    assert taken and (logits.max() > 88) == (spread > 1)


def test_a_gate_as_far_off_as_it_can_be_is_shut_or_open():
    x, gate, up = (torch.zeros(64, 64).bfloat16() for _ in range(3))
    x[0, 0], gate[0, 0], gate[1, 0], up[:, 0] = 1e19, -1e19, 1e19, 1e-19
    for gelu in (False, True):
        found = kernels.gated(x, kernels.panels(gate), kernels.panels(up), gelu=gelu)[0, :3].double()
        assert found[0] == 0 and found[1] == pytest.approx(1e38, rel=0.02) and found[2] == 0


def test_a_number_that_is_none_is_not_hidden():
    hidden, weight = drawn(64, 64, seed=0), drawn(128, 64, seed=1)
    hidden[3, 5] = math.nan
    totals = kernels.exp_totals(hidden, weight)
    assert totals.isnan().nonzero().flatten().tolist() == [3]


def trie_step(seed: int, *, n_prompts: int) -> trie.Step:
    rng = np.random.default_rng(seed)
    ids, starts = [], []
    for _ in range(n_prompts):
        prompt = rng.integers(3, 97, rng.integers(3, 90))
        for _ in range(2):
            ids.append(np.concatenate([prompt, rng.integers(3, 97, rng.integers(1, 70))]))
            starts.append(len(prompt))
    return trie.plan(ids, starts, budget=8192).steps[0]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    n_prompts=st.integers(1, 5),
    shape=st.sampled_from([(1, 1, 64), (4, 4, 8), (4, 2, 64), (9, 3, 34), (4, 1, 256)]),
    n_before=st.sampled_from([0, 1, 63, 64, 200, 515]),
    window=st.sampled_from([None, 1, 40, 130]),
    scale=st.sampled_from([None, 0.9]),
)
def test_attention_over_any_trie_is_float64s(seed, n_prompts, shape, n_before, window, scale):
    step = trie_step(seed, n_prompts=n_prompts)
    n, positions = len(step.ids), step.positions + n_before
    n_heads, kv_heads, depth = shape
    query = drawn(1, n, n_heads, depth, seed=seed).transpose(1, 2)
    key, value = drawn(1, kv_heads, n_before + n, depth, seed=1), drawn(1, kv_heads, n_before + n, 64, seed=2)
    seen = kernels.blocks(step._replace(positions=positions), n_before=n_before, window=window)
    rows = n + -n % 64
    found = kernels.attend(query, key, value, seen, rows=rows, scale=scale)
    index = np.arange(n)
    visible = (index <= index[:, None]) & (index[:, None] < step.end)
    visible = np.concatenate([np.ones((n, n_before), dtype=bool), visible], axis=1)
    if window is not None:
        visible &= positions[:, None] - np.concatenate([np.arange(n_before), positions]) < window
    keys, values = (x.double().repeat_interleave(n_heads // kv_heads, dim=1) for x in (key, value))
    scores = query.double() @ keys.mT * (depth**-0.5 if scale is None else scale)
    exact = scores.masked_fill(~torch.from_numpy(visible), -math.inf).softmax(-1) @ values
    assert found.shape == (1, rows, n_heads, 64) and not found[:, n:].any()
    torch.testing.assert_close(found[:, :n].transpose(1, 2).double(), exact, rtol=2 * HALF_UNIT, atol=2e-2)


def test_only_visible_blocks_are_looked_at():
    step = trie_step(0, n_prompts=60)
    n = len(step.ids)
    seen = kernels.blocks(step, n_before=0, window=None)
    runs = -(-n // 64)
    assert n > 40 * 64 and len(seen.starts) < 5 * runs and bool((seen.seen != 0).any(dim=1).all())


WIDE = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512,
}  # fmt: skip
MODELS = {
    "Llama": ("Llama", {}),
    "Mistral, window of 8": ("Mistral", {"sliding_window": 8}),
    "Gemma 3": ("Gemma3Text", {"sliding_window": 40, "layer_types": ["sliding_attention", "full_attention"]}),
    "Qwen 2, biased queries": ("Qwen2", {"hidden_size": 256}),
    "Qwen 3": ("Qwen3", {}),
    "Phi, another kind of layer": ("Phi", {"hidden_size": 256}),
    "Phi 3": ("Phi3", {"hidden_size": 256, "pad_token_id": 0}),
    "GPT-NeoX": ("GPTNeoX", {"hidden_size": 256}),
    "Granite, scaled attention": ("Granite", {"attention_multiplier": 0.3, "logits_scaling": 3.0}),
    "Mixtral, experts": ("Mixtral", {"num_local_experts": 4}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_on_our_kernels_is_as_near_to_float64_as_on_torchs(name, monkeypatch):
    kind, more = MODELS[name]
    shape = getattr(transformers, f"{kind}Config")(**WIDE | more)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, 97, n) for n in (5, 40, 90, 200)]
    ids = [np.concatenate([p, rng.integers(3, 97, n)]) for p in prompts for n in (1, 30, 70)]
    starts = [len(p) for p in prompts for _ in range(3)]
    model = tiny_model(shape, seed=3).bfloat16()
    exact = copy.deepcopy(model).double()
    if "experts" in name:
        exact.set_experts_implementation("eager")
    wanted = np.concatenate([plain_logps(exact, row, start) for row, start in zip(ids, starts, strict=True)])
    used = []
    monkeypatch.setattr(kernels, "attend", lambda *a, own=kernels.attend, **k: used.append(1) or own(*a, **k))
    own, torchs = copy.deepcopy(model), model
    shifts = {}
    for which, each in (("own", own), ("torch", torchs)):
        if which == "torch":
            monkeypatch.setattr(kernels, "ready", lambda: False)
        engine.prepare(each)
        for budget in (70, 8192):
            shifts[which, budget] = np.abs(engine.score(each, trie.plan(ids, starts, budget=budget)) - wanted).mean()
        assert bool(used) == (which == "own")
        used.clear()
    panels = [module for module in own.modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 4]
    assert panels and all(module.weight.numel() == module.in_features * module.out_features for module in panels)
    for budget in (70, 8192):
        assert shifts["own", budget] < 1.25 * shifts["torch", budget] + 1e-4


@pytest.mark.parametrize(
    ("compiler", "said"), [("no-such-compiler", "no no-such-compiler here"), ("false", "returned non-zero exit")]
)
def test_without_a_compiler_torchs_operations_are_taken_and_one_line_says_so(compiler, said, tmp_path):
    env = {**os.environ, "CXX": compiler, "XDG_CACHE_HOME": str(tmp_path)}
    code = "from bench.scoring.forward import kernels; print(kernels.ready(), kernels.ready())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.so"))


def test_what_was_compiled_stands_in_the_users_cache_once(tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "DRSOW_CACHE": str(tmp_path / "teams")}
    code = "from bench.scoring.forward import kernels; print(kernels.ready())"
    command = [sys.executable, "-c", code]
    two = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate()[0] for each in two] == ["True\n"] * 2
    folder = tmp_path / "drsow" / "kernels"
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    # Found again: nothing to compile with is needed.
    found = subprocess.run(command, env={**env, "PATH": ""}, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("True\n", "")


def test_attention_of_heads_that_do_not_fit_stays_with_torch():
    query = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16)
    assert kernels.takes_heads(query, query)
    assert not kernels.takes_heads(query, query[..., :40]) and not kernels.takes_heads(query.float(), query.float())


def test_a_layer_that_does_not_fit_stays_with_torch():
    layer = torch.nn.Linear(64, 97).bfloat16()
    layers.fuse(layer)
    assert layer.weight.shape == (97, 64)
