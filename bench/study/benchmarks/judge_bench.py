"""JudgeBench (arXiv 2410.12784): pairs of responses of which one is objectively right, by the source of the question.

The score is the share of right rows. The sections are the families of sources; each is the share of its rows. A tie is
wrong; the benchmark has one row with two equal responses.
"""

from collections.abc import Sequence

import numpy as np

from bench.schema import Example
from bench.study.benchmarks.layout import Benchmark, Layout, Part, best_is_right, masks

WORDS = "The score is the share of right rows; the sections are the families of the questions' sources."

FAMILIES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")


def family(source: str) -> str:
    """The family of a source: "mmlu-pro-law" is of "mmlu-pro"; "" for an unknown source."""
    return next((name for name in FAMILIES if source == name or source.startswith(f"{name}-")), "")


def fits(examples: Sequence[Example]) -> bool:
    """Whether every row is a pair with a known source."""
    return all(family(example.subset) and len(example.right) == 1 for example in examples)


def layout(examples: Sequence[Example]) -> Layout:
    """One judgement per row; the families are the strata."""
    sources = [example.subset for example in examples]
    families = np.array([FAMILIES.index(family(source)) for source in sources])
    score = Part("overall", "score", np.ones(len(examples), dtype=bool))
    sections = [Part("section", name, families == number) for number, name in enumerate(FAMILIES)]
    # A family of one source is listed once, as a section.
    subsets = [Part("subset", name, inside) for name, inside in masks(sources).items() if name not in FAMILIES]
    return Layout(np.arange(len(examples)), families, (score, *sections, *subsets))


JUDGE_BENCH = Benchmark(
    "judge-bench", "JudgeBench", fits, layout, best_is_right, sections=FAMILIES, section_of=family, words=WORDS
)
