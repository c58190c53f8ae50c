"""Computes response log-probabilities with gradients, for a batch of prompts with their responses in one packed trie.

No token is padding, a prompt is computed once for its responses, and logits exist only where a response is predicted.
Attention and packing are those of `scoring.forward`.
"""

import functools
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from bench.prefer.attention import attend
from bench.scoring.forward import ATTENTION, preparing
from bench.scoring.forward.context import Call, context, running
from bench.scoring.forward.device import moved
from bench.scoring.forward.head import Rescale, rescaling
from bench.scoring.forward.onednn import padded
from bench.scoring.forward.trie import Step, pack
from bench.scoring.render import Sequence

ROWS = 256
"""Predicted tokens whose logits exist at once: 256 rows of Gemma 3's 262,144 words are 270 MB in float32."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch are in its packed step. It is no tuple, because Trainer rebuilds tuples."""

    step: Step
    n_tokens: np.ndarray
    """Tokens of each response, (sequences,), int64."""
    owner: np.ndarray
    """Index of the sequence that each of `step.which` belongs to, int64."""


def packed(sequences: Seq[Sequence]) -> dict[str, Any]:
    """A batch for `sums`: `input_ids`, (1, n), and the `packing`."""
    whole = pack([s.ids for s in sequences], [s.start for s in sequences], budget=sum(len(s.ids) for s in sequences))
    (step,), n_tokens = whole.steps, np.diff(whole.offsets)
    owner = np.repeat(np.arange(len(sequences)), n_tokens)[step.slots]
    return {"input_ids": padded(torch.from_numpy(step.ids))[None], "packing": Packing(step, n_tokens, owner)}


def sums(model: torch.nn.Module, batch: dict[str, Any]) -> Tensor:
    """Summed log-probability of each response of a batch, (sequences,), float32, nats.

    Args:
        model: From `packable`, or a wrapper of it.
        batch: From `packed`.
    """
    logps = model(input_ids=batch["input_ids"], packing=batch["packing"])
    packing, device = batch["packing"], logps.device
    picked = logps[moved(packing.step.which, device)]
    return logps.new_zeros(len(packing.n_tokens)).index_add(0, moved(packing.owner, device), picked)


@torch.no_grad()
def packable(model: PreTrainedModel, *, dtype: torch.dtype) -> PreTrainedModel:
    """Gives a model a forward pass over packed batches, in place, after the check of `preparing` that scoring makes.

    Attention dropout is left out; `tune` turns the other kinds off.

    Args:
        model: A causal language model.
        dtype: Precision of the logits. The check is in the precision of the weights.

    Raises:
        DrsowError: The model's attention is not a softmax over earlier tokens, so that the two passes differ.
    """
    preparing.as_trained(model)
    own, low = preparing.own_pass(model), model.dtype != torch.float32
    calls: list[Call] = []
    model.set_attn_implementation(ATTENTION)
    _compute_in(model.dtype, model)
    with preparing.refusing(model):
        plain = _checked_logps(model, own.rows.plain, calls)
        changed = _checked_logps(model, own.rows.changed, calls) if low else None
    preparing.check(model, own, [plain], changed=changed, calls=calls)
    _compute_in(dtype, model)
    return model


def _compute_in(dtype: torch.dtype, model: PreTrainedModel) -> None:
    model.forward = MethodType(functools.partial(_forward, dtype=dtype), model)


def _checked_logps(model: PreTrainedModel, rows: Seq[np.ndarray], calls: list[Call]) -> np.ndarray:
    """Log-probability of every token but the first of rows of one length, packed, nats, (rows, n - 1)."""
    batch = packed([Sequence("", str(i), ids, 1, 0, "") for i, ids in enumerate(rows)])
    step = batch["packing"].step
    logps = model(input_ids=batch["input_ids"].to(model.device), packing=batch["packing"], calls=calls)
    found = np.empty(len(step.slots))
    found[step.slots] = logps.double().cpu().numpy()[step.which]
    return found.reshape(len(rows), -1)


def _forward(
    model: PreTrainedModel,
    input_ids: Tensor,
    packing: Packing,
    *,
    dtype: torch.dtype,
    calls: list[Call] | None = None,
    **_: object,
) -> Tensor:
    """Log-probability of each of the step's targets, (m,), float32, nats.

    Args:
        model: From `packable`.
        input_ids: (1, n).
        packing: Of these ids.
        dtype: Precision of the logits.
        calls: If given, every call of the attention is appended.
        _: What a wrapper passes besides, which is None.
    """
    step = packing.step
    told = context(step, trunk=None, device=input_ids.device, attend=attend, calls=calls)
    positions = padded(told.positions)[None]
    with running(told):
        output = model.base_model(input_ids=input_ids, position_ids=positions, use_cache=False, step=told)
    states = output.last_hidden_state[0, moved(step.predict, input_ids.device)].to(dtype)
    layer = model.get_output_embeddings()
    bias = None if layer.bias is None else layer.bias.to(dtype)
    targets = moved(step.targets, states.device)
    return TargetLogps.apply(states, layer.weight.to(dtype), bias, targets, rescaling(model))


class TargetLogps(torch.autograd.Function):
    """Log-probability of each target from last hidden states, ROWS at a time.

    The forward pass keeps each row's gradient, (hidden,), in place of its logits, (vocab,). The gradient of the head's
    weight, which is needed only if the head is tuned, takes a second pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rescale: Rescale
    ) -> Tensor:
        """Nats, (m,), float32.

        Args:
            ctx: Of autograd.
            hidden: (m, hidden).
            weight: Of the head, (vocab, hidden), in the dtype of `hidden`.
            bias: Of the head, (vocab,) or None.
            targets: Token ids, (m,).
            rescale: What the model does to its logits.
        """
        logps, slopes = [], []
        for rows, wanted in zip(hidden.split(ROWS), targets.split(ROWS), strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                own = rows.detach().requires_grad_(ctx.needs_input_grad[0])
                logits = rescale(linear(own, weight.detach(), None if bias is None else bias.detach()))
            log_shares = logits.detach().float().log_softmax(dim=1)
            logps.append(log_shares.gather(1, wanted[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                slopes += torch.autograd.grad(logits, own, _slope(log_shares, wanted).to(logits.dtype))
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(slopes) if slopes else None)
        ctx.rescale = rescale
        return torch.cat(logps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` takes; `grad`: (m,)."""
        hidden, weight, bias, targets, slopes = ctx.saved_tensors
        by_hidden = None if slopes is None else (grad[:, None] * slopes).to(hidden.dtype)
        if not ctx.needs_input_grad[1]:
            return by_hidden, None, None, None, None
        head = [weight.detach().requires_grad_()] + ([] if bias is None else [bias.detach().requires_grad_()])
        # Summed in float32, because there are many chunks.
        by_head = [torch.zeros_like(part, dtype=torch.float32) for part in head]
        for rows, wanted, factors in zip(hidden.split(ROWS), targets.split(ROWS), grad.split(ROWS), strict=True):
            with torch.enable_grad():
                logits = ctx.rescale(linear(rows, *head))
            slope = _slope(logits.detach().float().log_softmax(dim=1), wanted).mul_(factors[:, None])
            for total, part in zip(by_head, torch.autograd.grad(logits, head, slope.to(logits.dtype)), strict=True):
                total += part
        found = [total.to(weight.dtype) for total in by_head] + [None]
        return by_hidden, found[0], found[1], None, None


def _slope(log_shares: Tensor, wanted: Tensor) -> Tensor:
    """Gradient of each wanted token's log-probability by the logits, in the memory of `log_shares`."""
    slope = log_shares.exp_().neg_()
    return slope.scatter_add_(1, wanted[:, None], torch.ones_like(slope[:, :1]))
