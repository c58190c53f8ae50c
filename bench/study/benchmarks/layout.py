"""What a benchmark is: judgements of the rewards of its responses, and the parts that their means belong to.

A judgement is one decision about a row, from 0 (wrong) to 1 (right). RewardBench makes one per row, RM-Bench nine. A
part is a number of the benchmark's table: the mean of some judgements, or a weighted sum of other parts. The statistics
know judgements, weights and strata alone, so they are the same for every benchmark.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import Example, column

Rewards = Sequence[np.ndarray]
"""Rewards of the responses of each example, (runs, responses) each, in the order of `Example.responses`; NaN where a
response is not scored."""

Key = tuple[str, str]
"""(level, name) of a part."""

OF_SEVERAL = ("mean bytes of the right responses", "mean bytes of the wrong ones")
"""`Benchmark.lengths` where a row has several right or wrong responses."""

STUDIED = ("overall", "section", "style")
"""Levels that the leaderboard has columns for, and that studies, choices and comparisons are about."""


class Part(NamedTuple):
    """One number of a benchmark's table. It has either `inside` or `of`."""

    level: str
    name: str
    inside: np.ndarray | None = None
    """Which judgements it is the plain mean of, (judgements,), bool."""
    of: Mapping[Key, float] = {}
    """The parts that it is the weighted sum of, with their weights."""

    @property
    def key(self) -> Key:
        """(level, name)."""
        return self.level, self.name


class Layout(NamedTuple):
    """The judgements of some examples, and their parts."""

    row: np.ndarray
    """The example that each judgement is about, (judgements,), int."""
    stratum: np.ndarray
    """Stratum of each judgement, (judgements,), int from 0. All judgements of a stratum have equal weights in a part,
    and resampling the prompts does not change the weight of a stratum."""
    parts: tuple[Part, ...]
    """In the order of the table: the score first."""

    def shares(self, part: Part) -> dict[Key, float]:
        """Weight of each plain mean in a part."""
        if part.inside is not None:
            return {part.key: 1.0}
        known = {each.key: each for each in self.parts}
        found: dict[Key, float] = {}
        for key, weight in part.of.items():
            # A part that these rows do not have keeps its weight, so that what contains it is missing.
            inner = self.shares(known[key]) if key in known else {key: 1.0}
            for leaf, share in inner.items():
                found[leaf] = found.get(leaf, 0.0) + weight * share
        return found

    def about(self, part: Part) -> np.ndarray:
        """The judgements that a part is made of, (judgements,), bool."""
        leaves = {each.key: each.inside for each in self.parts if each.inside is not None}
        found = np.zeros(len(self.row), dtype=bool)
        for key in self.shares(part):
            found |= leaves.get(key, False)
        return found

    def weights(self, part: Part) -> np.ndarray:
        """Weight of each judgement in a part, (judgements,); all NaN where one of its means has no judgement."""
        known = {each.key: each for each in self.parts}
        weights = np.zeros(len(self.row))
        for key, share in self.shares(part).items():
            inside = known[key].inside if key in known else None
            if inside is None or not inside.any():
                return np.full(len(self.row), np.nan)
            weights[inside] += share / inside.sum()
        return weights


class Answers(NamedTuple):
    """The judgements of several runs over the same examples."""

    values: np.ndarray
    """From 0 (wrong) to 1 (right), (runs, judgements); NaN where a response of the row is not scored."""
    ties: np.ndarray
    """Whether equal rewards decided, (runs, judgements), bool."""


class Benchmark(NamedTuple):
    """A benchmark: which data it fits, how rewards are judged, and how the judgements add up."""

    name: str
    """As the user types it after --data."""
    title: str
    fits: Callable[[Sequence[Example]], bool]
    """Whether all examples are rows of this benchmark."""
    layout: Callable[[Sequence[Example]], Layout]
    judge: Callable[[Sequence[Example], Rewards], Answers]
    sections: tuple[str, ...] = ()
    """Names of the parts of level "section"."""
    styles: tuple[str, ...] = ()
    """Names of the parts of level "style"."""
    section_of: Callable[[str], str] = lambda _: ""
    """Name of a part of level "subset" -> its section; "" for none."""
    problem: Callable[[Example], Hashable | None] = lambda _: None
    """What identifies the problem of an example besides its prompt; None if nothing does."""
    sides: tuple[str, str] = ("chosen", "rejected")
    """What figures call the responses that a margin compares."""
    judgement: tuple[str, str] = ("chosen above rejected", "ties wrong")
    """What figures call a right judgement, and how a tie counts."""
    lengths: tuple[str, str] = ("bytes of chosen", "bytes of rejected")
    """What figures call the two lengths whose difference they show."""
    words: str = ""
    """A sentence on how the score is made, for the report."""
    details: Mapping[str, Callable[[Sequence[Example], Rewards], pd.DataFrame]] = {}
    """Further tables of the best pairs by file name: a function from rewards to a frame whose column `run` numbers the
    runs."""

    @property
    def columns(self) -> dict[str, str]:
        """Column of the leaderboard -> name of the part."""
        return {column(name): name for name in (*self.sections, *self.styles)}

    def section(self, name: str) -> str:
        """The section of a subset, or the section itself; "" for none."""
        return name if name in self.sections else self.section_of(name)

    def sorted(self, names: Iterable[str]) -> list[str]:
        """Distinct subsets in the order of the sections; those of no section come last, in the order of the data."""
        distinct = list(dict.fromkeys(names))
        order = {name: place for place, name in enumerate(self.sections)}
        return sorted(distinct, key=lambda name: order.get(self.section(name), len(order)))


def title(name: str) -> str:
    """The name of a part as a heading: "chat-hard" becomes "Chat Hard", and a name with capital letters stays."""
    return name if name != name.lower() else name.replace("-", " ").title()


def masks(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Which of the names equal each distinct one, (names,), bool; in the order of first appearance."""
    values = np.array(names, dtype=object)
    return {name: values == name for name in dict.fromkeys(names)}


def best_is_right(examples: Sequence[Example], rewards: Rewards) -> Answers:
    """One judgement per row: 1 if the best right response has a higher reward than every wrong one; a tie is wrong."""
    margins = leads(examples, rewards)
    return Answers(np.where(np.isnan(margins), np.nan, margins > 0), margins == 0)


def split(example: Example, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rewards of the right and of the wrong responses of an example, (runs, ...) each."""
    is_right = np.array([name in example.right for name, _ in example.responses])
    return rewards[:, is_right], rewards[:, ~is_right]


def leads(examples: Sequence[Example], rewards: Rewards) -> np.ndarray:
    """The best right reward minus the best wrong one of each example, (runs, examples); NaN where one is missing."""
    sides = (split(example, each) for example, each in zip(examples, rewards, strict=True))
    return np.stack([right.max(axis=1) - wrong.max(axis=1) for right, wrong in sides], axis=1)
