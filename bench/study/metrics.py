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
from scipy.stats import norm

from bench.schema import ACCURACY, SECTIONS, SUBSET_WEIGHTS

_RUN = ["pair_id", "reward"]
_COUNTS = ["n_examples", "n_ties", "n_excluded"]
_RATES = ["accuracy", "tie_rate"]


def accuracy(margins: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each pair and reward on each subset, each section and overall.

    The standard error of a subset is the binomial one, sqrt(p (1 - p) / n); a weighted mean's is
    sqrt(sum of weight² x stderr²), subsets taken as independent. It is 0 where all rows are right or all
    wrong: `intervals` gives limits that hold there too. A section's and the score's tie rate are weighted like
    their accuracy, so turning a pair round gives 1 - accuracy - tie_rate at every level.

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.

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
    return frame.loc[order, list(ACCURACY)].reset_index(drop=True)


def intervals(frame: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Adds `low` and `high`, the limits of each accuracy's interval, from its counts alone.

    A subset's are Wilson's score limits (1927). A weighted mean's are recovered from its parts' limits:
    estimate ∓ sqrt(sum of weight² x (distance to the part's limit)²) (MOVER, Zou and Donner 2008).

    Args:
        frame: ACCURACY with all subsets of its pairs.
        level: Coverage, 0 to 1.

    Returns:
        The frame's rows in their order, with the two columns.
    """
    z = float(norm.ppf(0.5 + level / 2))
    low, high = _wilson(frame["accuracy"], frame["n_examples"], z)
    squares = frame.assign(below=(frame["accuracy"] - low) ** 2, above=(high - frame["accuracy"]) ** 2)
    if (frame["level"] == "section").any():
        combined = frame["level"] != "subset"
        keys = pd.MultiIndex.from_frame(frame.loc[combined, [*_RUN, "name"]])
        for side in ("below", "above"):
            squares.loc[combined, side] = _mover(squares, side).reindex(keys).to_numpy()
    return frame.assign(
        low=frame["accuracy"] - np.sqrt(squares["below"]), high=frame["accuracy"] + np.sqrt(squares["above"])
    )


def accuracy_by_length(margins: pd.DataFrame, length_difference: pd.Series, *, n_bins: int = 10) -> pd.DataFrame:
    """Plain accuracy of each pair and reward where chosen is shorter, alike and longer: does it measure length?

    Args:
        margins: MARGINS of any number of pairs and rewards on one data set.
        length_difference: Bytes of chosen minus bytes of rejected, by example_id.
        n_bins: Bins of about as many examples each; fewer where many differences are equal, one where all are.

    Returns:
        `pair_id, reward, length_low_bytes, length_high_bytes, accuracy, low, high, n_examples, n_ties, n_excluded`;
        both ends of a bin belong to it. The interval is Wilson's, 95%.
    """
    examples = length_difference.loc[pd.unique(margins["example_id"])]
    # Where all differences are equal there is one bin, which qcut does not give.
    bins = pd.qcut(examples, n_bins, labels=False, duplicates="drop") if examples.nunique() > 1 else 0 * examples
    ends = examples.groupby(bins).agg(["min", "max"]).set_axis(["length_low_bytes", "length_high_bytes"], axis=1)
    table = _by_subset(margins.assign(subset=margins["example_id"].map(bins)))
    low, high = _wilson(table["accuracy"], table["n_examples"], float(norm.ppf(0.975)))
    table = table.assign(low=low, high=high).merge(
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
    """Rates and binomial standard error from counts; NaN where no row was scored."""
    n_examples = counts["n_examples"].where(counts["n_examples"] > 0)
    share = counts["n_right"] / n_examples
    frame = counts.assign(
        level=level,
        accuracy=share,
        stderr=np.sqrt(share * (1 - share) / n_examples),
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
    terms = parts[_RUN].assign(
        **{rate: parts[rate] * share for rate in _RATES}, variance=(parts["stderr"] * share) ** 2
    )
    means = terms.groupby(_RUN, sort=False).sum(skipna=False)
    counts = parts.groupby(_RUN, sort=False)[_COUNTS].sum().astype(int)
    return means.assign(stderr=np.sqrt(means["variance"])).drop(columns="variance").join(counts).reset_index()


def _wilson(share: pd.Series, n: pd.Series, z: float) -> tuple[pd.Series, pd.Series]:
    """Wilson's limits of a share of n rows."""
    n = n.where(n > 0)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # rounding would leave a limit a hair inside a share of 0 or 1
    return np.minimum(centre - half, share), np.maximum(centre + half, share)


def _mover(limits: pd.DataFrame, side: str) -> pd.Series:
    """Squared distance from each score and section to its limit, by pair, reward and name."""
    parts = limits[limits["level"] == "subset"].pivot(index=_RUN, columns="name", values=side)
    squares = {}
    for name in ("score", *SECTIONS):
        shares = pd.Series(subset_shares(name))
        squares[name] = parts.reindex(columns=shares.index).mul(shares**2, axis=1).sum(axis=1, skipna=False)
    return pd.DataFrame(squares).rename_axis(columns="name").stack()
