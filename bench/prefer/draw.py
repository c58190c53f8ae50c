"""Draws the next token of each response from the model's logits."""

import numpy as np
import torch
from torch import Tensor

from bench.prefer.resumed import Sampling

RUN = 256
"""Words whose probabilities are summed first. A draw finds its run, then its word: one sum over all words is slower."""

LIKELIEST = 512
"""Words that are sorted for `top_p`. A row in which they have less probability is sorted whole."""


def drawn(logits: Tensor, wish: Sampling, uniforms: np.ndarray) -> list[int]:
    """The next token of each row; a row's token depends on its own logits and number alone.

    Args:
        logits: (rows, words), any float dtype.
        wish: Temperature and top_p.
        uniforms: One number in [0, 1) for each row, (rows,), float64. They are not used at temperature 0.

    Returns:
        Token ids.
    """
    logits = logits.float()
    if wish.temperature == 0:
        return logits.argmax(-1).tolist()
    shares = torch.softmax(logits / wish.temperature, -1)
    if wish.top_p < 1:
        shares = shares.masked_fill(shares < _least(shares, wish.top_p)[:, None], 0)
    n_runs = -(-shares.shape[1] // RUN)
    runs = torch.nn.functional.pad(shares, (0, n_runs * RUN - shares.shape[1])).view(len(shares), n_runs, RUN)
    totals = runs.sum(-1).double().cumsum(-1)
    wanted = totals[:, -1:] * torch.from_numpy(uniforms).to(totals)[:, None]
    run = _place(totals, wanted)
    before = totals.gather(1, (run - 1).clamp(min=0)).masked_fill(run == 0, 0)
    inside = runs[torch.arange(len(runs), device=runs.device), run[:, 0]]
    return (run * RUN + _place(inside.double().cumsum(-1), wanted - before))[:, 0].tolist()


def _place(sums: Tensor, wanted: Tensor) -> Tensor:
    """The first place whose running sum is above what is wanted, (rows, 1), but none of probability 0 at the end."""
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(sums, wanted, right=True), last)


def _least(shares: Tensor, top_p: float) -> Tensor:
    """The probability of each row's last word that `top_p` keeps, (rows,)."""
    likeliest = shares.topk(min(LIKELIEST, shares.shape[1])).values
    found = torch.stack([_cut(row, top_p) for row in likeliest])
    for row in torch.nonzero(likeliest.double().sum(-1) < top_p)[:, 0].tolist():
        found[row] = _cut(shares[row].sort(descending=True).values, top_p)
    return found


def _cut(falling: Tensor, top_p: float) -> Tensor:
    """The last of the likeliest words that together reach `top_p`: its probability."""
    n_below = int((falling.double().cumsum(-1) < top_p).sum())
    return falling[min(n_below, len(falling) - 1)]
