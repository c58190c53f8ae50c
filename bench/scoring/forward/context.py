"""What the layers of one forward pass need to know of the step."""

from collections.abc import Callable, Hashable
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


@dataclass
class StepContext:
    """What the layers of one forward pass need to know of the step."""

    step: Step
    end: Tensor
    """Index after each token's subtree, (n,)."""
    positions: Tensor
    """Depth of each token, (n,)."""
    n_before: int
    """Tokens of the trunk before every token of this step."""
    n_deep: int
    """Tokens of its longest path, the trunk's included: no window of so many hides anything."""
    trunk: dict[int, tuple[Tensor, Tensor]] | None
    """Layer -> keys and values of that trunk, (1, kv_heads, n_before, head_dim) each."""
    kept: dict[int, tuple[Tensor, Tensor]] | None
    """Filled with this step's keys and values behind the trunk's, when the step is a trunk itself."""
    attend: Callable[..., Tensor]
    """Attention of one layer over the step: `Ops.attend`."""
    stop: Event | None
    """Set when nobody wants this step any more: its next layer does not begin."""
    _made: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def n_keys(self) -> int:
        """Keys of the trunk and of the step."""
        return self.n_before + len(self.end)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What attention makes of the step for all layers alike, such as its masks: made for the first one of them."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def context(
    step: Step,
    *,
    trunk: StepContext | None,
    device: torch.device,
    attend: Callable[..., Tensor],
    stop: Event | None = None,
) -> StepContext:
    """Prepare a step for the layers; `trunk` is the context of the step's parent."""
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
    )
