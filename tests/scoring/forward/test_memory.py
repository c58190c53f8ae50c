"""Memory hangs on the token budget, neither on the vocabulary, nor on the length of a response, nor on the rows."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from perf.gauge import peak
from perf.timing import apart
from tiny_models import tiny_model
from transformers import LlamaConfig

from bench.scoring.forward import engine, preparing, trie

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc"),
]

MB = 2**20
GEMMA_WORDS = 262_144


@pytest.fixture(autouse=True)
def a_mapping_for_each_tensor(monkeypatch):
    """Freed memory goes back at once: what a heap keeps between its blocks hangs on chance, tens of MB of it."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")


def model(vocab: int, dtype: torch.dtype) -> torch.nn.Module:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return preparing.prepare(tiny_model(LlamaConfig(vocab_size=vocab, **shape), seed=0, scale=1.0).to(dtype))


def peak_bytes(vocab: int, dtype: torch.dtype, rows: list[int], budget: int) -> int:
    """Over what the process held with the model loaded, for responses of the given lengths to prompts of 40 tokens."""
    rng, judge = np.random.default_rng(0), model(vocab, dtype)
    ids = [rng.integers(0, vocab, 40 + n) for n in rows]
    plan = trie.pack(ids, [40] * len(ids), budget=budget)
    engine.score(judge, trie.pack([ids[0][:50]], [40], budget=budget))
    with peak() as memory:
        assert np.isfinite(engine.score(judge, plan)).all()
    return memory.n_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_vocabulary_of_262_144_and_a_response_of_2000_tokens_are_never_a_full_tensor_of_logits(dtype):
    used = apart(peak_bytes, GEMMA_WORDS, dtype, [2000], 4096)
    print(
        f"{dtype}: {used / MB:.0f} MB; the logits alone would be {2000 * GEMMA_WORDS * 4 / MB:.0f} MB", file=sys.stderr
    )
    assert used < 60 * MB


def test_ten_times_the_rows_need_no_more_memory():
    few, many = (apart(peak_bytes, 1000, torch.float32, [300] * n, 1024) for n in (12, 120))
    assert many < 1.3 * few + 8 * MB
