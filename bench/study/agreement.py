"""How often a pair's label agrees with people's label, by how similar the two responses are.

This tests the claim of REAL (arXiv 2409.17169).
"""

import numpy as np
import pandas as pd

from bench.study.interval import Limits, apart, plain_sample, share_limits

AGREEMENT = (
    "pair_id", "reward", "half", "agreement", "low", "high", "difference", "difference_low", "difference_high",
    "n_examples", "n_ties", "n_excluded", "similarity_low", "similarity_high",
)  # fmt: skip
"""One row per half. `agreement` is the proportion (0 to 1) of scored rows whose margin has the sign of people's label;
a tie counts as disagreement. `low` and `high` are its 95% limits (`interval.share_limits`). `difference` is the
agreement of the dissimilar half minus that of the similar half, with Newcombe's limits. `similarity_low` and
`similarity_high` are the smallest and the largest cosine in the half."""

DISSIMILAR, SIMILAR, RANDOM, ALL = "dissimilar", "similar", "random", "all"


def agreement(
    margins: pd.DataFrame, similarity: pd.Series, *, rng: np.random.Generator, problems: pd.Series
) -> pd.DataFrame:
    """Compute the agreement on the less similar half, the more similar half, a random half, and all rows.

    Args:
        margins: MARGINS of one pair and one reward.
        similarity: Cosine of the two responses, by example_id.
        rng: Draws the random half.
        problems: Number of each example's problem, by example_id, from `design.prompt_clusters`.

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


def _share(part: pd.DataFrame, problems: pd.Series) -> tuple[float, Limits]:
    """Proportion of the scored rows that agree, and its limits."""
    margin = part["margin_nats"].to_numpy()
    agrees = np.where(np.isnan(margin), np.nan, margin > 0)
    limits = share_limits(agrees[None], plain_sample(problems.loc[part["example_id"]].to_numpy()))
    share = float(np.nanmean(agrees)) if np.isfinite(agrees).any() else float("nan")
    return share, Limits(limits.low[0], limits.high[0])


def _shares(name: str, found: dict[str, tuple[float, Limits]]) -> list[float]:
    """An agreement with its limits; for the dissimilar half also its difference to the similar half."""
    share, limits = found[name]
    known = [share, float(limits.low), float(limits.high)]
    if name != DISSIMILAR:
        return [*known, *[float("nan")] * 3]
    other, other_limits = found[SIMILAR]
    return [*known, share - other, *apart(share, limits, other, other_limits)]


def _sizes(part: pd.DataFrame) -> list[float]:
    """Counts of scored, tied and excluded rows, and the range of the similarity."""
    scored = part["margin_nats"].notna()
    limits = part["similarity"].min(), part["similarity"].max()
    return [int(scored.sum()), int((part["margin_nats"] == 0).sum()), int((~scored).sum()), *limits]
