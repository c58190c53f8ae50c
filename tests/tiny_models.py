"""Models so small that a test makes them, and a registry folder that names them."""

import copy
import shutil
import warnings
from pathlib import Path

import torch
import transformers
from chat_templates import CHATML
from tiny_tokenizers import byte_level, sentence_piece
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from bench.scoring.forward import preparing
from bench.store.folder import ScoreSet, Store

CONTEXT = 2048

VOCAB = 97
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MIXED = ["sliding_attention", "full_attention"]


def config(kind: str, **more: object) -> PretrainedConfig:
    """The configuration of a model of SHAPE; `kind` is the start of transformers' name of its class."""
    return getattr(transformers, f"{kind}Config")(**SHAPE | more)


def tiny_model(config: PretrainedConfig, *, seed: int, scale: float = 8.0) -> PreTrainedModel:
    """A float32 model of random weights, `scale` times as large as usual so that its predictions are far apart."""
    torch.manual_seed(seed)
    # A model keeps its configuration and changes it with its attention.
    config = copy.deepcopy(config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.set_attn_implementation(preparing.own_attention(model))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(scale)
    return model.eval()


def save_tiny(folder: Path, *, tokenizer: object, seed: int, context: int = CONTEXT) -> Path:
    """Write a two-layer Llama with grouped queries, and its tokenizer, as a user's own model folder."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    tiny_model(config, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_lora(folder: Path, base: Path, *, base_name: str) -> Path:
    """Write an adapter of rank 4 on two kinds of layers of a model's folder, as peft saves it."""
    return save_adapter(folder, base, base_name=base_name, target_modules=["q_proj", "down_proj"])


def save_adapter(
    folder: Path, base: Path, *, base_name: str | None = None, embeddings: bool | str = "auto", **options: object
) -> Path:
    """Write an adapter of rank 4 of a model's folder, as peft saves it; `options` are peft's."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft uses names of transformers that are deprecated.
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, **options))
        draws = torch.Generator().manual_seed(0)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data = 0.3 * torch.randn(weight.shape, generator=draws)
            elif "modules_to_save" in name:
                weight.data += 0.3 * torch.randn(weight.shape, generator=draws)
        if base_name is not None:
            adapted.peft_config["default"].base_model_name_or_path = base_name
        adapted.save_pretrained(folder, save_embedding_layers=embeddings)
    return folder


def write_registry(folder: Path) -> Path:
    """A registry of two tiny models of different tokenizers, and a pair of them."""
    chat = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    chat.chat_template = CHATML
    save_tiny(folder / "strong", tokenizer=chat, seed=1)
    save_tiny(folder / "weak", tokenizer=sentence_piece(kind="first"), seed=2)
    (folder / "models.toml").write_text(entry("tiny-strong", "strong") + entry("tiny-weak", "weak"))
    (folder / "pairs.toml").write_text(pair_entry("tiny", "tiny-strong", "tiny-weak"))
    return folder


def entry(model_id: str, folder: str) -> str:
    """A models.toml entry of a folder beside it."""
    return (
        f'[[models]]\nmodel_id = "{model_id}"\nsource = {{ folder = "{folder}" }}\n'
        'format = "safetensors"\nmethod = "sft"\nn_params = 30_000\nlicence = "apache-2.0"\n\n'
    )


def pair_entry(pair_id: str, strong: str, weak: str) -> str:
    """A pairs.toml entry."""
    return f'[[pairs]]\npair_id = "{pair_id}"\nstrong = "{strong}"\nweak = "{weak}"\n\n'


def as_of_another_machine(store: Store, score_set: ScoreSet) -> None:
    """Moves a complete set of one part to the place that kernels of the name cpu-other would give it."""
    other = store.score_set(score_set.key._replace(ops="cpu-other"))
    other.begin(1, {}, {"template": "tiny-strong", "data": "sample"})
    other.write_part(0, score_set.read().reset_index(drop=True))
    other.finish({})
    shutil.rmtree(score_set.folder)
