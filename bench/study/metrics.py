"""Margins -> accuracy by subset, by section and overall.

A preference is judged rightly when its margin is above 0. A tie is wrong, as RewardBench counts it, and counted.
A row whose margin is NaN (a response too long or not finite) is left out and counted.

On RewardBench's subsets: a section's accuracy is the mean of its subsets' accuracies, weighted with
`schema.SUBSET_WEIGHTS`; the score is the plain mean of the four sections. A subset without a scored row
makes its section and the score NaN. On any other data the score is the plain share of right rows,
and there are no sections.
"""

import numpy as np
import pandas as pd

from bench.schema import ACCURACY, SECTIONS, SUBSET_WEIGHTS
from bench.study.interval import Sample, share_limits, standard_error

_RUN = ["pair_id", "reward"]
_COUNTS = ["n_examples", "n_ties", "n_excluded"]
_RATES = ["accuracy", "tie_rate"]


def accuracy(margins: pd.DataFrame, problems: pd.Series | None = None) -> pd.DataFrame:
    """Accuracy of each pair and reward on each subset, each section and overall.

    The standard error is over problems: where each row is a problem of its own it is the binomial one in a subset,
    sqrt(p (1 - p) / n), and sqrt(sum of weight² x stderr²) above it. It is 0 where all rows are right or all wrong: the
    interval, `low` to `high` (`interval.share_limits`, 95%), has a width there too. A section's and the score's tie
    rate are weighted like their accuracy, so turning a pair round gives 1 - accuracy - tie_rate at every level.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        problems: Number of the problem under each example, by example_id, as `design.prompt_clusters` gives it; None
            where each example is one of its own.

    Returns:
        ACCURACY; per pair and reward the score, the sections, the subsets.
    """
    subsets = _by_subset(margins)
    if is_rewardbench(margins["subset"]):
        sections = pd.concat([_weighted(subsets, section, names) for section, names in SECTIONS.items()])
        overall = _mean_of_sections(sections)
    else:
        sections = subsets.iloc[:0]
        overall = _of_counts(subsets.groupby(_RUN, sort=False)[[*_COUNTS, "n_right"]].sum().reset_index(), "overall")
    frame = pd.concat([overall, sections, subsets], ignore_index=True)
    # groups come in the order of their first row; within a pair the three levels keep theirs
    order = frame.groupby(_RUN, sort=False).ngroup().sort_values(kind="stable").index
    limits = _limits(margins, problems, frame[["level", "name"]].drop_duplicates())
    frame = frame.loc[order].merge(limits, on=[*_RUN, "level", "name"], how="left", validate="one_to_one")
    return frame[list(ACCURACY)]


def accuracy_by_length(
    margins: pd.DataFrame, length_difference: pd.Series, *, n_bins: int = 10, problems: pd.Series | None = None
) -> pd.DataFrame:
    """Plain accuracy of each pair and reward where chosen is shorter, alike and longer: does it measure length?

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        length_difference: Bytes of chosen minus bytes of rejected, by example_id.
        n_bins: Bins of about as many examples each; fewer where many differences are equal, one where all are.
        problems: As `accuracy` takes them.

    Returns:
        `pair_id, reward, length_low_bytes, length_high_bytes, accuracy, low, high, n_examples, n_ties, n_excluded`;
        both ends of a bin belong to it. The interval is that of `accuracy`.
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
    """What each row counts, so that `correct @ weights` is the accuracy.

    Pass only the rows that are scored: the weights of a subset's rows share that subset's weight.

    Args:
        subsets: Subset of each row, (rows,).
        name: "score" or a section of `schema.SECTIONS`.

    Returns:
        (rows,), float64, summing to 1; all NaN where a subset that `name` needs has no row.
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
    """Share of each RewardBench subset in a section, or in the score for "score"; they sum to 1."""
    if name != "score":
        total = sum(SUBSET_WEIGHTS[subset] for subset in SECTIONS[name])
        return {subset: SUBSET_WEIGHTS[subset] / total for subset in SECTIONS[name]}
    return {subset: share / len(SECTIONS) for section in SECTIONS for subset, share in subset_shares(section).items()}


def is_rewardbench(subsets: pd.Series) -> bool:
    """Whether every subset is one of RewardBench's: then sections exist and weights apply."""
    return set(pd.unique(subsets)).issubset(SUBSET_WEIGHTS)


def _by_subset(margins: pd.DataFrame) -> pd.DataFrame:
    """Counts and rates a subset, in the order of the data."""
    margin = margins["margin_nats"]
    rows = margins[[*_RUN, "subset"]].assign(
        n_examples=margin.notna(), n_right=margin > 0, n_ties=margin == 0, n_excluded=margin.isna()
    )
    counts = rows.groupby([*_RUN, "subset"], sort=False)[[*_COUNTS, "n_right"]].sum().reset_index()
    return _of_counts(counts.rename(columns={"subset": "name"}), "subset")


def _of_counts(counts: pd.DataFrame, level: str) -> pd.DataFrame:
    """Rates from counts; NaN where no row was scored."""
    n_examples = counts["n_examples"].where(counts["n_examples"] > 0)
    share = counts["n_right"] / n_examples
    frame = counts.assign(
        level=level,
        accuracy=share,
        tie_rate=counts["n_ties"] / n_examples,
    )
    return frame if level == "subset" else frame.assign(name="score")


def _weighted(subsets: pd.DataFrame, section: str, names: tuple[str, ...]) -> pd.DataFrame:
    """One section of every pair and reward."""
    runs = subsets[_RUN].drop_duplicates()
    parts = runs.merge(pd.DataFrame({"name": names}), how="cross").merge(
        subsets[subsets["name"].isin(names)], on=[*_RUN, "name"], how="left", validate="one_to_one"
    )
    share = parts["name"].map(subset_shares(section))
    return _combine(parts, share).assign(level="section", name=section)


def _mean_of_sections(sections: pd.DataFrame) -> pd.DataFrame:
    """The score of every pair and reward."""
    return _combine(sections, pd.Series(1 / len(SECTIONS), index=sections.index)).assign(level="overall", name="score")


def _combine(parts: pd.DataFrame, share: pd.Series) -> pd.DataFrame:
    """Weighted mean of the parts' rates a pair and reward; NaN as soon as one part is NaN."""
    terms = parts[_RUN].assign(**{rate: parts[rate] * share for rate in _RATES})
    means = terms.groupby(_RUN, sort=False).sum(skipna=False)
    counts = parts.groupby(_RUN, sort=False)[_COUNTS].sum().astype(int)
    return means.join(counts).reset_index()


def _bins(examples: pd.Series, n_bins: int) -> pd.Series:
    """Number of the bin of each example's difference in length."""
    if examples.nunique() < 2:
        # quantiles that are all equal enclose nothing
        return pd.Series(0, index=examples.index)
    return pd.qcut(examples, n_bins, labels=False, duplicates="drop")


def _limits(margins: pd.DataFrame, problems: pd.Series | None, levels: pd.DataFrame) -> pd.DataFrame:
    """Standard error and limits of the accuracies of each pair and reward on some levels (level, name)."""
    runs = margins[_RUN].drop_duplicates()
    run, example = margins.groupby(_RUN, sort=False).ngroup().to_numpy(), pd.factorize(margins["example_id"])
    first = np.unique(example[0], return_index=True)[1]
    subsets = margins["subset"].to_numpy()[first]
    number = np.arange(len(first)) if problems is None else problems.loc[example[1]].to_numpy()
    right = np.full((len(runs), len(first)), np.nan)
    right[run, example[0]] = np.where(margins["margin_nats"].notna(), margins["margin_nats"] > 0, np.nan)
    frames = []
    for level, name in levels.itertuples(index=False):
        sample = _sample(pd.Series(subsets), level, name, number)
        if sample is None:
            found = dict.fromkeys(("stderr", "low", "high"), np.nan)
        else:
            ends = share_limits(right, sample)
            found = {"stderr": standard_error(right, sample), "low": ends.low, "high": ends.high}
        frames.append(runs.assign(level=level, name=name, **found))
    return pd.concat(frames, ignore_index=True)


def _sample(subsets: pd.Series, level: str, name: object, problem: np.ndarray) -> Sample | None:
    """The rows of a level; None where a subset that it needs has none."""
    if level == "subset":
        inside = (subsets == name).to_numpy()
        return Sample(inside / max(inside.sum(), 1), np.zeros(len(subsets), dtype=int), problem)
    weight = weights_vector(subsets, name=name)
    strata = pd.factorize(subsets)[0] if is_rewardbench(subsets) else np.zeros(len(subsets), dtype=int)
    return None if np.isnan(weight).any() else Sample(weight, strata, problem)
