"""How often a pair's label is the people's, by how alike the two responses are (REAL's claim, arXiv 2409.17169)."""

import numpy as np
import pandas as pd

from bench.study.interval import Limits, apart, plain_sample, share_limits

AGREEMENT = (
    "pair_id", "reward", "half", "agreement", "low", "high", "difference", "difference_low", "difference_high",
    "n_examples", "n_ties", "n_excluded", "similarity_low", "similarity_high",
)  # fmt: skip
"""One row a half. `agreement` is the share, 0 to 1, of scored rows whose margin has the sign of the people's label, a
tie being none; `low` and `high` its 95% limits (`interval.share_limits`). `difference` is the dissimilar half's to the
similar one, with Newcombe's limits. `similarity_` are the least and largest cosine of the half."""

DISSIMILAR, SIMILAR, RANDOM, ALL = "dissimilar", "similar", "random", "all"


def agreement(
    margins: pd.DataFrame, similarity: pd.Series, *, rng: np.random.Generator, problems: pd.Series | None = None
) -> pd.DataFrame:
    """Agreement on the less and the more similar half, on a random half, and on all.

    Args:
        margins: MARGINS of one pair and one reward.
        similarity: Cosine of the two responses, by example_id.
        rng: Draws the random half.
        problems: Number of the problem under each example, as `metrics.accuracy` takes it.

    Returns:
        AGREEMENT.
    """
    rows = margins.assign(similarity=similarity.loc[margins["example_id"]].to_numpy())
    rows = rows.sort_values(["similarity", "example_id"], kind="stable", ignore_index=True)
    middle = round(len(rows) / 2)
    drawn = np.sort(rng.permutation(len(rows))[:middle])
    parts = {DISSIMILAR: rows.iloc[:middle], SIMILAR: rows.iloc[middle:], RANDOM: rows.iloc[drawn], ALL: rows}
    found = {name: _share(part, problems) for name, part in parts.items()}
    return pd.DataFrame(
        [
            [rows["pair_id"].iloc[0], rows["reward"].iloc[0], name, *_shares(name, found), *_sizes(part)]
            for name, part in parts.items()
        ],
        columns=list(AGREEMENT),
    )


def _share(part: pd.DataFrame, problems: pd.Series | None) -> tuple[float, Limits]:
    """Share of the scored rows that agree, and its limits."""
    margin = part["margin_nats"].to_numpy()
    agrees = np.where(np.isnan(margin), np.nan, margin > 0)
    number = np.arange(len(part)) if problems is None else problems.loc[part["example_id"]].to_numpy()
    limits = share_limits(agrees[None], plain_sample(number))
    share = float(np.nanmean(agrees)) if np.isfinite(agrees).any() else float("nan")
    return share, Limits(limits.low[0], limits.high[0])


def _shares(name: str, found: dict[str, tuple[float, Limits]]) -> list[float]:
    share, limits = found[name]
    if name != DISSIMILAR:
        return [share, *limits, *[float("nan")] * 3]
    other, other_limits = found[SIMILAR]
    return [share, *limits, share - other, *apart(share, limits, other, other_limits)]


def _sizes(part: pd.DataFrame) -> list[float]:
    scored = part["margin_nats"].notna()
    limits = part["similarity"].min(), part["similarity"].max()
    return [int(scored.sum()), int((part["margin_nats"] == 0).sum()), int((~scored).sum()), *limits]
