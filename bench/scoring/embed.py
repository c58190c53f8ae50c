"""Embeds texts as the mean of a causal model's last hidden states over a text's tokens (arXiv 2409.17169)."""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from bench.entries import ModelSpec
from bench.schema import Example, UsageError
from bench.scoring import fetch, models
from bench.scoring.forward import engine, trie
from bench.scoring.forward.device import moved
from bench.scoring.forward.engine import Prepared
from bench.scoring.noise import noise_of
from bench.scoring.passes import BATCH_TOKENS, PART_BUDGETS, Options, cut_parts
from bench.scoring.render import Sequence, check_ids


def embed_with(spec: ModelSpec, examples: Seq[Example], options: Options) -> np.ndarray:
    """Embeds every response with a model of the registry, which is fetched if it is missing; see `embed`.

    Raises:
        UsageError: A response is longer than the model's context, or the model is on a server.
    """
    fetch.check_here(spec)
    found = fetch.fetch(spec)
    folder, trusted = found.folder, found.trust_remote_code
    dtype = models.TORCH_DTYPES[options.dtype]
    change = noise_of(spec) or found.adapter
    model = models.load_model(folder, dtype=dtype, device=options.device, trust_remote_code=trusted, change=change)
    tokenizer = models.load_tokenizer(folder, trust_remote_code=trusted)
    limit = models.context_tokens(folder, trust_remote_code=trusted)
    texts = [text for example in examples for _, text in example.responses]
    names = [f"{spec.model_id}: {e.example_id}: response {name}" for e in examples for name, _ in e.responses]
    return embed(model, tokenizer, texts, limit=limit, names=names)


def embed(
    model: Prepared,
    tokenizer: PreTrainedTokenizerFast,
    texts: Seq[str],
    *,
    limit: int,
    names: Seq[str] | None = None,
) -> np.ndarray:
    """Embeds each text separately, without a template.

    Args:
        model: A model after `preparing.prepare`.
        tokenizer: The model's tokenizer. It adds a BOS if it adds one to plain text.
        texts: Texts that are not empty.
        limit: The model's context in tokens.
        names: Names of the texts in error messages.

    Returns:
        (texts, hidden), float32.

    Raises:
        UsageError: A text is longer than the context. The message names it.
        DrsowError: The model has no embedding for a token of a text. The message names both.
    """
    # The trie never feeds the last id to the model, so a 0 is appended. Equal texts are computed only once.
    ids = [np.array([*row, 0], dtype=np.int32) for row in tokenizer(list(texts), verbose=False).input_ids]
    n_embedded = model.model.config.get_text_config().vocab_size
    for number, row in enumerate(ids):
        name = names[number] if names else f"text {number}"
        check_ids(row, tokenizer, n_embedded=n_embedded, row=name, model="the model that embeds")
        if len(row) - 1 > limit:
            raise UsageError(f"{name}: {len(row) - 1:,} tokens, the model reads {limit:,}")
    budget = BATCH_TOKENS["cuda" if model.model.device.type == "cuda" else "cpu"]
    size = model.model.config.get_text_config().hidden_size
    out = np.empty((len(ids), size), dtype=np.float32)
    # Each text is one row and counts as a prompt, so that texts with the same beginning are in the same part.
    rows = [[Sequence(str(number), "", row, len(row) - 1, 0, "")] for number, row in enumerate(ids)]
    for chosen in cut_parts(rows, part_tokens=PART_BUDGETS * budget):
        out[chosen] = _means(model, [ids[i] for i in chosen], budget, size)
    return out


@torch.inference_mode()
def _means(model: Prepared, ids: list[np.ndarray], budget: int, size: int) -> np.ndarray:
    """Mean of the hidden states of all tokens except the last, (n, hidden)."""
    plan = trie.pack(ids, [1] * len(ids), budget=budget)
    owner = np.repeat(np.arange(len(ids)), np.diff(plan.offsets))
    sums = torch.zeros(len(ids), size, dtype=torch.float32, device=model.model.device)
    for step, hidden in engine.hidden_steps(model, plan.steps):
        states = hidden.float()[moved(step.which, hidden.device)]
        # The states of a model that is spread over GPUs come from its last one.
        sums.index_add_(0, moved(owner[step.slots], sums.device), states.to(sums.device))
    return sums.cpu().numpy() / np.diff(plan.offsets)[:, None]
