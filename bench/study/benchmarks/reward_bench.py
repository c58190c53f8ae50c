"""RewardBench (arXiv 2403.13787): 23 subsets of preferences in four sections.

A section is the mean of its subsets, weighted with `schema.SUBSET_WEIGHTS`, and the score is the plain mean of the four
sections. A subset without a row makes its section and the score missing. A tie is wrong.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from bench.data.rows import own_id
from bench.schema import CHOSEN, SECTIONS, SUBSET_WEIGHTS, Example
from bench.study.benchmarks.layout import Benchmark, Layout, Part, best_is_right, masks

_HUMANEVAL_PROBLEMS = 164
"""RewardBench numbers the 164 problems of HumanEvalPack through all languages, so id modulo 164 is the problem."""


def subset_shares(section: str) -> dict[str, float]:
    """Weight of each subset in its section; they sum to 1."""
    total = sum(SUBSET_WEIGHTS[subset] for subset in SECTIONS[section])
    return {subset: SUBSET_WEIGHTS[subset] / total for subset in SECTIONS[section]}


def fits(examples: Sequence[Example]) -> bool:
    """Whether every row is a preference of one of the 23 subsets."""
    return all(example.subset in SUBSET_WEIGHTS and example.right == (CHOSEN,) for example in examples)


def layout(examples: Sequence[Example]) -> Layout:
    """One judgement per row; the subsets are the strata."""
    subsets = masks([example.subset for example in examples])
    sections = [
        Part("section", name, of={("subset", subset): share for subset, share in subset_shares(name).items()})
        for name in SECTIONS
    ]
    score = Part("overall", "score", of={part.key: 1 / len(SECTIONS) for part in sections})
    stratum = sum((number * inside for number, inside in enumerate(subsets.values())), np.zeros(len(examples), int))
    parts = (score, *sections, *(Part("subset", name, inside) for name, inside in subsets.items()))
    return Layout(np.arange(len(examples)), stratum, parts)


def section_of(subset: str) -> str:
    """The section of a subset."""
    return next((section for section, subsets in SECTIONS.items() if subset in subsets), "")


def problem(example: Example) -> Hashable | None:
    """The problem of a HumanEvalPack row, which several languages share."""
    number = own_id(example)
    if example.subset.startswith("hep-") and number.isascii() and number.isdigit():
        return "humaneval", int(number) % _HUMANEVAL_PROBLEMS
    return None


REWARD_BENCH = Benchmark(
    "reward-bench",
    "RewardBench",
    fits,
    layout,
    best_is_right,
    sections=tuple(SECTIONS),
    section_of=section_of,
    problem=problem,
    words="The score is the plain mean of four sections.",
)
