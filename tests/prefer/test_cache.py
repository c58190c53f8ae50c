"""The kernel of sampling's attention: against float64, and the same bits whatever is beside a response."""

import numpy as np
import pytest
import torch
from tiny_models import MIXED, config, tiny_model

from bench.prefer import cache, decode
from bench.prefer.cache import Group, Prompt
from bench.scoring.forward import device, kernels
from bench.scoring.forward.context import Softmax

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def exact(query, keys, values, *, scale: float, window: int | None) -> torch.Tensor:
    """Attention of a response's newest token, (heads, width), float64; keys and values: (kv_heads, n, their width)."""
    keys, values = (x[:, -window:] if window else x for x in (keys.double(), values.double()))
    of_key = query.double().unflatten(0, (len(keys), -1))
    return (torch.softmax(scale * of_key @ keys.mT, -1) @ values).flatten(0, 1)


@pytest.mark.parametrize("window", [None, 1, 40, 100])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "depth", "width"), [(9, 3, 64, 64), (4, 1, 256, 256), (14, 2, 64, 64), (6, 6, 98, 128)]
)
def test_attention_is_float64s(heads, kv_heads, depth, width, window):
    prompts, rows, steps = (1, 33, 150), (3, 1, 2), cache.BLOCK + 2
    shared = [(drawn(kv_heads, n, depth, seed=n), drawn(kv_heads, n, width, seed=n + 1)) for n in prompts]
    groups = [Group(Prompt(n, {0: pair}, torch.zeros(1)), r) for n, pair, r in zip(prompts, shared, rows, strict=True)]
    own = [([], []) for _ in range(sum(rows))]
    for step in range(steps):
        # As the model's layers give them: (1, heads, slots, .) of another order in memory.
        query, key, value = (
            drawn(1, decode.SLOTS, n, size, seed=1000 + 3 * step + k).transpose(1, 2)
            for k, (n, size) in enumerate([(heads, depth), (kv_heads, depth), (kv_heads, width)])
        )
        found = decode.Together(groups).attend(0, query, key, value, Softmax(0.3, window, None))
        assert found.shape == (1, decode.SLOTS, heads, width) and not found[0, sum(rows) :].any()
        slot = 0
        for group, (keys, values) in zip(groups, shared, strict=True):
            for _ in range(group.n_rows):
                own[slot][0].append(key[0, :, slot])
                own[slot][1].append(value[0, :, slot])
                if step in (0, 1, 17, steps - 1):
                    pairs = zip((keys, values), own[slot], strict=True)
                    whole = [torch.cat([before, torch.stack(after, 1)], 1) for before, after in pairs]
                    expected = exact(query[0, :, slot], *whole, scale=0.3, window=window)
                    torch.testing.assert_close(found[0, slot].double(), expected, rtol=2.0**-7, atol=2.0**-7)
                slot += 1
            group.n_own += 1


SHAPE = {"head_dim": 64, "hidden_size": 128, "intermediate_size": 128}
MODELS = {
    "Llama": config("Llama", **SHAPE),
    "Gemma 3, window of 8 in one layer": config("Gemma3Text", sliding_window=8, layer_types=MIXED, **SHAPE),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_responses_logits_have_the_same_bits_alone_and_after_others_are_dropped(name, threads):
    model, rng = tiny_model(MODELS[name], seed=3).bfloat16(), np.random.default_rng(0)
    heads, tokens = [rng.integers(6, 90, n).tolist() for n in (5, 40, 90)], rng.integers(6, 90, (70, 4)).tolist()
    assert decode.fit(model) == ""
    with device.threads(threads), decode.decoding(model):
        read = [decode.read(model, head) for head in heads]
        alone, beside = Group(read[1], 1), [Group(each, 4) for each in read]
        for step, now in enumerate(tokens):
            expected = decode.advance(model, [alone], now[2:3])
            if step == 30:
                for group in beside:
                    group.keep([2, 3])
            rows = now if step < 30 else now[2:]
            found = decode.advance(model, beside, 3 * rows)
            # The third response of the second prompt.
            assert torch.equal(found[len(rows) + len(rows) - 2], expected[0])
    # The kernel was at work, not torch's attention.
    assert {keys.dtype for keys, _ in alone.own.values()} == {torch.int32}


def test_a_prompts_keys_are_kept_once():
    prompt = Prompt(20, {0: (drawn(2, 20, 64, seed=0), drawn(2, 20, 64, seed=1))}, torch.zeros(1))
    first = prompt.packed(0)
    assert prompt.packed(0) is first and prompt.layers[0] is first
    assert first[0].shape == (2, 2, 32, kernels.LANES) and first[1].shape == (2, 16, 64)
