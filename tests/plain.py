"""Log-probabilities the plain way, to compare the engine with: one sequence at a time, one forward pass each."""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.scoring.render import Sequence


@torch.inference_mode()
def plain_logps(model: PreTrainedModel, ids: np.ndarray, start: int) -> np.ndarray:
    """Nats of ids[start:], each given all before it, by the model's own forward pass, (n - start,), float64.

    The logits are the model's; they are normalised in float64, since torch's float32 log_softmax over a vocabulary of
    262,144 words is off by 3e-5 nat and more, always to one side.
    """
    row = torch.from_numpy(ids.astype(np.int64))[None]
    logits = model(input_ids=row, use_cache=False, logits_to_keep=len(ids) - start + 1).logits[0, :-1]
    pieces = zip(logits.split(64), row[0, start:, None].split(64), strict=True)
    return torch.cat([x.double().log_softmax(-1).gather(1, target)[:, 0] for x, target in pieces]).numpy()


def padded_batch(sequences: Seq[Sequence]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask, and labels (-100 outside the response), (sequences, length) each, padded on the right."""
    ids = torch.zeros(len(sequences), max(len(s.ids) for s in sequences), dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, sequence in enumerate(sequences):
        row = torch.from_numpy(sequence.ids.astype(np.int64))
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
        labels[place, sequence.start : len(row)] = row[sequence.start :]
    return ids, mask, labels


def padded_sums(model: torch.nn.Module, sequences: Seq[Sequence]) -> tuple[Tensor, Tensor]:
    """Summed log-probability and number of tokens of each response, (sequences,) each: one pass with whole logits."""
    ids, mask, labels = padded_batch(sequences)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    known = labels[:, 1:] != -100
    logps = logits[:, :-1].float().log_softmax(dim=-1)
    picked = logps.gather(2, labels[:, 1:].masked_fill(~known, 0)[..., None])[..., 0]
    return (picked * known).sum(dim=1), known.sum(dim=1)
