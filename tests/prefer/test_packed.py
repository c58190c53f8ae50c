"""The packed pass with gradients beside the plain arithmetic: padded batches, whole logits, peft's own layers."""

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers
from plain import padded_sums
from tiny_models import MIXED, VOCAB, config, tiny_model
from torch.nn.functional import linear

from bench.data.load import load_data
from bench.prefer import packed as packing
from bench.prefer.attention import attend
from bench.prefer.lora import with_lora
from bench.prefer.packed import TargetLogps, packable, packed, sums
from bench.schema import DrsowError
from bench.scoring.forward.context import Softmax, context
from bench.scoring.forward.trie import pack
from bench.scoring.models import load_policy, load_tokenizer
from bench.scoring.render import Sequence, Template, render

SOFT_CAPPED = {"head_dim": 8, "sliding_window": 8, "layer_types": MIXED, "final_logit_softcapping": 3.0}


MODELS = {
    "Llama, grouped queries": config("Llama"),
    "Gemma 3, window of 8, soft-capped logits": config("Gemma3Text", **SOFT_CAPPED),
    "Gemma 2, soft-capped attention": config("Gemma2", head_dim=8, layer_types=MIXED, attn_logit_softcapping=2.0),
    "Qwen 2, biased queries, its own head": config("Qwen2", tie_word_embeddings=False),
    "Phi, biased head": config("Phi"),
}


def sequences(*, seed: int) -> list[Sequence]:
    """Chosen and rejected of four prompts, 5 to 200 tokens, some of which begin alike."""
    rng = np.random.default_rng(seed)
    found = []
    for number, n_prompt in enumerate((5, 30, 90, 160)):
        prompt = rng.integers(3, VOCAB, n_prompt)
        for side in ("chosen", "rejected"):
            ids = np.concatenate([prompt, prompt[:3], rng.integers(3, VOCAB, rng.integers(1, 40))]).astype(np.int32)
            found.append(Sequence(str(number), side, ids, n_prompt, 0, ""))
    return found[::2] + found[1::2]


def losses(totals: torch.Tensor, counts: torch.Tensor, name: str) -> torch.Tensor:
    """Each loss as its paper writes it, on a batch of chosen, then rejected responses."""
    chosen, rejected = (totals / counts).chunk(2)
    margins = {"sft": chosen, "simpo": 10 * (chosen - rejected) - 3}
    if name == "sft":
        return -chosen
    if name == "dpo":
        log_ratios = totals - torch.arange(len(totals)) - totals.detach()
        chosen, rejected = log_ratios.chunk(2)
        margins["dpo"] = 0.1 * (chosen - rejected)
    return torch.log1p(torch.exp(-margins[name]))


@pytest.mark.parametrize("loss", ["dpo", "simpo", "sft"])
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_padded_batches_with_whole_logits(name, lora, loss, monkeypatch):
    # Several chunks of the head, the last one not whole.
    monkeypatch.setattr(packing, "ROWS", 48)
    batch = sequences(seed=1)
    model = tiny_model(MODELS[name], seed=3, scale=2.0)
    plain = copy.deepcopy(model)
    model = packable(model, dtype=torch.float32)
    if lora:
        model, plain = with_lora(model, 2, dtype=torch.float32), _peft(plain)
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            # An adapter starts at 0, where half of the gradients are 0.
            mine.data.copy_(theirs.data.add_(0.1) if theirs.requires_grad else theirs.data)
    totals, counts = padded_sums(plain, batch)
    expected = losses(totals, counts, loss)
    found = losses(sums(model, packed(batch)), counts, loss)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    tuned = [[weight for weight in each.parameters() if weight.requires_grad] for each in (model, plain)]
    gradients = [torch.autograd.grad(x.mean(), weights) for x, weights in zip((found, expected), tuned, strict=True)]
    assert len(gradients[0]) > 8
    largest = max(slope.abs().max() for slope in gradients[1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * largest.item())


def test_a_model_in_float32_may_be_tuned_in_bf16_whatever_its_rounding(small_models):
    folder = small_models["smollm2-135m-instruct-q4"]
    tokenizer = load_tokenizer(folder)
    for number, example in enumerate(load_data("sample").examples[:3]):
        rows = render([example], tokenizer, Template(tokenizer)).sequences
        model = load_policy(folder, dtype=torch.float32, device="cpu")
        exact = sums(packable(model, dtype=torch.float32), packed(rows))
        found = sums(
            packable(load_policy(folder, dtype=torch.float32, device="cpu"), dtype=torch.bfloat16), packed(rows)
        )
        counts = torch.tensor([len(row.ids) - row.start for row in rows])
        distance = ((found - exact).abs() / counts).max()
        # The logits are rounded to bf16: by more than a check in float32 may allow.
        assert 1e-4 < distance < 0.02, number


def _peft(model):
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        told = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, told)


@pytest.mark.parametrize(("window", "cap"), [(None, None), (40, None), (None, 0.7)])
def test_attention_and_its_gradients_are_the_masked_softmax_in_float64(window, cap):
    rows = sequences(seed=2)
    (step,) = pack([s.ids for s in rows], [s.start for s in rows], budget=9999).steps
    n = len(step.ids)
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, n + 7, 16), (1, 2, n, 16), (1, 2, n, 24))
    inputs = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in shapes]
    ctx = context(step, trunk=None, device=torch.device("cpu"), attend=attend)
    found = attend(ctx, *inputs, Softmax(0.3, window, cap))
    exact = [x.detach().double().requires_grad_() for x in inputs]
    query, key, value = exact[0][:, :, :n], exact[1].repeat_interleave(2, 1), exact[2].repeat_interleave(2, 1)
    q, k = torch.arange(n)[:, None], torch.arange(n)
    visible = (k <= q) & (q < ctx.end[k])
    if window:
        visible &= ctx.positions[q] - ctx.positions[k] < window
    scores = 0.3 * query @ key.mT if cap is None else cap * torch.tanh(0.3 * query @ key.mT / cap)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    expected = (weights @ value).transpose(1, 2)
    torch.testing.assert_close(found[:, :n].double(), expected, rtol=1e-4, atol=1e-5)
    assert not found[:, n:].any()
    slope = torch.randn(found.shape, generator=generator)
    ours = torch.autograd.grad(found, inputs, slope)
    theirs = torch.autograd.grad(expected, exact, slope[:, :n].double())
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-5)


def test_attention_in_bfloat16_rounds_no_more_than_torchs():
    rows = sequences(seed=2)
    (step,) = pack([s.ids for s in rows], [s.start for s in rows], budget=9999).steps
    ctx = context(step, trunk=None, device=torch.device("cpu"), attend=attend)
    generator = torch.Generator().manual_seed(0)
    low = [torch.randn(1, h, len(step.ids), 16, generator=generator).bfloat16().requires_grad_() for h in (4, 2, 2)]
    high = [x.detach().float().requires_grad_() for x in low]
    ours, exact = (attend(ctx, *x, Softmax()) for x in (low, high))
    q, k = torch.arange(len(step.ids))[:, None], torch.arange(len(step.ids))
    torchs = torch.nn.functional.scaled_dot_product_attention(
        *low, attn_mask=(k <= q) & (q < ctx.end[k]), enable_gqa=True
    ).transpose(1, 2)
    slope = torch.randn(exact.shape, generator=generator)
    errors = []
    for out, inputs in ((ours, low), (torchs, low)):
        slopes = torch.autograd.grad(out, inputs, slope.bfloat16())
        pairs = zip((out, *slopes), (exact, *torch.autograd.grad(exact, high, slope, retain_graph=True)), strict=True)
        errors.append([(x - y).abs().mean().item() for x, y in pairs])
    assert all(mine <= 1.25 * theirs for mine, theirs in zip(*errors, strict=True)), errors


@pytest.mark.parametrize("biased", [False, True])
def test_the_heads_gradients_are_those_of_whole_logits_in_float64(biased):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((600, 8), (31, 8), (31,))]
    targets = torch.randint(31, (600,), generator=generator)

    def capped(logits):
        return 2 * torch.tanh(logits / 2)

    exact = [x.detach().double().requires_grad_() for x in inputs]
    used = inputs if biased else [*inputs[:2], None]
    found = TargetLogps.apply(*used, targets, capped)
    whole = capped(linear(exact[0], exact[1], exact[2] if biased else None))
    expected = whole.log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    slope = torch.randn(600, generator=generator)
    n = 2 + biased
    ours, theirs = torch.autograd.grad(found, inputs[:n], slope), torch.autograd.grad(expected, exact[:n], slope)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)


def test_only_the_responses_tokens_are_predicted_and_a_shared_prompt_is_computed_once():
    prompt, start = [5, 6, 7, 8], 4
    rows = [Sequence("a", side, np.array([*prompt, *tail]), start, 0, "") for side, tail in (("0", [9, 2]), ("1", [3]))]
    batch = packed(rows)
    step = batch["packing"].step
    # The last token of a sequence is only a target: 4 of the prompt, 1 of the first response; then padding.
    assert step.ids.tolist() == [*prompt, 9] and batch["input_ids"].shape == (1, 64)
    assert sorted(zip(step.predict.tolist(), step.targets.tolist(), strict=True)) == [(3, 3), (3, 9), (4, 2)]
    assert batch["packing"].n_tokens.tolist() == [2, 1]


def test_what_a_forward_pass_keeps_is_no_row_of_logits():
    model = packable(tiny_model(config("Llama", vocab_size=5000), seed=3), dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        sums(model, packed(sequences(seed=1)))
    assert kept and all(5000 not in shape or 32 in shape for shape in kept)


LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
LONGROPE |= {"original_max_position_embeddings": 64}
TRAPS = {
    "positions that depend on the longest text": (
        config("Phi3", rope_parameters=LONGROPE, original_max_position_embeddings=64),
        *2 * [r"its rotary positions \(longrope\) depend on the longest text beside a response"],
    ),
    "attention that cannot be replaced": (config("Falcon"), "differs by", "no layer calls drsow's attention"),
    "a convolution in one layer": (
        config("Lfm2", block_ff_dim=48, layer_types=["conv", "full_attention"], conv_L_cache=3),
        "differs by",
        "a response moves by .* nats where the text beside it changes",
    ),
    "a window in its own mask alone": (
        config("Phimoe", num_local_experts=4, sliding_window=200),
        *2 * ["its window of 200 tokens is in its own mask alone"],
    ),
    "no attention": (
        transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=4),
        "differs by",
        "no layer calls drsow's attention",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", TRAPS)
def test_a_model_whose_packed_pass_is_another_is_refused_in_both_dtypes(name, low):
    shape, *words = TRAPS[name]
    dtype = torch.bfloat16 if low else torch.float32
    with pytest.raises(DrsowError, match=f"is not supported: .*{words[low]}"):
        packable(tiny_model(shape, seed=3).to(dtype), dtype=dtype)


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_attention_is_refused_however_little_its_layers_say():
    # With weights this small every token is equally likely, so the log-probabilities are the model's own.
    shape = transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=4)
    with pytest.raises(DrsowError, match="is not supported: no layer calls drsow's attention"):
        packable(tiny_model(shape, seed=3, scale=1e-3), dtype=torch.float32)


def test_the_saved_configuration_is_the_models_own(tmp_path):
    model = tiny_model(config("Llama"), seed=3)
    model.save_pretrained(tmp_path / "before")
    packable(model, dtype=torch.float32).save_pretrained(tmp_path / "after")
    before, after = ((tmp_path / name / "config.json").read_bytes() for name in ("before", "after"))
    assert before == after


def test_a_padded_query_leaves_no_gradient_that_is_nan():
    rows = sequences(seed=2)
    (step,) = pack([s.ids for s in rows], [s.start for s in rows], budget=9999).steps
    ctx = context(step, trunk=None, device=torch.device("cpu"), attend=attend)
    query = torch.full((1, 1, len(step.ids) + 64, 16), torch.nan)
    query[:, :, : len(step.ids)] = 1
    key, value = (torch.ones(1, 1, len(step.ids), 16, requires_grad=True) for _ in range(2))
    attend(ctx, query, key, value, Softmax()).sum().backward()
    assert key.grad.isfinite().all() and value.grad.isfinite().all()
