"""A GGUF file becomes a folder of safetensors with the same weights and words."""

import contextlib
import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from tiny_models import tiny_model
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config, StableLmConfig

from bench.entries import ModelSpec
from bench.registry import load_registry
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring.fetch import fetch, locate
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


def write_gguf(path, model, tokenizer, *, rule=None, architecture="qwen2", base=1e4, also=None):
    """A file of float32 weights, as llama.cpp writes it; `rule` says how its tokenizer divides texts.

    `base` is that of its rotary positions; `also` is called with the writer to add more.
    """
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 1e-5))
    writer.add_rope_freq_base(base)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    if rule:
        writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if i in tokenizer.added_tokens_decoder else 1 for i in range(len(tokenizer))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, weight in model.state_dict().items():
        for here, there in NAMES.items():
            name = name.replace(here, there)
        writer.add_tensor(name, weight.numpy())
    if also:
        also(writer)
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
    assert "\n" not in (tmp_path / "folder" / "tokenizer.json").read_text(encoding="utf-8")
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32)(ids).logits
        torch.testing.assert_close(found, model(ids).logits, rtol=1e-5, atol=1e-4)


CONFIGS = {"qwen2": Qwen2Config, "llama": LlamaConfig}


def tiny_gguf(path: Path, *, architecture: str = "qwen2", kind=None, **more) -> tuple[str, torch.nn.Module]:
    """Writes a file of a tiny model; its sha256, and the model. `kind` is the model's class, if it is another one."""
    tokenizer = byte_level(eos="<end>")
    config = (kind or CONFIGS[architecture])(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = tiny_model(config, seed=3)
    write_gguf(path, model, tokenizer, architecture=architecture, **more)
    return hashlib.sha256(path.read_bytes()).hexdigest(), model


def test_a_file_on_this_machine_is_a_models_source_once_its_digest_is_right(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    digest, model = tiny_gguf(tmp_path / "tiny.gguf")
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


def test_files_beside_a_file_do_not_reach_its_conversion(tmp_path):
    for name in ("alone", "beside"):
        (tmp_path / name).mkdir()
        tiny_gguf(tmp_path / name / "tiny.gguf")
    byte_level(eos="<other>", special=["user"]).save_pretrained(tmp_path / "beside")
    (tmp_path / "beside" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "beside" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    made = {}
    for name in ("alone", "beside"):
        convert_gguf(tmp_path / name / "tiny.gguf", tmp_path / f"{name}-made")
        made[name] = {path.name: path.read_bytes() for path in (tmp_path / f"{name}-made").iterdir()}
    assert made["alone"] == made["beside"]


@pytest.mark.parametrize(
    ("architecture", "rule", "named", "pieces"),
    [
        ("llama", "smollm", "+smollm", ["at", "\n\n", "1", "2", "3", "4"]),
        # transformers has these rules.
        ("llama", "llama-bpe", "", ["at", "\n\n", "123", "4"]),
        ("llama", "gpt-2", "", ["at", "\n", "\n", "1234"]),
        ("qwen2", "qwen2", "", ["at", "\n\n", "1", "2", "3", "4"]),
    ],
)
def test_a_file_divides_texts_by_the_rule_that_it_names(tmp_path, monkeypatch, architecture, rule, named, pieces):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    digest, _ = tiny_gguf(tmp_path / "tiny.gguf", rule=rule, architecture=architecture)
    entry = f'source = {{ file = "tiny.gguf", sha256 = "{digest}" }}\n'
    (tmp_path / "models.toml").write_text('[[models]]\nmodel_id = "mine"\nformat = "gguf"\nmethod = "sft"\n' + entry)
    spec = load_registry(tmp_path).model("mine")
    found = fetch(spec)
    assert found.revision == f"sha256:{digest}{named}" and locate(spec) == found
    divided = load_tokenizer(found.folder).backend_tokenizer.pre_tokenizer.pre_tokenize_str("at\n\n1234")
    assert [piece.replace("Ċ", "\n") for piece, _ in divided] == pieces
    # An earlier version converted a folder whose card has another number, or none.
    card = found.folder / "drsow.json"
    kept = json.loads(card.read_text())
    for number in ({}, {"conversion": 1}):
        card.write_text(json.dumps({"file": "tiny.gguf", "sha256": digest, "tokenizer_rule": rule} | number))
        assert locate(spec) is None and fetch(spec) == found
        assert json.loads(card.read_text()) == kept


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("other", "its tokenizer divides texts by the rule 'other', which is not known; use the model's safetensors,"),
        ("smollm", "transformers does not keep its tokenizer's rule 'smollm'"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_refused(tmp_path, rule, message):
    tiny_gguf(tmp_path / "tiny.gguf", rule=rule)
    with pytest.raises(DrsowError, match=rf"^tiny\.gguf: {message}"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")


def scaling(kind: str | None, factor: float):
    """Adds settings of the rotary positions to a file."""

    def add(writer):
        if kind:
            writer.add_string("llama.rope.scaling.type", kind)
        writer.add_float32("llama.rope.scaling.factor", factor)

    return add


UNREAD = {
    "rope of llama3": (lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32)), "rope_freqs"),
    "long rope": (lambda writer: writer.add_tensor("rope_factors_long.weight", np.ones(8, np.float32)), "rope_factors"),
    "another weight": (lambda writer: writer.add_tensor("blk.0.attn_sinks.weight", np.ones(4, np.float32)), "blk.0"),
    "linear": (scaling("linear", 4.0), r"how it scales its rotary positions \(linear, factor 4\)"),
    "yarn": (scaling("yarn", 2.5), r"how it scales its rotary positions \(yarn, factor 2.5\)"),
    "linear where no kind is named": (scaling(None, 4.0), r"how it scales its rotary positions \(linear, factor 4\)"),
    "linear under its old name": (
        lambda writer: writer.add_float32("llama.rope.scale_linear", 2.0),
        r"how it scales its rotary positions \(linear, factor 2\)",
    ),
    "a window": (lambda writer: writer.add_sliding_window(32), r"its setting attention\.sliding_window = 32"),
    "a cap": (lambda writer: writer.add_attn_logit_softcapping(50.0), "its setting attn_logit_softcapping = 50"),
    "wide heads": (lambda writer: writer.add_key_length(32), r"its setting attention\.key_length = 32"),
    "another norm": (
        lambda writer: writer.add_layer_norm_eps(1e-3),
        r"its setting attention\.layer_norm_epsilon = 0\.001",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_that_holds_more_than_transformers_reads_is_refused(tmp_path, name):
    also, words = UNREAD[name]
    tiny_gguf(tmp_path / "tiny.gguf", architecture="llama", also=also)
    with pytest.raises(
        DrsowError, match=rf"^tiny\.gguf: transformers does not read .*{words}.*; use the model's safetensors"
    ):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("base", "width", "words"),
    [(1e4, 4, ""), (5e5, 4, r"rope\.freq_base = 500000"), (1e4, 8, r"rope\.dimension_count = 8")],
)
def test_the_rotary_positions_of_a_file_are_those_of_the_model(tmp_path, base, width, words):
    # transformers reads neither of a StableLM's file; a quarter of each head of 16 is turned, unless it says otherwise.
    also = lambda writer: writer.add_rope_dimension_count(width)  # noqa: E731
    tiny_gguf(tmp_path / "tiny.gguf", architecture="stablelm", kind=StableLmConfig, base=base, also=also)
    refused = pytest.raises(DrsowError, match=f"does not read its setting {words}; use the model's safetensors")
    with refused if words else contextlib.nullcontext():
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")


def test_a_gemma_whose_scale_is_not_in_its_file_is_refused(tmp_path):
    # Of 27B the heads have 128 numbers, and the scale is that of 144.
    tiny_gguf(
        tmp_path / "t.gguf", architecture="gemma2", kind=Gemma2Config, also=lambda writer: writer.add_key_length(128)
    )
    with pytest.raises(DrsowError, match=r"^t\.gguf: transformers does not read the scale of its attention; use the"):
        convert_gguf(tmp_path / "t.gguf", tmp_path / "folder")


def test_a_window_as_long_as_the_context_hides_nothing(tmp_path):
    also = lambda writer: writer.add_sliding_window(4096)  # noqa: E731
    tiny_gguf(tmp_path / "tiny.gguf", architecture="llama", also=also)
    assert convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder") == ""


def test_biases_of_a_llama_file_are_not_lost_in_silence(tmp_path):
    tiny_gguf(tmp_path / "tiny.gguf", architecture="llama", kind=Qwen2Config)
    with pytest.raises(
        DrsowError, match=r"transformers does not read its weights blk\.0\.attn_q\.bias, blk\.0\.attn_k\.bias; use"
    ):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")


@pytest.mark.parametrize(("kind", "factor"), [("none", 4.0), ("linear", 1.0), ("linear", 0.0), (None, 1.0)])
def test_a_scaling_without_effect_is_none(tmp_path, kind, factor):
    tiny_gguf(tmp_path / "tiny.gguf", architecture="llama", also=scaling(kind, factor))
    assert convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder") == ""


def test_the_packaged_smollm2_has_the_tokens_of_llama_cpp(small_models):
    # What llama.cpp makes of this text: digits stand alone, and an empty line before one is one token.
    tokenizer = load_tokenizer(small_models["smollm2-135m-instruct-q4"])
    ids = tokenizer("Steps:\n\n1. Wait 25 s", add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids]
    assert "|".join(pieces) == "Steps|:|\n\n|1|.| Wait| |2|5| s"


def test_a_file_that_was_cut_off_is_one_line(tmp_path):
    (tmp_path / "cut.gguf").write_bytes(b"GGUF, and no more")
    with pytest.raises(DrsowError, match=r"^cut\.gguf cannot be loaded: .+$"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "folder")


def test_a_file_of_a_repository_is_a_models_source_and_needs_no_network_once_it_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder, commit = tmp_path / "hub" / "models--me--tiny", "0123456789" * 4
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / commit / "q").mkdir(parents=True)
    digest, model = tiny_gguf(folder / "blobs" / "file")
    # The hub's cache names a large file by its sha256.
    blob = (folder / "blobs" / "file").rename(folder / "blobs" / digest)
    (folder / "snapshots" / commit / "q" / "tiny.gguf").symlink_to(blob)
    entry = '[[models]]\nmodel_id = "mine"\nformat = "gguf"\nmethod = "sft"\n'
    entry += f'source = {{ repo = "me/tiny", file = "FILE", revision = "{commit}" }}\n'

    def spec(file: str) -> ModelSpec:
        (tmp_path / "models.toml").write_text(entry.replace("FILE", file))
        return load_registry(tmp_path).model("mine")

    assert locate(spec("q/tiny.gguf")) is None
    found = fetch(spec("q/tiny.gguf"))
    assert found.revision == f"sha256:{digest}" and locate(spec("q/tiny.gguf")) == found
    assert spec("q/tiny.gguf").source.location == "me/tiny/q/tiny.gguf"
    weights = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).state_dict()
    torch.testing.assert_close(weights["model.norm.weight"], model.state_dict()["model.norm.weight"])
    with pytest.raises(PreconditionError, match=r"^mine: not on this machine, and HF_HUB_OFFLINE forbids fetching it"):
        fetch(spec("absent.gguf"))
    with pytest.raises(UsageError, match=r"mine: source.file: 'tiny.bin' is no path of a \.gguf file in a repository"):
        spec("tiny.bin")


def test_a_file_of_a_repository_with_another_digest_than_the_entry_says_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789" * 4
    (tmp_path / "hub" / "models--me--tiny" / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "hub" / "models--me--tiny" / "snapshots" / commit / "tiny.gguf").write_bytes(b"GGUF")
    source = f'source = {{ repo = "me/tiny", file = "tiny.gguf", revision = "{commit}", sha256 = "{"0" * 64}" }}\n'
    (tmp_path / "models.toml").write_text(f'[[models]]\nmodel_id = "mine"\nformat = "gguf"\nmethod = "sft"\n{source}')
    with pytest.raises(DrsowError, match=r"^mine: tiny\.gguf: sha256 is .*, expected 0000"):
        fetch(load_registry(tmp_path).model("mine"))


def test_a_packages_model_that_an_earlier_version_converted_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path))
    spec = load_registry().model("smollm2-135m-instruct-q4")
    folder = tmp_path / "models" / f"{spec.model_id}-{spec.source.sha256[:16]}"
    folder.mkdir(parents=True)
    for card, there in (({"tokenizer_rule": "smollm"}, True), ({}, False)):
        (folder / "drsow.json").write_text(json.dumps({"sha256": spec.source.sha256} | card))
        assert (locate(spec) is not None) == there
