"""Attention as two products: against float64 by hand, and against the flash kernel."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scoring.forward import products, tiles

HEAD_DIM = 8


def drawn(seed: int, *, heads: int, kv_heads: int, n: int, k: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values, and who sees whom: every query one key at least."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, h, rows, HEAD_DIM, generator=generator).to(dtype)
        for h, rows in ((heads, n), (kv_heads, k), (kv_heads, k))
    )
    visible = torch.rand(n, k, generator=generator) < 0.5
    visible[torch.arange(n), torch.randint(k, (n,), generator=generator)] = True
    return 3 * query, key, value, visible


def exact(query, key, value, visible, scale):
    """Softmax attention and logarithmic sums in float64, head by head."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(groups, dim=1) for x in (key, value))
    scores = (query.double() @ key.mT * scale).masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def test_a_mask_is_where_its_input_is():
    assert products.additive(torch.ones(3, 5, dtype=torch.bool, device="meta")).device.type == "meta"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    shape=st.sampled_from([(1, 1), (4, 4), (4, 2), (9, 3)]),
    n=st.integers(1, 150),
    k=st.integers(1, 150),
    scale=st.sampled_from([None, 0.3]),
)
def test_products_are_float64s_attention_for_any_shape(seed, shape, n, k, scale):
    query, key, value, visible = drawn(seed, heads=shape[0], kv_heads=shape[1], n=n, k=k, dtype=torch.float32)
    sums = torch.empty(1, shape[0], n)
    found = products.product_attention(query, key, value, products.additive(visible), scale=scale, sums=sums)
    wanted, logs = exact(query, key, value, visible, scale or HEAD_DIM**-0.5)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=3e-6)
    torch.testing.assert_close(sums.double(), logs, rtol=0, atol=1e-5)


def test_one_row_of_a_mask_stands_for_all_queries():
    query, key, value, visible = drawn(0, heads=4, kv_heads=2, n=300, k=70, dtype=torch.float32)
    all_seen = torch.ones_like(visible)
    row = products.additive(all_seen[:1])[:1]
    alike = [
        products.product_attention(query, key, value, mask, scale=None) for mask in (row, products.additive(all_seen))
    ]
    assert torch.equal(*alike)


def test_in_bfloat16_products_are_nearer_to_float64_than_the_flash_kernel():
    query, key, value, visible = drawn(1, heads=9, kv_heads=3, n=128, k=500, dtype=torch.bfloat16)
    found = products.product_attention(query, key, value, products.additive(visible), scale=0.3)
    mask = torch.zeros(128, 500, dtype=torch.bfloat16).masked_fill_(~visible, -math.inf)
    flash, _ = tiles.flash(query, key, value, attn_mask=mask, scale=0.3)
    wanted, _ = exact(query, key, value, visible, 0.3)
    ours, theirs = ((x.double() - wanted).square().mean().sqrt() for x in (found, flash))
    assert found.dtype == torch.bfloat16
    assert ours < 0.95 * theirs
