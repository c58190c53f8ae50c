"""Computes log-probabilities of given tokens from last hidden states, without a full row of logits."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bench.scoring.forward import NotSupportedError, kernels
from bench.scoring.forward.compiling import compiled
from bench.scoring.forward.onednn import exact_bf16, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "The head's sum"
"""Its name in error messages."""

CPU_ROWS, CPU_WORDS = 4096, 1024
"""Target positions and vocabulary entries of a block of logits on a CPU. A whole step fits: weights are cast once."""
GPU_ROWS, GPU_WORDS, EAGER_WORDS = 16384, 16384, 4096
"""The same on a GPU; and the entries without compiling, where torch's sum holds a block three times."""

RESCALED_BY = ("logit_scale", "logits_scaling", "final_logit_softcapping")
"""Names in a configuration for a factor of the logits, a divisor and a soft cap."""

Rescale = Callable[[Tensor], Tensor]
"""A function that a model applies to each logit of its head."""


class LogTotals(Protocol):
    """A function that sums over the vocabulary."""

    def __call__(self, hidden: Tensor, top: Tensor | None = None) -> Tensor:
        """Hidden states (m, hidden) -> log sum_j exp(logit_j) of each row, (m,), float64.

        `top`, (m,), float32, -inf before, gets each row's largest logit.
        """


class Head(NamedTuple):
    """A model's output head, and the function that sums over the vocabulary."""

    layer: nn.Linear
    rescale: Rescale
    log_totals: LogTotals
    n_rows: int
    """Number of targets that are computed at once."""


def head_of(model: "PreTrainedModel", log_totals: Callable[[nn.Linear, Rescale], LogTotals], n_rows: int) -> Head:
    """A model's head. `log_totals` is `Ops.log_totals`, which chooses the sum for this layer.

    Raises:
        NotSupportedError: The model has no output head.
    """
    layer, rescale = model.get_output_embeddings(), rescaling(model)
    if layer is None:
        raise NotSupportedError("it has no output head")
    return Head(layer, rescale, log_totals(layer, rescale), n_rows)


def rescaling(model: "PreTrainedModel") -> Rescale:
    """The function that the model applies to its head's output, or `as_is`."""
    config = model.config.get_text_config().to_dict()
    settings = {name: config[name] for name in RESCALED_BY if config.get(name)}
    return functools.partial(rescaled, **settings) if settings else as_is


def as_is(logits: Tensor) -> Tensor:
    """Returns the logits unchanged, as most models do."""
    return logits


def rescaled(
    logits: Tensor,
    *,
    logit_scale: float | None = None,
    logits_scaling: float | None = None,
    final_logit_softcapping: float | None = None,
) -> Tensor:
    """Logits times a factor, divided by a divisor, with a soft cap; the names are those of a configuration."""
    if logit_scale:
        logits = logits * logit_scale
    if logits_scaling:
        logits = logits / logits_scaling
    if final_logit_softcapping:
        logits = torch.tanh(logits / final_logit_softcapping) * final_logit_softcapping
    return logits


@torch.inference_mode()
def head_logps(head: Head, hidden: Tensor, targets: Tensor, details: Tensor | None = None) -> Tensor:
    """Log-probability of each target token.

    Args:
        head: From `head_of`.
        hidden: Last hidden state of the token before each target, (m, hidden).
        targets: Token ids, (m,).
        details: If given, gets what `target_logps` gives, (2, m), float64, on the head's device.

    Returns:
        Nats, (m,), float64.
    """
    device = head.layer.weight.device
    blocks = zip(hidden.to(device).split(head.n_rows), targets.to(device).split(head.n_rows), strict=True)
    into = details.split(head.n_rows, dim=1) if details is not None else itertools.repeat(None)
    parts = [target_logps(head, h, t, d) for (h, t), d in zip(blocks, into, strict=False)]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.float64)


def target_logps(head: Head, hidden: Tensor, targets: Tensor, details: Tensor | None = None) -> Tensor:
    """Log-probability of each target token, logit_target - log sum_j exp(logit_j).

    The target's logit is float32, the logarithm and the difference are float64.

    Args:
        head: From `head_of`.
        hidden: (m, hidden), in the head's dtype.
        targets: Token ids, (m,).
        details: If given, (2, m), float64, gets log sum_j exp(logit_j) and the largest log-probability of any token.

    Returns:
        Nats, (m,), float64.
    """
    layer, n_targets = head.layer, len(targets)
    hidden, targets = padded(hidden), padded(targets)
    own = (hidden.float() * layer.weight[targets].float()).sum(dim=1)
    own = head.rescale(own if layer.bias is None else own + layer.bias[targets].float())
    if details is None:
        return (own.double() - head.log_totals(hidden))[:n_targets]
    top = torch.full_like(own, -math.inf)
    totals = head.log_totals(hidden, top)
    # The target's own logit is another sum of the same products, so it may exceed the largest one by its last bit.
    details.copy_(torch.stack([totals, torch.maximum(top, own).double() - totals])[:, :n_targets])
    return (own.double() - totals)[:n_targets]


def kernels_or_unshifted(layer: nn.Linear, rescale: Rescale, *, float32: Callable[..., Tensor]) -> LogTotals:
    """Sums by the compiled kernels if they support the head, otherwise `unshifted`."""
    if rescale is not as_is or layer.bias is not None or not kernels.fits_totals(layer.weight):
        return unshifted(layer, rescale, float32=float32)
    blocks = functools.partial(cpu_logit_blocks, layer, rescale, _product(layer, float32))
    totals = functools.partial(kernels.exp_totals, weight=layer.weight)
    return functools.partial(_log_totals, totals, blocks)


def unshifted(layer: nn.Linear, rescale: Rescale, *, float32: Callable[..., Tensor]) -> LogTotals:
    """Sums of exponentials in float32 on a CPU, without a shift. `float32` multiplies if the weight is float32."""
    blocks = functools.partial(cpu_logit_blocks, layer, rescale, _product(layer, float32))

    def totals(hidden: Tensor, *, top: Tensor | None = None) -> Tensor:
        total = hidden.new_zeros(len(hidden), dtype=torch.float32)
        for block in blocks(hidden):
            if top is not None:
                torch.maximum(top, block.amax(dim=1), out=top)
            total += block.exp_().sum(dim=1)
        return total

    return functools.partial(_log_totals, totals, blocks)


def _product(layer: nn.Linear, float32: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return float32 if layer.weight.dtype == torch.float32 else exact_bf16


def _log_totals(
    totals: Callable[..., Tensor],
    blocks: Callable[..., Iterator[Tensor]],
    hidden: Tensor,
    top: Tensor | None = None,
) -> Tensor:
    """Logarithms of unshifted sums. Rows with a logit over 88, or all logits under -69, get `logsumexp` instead."""
    total = totals(hidden, top=top)
    logs = total.double().log()
    lost = (~torch.isfinite(total) | (total < 1e-30)).nonzero()[:, 0]
    if len(lost):
        logits = torch.cat([block.clone() for block in blocks(hidden[lost])], dim=1)
        logs.index_copy_(0, lost, logits.double().logsumexp(dim=1))
    return logs


def cpu_logit_blocks(
    layer: nn.Linear, rescale: Rescale, product: Callable[..., Tensor], hidden: Tensor
) -> Iterator[Tensor]:
    """Logits in blocks of the vocabulary, (m, CPU_WORDS), float32. All blocks use the same memory."""
    n_words = layer.weight.shape[0]
    buffer = hidden.new_empty(len(hidden), min(CPU_WORDS, n_words), dtype=torch.float32)
    hidden = hidden.float()
    for low in range(0, n_words, CPU_WORDS):
        weight = layer.weight[low : low + CPU_WORDS]
        block = product(hidden, weight, out=buffer if len(weight) == CPU_WORDS else None)
        yield rescale(block if layer.bias is None else block.add_(layer.bias[low : low + CPU_WORDS]))


def shifted(layer: nn.Linear, rescale: Rescale, *, logsumexp: Callable[..., Tensor], n_words: int) -> LogTotals:
    """Sums on a GPU, shifted by the maximum. No value is inspected, so the GPU never waits for the host.

    Args:
        layer: The head.
        rescale: What the model does to logits.
        logsumexp: What the model does to logits -> the log-sum-exp of a block's rows.
        n_words: Vocabulary entries of a block.
    """
    of_block = logsumexp(rescale)

    def totals(hidden: Tensor, top: Tensor | None = None) -> Tensor:
        sums = []
        for block in gpu_logit_blocks(layer, hidden, n_words=n_words):
            sums.append(of_block(block))
            if top is not None:
                torch.maximum(top, block.amax(dim=1), out=top)
        if top is not None:
            # A scale is positive and a soft cap rises, so the largest logit stays the largest.
            top.copy_(rescale(top))
        return torch.stack(sums).double().logsumexp(dim=0)

    return totals


def eager_logsumexp(rescale: Rescale) -> Callable[[Tensor], Tensor]:
    """Logits as the head gives them, (m, words) -> log-sum-exp of each row after `rescale`, (m,)."""
    return lambda logits: rescale(logits).logsumexp(1)


def compiled_logsumexp(rescale: Rescale) -> Callable[[Tensor], Tensor]:
    """The same in one kernel of torch's compiler."""
    return compiled(eager_logsumexp(rescale), NAME)


def gpu_logit_blocks(layer: nn.Linear, hidden: Tensor, *, n_words: int) -> Iterator[Tensor]:
    """Logits in blocks of the vocabulary, (m, n_words), float32."""
    for low in range(0, layer.weight.shape[0], n_words):
        weight = layer.weight[low : low + n_words]
        if weight.dtype == torch.float32:
            block = hidden @ weight.T
        else:
            block = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        yield block if layer.bias is None else block.add_(layer.bias[low : low + n_words])
