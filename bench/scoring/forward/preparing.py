"""Gives a model the engine's attention and layers, after a check against the model's own forward pass."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel

from bench.faults import warn
from bench.schema import DrsowError
from bench.scoring.forward import ATTENTION, NotSupportedError, checking, fused, layers
from bench.scoring.forward.attention import trie_attention
from bench.scoring.forward.compiling import NotCompiledError
from bench.scoring.forward.context import Call
from bench.scoring.forward.device import out_of_memory
from bench.scoring.forward.engine import Prepared, score
from bench.scoring.forward.head import head_of
from bench.scoring.forward.ops import Ops, choose
from bench.scoring.forward.trie import Packed, pack

LENGTH_BOUND = {"longrope", "dynamic"}
"""Kinds of rotary positions that transformers computes for a whole step from its longest sequence."""

FORK_BUDGET, TRUNK_BUDGET = 88, 80
"""Budgets at which the check's rows are one step, and a trunk with two steps behind it."""

SHORT = 8
"""A window that hides most tokens of the check's rows."""


@torch.inference_mode()
def prepare(model: PreTrainedModel, *, ops: Ops | None = None) -> Prepared:
    """Gives a model the engine's attention and layers, in place, after a check against its own forward pass.

    A model on a GPU may be prepared again, in another dtype.

    If some of the operations do not compile, the model gets others instead, and stderr says so.

    Args:
        model: A causal language model.
        ops: The operations to use; None for those that `choose` gives for the model's device and dtype.

    Raises:
        DrsowError: The engine cannot run the model, or the model's own forward pass gives other numbers.
    """
    as_trained(model)
    own, low = own_pass(model), model.dtype != torch.float32
    # A fork inside a step, one after a trunk, and in bfloat16 again the first one with another first branch.
    packings = [pack(own.rows.plain, [1, 1], budget=budget) for budget in (FORK_BUDGET, TRUNK_BUDGET)]
    packings += [pack(own.rows.changed, [1, 1], budget=FORK_BUDGET)] * low
    ops = choose(model.device, model.dtype) if ops is None else ops
    with refusing(model):
        _give(model, ops)
        prepared, scores = _first_scores(model, ops, packings)
    found = [each.reshape(own.logps.shape) for each in scores]
    check(model, own, found[:2], changed=found[2] if low else None, calls=prepared.calls or [])
    return replace(prepared, calls=None)


@torch.inference_mode()
def prepare_checked(model: PreTrainedModel, ops: Ops) -> Prepared:
    """As `prepare`, without the check, for a model that passed it with these operations. None of them compiles.

    Raises:
        DrsowError: The engine cannot run the model.
    """
    assert not ops.without
    as_trained(model)
    with refusing(model):
        _give(model, ops)
        return Prepared(model, ops, head_of(model, ops.log_totals, ops.n_rows))


def as_trained(model: PreTrainedModel) -> None:
    """Takes the engine's attention and layers from a model.

    Raises:
        DrsowError: The model's positions depend on other texts.
    """
    model.eval()
    fused.unfuse(model)
    model.set_attn_implementation(own_attention(model))
    # A sum of bfloat16 products stays float32 to its end, also where a product is split.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if kind := length_bound(model):
        raise _refusal(model, f"its rotary positions ({kind}) depend on the longest text beside a response")


class Own(NamedTuple):
    """What a model's own forward pass says about the rows of the check."""

    rows: checking.Rows
    logps: np.ndarray
    """Log-probability of every token but the first of `rows.plain`, nats, (2, n - 1)."""
    window: int
    """The attention window; 0 if there is none."""


def own_pass(model: PreTrainedModel) -> Own:
    """The own forward pass of a model from `as_trained`.

    Raises:
        DrsowError: The model's code fails.
    """
    rows = checking.rows(model.config.get_text_config().vocab_size)
    with refusing(model):
        logps = np.stack([_own_logps(model, row) for row in rows.plain])
        return Own(rows, logps, _own_window(model, rows.plain[0], logps[0]))


def check(
    model: PreTrainedModel, own: Own, found: Sequence[np.ndarray], *, changed: np.ndarray | None, calls: Sequence[Call]
) -> None:
    """Compares packed passes with a model's own.

    Args:
        model: The model.
        own: From `own_pass`.
        found: Log-probabilities of `own.rows.plain` from each packing, in the shape of `own.logps`, nats. The first one
            has the fork inside a step.
        changed: For a bfloat16 model: the same of `own.rows.changed`, with the fork inside a step.
        calls: All calls of drsow's attention.

    Raises:
        DrsowError: The packed passes are not the model's.
    """
    reason = "" if changed is None else _mixing(model, found[0], changed, calls)
    reason = reason or checking.differing(own.logps, found, low=changed is not None)
    reason = reason or ("" if calls else checking.UNCALLED)
    if not reason and own.window and all(call.window is None for call in calls):
        reason = f"its window of {own.window} tokens is in its own mask alone, which drsow does not use"
    if reason:
        raise _refusal(model, reason)


def _give(model: PreTrainedModel, ops: Ops) -> None:
    """Gives a model the engine's attention and layers."""
    model.set_attn_implementation(ATTENTION)
    layers.fit(model.base_model, linear=ops.linear, gated=ops.gated, norm=ops.norm, rotary=ops.rotary)


def _mixing(model: PreTrainedModel, plain: np.ndarray, changed: np.ndarray, calls: Sequence[Call]) -> str:
    """`checking.mixing` of a model."""
    names = {type(module).__name__.lower() for module in model.modules()}
    routed = any("expert" in name or "moe" in name for name in names)
    n_layers = model.config.get_text_config().num_hidden_layers
    return checking.mixing(plain, changed, calls, n_layers=n_layers, routed=routed)


def _own_window(model: PreTrainedModel, row: np.ndarray, expected: np.ndarray) -> int:
    """The attention window of a model's own pass; 0 if there is none.

    A configuration may name a window that the model does not use. So every such setting is made short for one pass: a
    window that is in use changes the result.

    Args:
        model: A model with its own attention.
        row: Token ids, (n,).
        expected: What `_own_logps` gives for the row.
    """
    config = model.config.get_text_config()
    for name, size in config.to_dict().items():
        if "window" in name and type(size) is int and SHORT < size < config.max_position_embeddings:
            with _shortened(model, name, size):
                found = _own_logps(model, row)
            if np.abs(found - expected)[np.isfinite(expected)].max(initial=0.0) >= checking.EXACT_NATS:
                return size
    return 0


@contextmanager
def _shortened(model: PreTrainedModel, name: str, size: int) -> Iterator[None]:
    """Makes a window short in a model's configuration, and in those of its layers that copied it."""
    copies = [module for module in model.modules() if vars(module).get(name) == size]
    holders = [model.config.get_text_config(), *copies]
    try:
        for holder in holders:
            setattr(holder, name, SHORT)
        yield
    finally:
        for holder in holders:
            setattr(holder, name, size)


def own_attention(model: PreTrainedModel) -> str:
    """transformers' name of the attention that computes a model as it was trained.

    torch's own has no soft cap of scores; some versions of transformers take it for Gemma 2 all the same.
    """
    capped = model.config.get_text_config().to_dict().get("attn_logit_softcapping")
    return "sdpa" if model._supports_sdpa and not capped else "eager"


def _first_scores(model: PreTrainedModel, ops: Ops, packings: Sequence[Packed]) -> tuple[Prepared, list[np.ndarray]]:
    """The model with the first operations that compile and its calls of attention, and its scores of each packing."""
    while True:
        prepared = Prepared(model, ops, head_of(model, ops.log_totals, ops.n_rows), calls=[])
        fused.unfuse(model)
        if ops.fuses:
            fused.fuse(model)
        try:
            if ops.without:
                _compile(prepared)
            return prepared, [score(prepared, each) for each in packings]
        except NotCompiledError as error:
            if error.part not in ops.without:
                raise
            ops = ops.without[error.part]()
            warn(f"{error}: drsow uses {ops.name} instead, which is slower")


def _compile(prepared: Prepared) -> None:
    """Compiles everything that a run will need, at the size that it will have."""
    weight = prepared.head.layer.weight
    # The compiler divides the work by the first size that it sees, so that must not be the few rows of the check.
    prepared.head.log_totals(weight.new_zeros(prepared.head.n_rows, weight.shape[1]))
    # A text longer than the model's window, because a short one does not need the kernel with the window.
    config = prepared.model.config.get_text_config()
    if window := config.to_dict().get("sliding_window"):
        ids = np.arange(min(window + 64, config.max_position_embeddings)) % config.vocab_size
        score(prepared, pack([ids], [len(ids) - 1], budget=len(ids)))


@contextmanager
def refusing(model: PreTrainedModel) -> Iterator[None]:
    """Turns an error of the model's code into a refusal. An error of drsow's code is raised unchanged."""
    try:
        yield
    except NotSupportedError as error:
        raise _refusal(model, str(error)) from error
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # A class of RuntimeErrors of its own is a device's.
        of_device = isinstance(error, RuntimeError) and type(error) is not RuntimeError
        if _is_ours(error) or of_device or out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if model.config._attn_implementation == ATTENTION:
            raise _refusal(model, f"its own code does not run with drsow's attention and layers ({reason})") from error
        raise _refusal(model, f"its own code fails ({reason})") from error


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised in this package, not in code that it calls."""
    raised_in = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return raised_in.partition(".")[0] == __name__.partition(".")[0]


def _refusal(model: PreTrainedModel, reason: str) -> DrsowError:
    return DrsowError(f"{model.config.name_or_path}: {type(model).__name__} is not supported: {reason}")


def length_bound(model: PreTrainedModel) -> str:
    """The kind of a model's rotary positions if they depend on the longest text in a step, else ""."""
    return min(_position_kinds(model.config.to_dict()) & LENGTH_BOUND, default="")


def _position_kinds(config: dict) -> set[str]:
    """The kinds of rotary positions that a configuration names, at any depth."""
    inner = [_position_kinds(value) for value in config.values() if isinstance(value, dict)]
    return {config[key] for key in ("rope_type", "type") if isinstance(config.get(key), str)}.union(*inner)


def _own_logps(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Log-probability of every token but the first by the model's own forward pass, nats, (n - 1,)."""
    row = torch.from_numpy(ids).to(model.device)[None]
    logps = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logps.gather(1, row[0, 1:, None].to(logps.device))[:, 0].double().cpu().numpy()


# This is not in attention.py, so that choosing operations does not import transformers.
AttentionInterface.register(ATTENTION, trie_attention)
