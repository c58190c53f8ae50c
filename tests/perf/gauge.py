"""What a measurement is held against: the work there is, the machine's matmul rate, memory, tokens computed."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from bench.scoring.forward import trie
from bench.scoring.forward.ops import multiplier
from perf.workloads import Workload

SIDE = 2048
"""Rows and columns of the matrices whose product measures the rate."""
REPEATS = 5


class Demand(NamedTuple):
    """What scoring a workload takes when nothing is computed twice."""

    unique_tokens: int
    """Tokens of one trie over all sequences."""
    flop: float


def demand(model: PreTrainedModel, work: Workload) -> Demand:
    """Tokens and FLOP of one trie over the whole workload.

    Two operations a weight and token outside the embeddings, two a weight of the head and distinct target, and
    four a head dimension, head, layer and visible key for attention.
    """
    plan = trie.pack(work.ids, work.starts, budget=sum(map(len, work.ids)))
    embeddings = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.lm_head)}
    weights = sum(p.numel() for p in model.parameters()) - sum(w.numel() for w in embeddings.values())
    config = model.config
    width = config.num_attention_heads * config.head_dim
    keys = sum(int(step.positions.sum()) + len(step.positions) for step in plan.steps)
    targets = sum(len(step.targets) for step in plan.steps)
    flop = 2 * weights * plan.n_computed + 2 * model.lm_head.weight.numel() * targets
    return Demand(plan.n_computed, float(flop + 4 * width * config.num_hidden_layers * keys))


class Cube:
    """Square matrices in a dtype, to be multiplied now and then by what multiplies in the engine."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Multiply once, so that the library has what it needs."""
        self._multiply = multiplier(dtype, SIDE)
        self._multiply()

    def rate(self) -> float:
        """The best of some products, FLOP per second."""
        spent_s = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            self._multiply()
            spent_s.append(time.perf_counter() - began)
        return 2 * SIDE**3 / min(spent_s)


class TokenCount:
    """Tokens that go into a model, padding and repeats included."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Count from now on."""
        self.n = 0
        model.get_input_embeddings().register_forward_pre_hook(self._add)

    def _add(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.n += inputs[0].numel()


class Peak:
    """Memory of this process over what it held when the measurement began."""

    n_bytes = 0


@contextmanager
def peak() -> Iterator[Peak]:
    """Fills in `n_bytes` at the end: the highest resident memory inside, minus the one at the start (Linux)."""
    found = Peak()
    gc.collect()
    # Resets the process's high-water mark, see proc(5); otherwise reading the weights would be the peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    yield found
    found.n_bytes = _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
