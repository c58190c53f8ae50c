"""Last hidden states -> log-probabilities of the tokens that came, without a full row of logits."""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.scoring.forward import kernels
from bench.scoring.forward.onednn import float32_product, padded

HEAD_ROWS, HEAD_WORDS = 4096, 1024
"""Target positions and vocabulary entries of a block of logits on a CPU: a whole step, so weights are cast once."""


@torch.inference_mode()
def head_logps(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target token; logits stand in blocks of HEAD_ROWS x HEAD_WORDS, in float32.

    Args:
        model: Gives the output head and its scaling.
        hidden: Last hidden state of the token before each target, (m, hidden).
        targets: Token ids, (m,).

    Returns:
        Nats, (m,), float64.
    """
    rows, words = (HEAD_ROWS, HEAD_WORDS) if hidden.device.type == "cpu" else (16384, 16384)
    head = model.get_output_embeddings()
    rescale = as_is if _is_plain(model) else functools.partial(rescaled, model)
    parts = [
        target_logps(head, h, t, rescale=rescale, words=words)
        for h, t in zip(
            hidden.to(head.weight.device).split(rows), targets.to(head.weight.device).split(rows), strict=True
        )
    ]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.float64)


def as_is(logits: Tensor) -> Tensor:
    """What most models do to them."""
    return logits


def _is_plain(model: PreTrainedModel) -> bool:
    """Whether the model's own forward pass leaves its head's output as it is."""
    config = model.config.get_text_config().to_dict()
    return not any(config.get(name) for name in ("logit_scale", "logits_scaling", "final_logit_softcapping"))


def rescaled(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """What the model's own forward pass does to its head's output: a factor, a soft cap."""
    config = model.config.get_text_config().to_dict()
    if config.get("logit_scale"):
        logits = logits * config["logit_scale"]
    if config.get("logits_scaling"):
        logits = logits / config["logits_scaling"]
    if cap := config.get("final_logit_softcapping"):
        logits = torch.tanh(logits / cap) * cap
    return logits


def target_logps(
    head: torch.nn.Linear, hidden: Tensor, targets: Tensor, *, rescale: Callable[[Tensor], Tensor], words: int
) -> Tensor:
    """Log-probability of each target token, logit_target - log sum_j exp(logit_j).

    The sum is of float32 numbers, its logarithm and the difference are float64. On a CPU it is unshifted, and rows
    whose logits are too large or too small for that, over 88 or all under -69, are done again by logsumexp.

    Args:
        head: Weight (vocab, hidden), any float dtype.
        hidden: (m, hidden), in the head's dtype.
        targets: Token ids, (m,).
        rescale: What the model does to logits, element by element.
        words: Vocabulary entries a block.

    Returns:
        Nats, (m,), float64.
    """
    n_targets = len(targets)
    hidden, targets = padded(hidden), padded(targets)
    own = (hidden.float() * head.weight[targets].float()).sum(dim=1)
    own = rescale(own if head.bias is None else own + head.bias[targets].float()).double()
    total_of = log_totals if hidden.device.type == "cpu" else shifted_log_totals
    return (own - total_of(head, hidden, rescale=rescale, words=words))[:n_targets]


def log_totals(head: torch.nn.Linear, hidden: Tensor, *, rescale: Callable, words: int) -> Tensor:
    """log sum_j exp(logit_j) of each row, (m,), float64, from unshifted sums; arguments as `target_logps` has them."""
    if rescale is as_is and head.bias is None and kernels.takes_head(head.weight):
        total = kernels.exp_totals(hidden, head.weight)
    else:
        total = hidden.new_zeros(len(hidden), dtype=torch.float32)
        for block in logit_blocks(head, hidden, words=words):
            total += rescale(block).exp_().sum(dim=1)
    logs = total.double().log()
    lost = (~torch.isfinite(total) | (total < 1e-30)).nonzero()[:, 0]
    if len(lost):
        logits = torch.cat([rescale(b).clone() for b in logit_blocks(head, hidden[lost], words=words)], dim=1)
        logs.index_copy_(0, lost, logits.double().logsumexp(dim=1))
    return logs


def shifted_log_totals(head: torch.nn.Linear, hidden: Tensor, *, rescale: Callable, words: int) -> Tensor:
    """The same from sums that are shifted by their maximum: no row is looked at, so a GPU goes on without the host."""
    logsumexp = _fused_logsumexp() if hidden.device.type == "cuda" else torch.logsumexp
    blocks = logit_blocks(head, hidden, words=words)
    return torch.stack([logsumexp(rescale(block), 1) for block in blocks]).double().logsumexp(dim=0)


@functools.cache
def _fused_logsumexp() -> Callable:
    return torch.compile(lambda logits, dim: logits.logsumexp(dim), dynamic=True)


def logit_blocks(head: torch.nn.Linear, hidden: Tensor, *, words: int) -> Iterator[Tensor]:
    """Logits of one stretch of the vocabulary after the other, (m, words), float32; a CPU reuses one block's memory."""
    n_words, on_cpu = head.weight.shape[0], hidden.device.type == "cpu"
    buffer = hidden.new_empty(len(hidden), min(words, n_words), dtype=torch.float32) if on_cpu else None
    hidden = hidden.float() if on_cpu else hidden
    for low in range(0, n_words, words):
        weight = head.weight[low : low + words]
        if buffer is not None:
            block = float32_product(hidden, weight, out=buffer if len(weight) == words else None)
        elif weight.dtype == torch.float32:
            block = hidden @ weight.T
        else:
            block = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        yield block if head.bias is None else block.add_(head.bias[low : low + words])
