"""Memory hangs on the token budget, neither on the vocabulary, nor on the length of a response, nor on the rows."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from perf.gauge import peak
from perf.timing import apart
from tiny_models import tiny_model
from transformers import LlamaConfig

from bench.scoring import engine, trie
from bench.scoring.device import keep_freed_memory
from bench.scoring.run import PART_BUDGETS, cut_parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc"),
]

MB = 2**20
GEMMA_WORDS = 262_144


def model(vocab: int, dtype: torch.dtype) -> torch.nn.Module:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return engine.prepare(tiny_model(LlamaConfig(vocab_size=vocab, **shape), seed=0, scale=1.0).to(dtype))


def peak_bytes(vocab: int, dtype: torch.dtype, rows: list[int], budget: int) -> int:
    """Over what the process held with the model loaded, for responses of the given lengths to prompts of 40 tokens.

    They are scored in parts, as a run does it.
    """
    rng, judge = np.random.default_rng(0), model(vocab, dtype)
    ids = [rng.integers(0, vocab, 40 + n) for n in rows]
    rows = [[SimpleNamespace(ids=row, start=40)] for row in ids]
    parts = cut_parts(rows, part_tokens=PART_BUDGETS * budget)
    plans = [trie.plan([ids[i] for i in part], [40] * len(part), budget=budget) for part in parts]
    engine.score(judge, trie.plan([ids[0][:50]], [40], budget=budget))
    with peak() as memory:
        assert all(np.isfinite(engine.score(judge, plan)).all() for plan in plans)
    return memory.n_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_vocabulary_of_262_144_and_a_response_of_2000_tokens_are_never_a_full_tensor_of_logits(dtype):
    used = apart(peak_bytes, GEMMA_WORDS, dtype, [2000], 4096)
    print(
        f"{dtype}: {used / MB:.0f} MB; the logits alone would be {2000 * GEMMA_WORDS * 4 / MB:.0f} MB", file=sys.stderr
    )
    assert used < 60 * MB


def peak_bytes_of_a_run(*args: object) -> int:
    """The same with freed memory kept, as a run keeps it."""
    keep_freed_memory()
    return peak_bytes(*args)


def test_four_times_the_parts_need_no_more_memory():
    few, many = (apart(peak_bytes_of_a_run, 1000, torch.float32, [300] * n, 1024) for n in (120, 480))
    # Which steps overlap is chance, and with them what the heap holds at once.
    assert many < 2 * few + 8 * MB
