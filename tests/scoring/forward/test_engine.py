"""The engine against plain forward passes of models small enough to make here."""

import contextlib
import copy
import functools
import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_logps
from tiny_models import MIXED, VOCAB, config, tiny_model
from torch.nn.attention.flex_attention import flex_attention

from bench.schema import DrsowError
from bench.scoring.forward import engine, flex, layers, onednn, ops, preparing, products, tiles, trie
from bench.scoring.forward import head as heads

TOLERANCE_NATS = 3e-5
"""A token, in float32."""


ARCHITECTURES = {
    "Llama, grouped queries": config("Llama"),
    "Llama, a key a query": config("Llama", num_key_value_heads=4),
    "Mistral, window of 8": config("Mistral", sliding_window=8),
    "Mistral, window of 100": config("Mistral", sliding_window=100),
    "Gemma 3, window of 8 in one layer": config("Gemma3Text", head_dim=8, sliding_window=8, layer_types=MIXED),
    "Gemma 3, soft-capped logits": config("Gemma3Text", head_dim=8, final_logit_softcapping=3.0, layer_types=MIXED),
    "Qwen 2, biased queries": config("Qwen2"),
    "Qwen 3": config("Qwen3", head_dim=8),
    "Phi, biased head": config("Phi"),
    "Phi 3": config("Phi3"),
    "GPT-NeoX": config("GPTNeoX"),
    "OPT, learned positions": config("OPT", ffn_dim=48, word_embed_proj_dim=32),
    "Cohere, scaled logits": config("Cohere", logit_scale=0.3),
    "Granite, scaled logits and attention": config("Granite", logits_scaling=3.0, attention_multiplier=0.3),
    "Mixtral, experts": config("Mixtral", num_local_experts=4),
    "StableLM, whose layers hand nothing on to attention": config("StableLm", use_qkv_bias=True),
    "Nemotron, whose layers hand nothing on to attention": config("Nemotron", head_dim=8),
    "Gemma 2, soft-capped attention": config("Gemma2", head_dim=8, layer_types=MIXED, attn_logit_softcapping=0.3),
}


CPU = ops.Processor("avx512", onednn_leads=False, fuses_bf16=True, has_kernels=False)
PLAIN, CPUS = (ops.on_cpu(torch.float32, CPU._replace(onednn_leads=leads)) for leads in (False, True))
GPUS = ops.gpu_ops("tiles", "eager", "")


def _fit(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give a model's layers what this machine's processor multiplies fastest, without compiled kernels."""
    chosen = ops.on_cpu(dtype, CPU)
    layers.fit(model, linear=chosen.linear, gated=chosen.gated, norm=chosen.norm, rotary=chosen.rotary)


def conversations(n_prompts: int, *, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """Token ids and starts: prompts of 3 to 40 tokens, two responses each that share up to 6 tokens."""
    rng = np.random.default_rng(seed)
    ids, starts = [], []
    for _ in range(n_prompts):
        prompt = rng.integers(3, VOCAB, rng.integers(3, 41))
        shared = rng.integers(3, VOCAB, rng.integers(0, 7))
        for _ in range(2):
            own = rng.integers(3, VOCAB, rng.integers(1, 30))
            ids.append(np.concatenate([prompt, shared, own]))
            starts.append(len(prompt))
    return ids, starts


def engine_logps(model, ids: list[np.ndarray], starts: list[int], *, budget: int) -> list[np.ndarray]:
    plan = trie.pack(ids, starts, budget=budget)
    out = engine.score(model, plan)
    return [out[low:high] for low, high in zip(plan.offsets, plan.offsets[1:], strict=False)]


def assert_close(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE_NATS)


@pytest.fixture(scope="module")
def llama():
    return preparing.prepare(tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_budget_gives_the_plain_loops_numbers(name):
    model = tiny_model(ARCHITECTURES[name], seed=3)
    exact = copy.deepcopy(model).double()
    if "experts" in name:
        exact.set_experts_implementation("eager")
    ids, starts = conversations(6, seed=0)
    plain = [plain_logps(model, row, start) for row, start in zip(ids, starts, strict=True)]
    assert_close(plain, [plain_logps(exact, row, start) for row, start in zip(ids, starts, strict=True)])
    ready = preparing.prepare(model)
    for budget in (7, 64, 8192):
        assert_close(engine_logps(ready, ids, starts, budget=budget), plain)


CAPPED = "Gemma 2, soft-capped attention"
"""Its attention is our own tile by tile, never a product apart."""


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != CAPPED])
def test_with_all_attention_as_products_the_numbers_are_the_plain_loops(name, monkeypatch):
    own, masks = products.product_attention, []
    monkeypatch.setattr(
        products, "product_attention", lambda *args, **more: masks.append(args[3]) or own(*args, **more)
    )
    monkeypatch.setattr(tiles, "LONG_TRUNK", 1)
    model = tiny_model(ARCHITECTURES[name], seed=3)
    ids, starts = conversations(6, seed=0)
    plain = [plain_logps(model, row, start) for row, start in zip(ids, starts, strict=True)]
    ready = preparing.prepare(model, ops=PLAIN._replace(attend=functools.partial(tiles.tile_attention, least=0)))
    for budget in (7, 64, 8192):
        assert_close(engine_logps(ready, ids, starts, budget=budget), plain)
    # A mask of one row is a whole trunk's, which only a window keeps from being attended to apart.
    assert any(len(mask) > 1 for mask in masks)
    assert any(len(mask) == 1 for mask in masks) == (name != "Mistral, window of 8")


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "Mistral" not in name and name != CAPPED])
def test_a_trunk_attended_to_apart_gives_the_plain_loops_numbers(name, monkeypatch):
    apart, trunks = tiles.trunk_apart, []
    monkeypatch.setattr(tiles, "LONG_TRUNK", 1)
    monkeypatch.setattr(tiles, "trunk_apart", lambda ctx, *a, **more: trunks.append(ctx) or apart(ctx, *a, **more))
    model = tiny_model(ARCHITECTURES[name], seed=3)
    ids, starts = conversations(6, seed=0)
    plain = [plain_logps(model, row, start) for row, start in zip(ids, starts, strict=True)]
    ready = preparing.prepare(model)
    trunks.clear()
    for budget in (7, 30):
        assert_close(engine_logps(ready, ids, starts, budget=budget), plain)
    assert trunks


@pytest.fixture
def gpus(monkeypatch) -> ops.Ops:
    """The operations of a GPU, here; what a GPU compiles runs step by step."""
    monkeypatch.setattr(flex, "LEAST_HEAD_DIM", 8)
    monkeypatch.setattr(flex, "_compiled", lambda: flex_attention)
    return ops.gpu_ops("flex", "eager", "")


# torch traces the attention anew for every architecture, which takes seconds.
GPU_FIRST = ("Llama, grouped queries", "Gemma 3, window of 8 in one layer", "Gemma 2, soft-capped attention")
GPU_REST = [pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES if name not in GPU_FIRST]


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", [*GPU_FIRST, *GPU_REST])
def test_a_gpus_blocks_give_the_plain_loops_numbers(name, gpus):
    model = tiny_model(ARCHITECTURES[name], seed=3)
    ids, starts = conversations(6, seed=0)
    plain = [plain_logps(model, row, start) for row, start in zip(ids, starts, strict=True)]
    ready = preparing.prepare(model, ops=gpus)
    for budget in (7, 8192):
        assert_close(engine_logps(ready, ids, starts, budget=budget), plain)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", ["Llama, grouped queries", "Mistral, window of 100"])
def test_a_gpus_blocks_under_a_long_trunk_give_the_plain_loops_numbers(name, gpus):
    model = tiny_model(ARCHITECTURES[name], seed=5)
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, VOCAB, 300)
    ids = [np.concatenate([prompt, rng.integers(3, VOCAB, n)]) for n in (150, 9, 130, 60, 90)]
    plain = [plain_logps(model, row, 300) for row in ids]
    plan = trie.pack(ids, [300] * 5, budget=310)
    assert any(step.parent >= 0 and len(step.ids) > flex.BLOCK for step in plan.steps)
    assert_close(engine_logps(preparing.prepare(model, ops=gpus), ids, [300] * 5, budget=310), plain)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("n_before", [0, 70, 256])
def test_a_block_is_left_out_only_where_nothing_is_visible(n_before, window):
    ids, starts = conversations(40, seed=2)
    step = trie.pack(ids, starts, budget=8192).steps[0]
    n, positions = len(step.ids), step.positions + n_before
    assert n > 6 * flex.BLOCK
    found = flex.block_mask(step.end, positions, n_before=n_before, window=window, device=torch.device("cpu"))
    index = np.arange(n)
    visible = (index <= index[:, None]) & (index[:, None] < step.end)
    visible = np.concatenate([np.ones((n, n_before), dtype=bool), visible], axis=1)
    if window is not None:
        visible &= positions[:, None] - np.concatenate([np.arange(n_before), positions]) < window
    whole = np.zeros((found.seq_lengths[0], found.seq_lengths[1]), dtype=bool)
    whole[:n, : n_before + n] = visible
    by_block = whole.reshape(len(whole) // flex.BLOCK, flex.BLOCK, -1, flex.BLOCK)
    some, full = by_block.any(axis=(1, 3)), by_block.all(axis=(1, 3))
    kept = found.to_dense()[0, 0].numpy().astype(bool)
    assert (kept | ~some).all()
    assert kept.mean() < 0.7
    assert full.any() == (n_before == 256 and window is None)
    listed = found.full_kv_indices[0, 0].numpy(), found.full_kv_num_blocks[0, 0].numpy()
    inner = len(full) - 1
    """The last queries are rounded up: a block that is full for them is full for the step."""
    for row, (order, count) in enumerate(zip(*listed, strict=True)):
        assert row >= inner or set(order[:count]) == set(np.flatnonzero(full[row]))


@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_kernels_do_for_all_lengths(monkeypatch):
    monkeypatch.setattr(flex, "LEAST_HEAD_DIM", 8)
    # As on a GPU: steps in turn, all in one thread.
    monkeypatch.setattr(engine, "_side_by_side", engine._in_turn)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3)
    cases = [conversations(n, seed=n) for n in (2, 9, 30)]
    plain = [[plain_logps(model, row, start) for row, start in zip(*case, strict=True)] for case in cases]
    ready = preparing.prepare(model, ops=ops.gpu_ops("flex", "compiled", ""))
    assert ready.ops.name == "cuda-flex"
    for case, expected in zip(cases, plain, strict=True):
        assert_close(engine_logps(ready, *case, budget=8192), expected)
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, VOCAB, 300)
    long = [np.concatenate([prompt, rng.integers(3, VOCAB, n)]) for n in (150, 9, 130, 60, 90)]
    alone = tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3)
    assert_close(engine_logps(ready, long, [300] * 5, budget=310), [plain_logps(alone, row, 300) for row in long])
    # Attention for two blocks of each, for more, and under a trunk, whose keys lie otherwise; the head's sum, twice.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 5


def test_order_and_company_do_not_matter(llama):
    ids, starts = conversations(6, seed=1)
    together = engine_logps(llama, ids, starts, budget=8192)
    turned = engine_logps(llama, ids[::-1], starts[::-1], budget=64)
    assert_close(turned[::-1], together)
    assert_close([engine_logps(llama, [i], [s], budget=64)[0] for i, s in zip(ids, starts, strict=True)], together)


@pytest.fixture(scope="module")
def windowed():
    """A model whose layers see 8 tokens back or all of them: as it is, and prepared."""
    shape = ARCHITECTURES["Gemma 3, window of 8 in one layer"]
    return tiny_model(shape, seed=4), preparing.prepare(tiny_model(shape, seed=4))


@settings(deadline=None, max_examples=40)
@given(data=st.data(), budget=st.integers(1, 40))
def test_any_trie_gives_the_plain_loops_numbers(windowed, data, budget):
    row = st.lists(st.integers(3, 5), min_size=2, max_size=14)
    ids = [np.array(ids) for ids in data.draw(st.lists(row, min_size=1, max_size=6))]
    starts = [data.draw(st.integers(1, len(i) - 1)) for i in ids]
    plain = [plain_logps(windowed[0], row, start) for row, start in zip(ids, starts, strict=True)]
    assert_close(engine_logps(windowed[1], ids, starts, budget=budget), plain)


@pytest.mark.parametrize("name", ["Llama, grouped queries", "Mistral, window of 100", "OPT, learned positions"])
@pytest.mark.parametrize("budget", [40, 100, 330])
def test_responses_under_a_long_prompt_stand_on_its_trunk(name, budget):
    model = tiny_model(ARCHITECTURES[name], seed=5)
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, VOCAB, 300)
    ids = [np.concatenate([prompt, rng.integers(3, VOCAB, n)]) for n in (1, 9, 30, 60, 90)]
    plain = [plain_logps(model, row, 300) for row in ids]
    plan = trie.pack(ids, [300] * 5, budget=budget)
    assert any(step.is_trunk for step in plan.steps)
    assert_close(engine_logps(preparing.prepare(model), ids, [300] * 5, budget=budget), plain)


@pytest.mark.parametrize("name", ["Llama, grouped queries", "Gemma 3, soft-capped logits", "Qwen 2, biased queries"])
def test_gated_layers_in_one_pass_are_nearer_to_float64_than_their_own_pass(name):
    model = tiny_model(ARCHITECTURES[name], seed=7, scale=4.0).bfloat16()
    own = model.base_model.layers[0].mlp
    layer = copy.deepcopy(own)
    _fit(model, torch.bfloat16)
    assert all(isinstance(module.mlp.forward, functools.partial) for module in model.base_model.layers)
    x = torch.randn(1, 192, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        exact = copy.deepcopy(layer).double()(x.double())
        ours, theirs = ((f(x).double() - exact).abs().mean() for f in (own, layer))
    assert ours < theirs


@pytest.mark.parametrize("name", ["Llama, grouped queries", "Gemma 3, soft-capped logits", "Qwen 2, biased queries"])
@pytest.mark.parametrize("leads", [True, False], ids=["oneDNN", "MKL"])
def test_in_float32_whichever_library_multiplies_the_numbers_are_the_plain_loops(name, leads):
    model = tiny_model(ARCHITECTURES[name], seed=7, scale=4.0)
    ids, starts = conversations(6, seed=2)
    plain = [plain_logps(model, row, start) for row, start in zip(ids, starts, strict=True)]
    ready = preparing.prepare(model, ops=ops.on_cpu(torch.float32, CPU._replace(onednn_leads=leads)))
    layer = model.base_model.layers[0]
    for module in (layer.self_attn.q_proj, layer.mlp.down_proj, layer.mlp):
        assert isinstance(module.forward, functools.partial) == leads
    assert_close(engine_logps(ready, ids, starts, budget=150), plain)


@pytest.mark.parametrize(("maker", "leads"), [("GenuineIntel", False), ("AuthenticAMD", True), (None, False)])
def test_which_library_multiplies_depends_on_the_processors_maker(maker, leads, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n" if maker else "processor\t: 0\n")
    monkeypatch.setattr(onednn, "CPUINFO", path)
    assert onednn.onednn_leads.__wrapped__() == leads
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not onednn.onednn_leads.__wrapped__()


def test_a_layer_that_only_looks_gated_keeps_its_own_pass():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (torch.nn.Linear(64, 64) for _ in range(3))
            self.act_fn = torch.nn.SiLU()

        def forward(self, x):
            return self.down_proj(self.act_fn(0.9 * self.gate_proj(x)) * self.up_proj(x))

    layer = Scaled().bfloat16()
    _fit(layer, torch.bfloat16)
    assert not isinstance(layer.forward, functools.partial)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_steps_side_by_side_give_the_bits_of_steps_in_turn(llama, two_threads, monkeypatch):
    monkeypatch.setattr(engine, "WAVE", 3)
    ids, starts = conversations(12, seed=4)
    plan = trie.pack(ids, starts, budget=24)
    behind = [(step.parent, at) for at, step in enumerate(plan.steps) if step.parent >= 0]
    assert any(parent // 3 < at // 3 for parent, at in behind)
    beside = []
    for _, hidden in engine._side_by_side(llama, plan.steps):
        beside.append(hidden)
        assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    for (_, alone), hidden in zip(engine._in_turn(llama, plan.steps), beside, strict=True):
        assert torch.equal(alone, hidden)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_step_is_told_with_its_tokens_side_by_side_or_in_turn(llama, two_threads, n_threads):
    torch.set_num_threads(n_threads)
    plan, told = trie.pack(*conversations(12, seed=4), budget=24), []
    engine.score(llama, plan, told.append)
    assert sorted(told) == sorted(len(step.ids) for step in plan.steps)
    assert len(told) > 1 and sum(told) == plan.n_computed


def test_of_a_trunks_branches_the_longest_begins_first():
    lengths = [(-1, True, 5), (0, False, 3), (0, False, 9), (0, True, 2), (3, False, 4), (3, False, 8), (-1, False, 7)]
    steps = [SimpleNamespace(parent=parent, is_trunk=trunk, end=range(n)) for parent, trunk, n in lengths]
    assert list(engine._longest_first(steps, range(7))) == [0, 2, 1, 3, 5, 4, 6]
    assert list(engine._longest_first(steps, range(4, 7))) == [5, 4, 6]


def test_no_step_runs_while_one_is_handed_out(llama, two_threads, monkeypatch):
    monkeypatch.setattr(engine, "WAVE", 3)
    running, body = [], engine.body

    def counted(*args):
        running.append(1)
        hidden = body(*args)
        running.pop()
        return hidden

    monkeypatch.setattr(engine, "body", counted)
    for _ in engine._side_by_side(llama, trie.pack(*conversations(12, seed=4), budget=48).steps):
        time.sleep(0.01)
        assert not running


def test_a_step_that_fails_beside_another_stops_all_and_gives_the_threads_back(llama, two_threads, monkeypatch):
    ids, starts = conversations(12, seed=4)
    plan, begun, body = trie.pack(ids, starts, budget=48), [], engine.body

    def failing(model, step, ctx):
        begun.append(step)
        if step is plan.steps[2]:
            raise RuntimeError("can't allocate memory")
        time.sleep(0.02)
        return body(model, step, ctx)

    monkeypatch.setattr(engine, "body", failing)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        engine.score(llama, plan)
    assert torch.get_num_threads() == 2
    assert len(begun) < len(plan.steps)


@pytest.fixture
def heeding_ctrl_c():
    """Also where the tests run in the background: there a shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_step_in_the_middle_of_its_layers_is_given_up_at_ctrl_c(llama, two_threads, heeding_ctrl_c, monkeypatch):
    plan, begun, whole = trie.pack(*conversations(2, seed=4), budget=64), [], tiles.by_tiles

    def slow(*args, **more):
        begun.append(1)
        time.sleep(0.5)
        return whole(*args, **more)

    assert llama.model.config.num_hidden_layers * len(plan.steps) > engine.STREAMS
    monkeypatch.setattr(tiles, "by_tiles", slow)
    with pytest.raises(KeyboardInterrupt), contextlib.closing(engine._side_by_side(llama, plan.steps)) as states:
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        list(states)
    assert len(begun) <= engine.STREAMS


def test_nothing_to_score_is_an_empty_answer(llama):
    assert engine.score(llama, trie.pack([], [], budget=8)).shape == (0,)


@pytest.mark.parametrize("sums", [CPUS.log_totals, PLAIN.log_totals, GPUS.log_totals], ids=["oneDNN", "MKL", "GPU"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_improbable_targets_keep_their_digits(spread, sums):
    rng = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 5000, bias=True)
    with torch.no_grad():
        head.weight.copy_(torch.randn(5000, 8, generator=rng) * spread)
        head.bias.copy_(torch.randn(5000, generator=rng) * spread)
    hidden, targets = torch.randn(40, 8, generator=rng), torch.randint(0, 5000, (40,), generator=rng)
    with torch.inference_mode():
        got = heads.target_logps(heads.Head(head, heads.as_is, sums(head, heads.as_is), 40), hidden, targets)
        logits = hidden.double() @ head.weight.double().T + head.bias.double()
    exact = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    assert (exact.min() < -88) == (spread > 1)
    torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-5)


def test_a_bfloat16_head_loses_nothing_beyond_its_inputs():
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, 64, generator=rng).bfloat16()
    weight = torch.randn(700, 64, generator=rng).bfloat16()
    got = onednn.exact_bf16(hidden.float(), weight, out=None)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), hidden.double() @ weight.double().T, rtol=1e-6, atol=1e-5)


def test_a_bfloat16_model_stays_near_its_float32_self(llama):
    ids, starts = conversations(4, seed=2)
    low = preparing.prepare(tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3, scale=1.0).bfloat16())
    high = preparing.prepare(tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3, scale=1.0))
    for ours, exact in zip(*(engine_logps(m, ids, starts, budget=64) for m in (low, high)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=0.05)


UNSUPPORTED = {
    "Llama, positions that depend on the longest row": (
        config("Llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        "dynamic",
    ),
    "Falcon, whose attention cannot be replaced": (config("Falcon"), "differs by"),
}


def test_a_model_whose_packed_numbers_are_none_is_refused(monkeypatch):
    packed, whole = [], engine.score

    def score(model, plan):
        packed.append(whole(model, plan) * (np.nan if packed else 1))
        return packed[-1]

    monkeypatch.setattr(preparing, "score", score)
    with pytest.raises(DrsowError, match="differs by nan nats"):
        preparing.prepare(tiny_model(ARCHITECTURES["Llama, grouped queries"], seed=3))


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_model_that_the_engine_would_score_wrongly_is_refused(name):
    shape, words = UNSUPPORTED[name]
    model = transformers.AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    with pytest.raises(DrsowError, match=f"ForCausalLM is not supported: .*{words}"):
        preparing.prepare(model)
