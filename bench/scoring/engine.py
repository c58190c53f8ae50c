"""Packed trie + model -> log-probabilities of every response token."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.schema import DrsowError
from bench.scoring import ATTENTION, attention
from bench.scoring.device import moved
from bench.scoring.fused import fuse
from bench.scoring.trie import Plan, Step, plan

SHAPE = 64
"""Every matrix product has a multiple of this many rows: oneDNN makes and keeps 2.5 MB of code for each new number."""

LENGTH_BOUND = {"longrope", "dynamic"}
"""Kinds of rotary positions that transformers sets for a whole step by its longest sequence."""

HEAD_ROWS, HEAD_WORDS = 4096, 1024
"""Target positions and vocabulary entries of a block of logits on a CPU: a whole step, so weights are cast once."""


def score(model: PreTrainedModel, plan: Plan) -> np.ndarray:
    """Log-probability of every response token, in the plan's slots.

    Args:
        model: A causal language model prepared by `prepare`.
        plan: Steps from `trie.plan`.

    Returns:
        Nats, (plan.offsets[-1],), float64; sequence i's are out[offsets[i]:offsets[i + 1]].
    """
    out = np.full(int(plan.offsets[-1]), np.nan)
    # All steps are begun before the first number is fetched: a GPU never waits for the host.
    begun = [
        (step, head_logps(model, hidden, moved(step.targets, hidden.device)))
        for step, hidden in hidden_steps(model, plan.steps)
    ]
    for step, logps in begun:
        out[step.slots] = logps.cpu().numpy()[step.which]
    return out


def hidden_steps(model: PreTrainedModel, steps: Sequence[Step]) -> Iterator[tuple[Step, Tensor]]:
    """Run the steps in order; yields each with the last hidden state of the token before each target, (m, hidden)."""
    trunks: dict[int, attention.StepContext] = {}
    for index, step in enumerate(steps):
        trunks = {i: trunks[i] for i in _ancestors(steps, step.parent)}
        ctx = attention.context(step, trunk=trunks.get(step.parent), device=model.device)
        hidden = body(model, step, ctx)
        if step.is_trunk:
            trunks[index] = ctx
        yield step, hidden[moved(step.predict, hidden.device)]


def _ancestors(steps: Sequence[Step], index: int) -> Iterator[int]:
    while index >= 0:
        yield index
        index = steps[index].parent


@torch.inference_mode()
def body(model: PreTrainedModel, step: Step, ctx: attention.StepContext) -> Tensor:
    """Last hidden states of a step's tokens, (n, hidden)."""
    ids = moved(step.ids, model.device)
    rows = (_padded(ids)[None], _padded(ctx.positions)[None])
    output = model.base_model(input_ids=rows[0], position_ids=rows[1], use_cache=False, step=ctx)
    return output.last_hidden_state[0, : len(ids)]


def _padded(rows: Tensor) -> Tensor:
    """Rows of zeros added up to a multiple of SHAPE."""
    return torch.cat([rows, rows.new_zeros(-len(rows) % SHAPE, *rows.shape[1:])])


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
    parts = [
        target_logps(head, h, t, rescale=lambda x: rescaled(model, x), words=words)
        for h, t in zip(
            hidden.to(head.weight.device).split(rows), targets.to(head.weight.device).split(rows), strict=True
        )
    ]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.float64)


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
    hidden, targets = _padded(hidden), _padded(targets)
    own = (hidden.float() * head.weight[targets].float()).sum(dim=1)
    own = rescale(own if head.bias is None else own + head.bias[targets].float()).double()
    total_of = log_totals if hidden.device.type == "cpu" else shifted_log_totals
    return (own - total_of(head, hidden, rescale=rescale, words=words))[:n_targets]


def log_totals(head: torch.nn.Linear, hidden: Tensor, *, rescale: Callable, words: int) -> Tensor:
    """log sum_j exp(logit_j) of each row, (m,), float64, from unshifted sums; arguments as `target_logps` has them."""
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


def float32_product(hidden: Tensor, weight: Tensor, *, out: Tensor | None = None) -> Tensor:
    """hidden @ weight.T on a CPU, (m, words), products of the weight's dtype summed and kept in float32.

    Args:
        hidden: (m, hidden), float32, of values that the weight's dtype holds.
        weight: (words, hidden).
        out: Where the result goes.
    """
    if weight.dtype == torch.float32:
        return torch.mm(hidden, weight.T, out=out)
    # oneDNN rounds float32 inputs to bfloat16 on the way in, which changes nothing here, and keeps the sums.
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        return torch.mm(hidden, weight.float().T, out=out)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@torch.inference_mode()
def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Give a freshly loaded model our attention, after a check against its own forward pass.

    Raises:
        DrsowError: the model cannot run on the engine, or its own forward pass gives other numbers.
    """
    model.eval()
    ids = np.arange(96) * 37 % model.config.get_text_config().vocab_size
    # One fork in a step and one behind a trunk: a model that sees past its own branch agrees on neither.
    rows = [ids[:80], np.concatenate([ids[:72], ids[80:88]])]
    expected = np.concatenate([_own_logps(model, row) for row in rows])
    finite, plans = np.isfinite(expected), [plan(rows, [1, 1], budget=budget) for budget in (88, 80)]
    try:
        if kinds := _position_kinds(model.config.to_dict()) & LENGTH_BOUND:
            raise ValueError(f"its rotary positions ({min(kinds)}) hang on the longest text beside a response")
        model.set_attn_implementation(ATTENTION)
        if model.device.type == "cpu":
            fuse(model)
        try:
            found = [score(model, each) for each in plans]
        except torch._dynamo.exc.TorchDynamoException as error:
            print(f"FlexAttention does not compile here ({_first_line(error)}): tiles instead", file=sys.stderr)
            attention.BLOCKS_ON.clear()
            found = [score(model, each) for each in plans]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DrsowError(f"{_name(model)} is not supported: {_first_line(error)}") from error
    worst = np.max([np.abs(got[finite] - expected[finite]).max(initial=0.0) for got in found])
    if not worst < (1e-3 if model.dtype == torch.float32 else 1.0):
        raise DrsowError(f"{_name(model)} is not supported: its own forward pass differs by {worst:.3g} nats")
    return model


def _position_kinds(config: dict) -> set[str]:
    """The kinds of rotary positions that a configuration names, at any depth."""
    inner = [_position_kinds(value) for value in config.values() if isinstance(value, dict)]
    return {config[key] for key in ("rope_type", "type") if isinstance(config.get(key), str)}.union(*inner)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _name(model: PreTrainedModel) -> str:
    return f"{model.config.name_or_path}: {type(model).__name__}"


def _own_logps(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Nats of every token but the first by the model's own forward pass, (n - 1,)."""
    row = torch.from_numpy(ids).to(model.device)[None]
    logps = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logps.gather(1, row[0, 1:, None].to(logps.device))[:, 0].double().cpu().numpy()
