"""Pairs in the order of their score, with intervals of score and rank, cost and provenance.

All intervals are over prompts, those of one problem together. They say how far the ranking depends on the prompts that
happened to be asked; they say nothing about other models. A rank's interval is from one bootstrap, the same draws for
every pair, so that two pairs are compared on equal draws.
"""

import numpy as np
import pandas as pd

from bench.schema import LEADERBOARD, SECTIONS
from bench.study.design import Rows, accuracy, plain_accuracy

_COLUMNS = {section: section.replace("-", "_") for section in SECTIONS}


def bootstrap_scores(correct: np.ndarray, rows: Rows, *, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """Scores of every pair when the problems are weighed anew, the same weights for every pair.

    Each problem gets an exponential weight (Rubin 1981). A subset of m problems varies too little then, by
    sqrt((m - 1) / (m + 1)): its distances from what it scored are stretched by that, so a draw may lie outside 0 and 1.

    Args:
        correct: 1 right, 0 wrong or tie, NaN left out, (pairs, rows).
        rows: What counts how, and which rows go together; the first level is drawn.
        rng: Source of the draws.
        draws: How many.

    Returns:
        Scores, (draws, pairs); NaN where a subset that counts has a single problem, or the level is not there.
    """
    if not rows.levels:
        return np.full((draws, len(correct)), np.nan)
    result = np.zeros((draws, len(correct)))
    weights = rng.standard_exponential((draws, rows.cluster.max() + 1))[:, rows.cluster]
    for subset in np.unique(rows.subset[rows.weights[0] > 0]):
        columns = np.flatnonzero((rows.subset == subset) & (rows.weights[0] > 0))
        n = len(np.unique(rows.cluster[columns]))
        part = Rows((("", ""),), rows.weights[:1, columns], rows.subset[columns], rows.cluster[columns])
        score = plain_accuracy(correct[:, columns], part)[0]
        drawn = accuracy(correct[:, columns], part, weights[:, columns])[:, 0]
        result += score + np.sqrt((n + 1) / (n - 1) if n > 1 else np.nan) * (drawn - score)
    return result


def leaderboard(
    accuracy: pd.DataFrame,
    draws: np.ndarray,
    pairs: pd.DataFrame,
    models: pd.DataFrame,
    *,
    held_out: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row a pair, best score first.

    A pair with a row left out, or without a score, is listed at the end and not ranked: its rank columns are
    missing. Equal scores share the better rank.

    Args:
        accuracy: ACCURACY of the pairs under one reward.
        draws: What `bootstrap_scores` gave for `pairs`, (draws, pairs).
        pairs: pair_id, strong, weak (model_ids), family, gap_points; one row a pair.
        models: model_id, revision, dtype, n_params, n_params_active (missing where a token uses all), licence and
            n_tokens_row, the mean number of tokens of a row's prompt and two responses under that model. What is
            unknown is missing.
        held_out: What `held_out_scores` gave for the pairs without a row left out, best place first; None for missing.

    Returns:
        LEADERBOARD. `score_held_out` is of the place; pairs of one rank share its mean.
        `cost_flop` is 2 x active parameters x tokens a row, summed over both models.

    Raises:
        ValueError: More than one reward, or a pair without an overall accuracy or without its models.
    """
    rewards = pd.unique(accuracy["reward"])
    if len(rewards) != 1:
        raise ValueError(f"a leaderboard shows one reward, not {', '.join(rewards)}")
    frame = _scores(accuracy, pairs).assign(reward=rewards[0])
    frame = pd.concat([frame, described(pairs, models)], axis=1)
    frame = pd.concat([frame, _ranks(frame, draws)], axis=1)
    frame["score_held_out"] = _held_out(frame["rank"], held_out)
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


def _scores(accuracy: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Score, sections and counts beside each pair's own columns, in the order of `pairs`."""
    overall = accuracy[accuracy["level"] == "overall"].rename(
        columns={"accuracy": "score", "low": "score_low", "high": "score_high"}
    )
    frame = pairs[["pair_id", "strong", "weak", "family", "gap_points"]].merge(
        overall[["pair_id", "score", "score_low", "score_high", "n_examples", "n_excluded"]],
        on="pair_id",
        how="left",
        validate="one_to_one",
    )
    unscored = frame.loc[frame["n_examples"].isna(), "pair_id"]
    if len(unscored):
        raise ValueError(f"{unscored.iloc[0]}: no overall accuracy")
    sections = accuracy[accuracy["level"] == "section"].pivot(index="pair_id", columns="name", values="accuracy")
    sections = sections.reindex(index=frame["pair_id"], columns=list(SECTIONS)).astype(float).rename(columns=_COLUMNS)
    frame = frame.astype({"n_examples": int, "n_excluded": int})
    return pd.concat([frame, sections.reset_index(drop=True)], axis=1)


def described(pairs: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
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


def leader_note(board: pd.DataFrame) -> str:
    """One sentence on what the first pair's score is worth elsewhere, "" where nothing was chosen."""
    first = board.dropna(subset=["rank", "score_held_out"])
    if first.empty:
        return ""
    n = int(board["rank"].notna().sum())
    return (
        f"The best of {n} pairs scores {first['score'].iloc[0]:.1%} on the prompts that ranked it; on other prompts "
        f"whoever comes first is expected to score {first['score_held_out'].iloc[0]:.1%} (score_held_out)."
    )


def _held_out(rank: pd.Series, held_out: np.ndarray | None) -> pd.Series:
    """The held-out estimate of each pair's place; pairs of one rank share the mean of their places."""
    if held_out is None:
        return pd.Series(np.nan, index=rank.index)
    place = rank.rank(method="first")
    values = pd.Series([np.nan if np.isnan(p) else held_out[int(p) - 1] for p in place.astype(float)], index=rank.index)
    return values.groupby(rank, dropna=False).transform("mean").where(rank.notna())


def _ranks(frame: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Rank and interval of the rank, in the frame's order."""
    ranked = (frame["score"].notna() & (frame["n_excluded"] == 0)).to_numpy()
    scores = frame.loc[ranked, "score"]
    low, high = rank_limits(scores.to_numpy(), draws[:, ranked])
    columns = {"rank": scores.rank(ascending=False, method="min"), "rank_low": low, "rank_high": high}
    columns = {name: pd.Series(values, index=scores.index) for name, values in columns.items()}
    return pd.DataFrame({name: values.reindex(frame.index).astype("Int64") for name, values in columns.items()})


def rank_limits(scores: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best and worst rank that each pair may truly have, at 95%: those that are surely better or worse are counted.

    A pair is surely better than another where its lead is larger than the largest lead, of all pairs over or under that
    other one, in 95% of the draws, each in units of its standard error (Mogstad, Romano, Shaikh and Wilhelm 2024). The
    ranks of a pair over the draws would not do: the draws' noise comes on top of the sample's, and the best of many
    would hold its true rank in little more than half of the samples.

    Args:
        scores: (pairs,).
        draws: What `bootstrap_scores` gave for them, (draws, pairs).
    """
    n = len(scores)
    low, high = np.ones(n, dtype=int), np.full(n, n, dtype=int)
    error = draws - scores
    for pair in range(n):
        noise = error - error[:, [pair]]
        scale = np.sqrt((noise**2).mean(axis=0))
        # a lead that varies in no draw, or was not drawn for lack of rows, is not sure
        scale = np.where(scale > 1e-9, scale, np.inf)
        most = np.quantile(np.abs(noise / scale).max(axis=1), 0.95)
        lead = (scores - scores[pair]) / scale
        low[pair] += (lead > most).sum()
        high[pair] -= (lead < -most).sum()
    return low, high
