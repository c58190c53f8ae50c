"""Weights of rows on a level, from the layout of the benchmark that their subsets belong to."""

import numpy as np
import pandas as pd

from bench.schema import Example
from bench.study.benchmarks import benchmark_of


def weights_vector(subsets: pd.Series, *, name: str = "score") -> np.ndarray:
    """Weight of each row, so that `correct @ weights` is the accuracy; all NaN where a subset has no row."""
    examples = [Example(str(row), subset, (), ()) for row, subset in enumerate(subsets)]
    layout = benchmark_of(examples).layout(examples)
    (part,) = [part for part in layout.parts if part.name == name and part.level != "subset"]
    return layout.weights(part)
