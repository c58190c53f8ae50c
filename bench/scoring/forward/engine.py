"""Packed trie + model -> log-probabilities of every response token."""

import itertools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from bench.schema import DrsowError
from bench.scoring.forward import ATTENTION, NotSupportedError, fused, layers
from bench.scoring.forward.attention import trie_attention
from bench.scoring.forward.compiling import NotCompiledError
from bench.scoring.forward.context import StepContext, context
from bench.scoring.forward.device import moved
from bench.scoring.forward.head import Head, head_logps, head_of
from bench.scoring.forward.onednn import padded
from bench.scoring.forward.ops import Ops, choose
from bench.scoring.forward.trie import Packed, Step, pack

STREAMS = 2
"""Steps that a CPU computes side by side, each on its share of the threads: attention's short operations do not gain
from more of them."""
WAVE = 16
"""Steps whose last hidden states wait for the head together: a wave's end leaves a stream idle."""

LENGTH_BOUND = {"longrope", "dynamic"}
"""Kinds of rotary positions that transformers sets for a whole step by its longest sequence."""


OnStep = Callable[[int], None]
"""Is called with the number of a step's tokens when they are computed, perhaps by another thread."""


def _unheard(n_tokens: int) -> None:
    """The OnStep of one who does not ask."""


@dataclass(frozen=True)
class Prepared:
    """A model that the engine can score with."""

    model: PreTrainedModel
    ops: Ops
    """What computes its forward pass; its `name` belongs to every number that comes of it."""
    head: Head


def score(prepared: Prepared, packed: Packed, on_step: OnStep = _unheard) -> np.ndarray:
    """Log-probability of every response token, in the steps' slots.

    Args:
        prepared: A causal language model from `prepare`.
        packed: Steps from `trie.pack`.
        on_step: Told of every step.

    Returns:
        Nats, (packed.offsets[-1],), float64; sequence i's are out[offsets[i]:offsets[i + 1]].
    """
    out = np.full(int(packed.offsets[-1]), np.nan)
    # On a GPU a step is only begun when its states are handed out, and done when its numbers are here.
    early, late = (on_step, _unheard) if prepared.model.device.type == "cpu" else (_unheard, on_step)
    # All steps are begun before the first number is fetched: a GPU never waits for the host.
    begun = [
        (step, head_logps(prepared.head, hidden, moved(step.targets, hidden.device)))
        for step, hidden in hidden_steps(prepared, packed.steps, early)
    ]
    for step, logps in begun:
        out[step.slots] = logps.cpu().numpy()[step.which]
        late(len(step.ids))
    return out


def hidden_steps(
    prepared: Prepared, steps: Sequence[Step], on_step: OnStep = _unheard
) -> Iterator[tuple[Step, Tensor]]:
    """Run the steps; gives each, in order, with the last hidden state of the token before each target, (m, hidden).

    On a CPU with a multiple of STREAMS threads, so many steps run side by side. None runs while one is handed out: the
    head may have all threads, and tell oneDNN for the whole process what rotary positions, a product in float32 too,
    must not hear.
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
            with _threads(torch.get_num_threads() // STREAMS):
                for index in _longest_first(steps, wave):
                    step = steps[index]
                    trunks = {i: trunks[i] for i in _ancestors(steps, step.parent)}
                    # A pool begins its tasks in order: a trunk runs or is done when a step behind it waits for it.
                    begun[index] = pool.submit(_behind, prepared, step, trunks.get(step.parent), stop)
                    begun[index].add_done_callback(_told(on_step, len(step.ids)))
                    if step.is_trunk:
                        trunks[index] = begun[index]
                # Who still needs a trunk holds it: with the last step behind it it is gone.
                states = [begun.pop(index).result()[1] for index in wave]
            yield from ((steps[index], hidden) for index, hidden in zip(wave, states, strict=True))


def _told(on_step: OnStep, n_tokens: int) -> Callable[[Future], None]:
    """Tells of a step that came to its end, and not of one that was given up."""

    def tell(done: Future) -> None:
        if not done.cancelled() and done.exception() is None:
            on_step(n_tokens)

    return tell


def _longest_first(steps: Sequence[Step], wave: Sequence[int]) -> Iterator[int]:
    """An order for a wave in which the streams end about together: what branches off one trunk by length."""
    for (_, is_trunk), run in itertools.groupby(wave, key=lambda i: (steps[i].parent, steps[i].is_trunk)):
        yield from sorted(run, key=lambda i: 0 if is_trunk else -len(steps[i].end))


@contextmanager
def _streams() -> Iterator[tuple[ThreadPoolExecutor, Event]]:
    """Threads for STREAMS steps; on the way out none is left to finish its step."""
    pool, stop = ThreadPoolExecutor(STREAMS), Event()
    try:
        yield pool, stop
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """A number of threads for torch's operations; a thread takes the one that holds when it first computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _behind(prepared: Prepared, step: Step, parent: Future | None, stop: Event) -> tuple[StepContext | None, Tensor]:
    ctx, hidden = _begin(prepared, step, parent and parent.result()[0], stop)
    return ctx if step.is_trunk else None, hidden


@torch.inference_mode()
def _begin(
    prepared: Prepared, step: Step, trunk: StepContext | None, stop: Event | None = None
) -> tuple[StepContext, Tensor]:
    """A step's context, and the last hidden state of the token before each target, (m, hidden)."""
    model = prepared.model
    ctx = context(step, trunk=trunk, device=model.device, attend=prepared.ops.attend, stop=stop)
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
    output = model.base_model(input_ids=rows[0], position_ids=rows[1], use_cache=False, step=ctx)
    if "last_hidden_state" not in output:
        raise NotSupportedError("its body gives no last hidden state")
    return output.last_hidden_state[0, : len(ids)]


@torch.inference_mode()
def prepare(model: PreTrainedModel, *, ops: Ops | None = None) -> Prepared:
    """Give a model our attention and layers, in place, after a check against its own forward pass.

    A model on a GPU may be prepared again, in another dtype.

    Where a part of the operations does not compile, the model gets those that do without it, and stderr says so.

    Args:
        model: A causal language model.
        ops: What computes it; None: what `choose` gives for its device and dtype.

    Raises:
        DrsowError: the model cannot run on the engine, or its own forward pass gives other numbers.
    """
    model.eval()
    fused.unfuse(model)
    if model.config._attn_implementation == ATTENTION:
        # Not every architecture has torch's own attention: what Gemma 2 does to its scores, that cannot.
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    # A sum of bfloat16 products stays float32 to its end, also where a product is split.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    ids = np.arange(96) * 37 % model.config.get_text_config().vocab_size
    # One fork in a step and one behind a trunk: a model that sees past its own branch agrees on neither.
    rows = [ids[:80], np.concatenate([ids[:72], ids[80:88]])]
    expected = np.concatenate([_own_logps(model, row) for row in rows])
    finite, packings = np.isfinite(expected), [pack(rows, [1, 1], budget=budget) for budget in (88, 80)]
    if kinds := _position_kinds(model.config.to_dict()) & LENGTH_BOUND:
        raise _refusal(model, f"its rotary positions ({min(kinds)}) depend on the longest text beside a response")
    ops = choose(model.device, model.dtype) if ops is None else ops
    with _refusing(model):
        model.set_attn_implementation(ATTENTION)
        layers.fit(model.base_model, linear=ops.linear, gated=ops.gated)
        prepared, found = _first_scores(model, ops, packings)
    worst = np.max([np.abs(got[finite] - expected[finite]).max(initial=0.0) for got in found])
    if not worst < (1e-3 if model.dtype == torch.float32 else 1.0):
        raise _refusal(model, f"its own forward pass differs by {worst:.3g} nats")
    return prepared


def _first_scores(model: PreTrainedModel, ops: Ops, packings: Sequence[Packed]) -> tuple[Prepared, list[np.ndarray]]:
    """The model with the first operations that compile, and its scores of each packing."""
    while True:
        prepared = Prepared(model, ops, head_of(model, ops.log_totals, ops.n_rows))
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
            print(f"{error}: drsow uses {ops.name} instead, which is slower", file=sys.stderr)


def _compile(prepared: Prepared) -> None:
    """Let all be compiled that a run will need, at the size that it will have."""
    weight = prepared.head.layer.weight
    # What the compiler sees first decides how it divides the work: not the few rows of the check.
    prepared.head.log_totals(weight.new_zeros(prepared.head.n_rows, weight.shape[1]))
    # A text longer than the model's window: a short one does not need the window's kernel.
    config = prepared.model.config.get_text_config()
    if window := config.to_dict().get("sliding_window"):
        ids = np.arange(min(window + 64, config.max_position_embeddings)) % config.vocab_size
        score(prepared, pack([ids], [len(ids) - 1], budget=len(ids)))


@contextmanager
def _refusing(model: PreTrainedModel) -> Iterator[None]:
    """Refuse a model whose own code does not fit the engine; an error of our code is none of its faults and passes."""
    try:
        yield
    except NotSupportedError as error:
        raise _refusal(model, str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if _is_ours(error):
            raise
        raise _refusal(model, (str(error).splitlines() or [type(error).__name__])[0]) from error


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised in this package, not in code that it calls."""
    raised_in = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return raised_in.partition(".")[0] == __name__.partition(".")[0]


def _refusal(model: PreTrainedModel, reason: str) -> DrsowError:
    return DrsowError(f"{model.config.name_or_path}: {type(model).__name__} is not supported: {reason}")


def _position_kinds(config: dict) -> set[str]:
    """The kinds of rotary positions that a configuration names, at any depth."""
    inner = [_position_kinds(value) for value in config.values() if isinstance(value, dict)]
    return {config[key] for key in ("rope_type", "type") if isinstance(config.get(key), str)}.union(*inner)


def _own_logps(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Nats of every token but the first by the model's own forward pass, (n - 1,)."""
    row = torch.from_numpy(ids).to(model.device)[None]
    logps = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logps.gather(1, row[0, 1:, None].to(logps.device))[:, 0].double().cpu().numpy()


# Here and not in attention: choosing operations needs no transformers.
AttentionInterface.register(ATTENTION, trie_attention)
