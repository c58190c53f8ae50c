"""Packed trie + model -> log-probabilities of every response token."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.schema import DrsowError
from bench.scoring import ATTENTION, attention
from bench.scoring.trie import Plan, Step

HEAD_ROWS = 512
"""Target positions whose logits are held at once."""


def score(model: PreTrainedModel, plan: Plan) -> np.ndarray:
    """Log-probability of every response token, in the plan's slots.

    Args:
        model: A causal language model prepared by `prepare`.
        plan: Steps from `trie.plan`.

    Returns:
        Nats, (plan.offsets[-1],), float64; sequence i's are out[offsets[i]:offsets[i + 1]].
    """
    out = np.full(int(plan.offsets[-1]), np.nan)
    for step, logps in run_steps(model, plan.steps):
        out[step.slots] = logps[step.which]
    return out


def run_steps(model: PreTrainedModel, steps: Sequence[Step]) -> Iterator[tuple[Step, np.ndarray]]:
    """Run the steps in order; yields each with its targets' log-probabilities in nats, (m,), float64."""
    trunks: dict[int, attention.StepContext] = {}
    for index, step in enumerate(steps):
        trunks = {i: trunks[i] for i in _ancestors(steps, step.parent)}
        ctx = attention.context(step, trunk=trunks.get(step.parent), device=model.device)
        hidden = body(model, step, ctx)
        if step.is_trunk:
            trunks[index] = ctx
        predict = torch.from_numpy(step.predict).to(model.device)
        targets = torch.from_numpy(step.targets).to(model.device)
        yield step, head_logps(model, hidden[predict], targets).double().cpu().numpy()


def _ancestors(steps: Sequence[Step], index: int) -> Iterator[int]:
    while index >= 0:
        yield index
        index = steps[index].parent


@torch.inference_mode()
def body(model: PreTrainedModel, step: Step, ctx: attention.StepContext) -> Tensor:
    """Last hidden states of a step's tokens, (n, hidden)."""
    ids = torch.from_numpy(step.ids).to(model.device)[None]
    output = model.base_model(input_ids=ids, position_ids=ctx.positions[None], use_cache=False, step=ctx)
    return output.last_hidden_state[0]


@torch.inference_mode()
def head_logps(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target token, its logits never held for more than HEAD_ROWS positions.

    Args:
        model: Gives the output head and its scaling.
        hidden: Last hidden state of the token before each target, (m, hidden).
        targets: Token ids, (m,).

    Returns:
        Nats, (m,), float32.
    """
    parts = [
        target_logps(logits(model, h), t)
        for h, t in zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    ]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.float32)


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The model's own head on some positions: (m, hidden) -> (m, vocab), with its scaling and soft cap."""
    config = model.config.to_dict()
    out = model.get_output_embeddings()(hidden)
    if config.get("logit_scale"):
        out = out * config["logit_scale"]
    if config.get("logits_scaling"):
        out = out / config["logits_scaling"]
    if cap := config.get("final_logit_softcapping"):
        out = torch.tanh(out.float() / cap) * cap
    return out


def target_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target token.

    Args:
        logits: The model's prediction for each target, (m, vocab), any float dtype.
        targets: Token ids, (m,).

    Returns:
        Nats, (m,), float32.
    """
    logits = logits.float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


@torch.inference_mode()
def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Give a freshly loaded model our attention, after a check against its own forward pass.

    Raises:
        DrsowError: the model's own logits differ from what the engine computes: not supported.
    """
    model.eval()
    vocab = model.config.get_text_config().vocab_size
    ids = torch.arange(24, device=model.device)[None] * 37 % vocab
    expected = model(input_ids=ids, use_cache=False).logits[0].float()
    model.set_attn_implementation(ATTENTION)
    step = Step(ids[0].cpu().numpy(), np.arange(24), np.full(24, 24), -1, False, *(np.empty(0, np.int64),) * 4)
    ctx = attention.context(step, trunk=None, device=model.device)
    got = logits(model, body(model, step, ctx)).float()
    worst = (expected.log_softmax(-1) - got.log_softmax(-1)).abs().amax().item()
    if not worst < (1e-3 if model.dtype == torch.float32 else 1.0):
        raise DrsowError(
            f"{model.config.name_or_path}: {type(model).__name__} is not supported: "
            f"its own forward pass differs by {worst:.3g} nats"
        )
    return model
