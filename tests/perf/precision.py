"""What a dtype costs and what it moves: a packaged pair in float32 and in bfloat16, with two kinds of logits."""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.scoring.forward import engine
from bench.scoring.forward.head import Head
from perf.scorers import OURS, SCORERS
from perf.timing import apart
from perf.workloads import STRONG, WEAK, Workload, folder, plain

PRECISION = (
    "model", "body", "logits", "rows", "wall_s", "mean_shift_nats", "max_shift_nats", "flipped_share",
)  # fmt: skip
"""Shifts are absolute, of a response's summed log-probability against float32; in the rows of the pair they are of
its reward, strong - weak, and `flipped_share` is how many of the rows the pair decides otherwise than in float32."""

PAIR = "smollm2-over-gemma"
VARIANTS = (("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16"))
"""Dtype of the body and of the logits."""
CHUNK = 256
"""Target positions whose bfloat16 logits over the whole vocabulary stand at once."""


def precision(per_subset: int) -> Iterator[pd.DataFrame]:
    """PRECISION so far, after each pass of a model."""
    rows: list[tuple] = []
    sums: dict[tuple, np.ndarray] = {}
    for body, logits in VARIANTS:
        total_s = 0.0
        for model_id in (STRONG, WEAK):
            work = plain(per_subset, model_id=model_id)
            n_rows = max(work.rows) + 1
            wall_s, sums[model_id, body, logits] = apart(_scored, work, model_id, body, logits)
            total_s += wall_s
            shift = np.abs(sums[model_id, body, logits] - sums[model_id, *VARIANTS[0]])
            rows.append((model_id, body, logits, n_rows, round(wall_s, 3), shift.mean(), shift.max(), float("nan")))
            yield pd.DataFrame(rows, columns=list(PRECISION))
        reward = sums[STRONG, body, logits] - sums[WEAK, body, logits]
        exact = sums[STRONG, *VARIANTS[0]] - sums[WEAK, *VARIANTS[0]]
        shift = np.abs(reward - exact)
        flipped = ((reward[::2] > reward[1::2]) != (exact[::2] > exact[1::2])).mean()
        rows.append((PAIR, body, logits, n_rows, round(total_s, 3), shift.mean(), shift.max(), flipped))
        yield pd.DataFrame(rows, columns=list(PRECISION))


def _scored(work: Workload, model_id: str, body: str, logits: str) -> tuple[float, np.ndarray]:
    """Seconds, and nats of each response."""
    _, score = SCORERS[OURS](folder(model_id), body)
    if logits == "bf16":
        # In this process alone: the engine's own head has no other precision than float32.
        engine.head_logps = bf16_logps
    began = time.perf_counter()
    sums = score(work)
    return time.perf_counter() - began, sums


@torch.inference_mode()
def bf16_logps(head: Head, hidden: Tensor, targets: Tensor, details: None = None) -> Tensor:
    """Log-probability of each target token from logits that are rounded to the body's dtype, as models give them.

    Args:
        head: The model's output head and its scaling.
        hidden: Last hidden state of the token before each target, (m, hidden).
        targets: Token ids, (m,).
        details: As in the function that it stands for; not computed here.

    Returns:
        Nats, (m,), float32.
    """
    parts = [
        head.rescale(head.layer(h)).float().log_softmax(dim=-1).gather(1, t[:, None])
        for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    ]
    return torch.cat(parts)[:, 0] if parts else hidden.new_empty(0, dtype=torch.float32)
