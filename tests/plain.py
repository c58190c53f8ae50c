"""Log-probabilities the plain way, to compare the engine with: one sequence at a time, one forward pass each."""

import numpy as np
import torch
from transformers import PreTrainedModel


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
