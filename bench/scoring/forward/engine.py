"""Computes the log-probability of every response token from a packed trie and a model."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.scoring.forward import NotSupportedError
from bench.scoring.forward.context import Call, StepContext, context, running
from bench.scoring.forward.device import moved, threads
from bench.scoring.forward.head import Head, head_logps
from bench.scoring.forward.onednn import padded
from bench.scoring.forward.ops import Ops
from bench.scoring.forward.trie import Packed, Step

STREAMS = 2
"""Number of steps that a CPU computes at the same time, each with its share of the threads. Attention's short
operations do not gain from more threads."""
WAVE = 16
"""Number of steps that are computed before the head runs for all of them. At the end of a wave one stream is idle."""

OnStep = Callable[[int], None]
"""A function that is called with the number of tokens of a finished step, perhaps by another thread."""


def _unheard(n_tokens: int) -> None:
    """An OnStep that does nothing."""


@dataclass(frozen=True)
class Prepared:
    """A model that the engine can score with."""

    model: PreTrainedModel
    ops: Ops
    """The operations of its forward pass. Their `name` is part of the key of its scores."""
    head: Head
    calls: list[Call] | None = None
    """If given, every call of the attention is appended: the check counts them."""


def score(
    prepared: Prepared, packed: Packed, on_step: OnStep = _unheard, *, details: np.ndarray | None = None
) -> np.ndarray:
    """Log-probability of every response token.

    Args:
        prepared: A causal language model from `prepare`.
        packed: Steps from `trie.pack`.
        on_step: Called after every step.
        details: If given, (2, packed.offsets[-1]), float64, gets each token's log-sum-exp of the logits, and the
            largest log-probability of any token in its place.

    Returns:
        Nats, (packed.offsets[-1],), float64; sequence i's are out[offsets[i]:offsets[i + 1]].
    """
    out = np.full(int(packed.offsets[-1]), np.nan)
    # A GPU has only started a step when `hidden_steps` yields it; the step is done when its numbers are on the host.
    early, late = (on_step, _unheard) if prepared.model.device.type == "cpu" else (_unheard, on_step)
    # All steps are started before the first number is fetched, so that a GPU never waits for the host.
    begun = []
    for step, hidden in hidden_steps(prepared, packed.steps, early):
        targets, kept = moved(step.targets, hidden.device), None
        if details is not None:
            kept = torch.empty(2, len(targets), dtype=torch.float64, device=prepared.head.layer.weight.device)
        begun.append((step, head_logps(prepared.head, hidden, targets, kept), kept))
    for step, logps, kept in begun:
        out[step.slots] = logps.cpu().numpy()[step.which]
        if details is not None and kept is not None:
            details[:, step.slots] = kept.cpu().numpy()[:, step.which]
        late(len(step.ids))
    return out


def hidden_steps(
    prepared: Prepared, steps: Sequence[Step], on_step: OnStep = _unheard
) -> Iterator[tuple[Step, Tensor]]:
    """Runs the steps. Yields each, in order, with the last hidden state of the token before each target, (m, hidden).

    On a CPU with a multiple of STREAMS threads, STREAMS steps run at the same time. No step runs while a result is
    yielded: the head may use all threads, and it changes oneDNN's precision for the whole process, which would also
    change the float32 product of rotary positions.
    """
    on_cpu, n_threads = prepared.model.device.type == "cpu", torch.get_num_threads()
    beside = on_cpu and len(steps) > 1 and n_threads % STREAMS == 0
    return (_side_by_side if beside else _in_turn)(prepared, steps, on_step)


def _in_turn(prepared: Prepared, steps: Sequence[Step], on_step: OnStep = _unheard) -> Iterator[tuple[Step, Tensor]]:
    trunks: dict[int, StepContext] = {}
    for index, step in enumerate(steps):
        trunks = {i: trunks[i] for i in _ancestors(steps, step.parent)}
        ctx, hidden = _begin(prepared, step, trunks.get(step.parent))
        if step.is_trunk:
            trunks[index] = ctx
        on_step(len(step.ids))
        yield step, hidden


def _side_by_side(
    prepared: Prepared, steps: Sequence[Step], on_step: OnStep = _unheard
) -> Iterator[tuple[Step, Tensor]]:
    trunks: dict[int, Future] = {}
    with _streams() as (pool, stop):
        for low in range(0, len(steps), WAVE):
            wave = range(low, min(low + WAVE, len(steps)))
            begun: dict[int, Future] = {}
            with threads(torch.get_num_threads() // STREAMS):
                for index in _longest_first(steps, wave):
                    step = steps[index]
                    trunks = {i: trunks[i] for i in _ancestors(steps, step.parent)}
                    # A pool starts its tasks in order, so a trunk runs or is done when a later step waits for it.
                    begun[index] = pool.submit(_behind, prepared, step, trunks.get(step.parent), stop)
                    begun[index].add_done_callback(_told(on_step, len(step.ids)))
                    if step.is_trunk:
                        trunks[index] = begun[index]
                # Only the steps that need a trunk refer to it, so it is freed after the last of them.
                states = [begun.pop(index).result()[1] for index in wave]
            yield from ((steps[index], hidden) for index, hidden in zip(wave, states, strict=True))


def _told(on_step: OnStep, n_tokens: int) -> Callable[[Future], None]:
    """Calls `on_step` for a step that finished, but not for one that was cancelled or failed."""

    def tell(done: Future) -> None:
        if not done.cancelled() and done.exception() is None:
            on_step(n_tokens)

    return tell


def _longest_first(steps: Sequence[Step], wave: Sequence[int]) -> Iterator[int]:
    """Orders a wave so that all streams end at about the same time: branches of one trunk by length, longest first."""
    for (_, is_trunk), run in itertools.groupby(wave, key=lambda i: (steps[i].parent, steps[i].is_trunk)):
        yield from sorted(run, key=lambda i: 0 if is_trunk else -len(steps[i].end))


@contextmanager
def _streams() -> Iterator[tuple[ThreadPoolExecutor, Event]]:
    """A pool of STREAMS threads. At the end, or after an error, running steps are stopped."""
    pool, stop = ThreadPoolExecutor(STREAMS), Event()
    try:
        yield pool, stop
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _behind(prepared: Prepared, step: Step, parent: Future | None, stop: Event) -> tuple[StepContext | None, Tensor]:
    ctx, hidden = _begin(prepared, step, None if parent is None else parent.result()[0], stop)
    return ctx if step.is_trunk else None, hidden


@torch.inference_mode()
def _begin(
    prepared: Prepared, step: Step, trunk: StepContext | None, stop: Event | None = None
) -> tuple[StepContext, Tensor]:
    """Computes a step: its context, and the last hidden state of the token before each target, (m, hidden)."""
    model = prepared.model
    attend, calls = prepared.ops.attend, prepared.calls
    ctx = context(step, trunk=trunk, device=model.device, attend=attend, stop=stop, calls=calls)
    hidden = body(prepared, step, ctx)
    return ctx, hidden[moved(step.predict, hidden.device)]


def _ancestors(steps: Sequence[Step], index: int) -> Iterator[int]:
    while index >= 0:
        yield index
        index = steps[index].parent


@torch.inference_mode()
def body(prepared: Prepared, step: Step, ctx: StepContext) -> Tensor:
    """Last hidden states of a step's tokens, (n, hidden)."""
    model, n_rows = prepared.model, prepared.ops.rows
    ids = moved(step.ids, model.device)
    rows = (padded(ids, to=n_rows)[None], padded(ctx.positions, to=n_rows)[None])
    with running(ctx):
        output = model.base_model(input_ids=rows[0], position_ids=rows[1], use_cache=False, step=ctx)
    if "last_hidden_state" not in output:
        raise NotSupportedError("transformers does not give its hidden states without its head")
    return output.last_hidden_state[0, : len(ids)]
