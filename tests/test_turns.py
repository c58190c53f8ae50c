"""Scorers that take turns in the measurement of speed."""

import itertools
import time

import pytest
import torch
from perf import gauge, turns
from torch import nn

PIECES = 4


class Model(nn.Module):
    """An embedding."""

    def __init__(self) -> None:
        """One entry."""
        super().__init__()
        self.table = nn.Embedding(1, 1)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)


def work(piece_s: float) -> tuple[list[tuple[float, float]], float]:
    """Begin and end of each piece after a forward pass, and what the clock counted."""
    turns.TURN_S, gauge.SIDE = 0, 64
    model, clock, spans = Model(), turns.Clock(torch.float32), []
    with clock.running(model):
        for _ in range(PIECES):
            model(torch.tensor([0]))
            began = time.monotonic()
            time.sleep(piece_s)
            spans.append((began, time.monotonic()))
    return spans, clock.wall_s


def test_two_scorers_alternate_and_each_clock_counts_its_own_turns():
    found = dict(turns.in_turns(work, [(0.1,), (0.3,)]))
    spans = sorted((began, ended, at) for at in found for began, ended in found[at][0])
    assert [at for *_, at in spans] == [0, 1] * PIECES
    assert all(ended <= began for (_, ended, _), (began, *_) in itertools.pairwise(spans))
    for own, counted in found.values():
        spent = sum(ended - began for began, ended in own)
        assert spent <= counted < spent + 0.1


def passes(n: int) -> tuple[int, int]:
    """Memory that nothing but a clock took, and that of one cube."""
    turns.TURN_S = 0
    model, clock = Model(), turns.Clock(torch.float32)
    with gauge.peak() as memory, clock.running(model):
        for _ in range(n):
            model(torch.tensor([0]))
    return memory.n_bytes, 4 * gauge.SIDE**2


def test_memory_is_not_that_of_the_clock():
    for _, (n_bytes, cube) in turns.in_turns(passes, [(3,), (3,)]):
        assert n_bytes < cube / 4


def test_one_that_fails_is_an_error_and_the_other_ends():
    began = time.monotonic()
    with pytest.raises(TypeError):
        list(turns.in_turns(work, [("no number",), (0.1,)]))
    assert time.monotonic() - began < 60
