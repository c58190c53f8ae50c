"""The benchmarks: one module for each. `BENCHMARKS` lists them, and the rows say which one they belong to.

A new benchmark is a module with a `Benchmark`, its entry here, and a test (docs/guides/benchmarks.md).
"""

from collections.abc import Collection, Sequence

import pandas as pd

from bench.schema import Example, column
from bench.study.benchmarks.judge_bench import JUDGE_BENCH
from bench.study.benchmarks.layout import STUDIED, Answers, Benchmark, Layout, Part, Rewards, title
from bench.study.benchmarks.plain import PLAIN
from bench.study.benchmarks.reward_bench import REWARD_BENCH
from bench.study.benchmarks.reward_bench_2 import REWARD_BENCH_2
from bench.study.benchmarks.rm_bench import RM_BENCH

__all__ = ["BENCHMARKS", "STUDIED", "Answers", "Benchmark", "Layout", "Part", "Rewards", "benchmark_of", "column"]
__all__ += ["of_columns", "of_parts", "of_sections", "of_table", "title"]

BENCHMARKS = (REWARD_BENCH, RM_BENCH, REWARD_BENCH_2, JUDGE_BENCH, PLAIN)
"""The first one that fits all rows of a data set is the data set's benchmark; PLAIN fits every row."""


def benchmark_of(examples: Sequence[Example]) -> Benchmark:
    """The benchmark that some examples are rows of. The rows decide, so equal rows have equal tables."""
    return next(benchmark for benchmark in BENCHMARKS if benchmark.fits(examples))


def of_sections(names: Collection[str]) -> Benchmark:
    """The benchmark with exactly these sections."""
    return next(benchmark for benchmark in BENCHMARKS if set(benchmark.sections) == set(names))


def of_parts(names: Collection[str]) -> Benchmark:
    """The benchmark whose sections and styles these names are; the first one if several have them."""
    return next(benchmark for benchmark in BENCHMARKS if set(names) == {*benchmark.sections, *benchmark.styles})


def of_table(accuracy: pd.DataFrame) -> Benchmark:
    """The benchmark that a table of ACCURACY belongs to."""
    return of_sections(set(accuracy.loc[accuracy["level"] == "section", "name"]))


def of_columns(names: Collection[str]) -> Benchmark:
    """The benchmark whose columns a leaderboard has."""
    fitting = [benchmark for benchmark in BENCHMARKS if set(benchmark.columns) <= set(names)]
    return max(fitting, key=lambda benchmark: len(benchmark.columns))
