"""Computes accuracy by part of a benchmark from the rewards of its responses or from margins.

What the parts are, and which judgements they are the means of, is the benchmark's affair (`study.benchmarks`). A row
of which a response is too long or not finite is excluded and counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from bench.schema import ACCURACY, Example
from bench.study.benchmarks import Answers, Benchmark, Layout, Part, Rewards, benchmark_of
from bench.study.interval import Limits, Sample, share_limits, standard_error, weighted_share

TABLE = ("level", "name", "value", "stderr", "n")
"""One row per part of a benchmark. `value` and `stderr` are fractions, and `n` counts the rows."""

_LENGTH_BINS = 10
_RUN = ["pair_id", "reward"]
_COUNTS = ["n_examples", "n_ties", "n_excluded"]
_RATES = ["accuracy", "tie_rate"]


def table(benchmark: Benchmark, examples: Sequence[Example], rewards: Rewards) -> pd.DataFrame:
    """A benchmark's numbers for one judge.

    Args:
        benchmark: One of `benchmarks.BENCHMARKS` that fits the examples.
        examples: The rows.
        rewards: Rewards of the responses of each example, (1, responses) each; NaN where one is not scored.

    Returns:
        TABLE.
    """
    runs = pd.DataFrame({"pair_id": [""], "reward": [""]})
    found = measured(runs, benchmark.judge(examples, rewards), benchmark.layout(examples))
    return found.rename(columns={"accuracy": "value", "n_examples": "n"})[list(TABLE)]


def measured(runs: pd.DataFrame, answers: Answers, layout: Layout, problems: np.ndarray | None = None) -> pd.DataFrame:
    """Compute every part of a benchmark for several runs.

    The standard error is over problems. Where each row is its own problem, it is the binomial one for a subset, sqrt(p
    (1 - p) / n), and sqrt(sum of weight² x stderr²) for a weighted sum. It is 0 where all rows are right or all are
    wrong; the 95% interval from `low` to `high` (`interval.share_limits`) has a width there too. Tie rates are weighted
    like accuracies, so swapping the two models of a pair gives 1 - accuracy - tie_rate on every level of a benchmark of
    preferences.

    Args:
        runs: pair_id and reward, one row per run.
        answers: The judgements of the runs, (runs, judgements).
        layout: The judgements' parts.
        problems: Number of each example's problem, (examples,); None if each example is its own.

    Returns:
        ACCURACY; for each run the parts in the order of the layout.
    """
    rates: dict[tuple[str, str], pd.DataFrame] = {}
    for part in layout.parts:
        if part.inside is not None:
            rates[part.key] = _plain_rates(answers, part.inside)
    for part in reversed(layout.parts):
        # A part comes before those that it is made of.
        if part.inside is None:
            of_means = all(each.inside is not None for each in layout.parts if each.key in part.of)
            rates[part.key] = _weighted_rates(part, rates, len(runs), neighbours=of_means)
    problem = layout.row if problems is None else problems[layout.row]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*_RATES, *_COUNTS, "stderr", "low", "high")}
    for part in layout.parts:
        found = {name: rates[part.key][name].to_numpy() for name in _RATES}
        found |= _counts(answers, layout, part) | _limits(answers.values, layout, part, problem)
        for name, values in found.items():
            columns[name].append(values)
    frame = pd.DataFrame({name: np.stack(values, axis=1).ravel() for name, values in columns.items()})
    frame[_RUN] = runs[_RUN].loc[runs.index.repeat(len(layout.parts))].to_numpy()
    frame[["level", "name"]] = [part.key for part in layout.parts] * len(runs)
    return frame[list(ACCURACY)]


def accuracy(margins: pd.DataFrame, problems: pd.Series | None = None) -> pd.DataFrame:
    """Compute the accuracy of each pair and reward on preferences: a margin above 0 is right, a tie is wrong.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        problems: Number of each example's problem, by example_id, from `design.prompt_clusters`; None if each
            example is its own problem.

    Returns:
        ACCURACY.
    """
    rows = margins[["example_id", "subset"]].drop_duplicates("example_id")
    examples = [Example(str(row), str(subset), (), ()) for row, subset in rows.itertuples(index=False)]
    runs, answers = _judged_margins(margins)
    numbers = None if problems is None else problems.loc[rows["example_id"]].to_numpy()
    return measured(runs, answers, benchmark_of(examples).layout(examples), numbers)


def accuracy_by_length(
    margins: pd.DataFrame, length_difference: pd.Series, *, problems: pd.Series | None = None
) -> pd.DataFrame:
    """Compute the plain accuracy of each pair and reward by how much longer the right response is.

    This shows whether a reward only measures length. There are _LENGTH_BINS bins of about equal size; fewer where many
    differences are equal, one where all are.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        length_difference: Bytes of the right response minus bytes of the wrong one, by example_id.
        problems: As in `accuracy`.

    Returns:
        `pair_id, reward, length_low_bytes, length_high_bytes, accuracy, low, high, n_examples, n_ties, n_excluded`;
        both ends of a bin belong to it. The interval is computed as in `accuracy`.
    """
    ids = pd.unique(margins["example_id"])
    examples = length_difference.loc[ids]
    bins = _bins(examples)
    ends = examples.groupby(bins).agg(["min", "max"]).set_axis(["length_low_bytes", "length_high_bytes"], axis=1)
    parts = tuple(Part("bin", str(number), (bins == number).to_numpy()) for number in ends.index)
    layout = Layout(np.arange(len(ids)), np.zeros(len(ids), dtype=int), parts)
    runs, answers = _judged_margins(margins)
    found = measured(runs, answers, layout, None if problems is None else problems.loc[ids].to_numpy())
    found = found.merge(ends.rename(index=str), left_on="name", right_index=True, how="left", validate="many_to_one")
    columns = [*_RUN, "length_low_bytes", "length_high_bytes", "accuracy", "low", "high", *_COUNTS]
    return found.sort_values([*_RUN, "length_low_bytes"], ignore_index=True)[columns]


def _judged_margins(margins: pd.DataFrame) -> tuple[pd.DataFrame, Answers]:
    """The runs of some margins in their order, and one judgement per example, in the order of the examples."""
    runs = margins[_RUN].drop_duplicates().reset_index(drop=True)
    run = margins.groupby(_RUN, sort=False).ngroup().to_numpy()
    column, ids = pd.factorize(margins["example_id"])
    values = np.full((len(runs), len(ids)), np.nan)
    values[run, column] = margins["margin_nats"]
    return runs, Answers(np.where(np.isnan(values), np.nan, values > 0), values == 0)


def _plain_rates(answers: Answers, inside: np.ndarray) -> pd.DataFrame:
    """Accuracy and tie rate over some judgements; NaN where none is scored."""
    values = answers.values[:, inside]
    n_scored = np.isfinite(values).sum(axis=1)
    n = np.where(n_scored > 0, n_scored, np.nan)
    share, ties = np.nansum(values, axis=1) / n, answers.ties[:, inside].sum(axis=1) / n
    return pd.DataFrame({"accuracy": share, "tie_rate": ties})


def _weighted_rates(
    part: Part, rates: Mapping[tuple[str, str], pd.DataFrame], n_runs: int, *, neighbours: bool
) -> pd.DataFrame:
    """Weighted sum of the rates of other parts; NaN if one of them is NaN or missing.

    The last bit of a group's sum in pandas depends on whether its rows are neighbours. The tables in git were computed
    with neighbours for a sum of plain means and without for a sum of sums.
    """
    terms = [(rates[key] if key in rates else _missing(n_runs)) * weight for key, weight in part.of.items()]
    if not terms:
        return _missing(n_runs)
    every = pd.concat(terms)
    every = every.sort_index(kind="stable") if neighbours else every
    return every.groupby(level=0, sort=False).sum(skipna=False)


def _missing(n_runs: int) -> pd.DataFrame:
    return pd.DataFrame({rate: np.full(n_runs, np.nan) for rate in _RATES})


def _counts(answers: Answers, layout: Layout, part: Part) -> dict[str, np.ndarray]:
    """Numbers of scored rows, of rows with a tie and of excluded rows, of the rows that a part is about."""
    inside = layout.about(part)
    rows, place = np.unique(layout.row[inside], return_inverse=True)
    if not len(rows):
        return {name: np.zeros(len(answers.values), dtype=int) for name in _COUNTS}
    of_row = csr_array((np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), len(rows)))
    excluded, ties = (
        flags.astype(float) @ of_row > 0 for flags in (np.isnan(answers.values[:, inside]), answers.ties[:, inside])
    )
    counts = ((~excluded).sum(axis=1), (ties & ~excluded).sum(axis=1), excluded.sum(axis=1))
    return dict(zip(_COUNTS, counts, strict=True))


def _limits(values: np.ndarray, layout: Layout, part: Part, problem: np.ndarray) -> dict[str, np.ndarray]:
    """Standard error and limits of a part, (runs,) each; missing where one of its means has no judgement."""
    weight = layout.weights(part)
    if np.isnan(weight).any():
        return {name: np.full(len(values), np.nan) for name in ("stderr", "low", "high")}
    sample = Sample(weight, layout.stratum if part.inside is None else np.zeros(len(weight), dtype=int), problem)
    ends = share_limits(values, sample)
    if part.inside is not None and (values[:, part.inside] < 0).any():
        # No share: a mean of values from -1 to 1 has a standard error alone.
        ends = Limits(*np.full((2, len(values)), np.nan))
    share = weighted_share(values, sample)
    # A weighted sum with such a mean in it can lie slightly outside 0 and 1.
    low, high = np.minimum(ends.low, np.minimum(share, 0)), np.maximum(ends.high, np.maximum(share, 1))
    low, high = np.where(share < 0, low, ends.low), np.where(share > 1, high, ends.high)
    return {"stderr": standard_error(values, sample), "low": low, "high": high}


def _bins(examples: pd.Series) -> pd.Series:
    """Number of each example's bin of the difference in length."""
    if examples.nunique() < 2:
        # qcut fails where all quantiles are equal
        return pd.Series(0, index=examples.index)
    return pd.qcut(examples, _LENGTH_BINS, labels=False, duplicates="drop")
