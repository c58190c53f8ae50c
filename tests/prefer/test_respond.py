"""Responses in batches: a prompt's do not depend on the others, on the room, or on a lack of memory."""

import copy
import itertools

import numpy as np
import pytest
import torch
from tiny_models import MIXED, VOCAB, config, tiny_model

from bench.prefer import decode, respond
from bench.prefer.alone import alone
from bench.prefer.asked import Asked, generators
from bench.prefer.draw import drawn
from bench.prefer.resumed import Sampling
from bench.scoring.forward import kernels

SHAPES = {
    "Llama": config("Llama"),
    "Mistral, window of 8": config("Mistral", sliding_window=8),
    "Gemma 3, window of 8 in one layer": config("Gemma3Text", head_dim=8, sliding_window=8, layer_types=MIXED),
    "Gemma 2, soft-capped attention": config("Gemma2", head_dim=8, layer_types=MIXED, attn_logit_softcapping=0.3),
    "OPT, learned positions": config("OPT", ffn_dim=48, word_embed_proj_dim=32),
}
LLAMA = tiny_model(SHAPES["Llama"], seed=3)
ENDS = [2, 5]


def asked(n: int, *, seed: int = 0, n_new: int = 20) -> list[Asked]:
    """Prompts of 3 to 90 tokens."""
    rng = np.random.default_rng(seed)
    return [Asked(f"p{i}", rng.integers(6, VOCAB, rng.integers(3, 90)).tolist(), n_new) for i in range(n)]


def batch(model, prompts, wish, *, budget: int = 10_000) -> dict[str, list[list[int]]]:
    run = respond._Batch(model, wish, ENDS, budget, lambda share: None).run(prompts)
    return dict(run)


WISH = Sampling(n=3, temperature=1.0, max_new_tokens=20)


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_tokens_are_those_of_the_models_own_pass(name):
    model, wish = tiny_model(SHAPES[name], seed=3), WISH._replace(n=1, temperature=0)
    assert decode.fit(model) == ""
    prompts = asked(4)
    found = batch(model, prompts, wish)
    for prompt in prompts:
        ids = list(prompt.ids)
        with torch.no_grad():
            for token in found[prompt.name][0]:
                logits = model(torch.tensor([ids])).logits[0, -1]
                # Where two tokens are equally likely, either may come.
                assert logits[token] > logits.max() - 1e-4
                ids.append(token)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompts_logits_have_the_same_bits_beside_other_prompts(dtype):
    model = tiny_model(SHAPES["Llama"], seed=3).to(dtype)
    prompts, tokens = asked(12), [[7, 8, 9], [30, 31, 32], [50, 51, 52], [60, 61, 62]]
    with decode.decoding(model):
        read = [decode.read(model, prompt.ids) for prompt in prompts]
        for at in (0, 5, 11):
            alone, beside = decode.Group(read[at], 3), [decode.Group(each, 3) for each in read]
            for now in tokens:
                expected = decode.advance(model, [alone], now)
                found = decode.advance(model, beside, [t + i for i in range(12) for t in now])
                if at == 0:
                    assert torch.equal(found[:3], expected)
            others = [decode.Group(each, 3) for each in read]
            for now in tokens:
                found = decode.advance(model, others, [t for _ in range(12) for t in now])
            assert torch.equal(found[3 * at : 3 * at + 3], expected)


def test_responses_are_the_same_alone_and_under_any_budget():
    prompts = asked(8)
    whole = batch(LLAMA, prompts, WISH)
    assert len({str(rows) for rows in whole.values()}) == 8
    assert batch(LLAMA, prompts[::-1], WISH, budget=200) == whole
    for prompt in prompts[:2]:
        assert batch(LLAMA, [prompt], WISH) == {prompt.name: whole[prompt.name]}


def test_rows_that_end_make_room_and_no_step_has_more_than_its_slots_and_its_budget(monkeypatch):
    sizes, real = [], decode.advance

    def counted(model, groups, tokens):
        kept = sum(group.prompt.n + group.n_rows * group.n_own for group in groups)
        sizes.append((len(tokens), kept, len(groups)))
        return real(model, groups, tokens)

    monkeypatch.setattr(decode, "advance", counted)
    batch(LLAMA, asked(16, n_new=12), WISH._replace(n=10))
    assert max(rows for rows, _, _ in sizes) <= decode.SLOTS
    assert len(sizes) < 16 * 12 / 4
    sizes.clear()
    batch(LLAMA, asked(16, n_new=12), WISH._replace(n=10), budget=500)
    assert max(kept for _, kept, _ in sizes) <= 500
    assert max(groups for _, _, groups in sizes) > 1


def test_a_batch_beyond_memory_is_halved_and_gives_the_same_responses(monkeypatch, capsys):
    prompts = asked(8)
    whole, real = batch(LLAMA, prompts, WISH), decode.advance

    def scarce(model, groups, tokens):
        if sum(group.prompt.n for group in groups) > 200:
            raise torch.OutOfMemoryError("planted")
        return real(model, groups, tokens)

    monkeypatch.setattr(decode, "advance", scarce)
    assert batch(LLAMA, prompts, WISH) == whole
    assert "out of memory: the batch is halved" in capsys.readouterr().err


def test_a_lack_of_memory_after_a_step_changes_no_response(monkeypatch, capsys):
    prompts = asked(8)
    whole, real, n_calls = batch(LLAMA, prompts, WISH), respond.drawn, itertools.count()

    def scarce(logits, wish, uniforms):
        # The step has moved every response by a token when its words are drawn.
        if len(logits) > WISH.n and next(n_calls) in (3, 4):
            raise torch.OutOfMemoryError("planted")
        return real(logits, wish, uniforms)

    monkeypatch.setattr(respond, "drawn", scarce)
    assert batch(LLAMA, prompts, WISH) == whole
    assert capsys.readouterr().err.count("out of memory: the batch is halved") == 2


def test_the_draws_of_a_response_depend_on_its_number_and_not_on_how_many_there_are():
    first, second = (generators("p", range(n), WISH) for n in (2, 5))
    assert [draw.random() for draw in first] == [draw.random() for draw in second[:2]]


def test_a_draw_takes_the_word_at_its_number_of_the_running_sum():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]] * 5))
    told = Sampling(temperature=1.0)
    assert drawn(logits, told, np.array([0.0, 0.49, 0.6, 0.8, 0.99])) == [0, 0, 1, 2, 3]
    # The likeliest words of 0.7 together are the first two, two thirds and one third.
    assert drawn(logits, told._replace(top_p=0.7), np.array([0.0, 0.49, 0.6, 0.8, 0.99])) == [0, 0, 0, 1, 1]
    # At half the temperature the shares are as 16 : 4 : 1 : 1.
    assert drawn(logits, told._replace(temperature=0.5), np.array([0.7, 0.75, 0.9, 0.92, 0.98])) == [0, 1, 1, 2, 3]


def test_a_word_without_probability_is_never_drawn():
    logits = torch.full((2, 2000), -torch.inf)
    logits[:, [3, 700, 1500]] = 0.0
    assert drawn(logits, Sampling(temperature=1.0), np.array([0.0, 1 - 2**-53])) == [3, 1500]


def test_top_p_among_more_words_than_are_sorted_first_is_that_of_all_words():
    logits = torch.zeros(1, 4000)
    logits[0, 0] = 1e-3
    # Of 4,000 equally likely words those of a half are 2,000 or, as all others are equal, every one.
    assert drawn(logits, Sampling(temperature=1.0, top_p=0.5), np.array([0.999]))[0] > 3900
    logits = torch.arange(4000).float()[None] * -1e-4
    found = [drawn(logits, Sampling(temperature=1.0, top_p=0.5), np.array([u]))[0] for u in (0.0, 0.9999)]
    n_kept = int((torch.softmax(logits[0].double(), 0).cumsum(0) < 0.5).sum()) + 1
    assert found == [0, n_kept - 1] and n_kept > 1000


def test_a_model_that_batches_do_not_fit_answers_one_prompt_at_a_time_with_the_same_draws():
    prompts = asked(2)
    assert "longrope" in decode.fit(tiny_model(_longrope(), seed=3))
    found = dict(alone(LLAMA, prompts, WISH, ENDS))
    assert found == batch(LLAMA, prompts, WISH)


def _longrope():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 4, "short_factor": [1.0] * 4,
            "original_max_position_embeddings": 64, "factor": 8.0}  # fmt: skip
    return config("Llama", rope_parameters=rope)


@pytest.mark.usefixtures("compiled_kernels")
def test_a_sampled_model_has_the_engines_layers_and_one_that_batches_do_not_fit_its_own(monkeypatch):
    model = tiny_model(config("Llama", hidden_size=64, intermediate_size=128), seed=3).bfloat16()
    own, prompts = copy.deepcopy(model), asked(4)
    ids = torch.tensor([prompts[3].ids])
    assert decode.fit(model) == ""
    assert kernels.in_panels(model.model.layers[0].mlp.down_proj.weight)
    whole = batch(model, prompts, WISH)
    assert batch(model, prompts[1:2], WISH) == {"p1": whole["p1"]}
    other = copy.deepcopy(own)
    monkeypatch.setattr(decode, "CLOSE_NATS", {torch.bfloat16: (0, 0)})
    assert "its own forward pass differs by" in decode.fit(other)
    assert torch.equal(other(ids).logits, own(ids).logits)
    assert all(
        torch.equal(found, expected) for found, expected in zip(other.parameters(), own.parameters(), strict=True)
    )


def test_a_model_whose_layers_are_no_attention_is_refused_by_batches():
    mamba = tiny_model(config("Mamba", state_size=4), seed=3)
    assert decode.fit(mamba)
