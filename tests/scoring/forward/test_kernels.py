"""Our own bfloat16 kernels: against float64, and a whole model against torch's operations."""

import copy
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_logps
from tiny_models import tiny_model

from bench.schema import UsageError
from bench.scoring.forward import building, device, engine, kernels, layers, onednn, ops, preparing, trie
from bench.scoring.forward import head as heads

pytestmark = pytest.mark.usefixtures("compiled_kernels")


HALF_UNIT = 2.0**-8
"""Rounding to bfloat16 moves a number by so much of itself at most, with a little for the float32 sums."""

WORDS = 700


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_product_is_float64s_rounded_once(threads):
    x, weight, bias = drawn(192, 130, seed=0), drawn(320, 130, seed=1), drawn(320, seed=2)
    exact = x.double() @ weight.double().T
    with device.threads(threads):
        plain = kernels.panel_product(x, kernels.panels(weight), None)
        biased = kernels.panel_product(x, kernels.panels(weight), bias)
    torch.testing.assert_close(plain.double(), exact, rtol=HALF_UNIT, atol=1e-4)
    torch.testing.assert_close(biased.double(), exact + bias.double(), rtol=HALF_UNIT, atol=1e-4)


def test_rows_of_several_groups_and_of_a_shorter_last_one_are_float64s():
    # Three times WIDTH rows of this depth are a group, so these rows are two groups and a third of one.
    x, weight = drawn(7 * kernels.WIDTH, 1100, seed=0), drawn(192, 1100, seed=1)
    found = kernels.panel_product(x, kernels.panels(weight), None)
    torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=HALF_UNIT, atol=1e-3)


@pytest.mark.parametrize("gelu", [True, False])
def test_a_gated_product_is_float64s_rounded_once(gelu):
    x, gate, up = drawn(128, 64, seed=0), drawn(192, 64, seed=1), drawn(192, 64, seed=2)
    inner = x.double() @ gate.double().T
    act = torch.nn.functional.gelu(inner, approximate="tanh") if gelu else torch.nn.functional.silu(inner)
    found = kernels.gated_panel_product(x, kernels.panels(gate), kernels.panels(up), gelu=gelu)
    torch.testing.assert_close(found.double(), act * (x.double() @ up.double().T), rtol=HALF_UNIT, atol=1e-3)
    assert inner.min() < -30 and inner.max() > 30


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_norm_is_float64s_rounded_as_its_model_rounds(shift, scale):
    x, weight = drawn(70, 80, seed=0, scale=scale), drawn(80, seed=1)
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-6).sqrt()
    wanted = (exact * (1 + weight.double())).bfloat16() if shift else exact.bfloat16() * weight
    found = kernels.rms_norm(x, weight, eps=1e-6, shift=shift)
    assert (found == wanted).double().mean() > 0.999
    torch.testing.assert_close(found, wanted, rtol=2 * HALF_UNIT, atol=0)


class LayerNormed(torch.nn.Module):
    """Looks like a root-mean-square norm, but subtracts the mean."""

    def __init__(self):
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(drawn(64, seed=2)), 1e-6

    def forward(self, x):
        return torch.nn.functional.layer_norm(x, (64,), eps=self.eps) * self.weight


class Gated(transformers.models.llama.modeling_llama.LlamaRMSNorm):
    """A norm that a second input may scale."""

    def forward(self, x, gate=None):
        return super().forward(x if gate is None else x * gate)


def test_a_norm_of_another_kind_keeps_its_own_pass():
    assert layers.kernel_norm(Gated(64).bfloat16()) is None
    gemma = transformers.models.gemma3.modeling_gemma3.Gemma3RMSNorm(64).bfloat16()
    llama = transformers.models.llama.modeling_llama.LlamaRMSNorm(64).bfloat16()
    for each in (gemma, llama):
        each.weight.data.copy_(drawn(64, seed=1))
    shifts = [layers.kernel_norm(each).args[2] for each in (gemma, llama)]
    assert shifts == [True, False]
    assert layers.kernel_norm(LayerNormed()) is None
    assert layers.kernel_norm(transformers.models.llama.modeling_llama.LlamaRMSNorm(72).bfloat16()) is None


def positioned(n: int, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of n tokens' angles, (1, n, depth) each, their halves of different numbers."""
    angles = torch.arange(n)[:, None] * torch.logspace(0, -4, depth)
    return angles.cos()[None].bfloat16(), angles.sin()[None].bfloat16()


@pytest.mark.parametrize("depth", [32, 64, 96, 256])
@pytest.mark.parametrize("n", [1, 130])
def test_rotary_positions_are_transformers_own_to_the_bit(depth, n):
    cos, sin = positioned(n, depth)
    rows = drawn(1, n, 5 * depth, seed=0, scale=30.0).view(1, n, 5, depth)
    for x in (rows.transpose(1, 2), rows.transpose(1, 2).contiguous(), rows[:, :, 1:3].transpose(1, 2)):
        assert kernels.fits_rotary(x, cos, sin)
        wanted, _ = transformers.models.llama.modeling_llama.apply_rotary_pos_emb(x, x, cos, sin)
        assert torch.equal(kernels.rotary(x, cos, sin), wanted)
    heads = rows.transpose(1, 2)
    assert not kernels.fits_rotary(heads.float(), cos, sin) and not kernels.fits_rotary(heads, cos, sin[:, :, :16])
    assert not kernels.fits_rotary(heads[..., :24], cos[..., :24].contiguous(), sin[..., :24].contiguous())
    assert not kernels.fits_rotary(heads.expand(2, -1, -1, -1), cos, sin)


def attention_layer(modeling: str, family: str) -> torch.nn.Module:
    models, shape = transformers.models, {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = getattr(transformers, f"{family}Config")(**shape, head_dim=64)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    code = getattr(getattr(models, modeling), f"modeling_{modeling}")
    return getattr(code, f"{family}Attention")(config, layer_idx=0).bfloat16().eval()


@torch.inference_mode()
@pytest.mark.parametrize(("modeling", "family"), [("llama", "Llama"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3")])
def test_attention_takes_the_kernels_positions_for_its_own_layer_alone(modeling, family, monkeypatch):
    layer, other, used = *(attention_layer(modeling, family) for _ in range(2)), []
    x, positions = drawn(1, 70, 128, seed=1), positioned(70, 64)
    (own, _), (named, _) = layer(x, positions, None), layer(x, position_embeddings=positions, attention_mask=None)
    rotary = kernels.rotary
    monkeypatch.setattr(kernels, "rotary", lambda *a: used.append(1) or rotary(*a))
    keep = {"linear": layers.keep, "gated": layers.keep, "norm": layers.keep}
    layers.fit(layer, **keep, rotary=layers.kernel_rotary)
    used.clear()
    assert torch.equal(layer(x, positions, None)[0], own) and len(used) == 2
    assert torch.equal(layer(x, position_embeddings=positions, attention_mask=None)[0], named) and len(used) == 4
    # Two texts at once are computed as before, and so is another layer of the kind.
    two = x.expand(2, -1, -1)
    assert torch.equal(layer(two, positions, None)[0], other(two, positions, None)[0])
    layers.unfit(layer)
    assert torch.equal(layer(x, positions, None)[0], own) and len(used) == 4


@pytest.mark.parametrize(("modeling", "family"), [("cohere", "Cohere"), ("glm4", "Glm4")])
def test_attention_whose_positions_are_computed_otherwise_keeps_its_code(modeling, family):
    layer = attention_layer(modeling, family)
    assert layers.ROTARY in type(layer).forward.__code__.co_names
    assert layers.kernel_rotary(layer) is None and layers.kernel_rotary(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize(("n_words", "depth"), [(1, 96), (15, 96), (64, 96), (65, 96), (WORDS, 96), (WORDS, 1102)])
def test_a_sum_of_exponentials_has_float32s_digits(n_words, depth):
    # Of the greater depth, three panels are a group that meets all rows: four groups, the last one not whole.
    hidden, weight = drawn(128, depth, seed=0), drawn(n_words, depth, seed=1, scale=0.5 if depth < 100 else 0.1)
    exact = (hidden.double() @ weight.double().T).exp().sum(dim=1)
    torch.testing.assert_close(kernels.exp_totals(hidden, weight), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n_words", [1, 15, 64, 65, WORDS])
def test_the_largest_logit_comes_with_the_sum_and_changes_no_bit_of_it(n_words):
    hidden, weight = drawn(128, 96, seed=0), drawn(n_words, 96, seed=1, scale=0.5)
    top = torch.full((128,), -math.inf)
    totals = kernels.exp_totals(hidden, weight, top=top)
    assert torch.equal(totals, kernels.exp_totals(hidden, weight))
    exact = (hidden.double() @ weight.double().T).amax(dim=1)
    torch.testing.assert_close(top.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_improbable_targets_keep_their_digits(spread, monkeypatch):
    taken = []
    monkeypatch.setattr(
        kernels, "exp_totals", lambda *args, own=kernels.exp_totals, **kwargs: taken.append(1) or own(*args, **kwargs)
    )
    head = torch.nn.Linear(8, WORDS, bias=False).bfloat16()
    head.weight.data = drawn(WORDS, 8, seed=0, scale=spread)
    hidden, targets = drawn(40, 8, seed=1), torch.arange(40)
    with torch.inference_mode():
        sums = heads.kernels_or_unshifted(head, heads.as_is, float32=onednn.mkl_float32)
        got = heads.target_logps(heads.Head(head, heads.as_is, sums, 40), hidden, targets)
        logits = hidden.double() @ head.weight.double().T
    exact = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-5)
    assert taken and (logits.max() > 88) == (spread > 1)


def test_a_gate_as_far_off_as_it_can_be_is_shut_or_open():
    x, gate, up = (torch.zeros(64, 64).bfloat16() for _ in range(3))
    x[0, 0], gate[0, 0], gate[1, 0], up[:, 0] = 1e19, -1e19, 1e19, 1e-19
    for gelu in (False, True):
        found = kernels.gated_panel_product(x, kernels.panels(gate), kernels.panels(up), gelu=gelu)[0, :3].double()
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
    return trie.pack(ids, starts, budget=8192).steps[0]


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
    seen = kernels.seen_keys(step._replace(positions=positions), n_before=n_before, window=window)
    rows = n + -n % 64
    found = kernels.kernel_attention(query, key, value, seen, rows=rows, scale=scale)
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
    seen = kernels.seen_keys(step, n_before=0, window=None)
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
    attend = kernels.kernel_attention
    monkeypatch.setattr(kernels, "kernel_attention", lambda *a, **more: used.append(1) or attend(*a, **more))
    cpu, own = ops.processor(torch.bfloat16), copy.deepcopy(model)
    shifts = {}
    for which, each in (("own", own), ("torch", model)):
        chosen = ops.on_cpu(torch.bfloat16, cpu._replace(has_kernels=which == "own"))
        ready = preparing.prepare(each, ops=chosen)
        for budget in (70, 8192):
            shifts[which, budget] = np.abs(engine.score(ready, trie.pack(ids, starts, budget=budget)) - wanted).mean()
        assert bool(used) == (which == "own")
        used.clear()
    linear = [module for module in own.modules() if type(module) is torch.nn.Linear]
    panels = [module for module in linear if kernels.in_panels(module.weight)]
    assert panels and all(module.weight.numel() == module.in_features * module.out_features for module in panels)
    for budget in (70, 8192):
        assert shifts["own", budget] < 1.25 * shifts["torch", budget] + 1e-4


UNAVAILABLE = "Compiled kernels are unavailable ({}); using PyTorch's slower ones. Install g++ or set CXX.\n"
COMPILING = "Compiling drsow's kernels with {} (once, about 20 s)\n"


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", UNAVAILABLE.format("no-such-compiler not found")),
        ("false", COMPILING.format("false") + UNAVAILABLE.format("false failed: exit status 1")),
    ],
)
def test_without_a_compiler_torchs_operations_are_taken_and_one_line_says_so(compiler, said, tmp_path):
    env = {**os.environ, "CXX": compiler, "XDG_CACHE_HOME": str(tmp_path)}
    code = "from bench.scoring.forward import kernels; print(kernels.ready(), kernels.ready())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False False\n", said)
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_that_does_not_end_is_given_up_with_all_that_it_began(tmp_path, monkeypatch, capsys):
    compiler = tmp_path / "slow"
    compiler.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\nwait\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(building, "COMPILE_LIMIT_S", 2)
    began = time.monotonic()
    assert not kernels.ready.__wrapped__()
    assert time.monotonic() - began < 30
    said = UNAVAILABLE.format(f"{compiler} took more than 2 s")
    assert capsys.readouterr().err == COMPILING.format(compiler) + said
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    # The system needs a moment to end what was killed; left alone, it would sleep for a minute.
    while alive(child) and time.monotonic() - began < 30:
        time.sleep(0.05)
    assert not alive(child)


def alive(stat: Path) -> bool:
    """Whether a process is neither gone nor dead and not yet taken note of."""
    try:
        return stat.read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("has_bf16", "setting", "suit"), [(True, "auto", True), (False, "auto", False), (True, "off", False)]
)
def test_the_kernels_are_for_bfloat16_unless_the_setting_says_otherwise(has_bf16, setting, suit):
    assert kernels.suit(has_bf16=has_bf16, setting=setting) == suit


def test_a_setting_that_is_none_is_named():
    with pytest.raises(UsageError, match="DRSOW_KERNELS is 'on': set it to auto or off"):
        kernels.suit(has_bf16=True, setting="on")


BETWEEN = """
import torch
from bench.scoring.forward import kernels
torch.set_num_threads(2)
assert kernels.ready()
rng = torch.Generator().manual_seed(0)
x, weight = (torch.randn(n, 576, generator=rng).bfloat16() for n in (512, 1536))
panels, hidden = kernels.panels(weight), torch.randn(512, 576, generator=rng).bfloat16()
calls = [
    lambda: kernels.panel_product(x, panels, None),
    lambda: kernels.gated_panel_product(x, panels, panels, gelu=False),
    lambda: kernels.exp_totals(hidden, weight * 0.01),
]
for call in calls:
    first = call()
    for m, k, n in [(7, 33, 19), (100, 64, 100), (128, 576, 333), (512, 48, 64), (3, 1000, 50)]:
        torch.nn.functional.linear(*(torch.randn(rows, k, generator=rng).bfloat16() for rows in (m, n)))
        assert torch.equal(call(), first), (m, k, n)
print("the same")
"""


def test_torchs_products_between_two_of_ours_change_no_bit_and_end_no_thread():
    # With AMX, torch's products release or reshape the tiles of the threads that also run ours.
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", BETWEEN], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr


@pytest.mark.slow
def test_what_was_compiled_stands_in_the_users_cache_once(tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "DRSOW_CACHE": str(tmp_path / "teams")}
    code = "import sys; from bench.scoring.forward import kernels; print(kernels.ready(), 'setuptools' in sys.modules)"
    command = [sys.executable, "-c", code]
    two = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    assert [each.communicate()[0].split()[0] for each in two] == ["True"] * 2
    folder = tmp_path / "drsow" / "kernels"
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    # Found again: nothing to compile with is needed.
    found = subprocess.run(command, env={**env, "PATH": ""}, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("True False\n", "")


def test_attention_of_heads_that_do_not_fit_stays_with_torch():
    query = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16)
    assert kernels.fits_heads(query, query)
    assert not kernels.fits_heads(query, query[..., :40]) and not kernels.fits_heads(query.float(), query.float())


def test_a_layer_that_does_not_fit_stays_with_torch():
    layer = torch.nn.Linear(64, 97).bfloat16()
    layers.fit(
        layer,
        linear=layers.panel_linear,
        gated=layers.panel_gated,
        norm=layers.kernel_norm,
        rotary=layers.kernel_rotary,
    )
    assert layer.weight.shape == (97, 64)
