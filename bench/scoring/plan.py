"""Estimates the cost of a pass without loading a model: tokens, operations, seconds."""

import itertools
import time
from collections.abc import Sequence as Seq

import numpy as np

from bench.schema import Example
from bench.scoring.forward import trie
from bench.scoring.passes import PART_BUDGETS, Options, Ready, cut_parts

GPUS = {"h200": 989e12, "h100": 989e12, "a100": 312e12, "l40s": 362e12, "rtx-4090": 165e12}
"""Dense bf16 operations per second, as the manufacturers state them."""

GPU_SHARE = 0.4
"""Assumed fraction of a GPU's stated rate; no GPU was measured."""

CPU_SHARE = {"bfloat16": 0.81, "float32": 0.71}
"""Fraction of a processor's measured matmul rate, from results/perf/amd-avx512bf16/ (plain rows)."""

TOKENS_A_ROW = 16
"""Assumed number of tokens that a chat template adds to a row, if its tokenizer is not on this machine."""


def unique_bytes(examples: Seq[Example]) -> int:
    """UTF-8 bytes of all prompts and responses; a beginning that sorted neighbours share counts once.

    The trie computes shared tokens once, and shared tokens come from shared text.
    """
    texts = sorted(
        ("".join(m.content for m in example.messages).encode(), [text.encode() for _, text in example.responses])
        for example in examples
    )
    return _fresh([head for head, _ in texts]) + sum(_fresh(sorted(responses)) for _, responses in texts)


def _fresh(texts: Seq[bytes]) -> int:
    """Bytes of sorted texts; a beginning that a text shares with the one before is counted once."""
    rows = [np.frombuffer(text, dtype=np.uint8) for text in (b"", *texts)]
    return sum(len(row) - trie.common_prefix(before, row) for before, row in itertools.pairwise(rows))


def tokens_by_bytes(n_bytes: int, n_rows: int, tokens_per_byte: float) -> int:
    """Estimated tokens of `n_bytes` unique bytes in `n_rows` rows, with the tokens that a chat template adds."""
    return round(n_bytes * tokens_per_byte) + TOKENS_A_ROW * n_rows


def exact_tokens(ready: Ready, options: Options) -> int:
    """The number of tokens that the pass computes. Needs the tokenizer and the template, but no weights."""
    from bench.scoring.render import render
    from bench.scoring.scorer import group
    from bench.scoring.served import scorer_of

    scorer = scorer_of(ready, options)
    rows = group(render(ready.work.dataset.examples, scorer.tokenizer, scorer.template).sequences)
    total = 0
    for part in cut_parts(rows, part_tokens=PART_BUDGETS * options.batch_tokens):
        fits = [s for i in part for s in rows[i] if len(s.ids) <= scorer.limit]
        total += trie.pack([s.ids for s in fits], [s.start for s in fits], budget=options.batch_tokens).n_computed
    return total


def matmul_rate(dtype: str) -> float:
    """Measures in half a second how many operations per second this processor reaches on large matrix products with the
    engine's ops."""
    from bench.scoring.forward.ops import multiplier
    from bench.scoring.models import TORCH_DTYPES

    side = 1024
    multiply = multiplier(TORCH_DTYPES[dtype], side)
    multiply()
    n, began = 0, time.monotonic()
    while time.monotonic() - began < 0.5:
        multiply()
        n += 1
    return 2 * side**3 * n / (time.monotonic() - began)
