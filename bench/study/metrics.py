"""Computes accuracy by subset, by section and overall from margins.

A preference is judged rightly when its margin is above 0. A tie is wrong, as in RewardBench, and is counted. A row
whose margin is NaN (a response is too long or its score is not finite) is excluded and counted.

On RewardBench's subsets, the accuracy of a section is the mean of its subsets' accuracies, weighted with
`schema.SUBSET_WEIGHTS`, and the score is the plain mean of the four sections. A subset without a scored row makes its
section and the score NaN. On any other data there are no sections, and the score is the proportion of right rows.
"""

import numpy as np
import pandas as pd

from bench.schema import ACCURACY, SECTIONS, SUBSET_WEIGHTS
from bench.study.interval import Sample, share_limits, standard_error

_RUN = ["pair_id", "reward"]
_COUNTS = ["n_examples", "n_ties", "n_excluded"]
_RATES = ["accuracy", "tie_rate"]


def accuracy(margins: pd.DataFrame, problems: pd.Series | None = None) -> pd.DataFrame:
    """Compute the accuracy of each pair and reward on each subset, each section and overall.

    The standard error is over problems. Where each row is its own problem, it is the binomial one for a subset, sqrt(p
    (1 - p) / n), and sqrt(sum of weight² x stderr²) for a section and the score. It is 0 where all rows are right or
    all are wrong; the 95% interval from `low` to `high` (`interval.share_limits`) has a width there too. The tie rates
    of a section and of the score are weighted like their accuracy, so swapping the two models gives 1 - accuracy -
    tie_rate on every level.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        problems: Number of each example's problem, by example_id, from `design.prompt_clusters`; None if each
            example is its own problem.

    Returns:
        ACCURACY; for each pair and reward the score, the sections, the subsets.
    """
    subsets = _by_subset(margins)
    if is_rewardbench(margins["subset"]):
        sections = pd.concat([_weighted(subsets, section, names) for section, names in SECTIONS.items()])
        overall = _mean_of_sections(sections)
    else:
        sections = subsets.iloc[:0]
        overall = _of_counts(subsets.groupby(_RUN, sort=False)[[*_COUNTS, "n_right"]].sum().reset_index(), "overall")
    frame = pd.concat([overall, sections, subsets], ignore_index=True)
    # Groups keep the order of their first row, and the three levels of a pair keep their order.
    order = frame.groupby(_RUN, sort=False).ngroup().sort_values(kind="stable").index
    limits = _limits(margins, problems, frame[["level", "name"]].drop_duplicates())
    frame = frame.loc[order].merge(limits, on=[*_RUN, "level", "name"], how="left", validate="one_to_one")
    return frame[list(ACCURACY)]


def accuracy_by_length(
    margins: pd.DataFrame, length_difference: pd.Series, *, n_bins: int = 10, problems: pd.Series | None = None
) -> pd.DataFrame:
    """Compute the plain accuracy of each pair and reward by how much longer the chosen response is.

    This shows whether a reward only measures length.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        length_difference: Bytes of chosen minus bytes of rejected, by example_id.
        n_bins: Number of bins of about equal size; fewer where many differences are equal, one where all are.
        problems: As in `accuracy`.

    Returns:
        `pair_id, reward, length_low_bytes, length_high_bytes, accuracy, low, high, n_examples, n_ties, n_excluded`;
        both ends of a bin belong to it. The interval is computed as in `accuracy`.
    """
    examples = length_difference.loc[pd.unique(margins["example_id"])]
    bins = _bins(examples, n_bins)
    ends = examples.groupby(bins).agg(["min", "max"]).set_axis(["length_low_bytes", "length_high_bytes"], axis=1)
    rows = margins.assign(subset=margins["example_id"].map(bins))
    table = _by_subset(rows)
    limits = _limits(rows, problems, table[["level", "name"]].drop_duplicates())
    table = table.merge(limits, on=[*_RUN, "level", "name"], how="left", validate="one_to_one").merge(
        ends, left_on="name", right_index=True, how="left", validate="many_to_one"
    )
    columns = [*_RUN, "length_low_bytes", "length_high_bytes", "accuracy", "low", "high", *_COUNTS]
    return table.sort_values([*_RUN, "length_low_bytes"], ignore_index=True)[columns]


def weights_vector(subsets: pd.Series, *, name: str = "score") -> np.ndarray:
    """Weight of each row, so that `correct @ weights` is the accuracy.

    Pass only the scored rows: the rows of a subset divide the weight of that subset among themselves.

    Args:
        subsets: Subset of each row, (rows,).
        name: "score" or a section of `schema.SECTIONS`.

    Returns:
        (rows,), float64, sum 1; all NaN where a subset of `name` has no row.
    """
    subsets = pd.Series(np.asarray(subsets))
    counts = subsets.map(subsets.value_counts()).to_numpy(dtype=float)
    if name == "score" and not is_rewardbench(subsets):
        return np.full(len(subsets), 1 / len(subsets))
    shares = subset_shares(name)
    if not set(shares).issubset(subsets):
        return np.full(len(subsets), np.nan)
    return subsets.map(shares).fillna(0.0).to_numpy(dtype=float) / counts


def subset_shares(name: str) -> dict[str, float]:
    """Weight of each RewardBench subset in a section or, for "score", in the score; they sum to 1."""
    if name != "score":
        total = sum(SUBSET_WEIGHTS[subset] for subset in SECTIONS[name])
        return {subset: SUBSET_WEIGHTS[subset] / total for subset in SECTIONS[name]}
    return {subset: share / len(SECTIONS) for section in SECTIONS for subset, share in subset_shares(section).items()}


def is_rewardbench(subsets: pd.Series) -> bool:
    """Whether every subset is one of RewardBench's. Only then do sections exist and weights apply."""
    return set(pd.unique(subsets)).issubset(SUBSET_WEIGHTS)


def in_sections(names: pd.Series) -> list[str]:
    """Distinct subsets in the order of the sections; subsets of no section come last, in the order of the data."""
    distinct = list(pd.unique(names))
    known = [subset for subsets in SECTIONS.values() for subset in subsets if subset in distinct]
    return known + [name for name in distinct if name not in known]


def _by_subset(margins: pd.DataFrame) -> pd.DataFrame:
    """Counts and rates of each subset, in the order of the data."""
    margin = margins["margin_nats"]
    rows = margins[[*_RUN, "subset"]].assign(
        n_examples=margin.notna(), n_right=margin > 0, n_ties=margin == 0, n_excluded=margin.isna()
    )
    counts = rows.groupby([*_RUN, "subset"], sort=False)[[*_COUNTS, "n_right"]].sum().reset_index()
    return _of_counts(counts.rename(columns={"subset": "name"}), "subset")


def _of_counts(counts: pd.DataFrame, level: str) -> pd.DataFrame:
    """Rates from counts; NaN where no row is scored."""
    n_examples = counts["n_examples"].where(counts["n_examples"] > 0)
    share = counts["n_right"] / n_examples
    frame = counts.assign(
        level=level,
        accuracy=share,
        tie_rate=counts["n_ties"] / n_examples,
    )
    return frame if level == "subset" else frame.assign(name="score")


def _weighted(subsets: pd.DataFrame, section: str, names: tuple[str, ...]) -> pd.DataFrame:
    """Accuracy and tie rate of one section, for every pair and reward."""
    runs = subsets[_RUN].drop_duplicates()
    parts = runs.merge(pd.DataFrame({"name": names}), how="cross").merge(
        subsets[subsets["name"].isin(names)], on=[*_RUN, "name"], how="left", validate="one_to_one"
    )
    share = parts["name"].map(subset_shares(section))
    return _combine(parts, share).assign(level="section", name=section)


def _mean_of_sections(sections: pd.DataFrame) -> pd.DataFrame:
    """The score, for every pair and reward."""
    return _combine(sections, pd.Series(1 / len(SECTIONS), index=sections.index)).assign(level="overall", name="score")


def _combine(parts: pd.DataFrame, share: pd.Series) -> pd.DataFrame:
    """Weighted mean of the rates of several subsets or sections, for each pair and reward; NaN if one of them is
    NaN."""
    terms = parts[_RUN].assign(**{rate: parts[rate] * share for rate in _RATES})
    means = terms.groupby(_RUN, sort=False).sum(skipna=False)
    counts = parts.groupby(_RUN, sort=False)[_COUNTS].sum().astype(int)
    return means.join(counts).reset_index()


def _bins(examples: pd.Series, n_bins: int) -> pd.Series:
    """Number of each example's bin of the difference in length."""
    if examples.nunique() < 2:
        # qcut fails where all quantiles are equal
        return pd.Series(0, index=examples.index)
    return pd.qcut(examples, n_bins, labels=False, duplicates="drop")


def _limits(margins: pd.DataFrame, problems: pd.Series | None, levels: pd.DataFrame) -> pd.DataFrame:
    """Standard error and limits of the accuracy of each pair and reward on the given levels (level, name)."""
    runs = margins[_RUN].drop_duplicates()
    run = margins.groupby(_RUN, sort=False).ngroup().to_numpy()
    column, example_ids = pd.factorize(margins["example_id"])
    _, first = np.unique(column, return_index=True)
    subsets = margins["subset"].to_numpy()[first]
    number = np.arange(len(first)) if problems is None else problems.loc[example_ids].to_numpy()
    right = np.full((len(runs), len(first)), np.nan)
    right[run, column] = np.where(margins["margin_nats"].notna(), margins["margin_nats"] > 0, np.nan)
    frames = []
    for level, name in levels.itertuples(index=False):
        sample = _sample(pd.Series(subsets), level, name, number)
        if sample is None:
            found: dict[str, np.ndarray | float] = dict.fromkeys(("stderr", "low", "high"), np.nan)
        else:
            ends = share_limits(right, sample)
            found = {"stderr": standard_error(right, sample), "low": ends.low, "high": ends.high}
        frames.append(runs.assign(level=level, name=name, **found))
    return pd.concat(frames, ignore_index=True)


def _sample(subsets: pd.Series, level: str, name: str, problem: np.ndarray) -> Sample | None:
    """The rows of a level; None if one of its subsets has no row."""
    if level == "subset":
        inside = (subsets == name).to_numpy()
        return Sample(inside / max(inside.sum(), 1), np.zeros(len(subsets), dtype=int), problem)
    weight = weights_vector(subsets, name=name)
    strata = pd.factorize(subsets)[0] if is_rewardbench(subsets) else np.zeros(len(subsets), dtype=int)
    return None if np.isnan(weight).any() else Sample(weight, strata, problem)
