"""How often a pair's label is the people's, by how alike the two responses are (REAL's claim, arXiv 2409.17169)."""

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

AGREEMENT = (
    "pair_id", "reward", "half", "agreement", "low", "high", "difference", "difference_low", "difference_high",
    "n_examples", "n_ties", "n_excluded", "similarity_low", "similarity_high",
)  # fmt: skip
"""One row a half. `agreement` is the share, 0 to 1, of scored rows whose margin has the sign of the people's label, a
tie being none; `low` and `high` Wilson's 95% limits. `difference` is the dissimilar half's to the similar one, with
Newcombe's limits. `similarity_` are the least and largest cosine of the half."""

DISSIMILAR, SIMILAR, RANDOM, ALL = "dissimilar", "similar", "random", "all"


def agreement(margins: pd.DataFrame, similarity: pd.Series, *, rng: np.random.Generator) -> pd.DataFrame:
    """Agreement on the less and the more similar half, on a random half, and on all.

    Args:
        margins: MARGINS of one pair and one reward.
        similarity: Cosine of the two responses, by example_id.
        rng: Draws the random half.

    Returns:
        AGREEMENT.
    """
    rows = margins.assign(similarity=similarity.loc[margins["example_id"]].to_numpy())
    rows = rows.sort_values(["similarity", "example_id"], kind="stable", ignore_index=True)
    middle = round(len(rows) / 2)
    drawn = np.sort(rng.permutation(len(rows))[:middle])
    parts = {DISSIMILAR: rows.iloc[:middle], SIMILAR: rows.iloc[middle:], RANDOM: rows.iloc[drawn], ALL: rows}
    counts = {name: _counts(part) for name, part in parts.items()}
    return pd.DataFrame(
        [
            [rows["pair_id"].iloc[0], rows["reward"].iloc[0], name, *_shares(name, counts), *_sizes(part)]
            for name, part in parts.items()
        ],
        columns=list(AGREEMENT),
    )


def _counts(part: pd.DataFrame) -> tuple[int, int]:
    """Rows that agree, and scored rows."""
    return int((part["margin_nats"] > 0).sum()), int(part["margin_nats"].notna().sum())


def _shares(name: str, counts: dict[str, tuple[int, int]]) -> list[float]:
    (n_right, n), (other_right, other) = counts[name], counts[SIMILAR]
    if not n:
        return [float("nan")] * 6
    found = [n_right / n, *proportion_confint(n_right, n, method="wilson")]
    if name != DISSIMILAR or not other:
        return [*found, *[float("nan")] * 3]
    limits = confint_proportions_2indep(n_right, n, other_right, other, method="newcomb")
    return [*found, n_right / n - other_right / other, *limits]


def _sizes(part: pd.DataFrame) -> list[float]:
    scored = part["margin_nats"].notna()
    limits = part["similarity"].min(), part["similarity"].max()
    return [int(scored.sum()), int((part["margin_nats"] == 0).sum()), int((~scored).sum()), *limits]
