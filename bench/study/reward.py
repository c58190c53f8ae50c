"""Computes the rewards and margins of a pair from its two models' log-probabilities.

The reward of a response is the log-probability under the strong model minus that under the weak model, end of turn
included: `sum_t log p_strong(y_t | x, y_<t) - sum_t log p_weak(y_t | x, y_<t)` (arXiv 2411.02481). `mean` divides this
difference by the strong model's token count, and `per-byte` by the number of UTF-8 bytes of the response as the strong
model's template renders it. Under a shared template both models read the same bytes; under native templates they may
not. `rewards.known` has all rewards. One that needs tokens takes frames with SCORES and TOKEN_SCORES' lists.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CHOSEN, MARGINS, NONFINITE, OK, REJECTED, REWARDS, TOO_LONG, DrsowError, Example
from bench.study.rewards.known import KNOWN

_KEY = ["example_id", "response_id"]


class RewardMatrix(NamedTuple):
    """The rewards of many pairs for the same responses."""

    values: np.ndarray
    """(pairs, responses), float64; NaN where a score is missing."""
    responses: pd.MultiIndex
    """(example_id, response_id) of each response, in the order of the first model's scores."""

    def by_example(self, examples: Mapping[str, Example]) -> tuple[list[Example], list[np.ndarray]]:
        """The scored examples, in the order of the scores, and the rewards of the responses of each.

        Args:
            examples: The data set by example_id.

        Raises:
            ValueError: An example is not in the data set, or one of its responses is not scored.
        """
        scored = []
        for example_id in pd.unique(self.responses.get_level_values(0)):
            if example_id not in examples:
                raise ValueError(f"{example_id}: this example has scores, but the data set does not contain it")
            scored.append(examples[example_id])
        wanted = [(example.example_id, name) for example in scored for name, _ in example.responses]
        places = self.responses.get_indexer(pd.MultiIndex.from_tuples(wanted))
        if (places < 0).any():
            example_id, name = wanted[int(np.argmin(places))]
            raise ValueError(f"{example_id}: response {name} is not scored")
        ends = np.cumsum([len(example.responses) for example in scored])[:-1]
        return scored, [self.values[:, columns] for columns in np.split(places, ends)]


def rewards(strong: pd.DataFrame, weak: pd.DataFrame, *, reward: str) -> pd.DataFrame:
    """Compute the reward of every response that both models scored.

    Args:
        strong: SCORES of the strong model.
        weak: SCORES of the weak model, over the same responses.
        reward: A name of `rewards.known.KNOWN`.

    Returns:
        `example_id, response_id, reward, status`, in the strong model's order. `reward` is in a unit of
        `rewards.known.UNITS`, and NaN unless both scores are ok. If one score is `too_long` and the other `nonfinite`,
        the status is `too_long`.

    Raises:
        ValueError: Only one model scored a response, or a model scored it twice.
    """
    both = _scored_by_both(strong, weak)
    value = _value(both, reward).where(both["status"] == OK)
    return both[_KEY].assign(reward=value, status=both["status"])


def margins(
    strong: pd.DataFrame,
    weak: pd.DataFrame,
    subsets: pd.Series,
    *,
    pair_id: str,
    right: Mapping[str, Collection[str]] | None = None,
    names: Sequence[str] = REWARDS,
) -> pd.DataFrame:
    """Compute the margin of every example under some rewards.

    Args:
        strong: SCORES of the strong model.
        weak: SCORES of the weak model, over the same responses.
        subsets: Subset of each example, indexed by example_id.
        pair_id: Value of the column `pair_id`.
        right: response_ids of the right responses, by example_id; None for preferences, whose right one is "chosen".
        names: Names of the rewards.

    Returns:
        MARGINS, grouped by reward, then in the strong model's order.

    Raises:
        ValueError: An example has no subset, or lacks a right or a wrong response; without `right`, its responses are
            not one chosen and one rejected.
    """
    both = _scored_by_both(strong, weak)
    is_right = _labels(both, right, pair_id)
    order = pd.Index(pd.unique(both.loc[is_right, "example_id"]))
    unknown = order.difference(subsets.index)
    if len(unknown):
        raise ValueError(f"{unknown[0]}: {pair_id} has scores of this example, but the data set does not contain it")
    status, n = _worst(both).loc[order], len(names)
    values = [_leads(both, is_right, name).loc[order].where(status == OK) for name in names]
    columns = {"pair_id": pair_id, "reward": np.repeat(names, len(order)), "example_id": np.tile(order, n)}
    columns |= {"subset": np.tile(subsets.loc[order], n), "margin_nats": np.concatenate(values)}
    return pd.DataFrame(columns | {"status": np.tile(status, n)})[list(MARGINS)]


def _leads(both: pd.DataFrame, is_right: pd.Series, reward: str) -> pd.Series:
    """The best reward of a right response minus the best of a wrong one, by example_id."""
    best = _value(both, reward).groupby([is_right, both["example_id"]]).max()
    return best.loc[True] - best.loc[False]


def _labels(both: pd.DataFrame, right: Mapping[str, Collection[str]] | None, pair_id: str) -> pd.Series:
    """Whether each response is a right one; checks that every example has a right and a wrong one."""
    if right is None:
        _sides(both, pair_id)
        return both["response_id"] == CHOSEN
    ids = zip(both["example_id"], both["response_id"], strict=True)
    is_right = pd.Series([name in right[example] for example, name in ids], index=both.index)
    kinds = is_right.groupby(both["example_id"]).nunique()
    if (kinds < 2).any():
        row = kinds.idxmin()
        raise ValueError(f"{row}: a margin needs a right and a wrong response, but {pair_id} scored only one kind")
    return is_right


def reward_matrix(scores: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, *, reward: str) -> RewardMatrix:
    """Compute the rewards of many pairs at once; they equal those of `rewards` to the bit.

    Args:
        scores: SCORES by model_id, all over the same responses.
        pairs: One row per pair; `strong` and `weak` are model_ids.
        reward: A name of `rewards.known.KNOWN`.

    Returns:
        The matrix, its rows in the order of `pairs`.

    Raises:
        ValueError: Two models were not scored on the same responses.
    """
    if reward not in REWARDS:
        return _pair_by_pair(scores, pairs, reward)
    models = pd.unique(pd.concat([pairs["strong"], pairs["weak"]], ignore_index=True))
    first = pd.MultiIndex.from_frame(scores[models[0]][_KEY])
    totals, divisors = np.empty((2, len(models), len(first)))
    for position, model_id in enumerate(models):
        frame = scores[model_id].set_index(_KEY)
        _check_same_responses(first, frame.index, models[0], model_id)
        frame = frame.loc[first]
        totals[position] = (frame["logp_sum_nats"] + frame["logp_end_nats"]).where(frame["status"] == OK)
        divisors[position] = _divisor(frame, reward)
    strong = pd.Index(models).get_indexer(pairs["strong"])
    weak = pd.Index(models).get_indexer(pairs["weak"])
    return RewardMatrix((totals[strong] - totals[weak]) / divisors[strong], first)


def _pair_by_pair(scores: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, reward: str) -> RewardMatrix:
    """As `reward_matrix`, for rewards that are no quotient of a difference of two sums."""
    first = pd.MultiIndex.from_frame(scores[pairs["strong"].iloc[0]][_KEY])
    rows = []
    for strong, weak in zip(pairs["strong"], pairs["weak"], strict=True):
        table = rewards(scores[strong], scores[weak], reward=reward).set_index(_KEY)["reward"]
        _check_same_responses(first, table.index, pairs["strong"].iloc[0], strong)
        rows.append(table.loc[first].to_numpy())
    return RewardMatrix(np.stack(rows), first)


def _value(both: pd.DataFrame, reward: str) -> pd.Series:
    """The reward of each response.

    Raises:
        ValueError: There is no such reward.
        DrsowError: What the reward needs is not stored. The message names the reward.
    """
    if reward not in KNOWN:
        raise ValueError(f"unknown reward {reward!r}: choose one of {', '.join(KNOWN)}")
    try:
        return KNOWN[reward].function(both)
    except DrsowError as error:
        raise type(error)(f"reward {reward}: {error}") from error


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
    """What one of REWARDS divides the difference of the sums by, (rows,), float64."""
    if reward == "sum":
        return pd.Series(1.0, index=frame.index)
    if reward == "mean":
        return frame["n_tokens"].astype(float)
    return frame["n_bytes"].astype(float)


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


def _worst(both: pd.DataFrame) -> pd.Series:
    """The joint status of all responses of each example."""
    flags = pd.DataFrame({name: both["status"] == name for name in (TOO_LONG, NONFINITE)})
    found = flags.groupby(both["example_id"], sort=False).any()
    status = pd.Series(OK, index=found.index).mask(found[NONFINITE], NONFINITE)
    return status.mask(found[TOO_LONG], TOO_LONG)


def _check_same_responses(first: pd.MultiIndex, second: pd.Index, first_name: str, second_name: str) -> None:
    """Fails on the first response that only one of two models has."""
    if first.equals(second):
        return
    lone = first.symmetric_difference(second)
    if len(lone):
        has, lacks = (first_name, second_name) if lone[0] in first else (second_name, first_name)
        raise ValueError(f"{lone[0][0]}: {has} scored response {lone[0][1]} of this example, but {lacks} did not")
