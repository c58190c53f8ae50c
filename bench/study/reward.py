"""Computes the rewards and margins of a pair from its two models' log-probabilities.

The reward of a response is the log-probability under the strong model minus that under the weak model, end of turn
included: `sum_t log p_strong(y_t | x, y_<t) - sum_t log p_weak(y_t | x, y_<t)` (arXiv 2411.02481). `mean` divides this
difference by the strong model's token count, and `per-byte` by the number of UTF-8 bytes of the response as the strong
model's template renders it. Under a shared template both models read the same bytes; under native templates they may
not.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CHOSEN, MARGINS, NONFINITE, OK, REJECTED, REWARDS, TOO_LONG

_KEY = ["example_id", "response_id"]


class MarginMatrix(NamedTuple):
    """The margins of many pairs on the same preferences."""

    values: np.ndarray
    """reward(chosen) - reward(rejected), (pairs, examples), float64; NaN where a score is missing."""
    example_ids: np.ndarray
    """(examples,), in the order of the first model's scores."""


def rewards(strong: pd.DataFrame, weak: pd.DataFrame, *, reward: str) -> pd.DataFrame:
    """Compute the reward of every response that both models scored.

    Args:
        strong: SCORES of the strong model.
        weak: SCORES of the weak model, over the same responses.
        reward: One of `schema.REWARDS`.

    Returns:
        `example_id, response_id, reward, status`, in the strong model's order. `reward` is in nats, nats per token or
        nats per byte, and NaN unless both scores are ok. If one score is `too_long` and the other `nonfinite`, the
        status is `too_long`.

    Raises:
        ValueError: Only one model scored a response, or a model scored it twice.
    """
    both = _scored_by_both(strong, weak)
    value = (both["difference"] / _divisor(both, reward)).where(both["status"] == OK)
    return both[_KEY].assign(reward=value, status=both["status"])


def margins(strong: pd.DataFrame, weak: pd.DataFrame, subsets: pd.Series, *, pair_id: str) -> pd.DataFrame:
    """Compute the margin of every preference under the three rewards.

    Args:
        strong: SCORES of the strong model, two responses per example.
        weak: SCORES of the weak model, over the same responses.
        subsets: Subset of each example, indexed by example_id.
        pair_id: Value of the column `pair_id`.

    Returns:
        MARGINS, grouped by reward, then in the strong model's order.

    Raises:
        ValueError: An example has no subset, or its responses are not one chosen and one rejected.
    """
    sides = _sides(_scored_by_both(strong, weak), pair_id)
    chosen = sides[CHOSEN]
    rejected = sides[REJECTED].loc[chosen.index]
    unknown = chosen.index.difference(subsets.index)
    if len(unknown):
        raise ValueError(f"{unknown[0]}: {pair_id} has scores of this example, but the data set does not contain it")
    status = _worse(chosen["status"], rejected["status"])
    values = [
        (chosen["difference"] / _divisor(chosen, name) - rejected["difference"] / _divisor(rejected, name))
        for name in REWARDS
    ]
    n = len(chosen)
    frame = pd.DataFrame(
        {
            "pair_id": pair_id,
            "reward": np.repeat(REWARDS, n),
            "example_id": np.tile(chosen.index, len(REWARDS)),
            "subset": np.tile(subsets.loc[chosen.index], len(REWARDS)),
            "margin_nats": np.concatenate([value.where(status == OK) for value in values]),
            "status": np.tile(status, len(REWARDS)),
        }
    )
    return frame[list(MARGINS)]


def margin_matrix(scores: dict[str, pd.DataFrame], pairs: pd.DataFrame, *, reward: str) -> MarginMatrix:
    """Compute the margins of many pairs at once; they equal those of `margins` to the bit.

    Args:
        scores: SCORES by model_id, all over the same preferences.
        pairs: One row per pair; `strong` and `weak` are model_ids.
        reward: One of `schema.REWARDS`.

    Returns:
        The matrix, its rows in the order of `pairs`.

    Raises:
        ValueError: Two models were not scored on the same responses.
    """
    models = pd.unique(pd.concat([pairs["strong"], pairs["weak"]], ignore_index=True))
    sides = _sides(scores[models[0]], models[0])
    example_ids = sides[CHOSEN].index
    totals = np.empty((2, len(models), len(example_ids)))
    divisors = np.empty_like(totals)
    for position, model_id in enumerate(models):
        sides = _sides(scores[model_id], model_id)
        _check_same_examples(example_ids, sides[CHOSEN].index, models[0], model_id)
        for side, response_id in enumerate((CHOSEN, REJECTED)):
            frame = sides[response_id].loc[example_ids]
            total = (frame["logp_sum_nats"] + frame["logp_end_nats"]).where(frame["status"] == OK)
            totals[side, position] = total
            divisors[side, position] = _divisor(frame, reward)
    strong = pd.Index(models).get_indexer(pairs["strong"])
    weak = pd.Index(models).get_indexer(pairs["weak"])
    values = (totals[:, strong] - totals[:, weak]) / divisors[:, strong]
    return MarginMatrix(values[0] - values[1], example_ids.to_numpy())


def _scored_by_both(strong: pd.DataFrame, weak: pd.DataFrame) -> pd.DataFrame:
    """The strong model's scores with the difference of the two sums, nats, and the joint status."""
    of_strong, of_weak = (pd.MultiIndex.from_frame(frame[_KEY]) for frame in (strong, weak))
    if not of_strong.equals(of_weak):
        lone = of_strong.symmetric_difference(of_weak)
        # the same responses in another order are fine
        if len(lone):
            example_id, response_id = lone[0]
            side = "strong" if lone[0] in of_strong else "weak"
            raise ValueError(f"{example_id}, response {response_id}: only the {side} model scored it")
    both = strong.merge(weak, on=_KEY, how="left", suffixes=("", "_weak"), validate="one_to_one")
    strong_sum, weak_sum = (both[f"logp_sum_nats{side}"] + both[f"logp_end_nats{side}"] for side in ("", "_weak"))
    return both.assign(difference=strong_sum - weak_sum, status=_worse(both["status"], both["status_weak"]))


def _divisor(frame: pd.DataFrame, reward: str) -> pd.Series:
    """What `reward` divides the difference of the sums by, (rows,), float64."""
    if reward == "sum":
        return pd.Series(1.0, index=frame.index)
    if reward == "mean":
        return frame["n_tokens"].astype(float)
    if reward == "per-byte":
        return frame["n_bytes"].astype(float)
    raise ValueError(f"unknown reward {reward!r}: choose one of {', '.join(REWARDS)}")


def _worse(left: pd.Series, right: pd.Series) -> pd.Series:
    """The joint status of two scores."""
    status = pd.Series(OK, index=left.index)
    status = status.mask((left == NONFINITE) | (right == NONFINITE), NONFINITE)
    return status.mask((left == TOO_LONG) | (right == TOO_LONG), TOO_LONG)


def _sides(frame: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """The chosen and the rejected rows over the same examples, each indexed by example_id."""
    strange = frame.loc[~frame["response_id"].isin((CHOSEN, REJECTED)), _KEY]
    if len(strange):
        example_id, response_id = strange.iloc[0]
        raise ValueError(f"{example_id}: a margin needs {CHOSEN} and {REJECTED}, but {name} has {response_id!r}")
    sides = {side: rows.set_index("example_id") for side, rows in frame.groupby("response_id")}
    for side in (CHOSEN, REJECTED):
        if side not in sides:
            raise ValueError(f"{name}: it scored no {side} response")
        if not sides[side].index.is_unique:
            row = sides[side].index[sides[side].index.duplicated()][0]
            raise ValueError(f"{row}: {name} has two {side} responses")
    lone = sides[CHOSEN].index.symmetric_difference(sides[REJECTED].index)
    if len(lone):
        raise ValueError(f"{lone[0]}: {name} scored only one of the two responses")
    return sides


def _check_same_examples(first: pd.Index, second: pd.Index, first_name: str, second_name: str) -> None:
    """Fails on the first example that only one of two models has."""
    if first.equals(second):
        return
    lone = first.symmetric_difference(second)
    if len(lone):
        has, lacks = (first_name, second_name) if lone[0] in first else (second_name, first_name)
        raise ValueError(f"{lone[0]}: {has} scored this example, but {lacks} did not")
