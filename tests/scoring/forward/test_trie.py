"""The packed trie, checked against plain paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scoring.forward import trie

sequences = st.lists(
    st.lists(st.integers(0, 2), min_size=2, max_size=14).flatmap(
        lambda ids: st.tuples(st.just(ids), st.integers(1, len(ids) - 1))
    ),
    min_size=1,
    max_size=8,
)


def unroll(plan: trie.Packed) -> list[list[tuple[int, ...]]]:
    """Every step's tokens as the path of ids from the trie's root to each, by the visibility rule alone."""
    paths: list[list[tuple[int, ...]]] = []
    for step in plan.steps:
        trunk = paths[step.parent][-1] if step.parent >= 0 else ()
        paths.append(
            [
                trunk + tuple(int(step.ids[k]) for k in range(q + 1) if k <= q < step.end[k])
                for q in range(len(step.ids))
            ]
        )
    return paths


@pytest.fixture(autouse=True)
def short_trunks(monkeypatch):
    monkeypatch.setattr(trie, "MIN_TRUNK", 2)


@settings(deadline=None, max_examples=400)
@given(sequences, st.integers(1, 40))
def test_every_target_is_predicted_by_exactly_the_tokens_before_it(rows, budget):
    ids = [np.array(row, dtype=np.int32) for row, _ in rows]
    starts = [start for _, start in rows]
    plan = trie.pack(ids, starts, budget=budget)
    paths = unroll(plan)
    seen = {}
    for step, path in zip(plan.steps, paths, strict=True):
        for slot, edge in zip(step.slots, step.which, strict=True):
            assert slot not in seen
            seen[int(slot)] = (path[step.predict[edge]], int(step.targets[edge]))
    for i, (row, start) in enumerate(rows):
        for depth in range(start, len(row)):
            assert seen.pop(int(plan.offsets[i]) + depth - start) == (tuple(row[:depth]), row[depth])
    assert not seen


@settings(deadline=None, max_examples=200)
@given(sequences, st.integers(1, 40))
def test_positions_are_depths_and_no_step_exceeds_the_budget(rows, budget):
    plan = trie.pack([np.array(r) for r, _ in rows], [s for _, s in rows], budget=budget)
    for step, path in zip(plan.steps, unroll(plan), strict=True):
        assert 0 < len(step.ids) <= budget
        assert [len(p) - 1 for p in path] == step.positions.tolist()
        assert (step.parent >= 0) <= plan.steps[step.parent].is_trunk


@settings(deadline=None, max_examples=200)
@given(sequences)
def test_one_step_holds_each_distinct_prefix_once(rows):
    plan = trie.pack([np.array(r) for r, _ in rows], [s for _, s in rows], budget=1000)
    prefixes = {tuple(r[:depth]) for r, _ in rows for depth in range(1, len(r))}
    assert plan.n_computed == len(prefixes)
    assert sorted(unroll(plan)[0]) == sorted(prefixes)


def test_a_shared_block_is_computed_once_across_steps():
    rows = [np.array([7] * 50 + [i] * 10 + [9]) for i in range(20)]
    plan = trie.pack(rows, [55] * 20, budget=60)
    assert plan.n_computed == 50 + 20 * 10


@pytest.mark.parametrize("end", [0, 99])
def test_thousands_of_nested_prefixes_are_packed_whatever_the_end_tokens_id(end):
    # An id below all others sorts the shortest prefix first, one above them the longest.
    path = np.random.default_rng(0).integers(1, 99, 1540)
    rows = [np.array([*path[: 40 + n], end]) for n in range(1, 1500)]
    plan = trie.pack(rows, [40] * len(rows), budget=100)
    assert max(len(step.ids) for step in plan.steps) <= 100
    slots = np.concatenate([step.slots for step in plan.steps])
    assert np.array_equal(np.sort(slots), np.arange(plan.offsets[-1]))
    read = {int(k): int(step.targets[w]) for step in plan.steps for k, w in zip(step.slots, step.which, strict=True)}
    assert [read[i] for i in range(len(read))] == [token for row in rows for token in row[40:].tolist()]


def test_a_sequence_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="before its first target"):
        trie.pack([np.array([1, 2])], [0], budget=10)
