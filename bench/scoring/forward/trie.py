"""Packs token sequences into the steps of a trie, so that tokens which sequences share are computed once.

All sequences form one trie over their ids. A step is a piece of the trie, written depth-first as one row of tokens. A
token's position is its depth, and `end[k]` is the index at which the subtree of token k ends. So query q may see key k
of its step exactly when k <= q < end[k]. A path that is too long for one step, or that many steps continue, becomes a
trunk: a step whose keys and values stay in memory for the steps after it.

Only pure functions of token ids; no model is needed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

MIN_TRUNK = 64
"""Number of shared tokens from which on they become a trunk. Fewer tokens are computed again in each step."""


class Step(NamedTuple):
    """One forward pass over n tokens that reads m log-probabilities."""

    ids: np.ndarray
    """Token ids, (n,), int64."""
    positions: np.ndarray
    """Depth of each token in the whole trie, (n,), int64."""
    end: np.ndarray
    """Index after each token's subtree, (n,), int64."""
    parent: int
    """Index of the trunk whose path precedes every token of this step, -1 for none."""
    is_trunk: bool
    """Whether later steps continue this one, so that its keys and values are kept."""
    predict: np.ndarray
    """Index in this step of the token that predicts each target, (m,), int64."""
    targets: np.ndarray
    """Target token ids, (m,), int64."""
    slots: np.ndarray
    """Places of the results: `out[slots] = logps[which]`, (k,), int64, k >= m."""
    which: np.ndarray
    """Index of the target of each slot, (k,), int64."""


class Packed(NamedTuple):
    """The steps in the order to run them, and the places of each sequence's results."""

    steps: list[Step]
    offsets: np.ndarray
    """Sequence i's response log-probabilities are out[offsets[i]:offsets[i + 1]], (n + 1,), int64."""
    n_computed: int
    """Tokens that the steps compute."""


class _Sorted(NamedTuple):
    """Sequences in lexicographic order. Sequence i has `depth[i]` inputs, and `lcp[i]` of them equal the previous."""

    ids: list[np.ndarray]
    starts: list[int]
    bases: np.ndarray
    """Slot of each sequence's first response token minus its start."""
    depth: np.ndarray
    lcp: np.ndarray


def pack(ids: Sequence[np.ndarray], starts: Sequence[int], *, budget: int) -> Packed:
    """Divides the trie of all sequences into steps of at most `budget` tokens.

    Args:
        ids: All token ids of each sequence, (n_i,). The last one is only a target, never an input.
        starts: Index of each sequence's first target, at least 1.
        budget: The most tokens of one step, at least 1.

    Raises:
        ValueError: A sequence has no prompt token or no target.
    """
    lengths = np.array([len(i) for i in ids], dtype=np.int64)
    first = np.array(starts, dtype=np.int64)
    if len(ids) and ((first < 1) | (first >= lengths)).any():
        raise ValueError("every sequence needs a token before its first target")
    offsets = np.concatenate([[0], np.cumsum(lengths - first)])
    order = sorted(range(len(ids)), key=lambda i: ids[i].astype(">u4").tobytes())
    chosen = [ids[i].astype(np.int64) for i in order]
    depth = lengths[order] - 1
    lcp = np.array([0, *(common_prefix(a, b) for a, b in pairwise(chosen))], dtype=np.int64)
    seqs = _Sorted(chosen, [starts[i] for i in order], (offsets[:-1] - first)[order], depth, lcp)
    steps = _split(seqs, budget) if order else []
    return Packed(steps, offsets, sum(len(step.ids) for step in steps))


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Number of ids at the start of two sequences that are equal."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _sizes(seqs: _Sorted, low: int, high: int, base: int) -> np.ndarray:
    """Number of tokens that each sequence adds below depth `base`; the first one adds all of its tokens."""
    shared = np.minimum(np.maximum(seqs.lcp[low:high], base), seqs.depth[low:high])
    shared[0] = min(base, seqs.depth[low])
    # A sequence shares no more than the inputs of the previous one, which may be shorter.
    shared[1:] = np.minimum(shared[1:], np.maximum(seqs.depth[low : high - 1], base))
    return np.maximum(seqs.depth[low:high] - shared, 0)


def _split(seqs: _Sorted, budget: int) -> list[Step]:
    """The steps for all sequences, depth-first."""
    steps: list[Step] = []
    # A list and no recursion: sequences may be nested more deeply than Python may recurse.
    waiting = [((0, len(seqs.ids)), (0, -1))]
    while waiting:
        span, (base, parent) = waiting.pop()
        low, high = span
        size = _sizes(seqs, low, high, base).sum()
        if size <= budget:
            if size:
                steps.append(_laid_out(seqs, span, (base, parent)))
            continue
        shared = int(min(seqs.lcp[low + 1 : high].min(initial=seqs.depth[low]), seqs.depth[low:high].min()))
        if high - low == 1 or shared - base >= MIN_TRUNK:
            while shared > base and (high - low > 1 or shared - base > budget):
                reach = min(shared, base + budget)
                steps.append(_trunk(seqs, span, (base, parent), reach))
                base, parent = reach, len(steps) - 1
        groups = [span] if high - low == 1 else _groups(seqs, span, (base, shared), budget)
        waiting += [(group, (base, parent)) for group in reversed(groups)]
    return steps


def _groups(seqs: _Sorted, span: tuple[int, int], depths: tuple[int, int], budget: int) -> list[tuple[int, int]]:
    """Divides a span where its sequences part, which is at depth `shared`. The parts of a group add at most `budget`
    tokens below depth `base`, unless the group is one part."""
    (low, high), (base, shared) = span, depths
    joins = np.minimum(seqs.lcp[low + 1 : high], seqs.depth[low : high - 1])
    cuts = [low, *(low + 1 + np.flatnonzero(joins <= shared)), high]
    groups, start, size = [], low, 0
    for left, right in pairwise(cuts):
        alone = int(_sizes(seqs, left, right, base).sum())
        if start < left and size + alone > budget:
            groups.append((start, left))
            start, size = left, 0
        size += alone
    return [*groups, (start, high)]


def _trunk(seqs: _Sorted, span: tuple[int, int], under: tuple[int, int], reach: int) -> Step:
    """The path from depth `base` to `reach` that all sequences of the span share."""
    (low, high), (base, parent) = span, under
    n = reach - base
    found: dict[tuple[int, int], int] = {}
    slots, which = [], []
    for i in range(low, high):
        for depth in range(max(seqs.starts[i], base + 1), min(reach, len(seqs.ids[i]) - 1) + 1):
            edge = (depth - 1 - base, int(seqs.ids[i][depth]))
            which.append(found.setdefault(edge, len(found)))
            slots.append(seqs.bases[i] + depth)
    edges = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    return Step(
        ids=seqs.ids[low][base:reach],
        positions=np.arange(base, reach),
        end=np.full(n, n, dtype=np.int64),
        parent=parent,
        is_trunk=True,
        predict=edges[:, 0],
        targets=edges[:, 1],
        slots=np.array(slots, dtype=np.int64),
        which=np.array(which, dtype=np.int64),
    )


def _laid_out(seqs: _Sorted, span: tuple[int, int], under: tuple[int, int]) -> Step:
    """The step with everything below depth `base`, depth-first in one row."""
    (low, high), (base, parent) = span, under
    deepest = int(seqs.depth[low:high].max())
    path = np.full(deepest + 1, -1, dtype=np.int64)
    """Index of the token at each depth of the current path."""
    edge = np.full(deepest + 2, -1, dtype=np.int64)
    """Number of the target at each depth of the current path, -1 before a sequence needs it."""
    total = int(_sizes(seqs, low, high, base).sum())
    ids, positions, end = (np.empty(total, dtype=np.int64) for _ in range(3))
    predict, targets, slots, which = [], [], [], []
    n = n_targets = 0
    tip = base  # depth of the path's last token
    for i in range(low, high):
        depth, row = int(seqs.depth[i]), seqs.ids[i]
        shared = base if i == low else max(base, int(seqs.lcp[i]))
        # The sequence leaves the path at `branch`: no later token is below those that follow it there.
        branch = min(shared, max(depth, base), tip)
        end[path[branch:tip]] = n
        edge[shared if i > low else 0 :] = -1
        if depth > branch:
            new = np.arange(n, n + depth - branch)
            path[branch:depth] = new
            ids[new], positions[new] = row[branch:depth], np.arange(branch, depth)
            n += depth - branch
        tip = max(depth, base)
        # Its targets; those of equal texts have a number already.
        reads = np.arange(max(seqs.starts[i], base + 1), depth + 1)
        fresh = reads[edge[reads] < 0]
        edge[fresh] = np.arange(n_targets, n_targets + len(fresh))
        n_targets += len(fresh)
        predict.append(path[fresh - 1])
        targets.append(row[fresh])
        slots.append(seqs.bases[i] + reads)
        which.append(edge[reads])
    end[path[base:tip]] = n
    parts = (np.concatenate(x) for x in (predict, targets, slots, which))
    return Step(ids, positions, end, parent, False, *parts)
