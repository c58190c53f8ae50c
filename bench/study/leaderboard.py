"""Ranks pairs by score, with intervals of score and rank, cost and provenance.

All intervals are over prompts; prompts of one problem are resampled together. They say how much the ranking depends on
the choice of prompts; they say nothing about other models. The intervals of the ranks use the same bootstrap draws for
every pair, so that pairs are compared on equal draws.
"""

import numpy as np
import pandas as pd

from bench.contrast import model_of
from bench.schema import LEADERBOARD
from bench.study.benchmarks import Benchmark, column, of_table
from bench.study.bootstrap import prompt_bootstrap
from bench.study.design import Rows


def bootstrap_scores(correct: np.ndarray, rows: Rows, *, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """Scores of every pair when the prompts are resampled, with the same weights for every pair.

    Args:
        correct: 1 right, 0 wrong or tie, NaN excluded, (pairs, rows).
        rows: Levels and weights of the rows, and their problems. The first level is drawn.
        rng: Source of the draws.
        draws: Number of draws.

    Returns:
        Scores, (draws, pairs); NaN where a subset that counts has a single problem, or where there is no level.
    """
    if not rows.levels:
        return np.full((draws, len(correct)), np.nan)
    first = rows._replace(levels=rows.levels[:1], weights=rows.weights[:1])
    return prompt_bootstrap(correct, first, n_draws=draws, rng=rng)[:, 0]


def leaderboard(
    accuracy: pd.DataFrame,
    draws: np.ndarray,
    pairs: pd.DataFrame,
    models: pd.DataFrame,
    *,
    held_out: np.ndarray | None = None,
) -> pd.DataFrame:
    """Make the leaderboard: one row per pair, best score first.

    A pair with an excluded row, or without a score, is at the end and has no rank. Equal scores share the better rank.

    Args:
        accuracy: ACCURACY of the pairs under one reward.
        draws: Result of `bootstrap_scores` for `pairs`, (draws, pairs).
        pairs: pair_id, strong, weak (model_ids), family, gap_points; one row per pair.
        models: model_id, revision, dtype, n_params, n_params_active (missing where a token uses all), licence and
            n_tokens_row, the mean number of tokens of a row's prompt and two responses under that model. Unknown values
            are missing.
        held_out: Result of `held_out_scores` for the pairs without an excluded row, best place first; None for missing.

    Returns:
        The columns of `columns_of`. `score_held_out` belongs to the place; pairs of one rank share its mean.
        `cost_flop` is 2 x active parameters x tokens per row, summed over both models.

    Raises:
        ValueError: There is more than one reward, or a pair lacks its overall accuracy or one of its models.
    """
    rewards = pd.unique(accuracy["reward"])
    if len(rewards) != 1:
        raise ValueError(f"a leaderboard shows one reward, not {', '.join(rewards)}")
    frame = _scores(accuracy, pairs).assign(reward=rewards[0])
    frame = pd.concat([frame, described(pairs, models)], axis=1)
    frame = pd.concat([frame, _ranks(frame, draws)], axis=1)
    frame["score_held_out"] = _held_out(frame["rank"], held_out)
    order = frame.sort_values(["rank", "score", "pair_id"], ascending=[True, False, True], na_position="last")
    return order[list(columns_of(of_table(accuracy)))].reset_index(drop=True)


def columns_of(benchmark: Benchmark) -> tuple[str, ...]:
    """The columns of a leaderboard: LEADERBOARD, with the benchmark's sections and styles in place of its own."""
    head, tail = LEADERBOARD.index("chat"), LEADERBOARD.index("n_examples")
    return (*LEADERBOARD[:head], *benchmark.columns, *LEADERBOARD[tail:])


def frontier(board: pd.DataFrame) -> pd.DataFrame:
    """The pairs on the cost frontier: no ranked pair costs at most as much and scores higher.

    Args:
        board: LEADERBOARD.

    Returns:
        The ranked rows with a known cost that are on the frontier, cheapest first.
    """
    known = board.dropna(subset=["rank", "cost_flop"]).sort_values(
        ["cost_flop", "score", "pair_id"], ascending=[True, False, True]
    )
    best_so_far = known["score"].cummax().shift(fill_value=-np.inf)
    return known[known["score"] > best_so_far].reset_index(drop=True)


def by_strength(pairs: pd.DataFrame) -> list[str]:
    """Models, strongest first: in its family, a model is the strong one of as many pairs as there are weaker models."""
    models = pd.unique(pd.concat([pairs["strong"], pairs["weak"]]))
    n_weaker = pairs["strong"].value_counts().reindex(models, fill_value=0)
    return sorted(models, key=lambda model: (-n_weaker[model], model))


def _scores(accuracy: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Score, sections and counts of each pair, in the order of `pairs`."""
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
        raise ValueError(f"{unscored.iloc[0]}: this pair has no overall accuracy")
    names = list(of_table(accuracy).columns.values())
    parts = accuracy[accuracy["level"].isin(["section", "style"])]
    sections = parts.pivot(index="pair_id", columns="name", values="accuracy")
    sections = sections.reindex(index=frame["pair_id"], columns=names).astype(float).rename(columns=column)
    frame = frame.astype({"n_examples": int, "n_excluded": int})
    return pd.concat([frame, sections.reset_index(drop=True)], axis=1)


def described(pairs: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """dtype, revisions, parameters, licence and cost of each pair, in the order of `pairs`."""
    active = models["n_params_active"].fillna(models["n_params"]).astype(float)
    table = models.assign(cost_flop=2.0 * active * models["n_tokens_row"])
    strong, weak = (
        pairs[[side]].merge(table, left_on=side, right_on="model_id", how="left", validate="many_to_one")
        for side in ("strong", "weak")
    )
    unknown = pd.concat([strong.loc[strong["model_id"].isna(), "strong"], weak.loc[weak["model_id"].isna(), "weak"]])
    if len(unknown):
        raise ValueError(f"{unknown.iloc[0]}: this model is in a pair, but the table of models does not have it")
    one_model = pairs["strong"].map(model_of).to_numpy() == pairs["weak"].map(model_of).to_numpy()
    return pd.DataFrame(
        {
            "dtype": _either(strong["dtype"], weak["dtype"]),
            "strong_revision": strong["revision"],
            "weak_revision": weak["revision"],
            # The weights of a pair of one model are in memory once.
            "n_params": (strong["n_params"] + weak["n_params"].where(~one_model, 0)).astype(float),
            "licence": _either(strong["licence"], weak["licence"]),
            "cost_flop": strong["cost_flop"] + weak["cost_flop"],
        }
    )


def _either(strong: pd.Series, weak: pd.Series) -> pd.Series:
    """The value that both models share, or both values; missing when one is missing."""
    strong, weak = strong.astype("string"), weak.astype("string")
    return strong.where((strong == weak).fillna(False), strong + " + " + weak)


def leader_note(board: pd.DataFrame) -> str:
    """What score to expect of the first pair on other prompts, in two sentences; "" where no pair was chosen."""
    first = board.dropna(subset=["rank", "score_held_out"])
    if first.empty:
        return ""
    n = int(board["rank"].notna().sum())
    return (
        f"The best of {n} pairs scores {first['score'].iloc[0]:.1%} on the prompts that ranked it. On other prompts, "
        f"the pair in first place is expected to score {first['score_held_out'].iloc[0]:.1%} (score_held_out)."
    )


def _held_out(rank: pd.Series, held_out: np.ndarray | None) -> pd.Series:
    """The held-out estimate of each pair's place. Pairs of one rank share the mean of their places."""
    if held_out is None:
        return pd.Series(np.nan, index=rank.index)
    place = rank.rank(method="first")
    values = pd.Series([np.nan if np.isnan(p) else held_out[int(p) - 1] for p in place.astype(float)], index=rank.index)
    return values.groupby(rank, dropna=False).transform("mean").where(rank.notna())


def _ranks(frame: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Rank and interval of the rank, in the order of the frame."""
    ranked = (frame["score"].notna() & (frame["n_excluded"] == 0)).to_numpy()
    scores = frame.loc[ranked, "score"]
    low, high = rank_limits(scores.to_numpy(), draws[:, ranked])
    columns = {"rank": scores.rank(ascending=False, method="min"), "rank_low": low, "rank_high": high}
    columns = {name: pd.Series(values, index=scores.index) for name, values in columns.items()}
    return pd.DataFrame({name: values.reindex(frame.index).astype("Int64") for name, values in columns.items()})


def rank_limits(scores: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best and worst true rank of each pair, at 95%, from the pairs that are certainly better or certainly worse.

    A pair is certainly better than another pair if its lead is larger than a critical value. This value is the 95%
    quantile, over the draws, of the largest lead of any pair over or under the other pair, in units of its standard
    error (Mogstad, Romano, Shaikh and Wilhelm 2024). Quantiles of a pair's rank over the draws would not do: the noise
    of the draws adds to that of the sample, and the interval of the best of many pairs would contain its true rank in
    little more than half of the samples.

    Args:
        scores: (pairs,).
        draws: Result of `bootstrap_scores` for these pairs, (draws, pairs).
    """
    n = len(scores)
    low, high = np.ones(n, dtype=int), np.full(n, n, dtype=int)
    error = draws - scores
    for pair in range(n):
        noise = error - error[:, [pair]]
        scale = np.sqrt((noise**2).mean(axis=0))
        # a lead is not certain if it varies in no draw, or if too few rows allowed no draw
        scale = np.where(scale > 1e-9, scale, np.inf)
        most = np.quantile(np.abs(noise / scale).max(axis=1), 0.95)
        lead = (scores - scores[pair]) / scale
        low[pair] += (lead > most).sum()
        high[pair] -= (lead < -most).sum()
    return low, high
