"""What the layers of one forward pass need to know of the step."""

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from bench.scoring.forward import kernels
from bench.scoring.forward.device import moved
from bench.scoring.forward.trie import Step

if TYPE_CHECKING:
    from bench.scoring.forward.tiles import TileMasks


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
    stop: Event | None
    """Set when nobody wants this step any more: its next layer does not begin."""
    masks: dict[tuple[int | None, int, torch.device], "TileMasks | BlockMask"] = field(default_factory=dict)
    """Window, keys of the trunk and device -> what such layers there have to know of who sees whom."""
    blocks: dict[int | None, kernels.Blocks] = field(default_factory=dict)
    """Window -> the same for layers on our own kernels."""


def context(step: Step, *, trunk: "StepContext | None", device: torch.device, stop: Event | None = None) -> StepContext:
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
        stop=stop,
    )
