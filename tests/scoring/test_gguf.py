"""A GGUF file becomes a folder of safetensors with the same weights and words."""

import hashlib
import json

import gguf
import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, Qwen2Config

from bench.registry import load_registry
from bench.schema import DrsowError, PreconditionError
from bench.scoring.fetch import fetch
from bench.scoring.gguf import convert_gguf
from bench.scoring.located import Located
from bench.scoring.models import load_tokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}
"""What transformers and GGUF call the parts of a Qwen2."""


def write_gguf(path, model, tokenizer):
    """A file of float32 weights, as llama.cpp writes it."""
    config, writer = model.config, gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if i in tokenizer.added_tokens_decoder else 1 for i in range(len(tokenizer))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, weight in model.state_dict().items():
        for here, there in NAMES.items():
            name = name.replace(here, there)
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_file_has_the_weights_and_words_of_the_original(tmp_path):
    tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    model = tiny_model(config, seed=3)
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
    ids = torch.tensor([tokenizer("the user answer is two")["input_ids"]])
    assert load_tokenizer(tmp_path / "folder")("the user answer is two")["input_ids"] == ids[0].tolist()
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32)(ids).logits
        torch.testing.assert_close(found, model(ids).logits, rtol=1e-5, atol=1e-4)


def test_a_file_on_this_machine_is_a_models_source_once_its_digest_is_right(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    tokenizer = byte_level(eos="<end>")
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = tiny_model(config, seed=3)
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    digest = hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
    entry = '[[models]]\nmodel_id = "mine"\nformat = "gguf"\nmethod = "sft"\n'
    entry += 'source = {{ file = "{}", sha256 = "{}" }}\n'

    def located(name: str, sha256: str) -> Located:
        (tmp_path / "models.toml").write_text(entry.format(name, sha256))
        return fetch(load_registry(tmp_path).model("mine"))

    with pytest.raises(DrsowError, match=r"sha256 is .* expected 0000"):
        located("tiny.gguf", "0" * 64)
    with pytest.raises(PreconditionError, match=r"absent.gguf: no such file; correct `source`"):
        located("absent.gguf", digest)
    found = located("tiny.gguf", digest)
    assert found.revision == f"sha256:{digest}"
    weights = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).state_dict()
    torch.testing.assert_close(weights["model.norm.weight"], model.state_dict()["model.norm.weight"])
    (tmp_path / "tiny.gguf").unlink()
    assert located("tiny.gguf", digest) == found
