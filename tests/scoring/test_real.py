"""The two packaged models on real rows: the engine's sums are those of a plain loop."""

import numpy as np
import pytest
import torch
from plain import plain_logps
from transformers import AutoModelForCausalLM

from bench.scoring import models
from bench.scoring.forward import checking, engine, trie
from bench.scoring.render import Sequence, Template, render

TOLERANCE_NATS = 3e-5
"""A token, in float32."""

MODELS = ("smollm2-135m-instruct-q4", "gemma-3-270m-q4")
BUDGET = 2048


def sequences(small_models: dict, model_id: str, examples: list) -> list[Sequence]:
    """What a run renders: the pair's text, read by that model's tokenizer."""
    owner = models.load_tokenizer(small_models["smollm2-135m-instruct-q4"])
    return render(examples, models.load_tokenizer(small_models[model_id]), Template(owner)).sequences


def engine_logps(folder, rows: list[Sequence]) -> list[np.ndarray]:
    model = models.load_model(folder, dtype=torch.float32, device="cpu")
    plan = trie.pack([row.ids for row in rows], [row.start for row in rows], budget=BUDGET)
    out = engine.score(model, plan)
    return [out[low:high] for low, high in zip(plan.offsets, plan.offsets[1:], strict=False)]


def largest_shift(folder, rows: list[Sequence]) -> float:
    """The largest distance of a response's sum from the plain loop's, in nats per token of the response."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    expected = [plain_logps(plain, row.ids, row.start) for row in rows]
    del plain
    return max(
        abs(ours.sum() - theirs.sum()) / len(ours)
        for ours, theirs in zip(engine_logps(folder, rows), expected, strict=True)
    )


def text_length(example) -> int:
    return sum(len(message.content) for message in example.messages) + sum(len(text) for _, text in example.responses)


@pytest.mark.parametrize("model_id", MODELS)
def test_sums_of_short_rows_are_the_plain_loops(small_models, reward_bench, model_id):
    by_subset = {}
    for example in sorted(reward_bench, key=text_length, reverse=True):
        by_subset[example.subset] = example
    shortest = sorted(by_subset.values(), key=text_length)[:12]
    assert largest_shift(small_models[model_id], sequences(small_models, model_id, shortest)) < TOLERANCE_NATS


@pytest.mark.parametrize("model_id", MODELS)
def test_in_bfloat16_the_model_passes_its_check_with_room(small_models, model_id, monkeypatch):
    monkeypatch.setattr(checking, "LOW_NATS", checking.LOW_NATS / 2)
    # Another text beside a response moves it by nothing at all.
    monkeypatch.setattr(checking, "EXACT_NATS", 1e-12)
    assert models.load_model(small_models[model_id], dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("model_id", MODELS)
def test_sums_of_a_hundred_rows_are_the_plain_loops(small_models, reward_bench, model_id):
    rows = sequences(small_models, model_id, list(reward_bench[::29][:100]))
    assert len(rows) == 200
    shift = largest_shift(small_models[model_id], rows)
    print(f"{model_id}: 100 rows, float32, largest shift {shift:.2g} nat per token")
    assert shift < TOLERANCE_NATS


@pytest.mark.parametrize(("model_id", "n_bos"), [("smollm2-135m-instruct-q4", None), ("gemma-3-270m-q4", 1)])
def test_every_real_row_renders_with_one_bos_and_one_end(small_models, reward_bench, model_id, n_bos):
    """SmolLM2's BOS opens every turn of its template: it is no BOS of the text, and is not counted."""
    reader = models.load_tokenizer(small_models[model_id])
    rows = sequences(small_models, model_id, reward_bench)
    assert len(rows) == 2 * len(reward_bench)
    for row in rows:
        *earlier, last = row.ids.tolist()
        assert earlier[-1] != last == reader.eos_token_id
        assert n_bos is None or earlier.count(reader.bos_token_id) == n_bos
        assert earlier[0] == reader.bos_token_id
