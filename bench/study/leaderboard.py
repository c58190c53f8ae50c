"""Pairs in the order of their score, with intervals of score and rank, cost and provenance.

The intervals come from one bootstrap over prompts: rows are drawn again inside each subset, the same rows for
every pair, so that two pairs are compared on equal draws. They say how far the ranking hangs on the prompts
that happened to be asked; they say nothing about other models.
"""

import numpy as np
import pandas as pd

from bench.schema import LEADERBOARD, SECTIONS
from bench.study.metrics import is_rewardbench, subset_shares

_TAILS = (0.025, 0.975)
_COLUMNS = {section: section.replace("-", "_") for section in SECTIONS}


def bootstrap_scores(
    margins: np.ndarray, subsets: pd.Series, *, rng: np.random.Generator, draws: int = 1000
) -> np.ndarray:
    """Scores of every pair when the prompts are drawn again inside their subsets.

    Args:
        margins: (pairs, rows), any one reward; NaN where a row is left out for a pair.
        subsets: Subset of each row, (rows,).
        rng: Source of the draws.
        draws: How many.

    Returns:
        Scores, (draws, pairs), 0 to 1; NaN where a subset that the score needs has no row in the draw.
    """
    names = np.asarray(subsets)
    right, scored = _resampled(margins, names, rng, draws)
    if not is_rewardbench(pd.Series(names)):
        return sum(right.values()) / _positive(sum(scored.values()))
    scores = np.zeros((draws, len(margins)))
    for subset, share in subset_shares("score").items():
        if subset not in right:
            return np.full((draws, len(margins)), np.nan)
        scores += share * right[subset] / _positive(scored[subset])
    return scores


def leaderboard(accuracy: pd.DataFrame, draws: np.ndarray, pairs: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """One row a pair, best score first.

    A pair with a row left out, or without a score, is listed at the end and not ranked: its rank columns are
    missing. Equal scores share the better rank. A rank's interval holds the central 95% of the pair's ranks over
    the draws, and the rank itself.

    Args:
        accuracy: ACCURACY of the pairs under one reward.
        draws: What `bootstrap_scores` gave for `pairs`, (draws, pairs).
        pairs: pair_id, strong, weak (model_ids), family, gap_points; one row a pair.
        models: model_id, revision, dtype, n_params, n_params_active (missing where a token uses all), licence and
            n_tokens_row, the mean number of tokens of a row's prompt and two responses under that model. What is
            unknown is missing.

    Returns:
        LEADERBOARD. `cost_flop` is 2 x active parameters x tokens a row, summed over both models.

    Raises:
        ValueError: More than one reward, or a pair without an overall accuracy or without its models.
    """
    rewards = pd.unique(accuracy["reward"])
    if len(rewards) != 1:
        raise ValueError(f"a leaderboard shows one reward, not {', '.join(rewards)}")
    frame = _scores(accuracy, pairs).assign(reward=rewards[0])
    frame = pd.concat([frame, _provenance(pairs, models)], axis=1)
    frame = pd.concat([frame, _uncertainty(frame, draws)], axis=1)
    order = frame.sort_values(["rank", "score", "pair_id"], ascending=[True, False, True], na_position="last")
    return order[list(LEADERBOARD)].reset_index(drop=True)


def frontier(board: pd.DataFrame) -> pd.DataFrame:
    """The pairs worth their compute: no ranked pair costs as little or less and scores higher.

    Args:
        board: LEADERBOARD.

    Returns:
        Its ranked rows of known cost that are on the frontier, cheapest first.
    """
    known = board.dropna(subset=["rank", "cost_flop"]).sort_values(
        ["cost_flop", "score", "pair_id"], ascending=[True, False, True]
    )
    best_so_far = known["score"].cummax().shift(fill_value=-np.inf)
    return known[known["score"] > best_so_far].reset_index(drop=True)


def _resampled(
    margins: np.ndarray, names: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Number of right and of scored rows of each subset in each draw, (draws, pairs) each."""
    right, scored = {}, {}
    for subset in pd.unique(names):
        rows = np.flatnonzero(names == subset)
        times = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws).astype(float)
        right[subset] = times @ (margins[:, rows] > 0).T.astype(float)
        scored[subset] = times @ np.isfinite(margins[:, rows]).T.astype(float)
    return right, scored


def _positive(counts: np.ndarray) -> np.ndarray:
    """Counts, with NaN for none, so that a share of nothing is missing."""
    return np.where(counts > 0, counts, np.nan)


def _scores(accuracy: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Score, sections and counts beside each pair's own columns, in the order of `pairs`."""
    overall = accuracy[accuracy["level"] == "overall"].rename(columns={"accuracy": "score"})
    frame = pairs[["pair_id", "strong", "weak", "family", "gap_points"]].merge(
        overall[["pair_id", "score", "n_examples", "n_excluded"]], on="pair_id", how="left", validate="one_to_one"
    )
    unscored = frame.loc[frame["n_examples"].isna(), "pair_id"]
    if len(unscored):
        raise ValueError(f"{unscored.iloc[0]}: no overall accuracy")
    sections = accuracy[accuracy["level"] == "section"].pivot(index="pair_id", columns="name", values="accuracy")
    sections = sections.reindex(index=frame["pair_id"], columns=list(SECTIONS)).astype(float).rename(columns=_COLUMNS)
    frame = frame.astype({"n_examples": int, "n_excluded": int})
    return pd.concat([frame, sections.reset_index(drop=True)], axis=1)


def _provenance(pairs: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """What is known of each pair's two models, in the order of `pairs`."""
    active = models["n_params_active"].fillna(models["n_params"]).astype(float)
    table = models.assign(cost_flop=2.0 * active * models["n_tokens_row"])
    strong, weak = (
        pairs[[side]].merge(table, left_on=side, right_on="model_id", how="left", validate="many_to_one")
        for side in ("strong", "weak")
    )
    unknown = pd.concat([strong.loc[strong["model_id"].isna(), "strong"], weak.loc[weak["model_id"].isna(), "weak"]])
    if len(unknown):
        raise ValueError(f"{unknown.iloc[0]}: in a pair, but nothing is known of the model")
    return pd.DataFrame(
        {
            "dtype": _either(strong["dtype"], weak["dtype"]),
            "strong_revision": strong["revision"],
            "weak_revision": weak["revision"],
            "n_params": (strong["n_params"] + weak["n_params"]).astype(float),
            "licence": _either(strong["licence"], weak["licence"]),
            "cost_flop": strong["cost_flop"] + weak["cost_flop"],
        }
    )


def _either(strong: pd.Series, weak: pd.Series) -> pd.Series:
    """The value that both models share, or both values; missing when one is."""
    strong, weak = strong.astype("string"), weak.astype("string")
    return strong.where((strong == weak).fillna(False), strong + " + " + weak)


def _uncertainty(frame: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Interval of the score, rank and interval of the rank, in the frame's order."""
    # pandas leaves out the draws in which an incomplete pair has no score
    low, high = pd.DataFrame(draws).quantile(list(_TAILS)).to_numpy()
    ranked = frame["score"].notna() & (frame["n_excluded"] == 0)
    result = pd.DataFrame({"score_low": low, "score_high": high}, index=frame.index)
    rank = frame.loc[ranked, "score"].rank(ascending=False, method="min")
    ranks = pd.DataFrame(draws[:, ranked]).rank(axis=1, ascending=False, method="min").to_numpy()
    ends = np.quantile(ranks, _TAILS, axis=0, method="nearest") if ranked.any() else np.empty((2, 0))
    columns = {"rank": rank, "rank_low": np.minimum(rank, ends[0]), "rank_high": np.maximum(rank, ends[1])}
    return result.assign(**{name: values.reindex(frame.index).astype("Int64") for name, values in columns.items()})
