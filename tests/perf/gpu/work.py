"""Shapes, texts and the two ways to score them: the engine, and plain or padded passes of transformers."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from bench.scoring.forward import engine, preparing, trie

SMALL = {"vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 3,
         "max_position_embeddings": 8192, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
         "num_attention_heads": 8, "num_key_value_heads": 2}  # fmt: skip
MIXED = ["sliding_attention", "sliding_attention", "full_attention"]
ARCHITECTURES = {
    "Llama, 128k words, heads of 128": ("Llama", {"num_attention_heads": 4, "num_key_value_heads": 4,
                                                  "vocab_size": 128256}),
    "Gemma 3, window of 100, heads of 256": ("Gemma3Text", {"head_dim": 256, "sliding_window": 100,
                                                            "layer_types": MIXED, "vocab_size": 262144}),
    "Gemma 2, soft-capped attention": ("Gemma2", {"head_dim": 64, "sliding_window": 100, "layer_types": MIXED}),
    "Mistral, window of 100": ("Mistral", {"sliding_window": 100}),
    "Mixtral": ("Mixtral", {"num_local_experts": 4}),
    "Qwen 3, heads of 128": ("Qwen3", {"head_dim": 128}),
    "Phi 3, heads of 96": ("Phi3", {"hidden_size": 768, "num_key_value_heads": 8}),
    "Qwen 2, seven queries a key": ("Qwen2", {"hidden_size": 448, "num_attention_heads": 7, "num_key_value_heads": 1}),
    "Gemma 3, soft-capped logits": ("Gemma3Text", {"head_dim": 256, "sliding_window": 100, "layer_types": MIXED,
                                                   "final_logit_softcapping": 20.0}),
    "Llama, heads of 80": ("Llama", {"hidden_size": 640, "num_key_value_heads": 8}),
}  # fmt: skip
"""What the engine has to be right about: name -> class and what differs from SMALL."""
SHAPE_8B = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "tie_word_embeddings": False}  # fmt: skip
"""Llama-3-8B's."""

Texts = tuple[list[np.ndarray], list[int]]
"""Token ids of each text, and where its response begins."""


def made(config: transformers.PretrainedConfig, dtype: torch.dtype, device: str, *, scale: float) -> PreTrainedModel:
    """A model of random weights; its matrices are multiplied by `scale`, so that probabilities are not all alike."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(scale)
    model.set_attn_implementation(preparing.own_attention(model))
    return model.eval()


def configured(kind: str, more: dict) -> transformers.PretrainedConfig:
    """A small configuration of an architecture."""
    return getattr(transformers, f"{kind}Config")(**SMALL | more)


def forked(vocab: int, *, seed: int = 0) -> Texts:
    """Prompts with two responses that begin alike, and a long one with six: steps with and without a trunk."""
    rng = np.random.default_rng(seed)
    ids, starts = [], []
    for _ in range(24):
        prompt, shared = rng.integers(3, vocab, rng.integers(20, 300)), rng.integers(3, vocab, rng.integers(0, 40))
        for _ in range(2):
            ids.append(np.concatenate([prompt, shared, rng.integers(3, vocab, rng.integers(5, 300))]))
            starts.append(len(prompt))
    prompt = rng.integers(3, vocab, 1500)
    for n in (150, 9, 130, 60, 90, 200):
        ids.append(np.concatenate([prompt, rng.integers(3, vocab, n)]))
        starts.append(len(prompt))
    return ids, starts


def of_lengths(path: Path, vocab: int, every: int) -> Texts:
    """Random ids of the lengths of a data set's rows, every n-th of them.

    Args:
        path: CSV: tokens of the prompt, the chosen and the rejected response, and those with which both begin.
        vocab: Number of words.
        every: Which rows.
    """
    rng = np.random.default_rng(0)
    ids, starts = [], []
    for n_prompt, n_chosen, n_rejected, n_shared in np.loadtxt(path, delimiter=",", skiprows=1, dtype=int)[::every]:
        # Eight tokens of a template before the response, and the end of turn behind it.
        prompt, chosen, rejected = (rng.integers(3, vocab, n) for n in (n_prompt + 8, n_chosen + 1, n_rejected + 1))
        shared = min(n_shared, n_chosen, n_rejected)
        rejected[:shared] = chosen[:shared]
        for response in (chosen, rejected):
            ids.append(np.concatenate([prompt, response]))
            starts.append(len(prompt))
    return ids, starts


@torch.inference_mode()
def plain(model: PreTrainedModel, texts: Texts) -> list[np.ndarray]:
    """Each text alone through the model's own pass; nats of its response's tokens, normalised in float64."""
    found = []
    for row, start in zip(*texts, strict=True):
        ids = torch.from_numpy(row.astype(np.int64))[None].to(model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(row) - start + 1).logits[0, :-1]
        parts = zip(logits.split(128), ids[0, start:, None].split(128), strict=True)
        found.append(torch.cat([p.double().log_softmax(-1).gather(1, t) for p, t in parts])[:, 0].cpu().numpy())
    return found


def scored(prepared: engine.Prepared, texts: Texts, budget: int) -> list[np.ndarray]:
    """The engine's nats of each response's tokens."""
    packed = trie.pack(*texts, budget=budget)
    out = engine.score(prepared, packed)
    return [out[a:b] for a, b in zip(packed.offsets, packed.offsets[1:], strict=False)]


def apart(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, float]:
    """How far two lists of nats are apart: the worst token, and the mean over responses of their sums' distance."""
    tokens = np.abs(np.concatenate(found) - np.concatenate(expected))
    sums = np.abs([a.sum() - b.sum() for a, b in zip(found, expected, strict=True)])
    return {"token_max_nats": float(tokens.max()), "sum_mean_nats": float(sums.mean())}


@torch.inference_mode()
def padded(model: PreTrainedModel, texts: Texts, *, size: int, most_tokens: int, by_length: bool) -> float:
    """Seconds of padded batches as most evaluations have them: all logits, and a float32 log-softmax over all."""
    ids, starts = texts
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i])) if by_length else list(range(len(ids)))
    began = time.perf_counter()
    while order:
        batch = order[:size]
        while len(batch) > 1 and len(batch) * max(len(ids[i]) for i in batch) > most_tokens:
            batch.pop()
        order = order[len(batch) :]
        rows = np.zeros((len(batch), max(len(ids[i]) for i in batch)), dtype=np.int64)
        mask, own = np.zeros_like(rows), np.zeros((len(batch), rows.shape[1] - 1), dtype=bool)
        for k, i in enumerate(batch):
            rows[k, : len(ids[i])], mask[k, : len(ids[i])] = ids[i], 1
            own[k, starts[i] - 1 : len(ids[i]) - 1] = True
        x, seen, kept = (torch.from_numpy(v).to(model.device) for v in (rows, mask, own))
        logits = model(input_ids=x, attention_mask=seen, use_cache=False).logits[:, :-1].float()
        (logits.log_softmax(-1).gather(2, x[:, 1:, None])[..., 0] * kept).sum(1).tolist()
    return time.perf_counter() - began
