"""The check that a model must pass before it is scored: what it refuses, in float32 and in bfloat16."""

import numpy as np
import pytest
import torch
from plain import plain_logps
from test_engine import ARCHITECTURES
from tiny_models import MIXED, VOCAB, config, tiny_model

from bench.schema import DrsowError
from bench.scoring.forward import checking, engine, preparing
from bench.scoring.forward.trie import pack

HEADS = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 512, "rotary_dim": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
CONVOLUTION = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_dense_layers": 1}
NEMOTRON = {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "head_dim": 8}
UNCALLED, MOVED = "no layer calls drsow's attention", "a response moves by"

BLIND = {
    "GPT-J, whose attention cannot be replaced": (config("GPTJ", **HEADS), UNCALLED),
    "BLOOM, whose attention cannot be replaced": (config("Bloom", n_layer=2, n_head=4), UNCALLED),
    "Falcon, whose attention cannot be replaced": (config("Falcon"), UNCALLED),
    "MPT, whose attention cannot be replaced": (config("Mpt", d_model=32, n_heads=4, n_layers=2), UNCALLED),
    "LFM2, a convolution in one layer": (config("Lfm2", block_ff_dim=48, **CONVOLUTION), MOVED),
    "LFM2, with experts": (config("Lfm2Moe", **CONVOLUTION, **EXPERTS), MOVED),
    "Bamba, a state space in one layer": (config("Bamba", attn_layer_indices=[1], **MAMBA), MOVED),
    "Falcon-H1, a state space beside attention": (
        config("FalconH1", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
        MOVED,
    ),
}
"""Models whose layers read the texts beside a response."""


@pytest.mark.parametrize("name", BLIND)
def test_a_model_that_reads_the_texts_beside_a_response_is_refused_in_both_dtypes(name):
    shape, words = BLIND[name]
    with pytest.raises(DrsowError, match=r"is not supported: its own forward pass differs by"):
        preparing.prepare(tiny_model(shape, seed=3))
    with pytest.raises(DrsowError, match=f"is not supported: .*{words}"):
        preparing.prepare(tiny_model(shape, seed=3).bfloat16())


FEW = "Nemotron-H, attention in one layer and no state space"
"""Of its two layers only one calls attention, and the other one is a feed-forward layer: it is scored rightly."""
SOUND = ARCHITECTURES | {FEW: config("NemotronH", hybrid_override_pattern="*-", **NEMOTRON)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SOUND)
def test_a_model_that_is_scored_rightly_passes_in_both_dtypes(name, dtype):
    assert preparing.prepare(tiny_model(SOUND[name], seed=3).to(dtype)).model.dtype == dtype


SLIDING = {"use_sliding_window": True, "max_window_layers": 1}
MIXTURE = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}

MASKED = {
    "Phi-MoE": config("Phimoe", num_local_experts=4, sliding_window=200),
    "Qwen 2 MoE": config("Qwen2Moe", sliding_window=200, **SLIDING, **MIXTURE),
}
"""Models whose window of 200 is in their own mask alone. The rows of the check are too short to show it."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MASKED)
def test_a_window_that_only_the_models_own_mask_has_is_refused(name, dtype):
    with pytest.raises(DrsowError, match=r"is not supported: its window of 200 tokens is in its own mask alone, which"):
        preparing.prepare(tiny_model(MASKED[name], seed=3).to(dtype))


SPARSE = {
    "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "index_n_heads": 2, "index_head_dim": 8,
    "index_block_size": 16, "index_topk_blocks": 2, "index_local_blocks": 1,
    "layer_types": ["full_attention", "minimax_m3_sparse"],
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "index_topk": 8, "index_head_dim": 8, "index_n_heads": 2,
}  # fmt: skip

OTHER = {
    "Qwen 2 MoE, a short window": (
        config("Qwen2Moe", sliding_window=70, **SLIDING, **MIXTURE),
        "differs by",
        "its window of 70 tokens is in its own mask alone",
    ),
    "Doge, a mask that depends on the text": (config("Doge"), *2 * ["its attention reads another mask"]),
    "HRM, the same layers several times": (
        config("HrmText", head_dim=8),
        *2 * ["its layer 0 attends more than once in a pass"],
    ),
    "Mamba, a layer that reads another one's weight": (
        config("Mamba", intermediate_size=64, time_step_rank=64),
        *2 * [""],
    ),
    "MiniMax M3, attention to some blocks alone": (config("MiniMaxM3VLText", **SPARSE), *2 * ["needs block_indices"]),
    "GLM MoE DSA, a mask that is read": (
        config("GlmMoeDsa", **LATENT),
        *2 * [r"its own code does not run with drsow's attention and layers \('NoneType'"],
    ),
    "Llama 4, a body that is not apart": (
        config("Llama4Text", head_dim=8, num_local_experts=2, intermediate_size_mlp=48),
        *2 * ["transformers does not give its hidden states without its head"],
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_attention_that_is_more_than_the_tries_rule_is_refused_in_both_dtypes(name):
    shape, high, low = OTHER[name]
    for dtype, words in ((torch.float32, high), (torch.bfloat16, low)):
        with pytest.raises(DrsowError, match=f"is not supported: .*{words}"):
            preparing.prepare(tiny_model(shape, seed=3).to(dtype))


UNMASKED = {
    "Qwen 2, a window that is switched off": config("Qwen2", sliding_window=200, use_sliding_window=False),
    "Qwen 2, a window that its layers pass on": config("Qwen2", sliding_window=200, **SLIDING),
    "Mistral, a window that its layers pass on": config("Mistral", sliding_window=200),
    "Gemma 3, a window that one layer passes on": config(
        "Gemma3Text", head_dim=8, sliding_window=200, layer_types=MIXED
    ),
    "Qwen 2 MoE, a window in none of its layers": config(
        "Qwen2Moe", sliding_window=200, **SLIDING | {"max_window_layers": 0}, **MIXTURE
    ),
    "Phi-MoE, no text is longer than its window": config("Phimoe", num_local_experts=4, sliding_window=512),
    "Llama, a window that another model left in its configuration": config("Llama", sliding_window=200),
    "Moshi, a window that its code does not use": config("Moshi", head_dim=8, sliding_window=200, ffn_dim=64),
}


@pytest.mark.parametrize("name", UNMASKED)
def test_a_window_that_is_passed_on_or_hides_nothing_is_accepted_and_stays(name):
    model = tiny_model(UNMASKED[name], seed=3)
    ids = np.arange(300) * 5 % VOCAB
    plain = plain_logps(model, ids, 250)
    ready = preparing.prepare(model)
    np.testing.assert_allclose(engine.score(ready, pack([ids], [250], budget=512)), plain, rtol=0, atol=3e-5)
    kept = model.config.get_text_config().to_dict()
    assert kept["sliding_window"] == UNMASKED[name].to_dict()["sliding_window"]


def differs(shift: list[float], *, row: int, low: bool) -> str:
    """The verdict when the last 8 log-probabilities of one row lie apart by some nats, and all others are equal."""
    found = np.zeros((2, 20))
    found[row, -8:] = shift
    return checking.differing(np.zeros((2, 20)), [np.zeros((2, 20)), found], low=low)


def test_in_bfloat16_half_of_the_tokens_behind_either_branch_must_be_near():
    for row in (0, 1):
        assert differs([0.0] * 4 + [0.6] * 4, row=row, low=True) == "its own forward pass differs by 0.3 nats"
        # One token of a mixture of experts may go to another expert.
        assert differs([0.1] * 7 + [9.0], row=row, low=True) == ""
        assert differs([0.0] * 7 + [0.002], row=row, low=False) == "its own forward pass differs by 0.002 nats"
    assert differs([np.nan] * 8, row=1, low=True) == "its own forward pass differs by nan nats"


def test_the_first_branch_changes_and_the_layout_stays():
    for n_words in (97, 32_000, 151_936, 262_144):
        rows, changed = checking.rows(n_words)
        assert [len(row) for row in (*rows, *changed)] == [80] * 4
        assert (rows[0][:73] == changed[0][:73]).all() and (rows[0][73:] != changed[0][73:]).any()
        assert (rows[1] == changed[1]).all() and (rows[0][:72] == rows[1][:72]).all()
        # The trie lays rows out by their ids, so a branch that is laid out first begins with the smaller id.
        assert rows[0][72] < rows[1][72]
