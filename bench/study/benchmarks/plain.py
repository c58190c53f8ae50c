"""Plain accuracy, for data of no known benchmark: the share of rows whose best response is right, and by subset.

The response with the highest reward must be a right one. If it is tied with a wrong one, the row is wrong.
"""

from collections.abc import Sequence

import numpy as np

from bench.schema import Example
from bench.study.benchmarks.layout import Benchmark, Layout, Part, best_is_right, masks


def layout(examples: Sequence[Example]) -> Layout:
    """One judgement per row. All rows weigh the same, so they are one stratum."""
    n = len(examples)
    subsets = masks([example.subset for example in examples])
    score = Part("overall", "score", np.ones(n, dtype=bool))
    parts = (score, *(Part("subset", name, inside) for name, inside in subsets.items()))
    return Layout(np.arange(n), np.zeros(n, dtype=int), parts)


PLAIN = Benchmark("plain", "Accuracy", lambda _: True, layout, best_is_right)
