"""Holds what the layers of a forward pass need to know about their step."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from bench.scoring.forward.device import moved
from bench.scoring.forward.trie import Step

Made = TypeVar("Made")


class Softmax(NamedTuple):
    """What one layer's softmax does beside hiding keys."""

    scale: float | None = None
    """Factor of the products of queries and keys; None: 1 / sqrt(head_dim)."""
    window: int | None = None
    """A query sees keys of less than this distance; None: all."""
    cap: float | None = None
    """Scores s become cap * tanh(s / cap), as in Gemma 2; None: they stay."""


class Call(NamedTuple):
    """What one layer asks of drsow's attention."""

    layer: int
    window: int | None
    """The model's own, whether or not a text of the step is that long."""


@dataclass
class StepContext:
    """What the layers of a forward pass need to know about their step."""

    step: Step
    end: Tensor
    """Index after each token's subtree, (n,)."""
    positions: Tensor
    """Depth of each token, (n,)."""
    n_before: int
    """Tokens of the trunk before every token of this step."""
    n_deep: int
    """Tokens of the longest path, with those of the trunk. A window of at least this size hides no key."""
    trunk: dict[int, tuple[Tensor, Tensor]] | None
    """Layer -> keys and values of that trunk, (1, kv_heads, n_before, head_dim) each."""
    kept: dict[int, tuple[Tensor, Tensor]] | None
    """If the step is a trunk, its layers put here the trunk's keys and values, followed by those of this step."""
    attend: Callable[..., Tensor]
    """Attention of one layer over the step: `Ops.attend`."""
    stop: Event | None
    """If it is set, the step is no longer needed, and its next layer does not start."""
    calls: list[Call] | None = None
    """If given, every call of the attention is appended."""
    _made: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def n_keys(self) -> int:
        """Keys of the trunk and of the step."""
        return self.n_before + len(self.end)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """A value that all layers share, such as the masks. The first layer that needs it computes it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


RUNNING: ContextVar[StepContext] = ContextVar("running")
"""The step whose forward pass runs in this thread."""


@contextmanager
def running(ctx: StepContext) -> Iterator[None]:
    """Makes a step the running one."""
    token = RUNNING.set(ctx)
    try:
        yield
    finally:
        RUNNING.reset(token)


def context(
    step: Step,
    *,
    trunk: StepContext | None,
    device: torch.device,
    attend: Callable[..., Tensor],
    stop: Event | None = None,
    calls: list[Call] | None = None,
) -> StepContext:
    """Prepares a step for the layers. `trunk` is the context of the step's parent."""
    n_before = 0 if trunk is None else trunk.n_before + len(trunk.end)
    return StepContext(
        step=step,
        end=moved(step.end, device),
        positions=moved(step.positions, device),
        n_before=n_before,
        n_deep=int(step.positions.max()) + 1,
        trunk=None if trunk is None else trunk.kept,
        kept={} if step.is_trunk else None,
        attend=attend,
        stop=stop,
        calls=calls,
    )
