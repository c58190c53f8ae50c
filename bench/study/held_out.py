"""Estimates by cross-fitting how well a pair that was chosen for its score does on prompts that did not choose it.

The best of many pairs on some rows owes part of its score to those rows. So each problem is assigned at random to one
of ten folds, many times, with the same assignment for every pair. Each fold in turn is put aside: the pairs are ranked
on the other nine folds, ties broken at random, and the pair in first place (second, …) is scored on the fold. Over the
ten folds, each row is judged once by a pair that the row did not help to choose. The held-out estimate of a place is
the mean over all assignments. It belongs to the place: another pair may take that place in another fold. Nine tenths
of the rows choose nearly as well as all rows. Fewer choose worse: at 184 rows, half of the rows would lower the
estimate by about a point, and four fifths by up to 0.4 points.

The variance of a cross-fitted estimate is not the variance over its rows, because the folds share rows (Bates, Hastie
and Tibshirani 2023). So it is measured: the whole estimate is repeated on both halves of many random splits. The
variance of the difference of the halves is four times that of the estimate on all rows (McCarthy 1969).
"""

from typing import NamedTuple

import numpy as np

from bench.schema import PreconditionError
from bench.study.design import Rows, accuracy
from bench.study.interval import Limits, Sample, counted, difference_limits, effective_rows, wilson

N_FOLDS, N_DEALS, N_SPLITS = 10, 20, 25
MAX_SPLITS = 10_000
"""Most splits that are drawn, where rows are few, to find N_SPLITS whose halves have every subset."""
MIN_PROBLEMS = 4
"""Fewest problems of a subset. Each half of a split needs enough problems to rank on some and score on others."""


class Place(NamedTuple):
    """The pair in one place of the ranking, on rows that did not rank it."""

    values: np.ndarray
    """How often it is right on each row, mean over the assignments, (rows,), 0 to 1."""
    halves: np.ndarray
    """Held-out score on both halves of each split, (2, splits)."""


class Deals(NamedTuple):
    """Assignments of the rows that count to folds, and the rankings without each fold."""

    inside: np.ndarray
    """The rows of a split's half, or all rows, (deals, rows), bool."""
    folds: np.ndarray
    """Fold of each row, (deals, rows), int."""
    order: np.ndarray
    """Pairs, best first, ranked without each fold, (deals, folds, pairs), int."""


class HeldOut(NamedTuple):
    """Held-out estimates for a set of pairs."""

    estimate: np.ndarray
    """By place, best first, (pairs,)."""
    places: tuple[Place, ...]
    """Details of the first places."""
    first_share: np.ndarray
    """Proportion of the rankings in which each pair came first, (pairs,)."""
    fixed: np.ndarray
    """Score of every pair on both halves of each split, (2, splits, pairs)."""
    deals: tuple[Deals, Deals, Deals]
    """Of all rows, and of the first and the second half of each split."""

    def reordered(self, order: np.ndarray) -> "HeldOut":
        """The same estimates, for the pairs in another order.

        Args:
            order: For each pair of the new order, its number in the old one, (pairs,), int.
        """
        new = np.argsort(order)
        first, second, third = (deals._replace(order=new[deals.order]) for deals in self.deals)
        return self._replace(
            first_share=self.first_share[order], fixed=self.fixed[:, :, order], deals=(first, second, third)
        )


def held_out_scores(correct: np.ndarray, sample: Sample, *, rng: np.random.Generator) -> np.ndarray:
    """Expected score, on other prompts, of the pair in each place, (pairs,), best place first.

    Args:
        correct: 1 right, 0 wrong or tie, (pairs, rows), without excluded rows.
        sample: Weights, subsets and problems of the rows.
        rng: Source of the assignments to folds; it also orders pairs of equal score.

    Returns:
        The estimates; NaN for a single pair, because nothing chose it, and where a subset has fewer than two problems.
    """
    correct, sample = counted(correct, sample)
    if len(correct) < 2 or not correct.size or _fewest_problems(sample) < 2:
        return np.full(len(correct), np.nan)
    folds = _dealt(sample, N_FOLDS, N_DEALS, rng)
    return _mean(_cross_fitted(correct, sample, np.ones_like(folds, dtype=bool), folds, rng).scores)


def held_out(correct: np.ndarray, sample: Sample, *, rng: np.random.Generator, top: int) -> HeldOut:
    """The held-out estimates, with what is needed to compare the first `top` places. Arguments as in `held_out_scores`.

    Raises:
        PreconditionError: A subset has too few problems.
    """
    correct, sample = counted(correct, sample)
    if not correct.size or _fewest_problems(sample) < MIN_PROBLEMS:
        raise PreconditionError(
            f"choosing a pair needs at least {MIN_PROBLEMS} different prompts in every subset that counts: drsow ranks "
            "the pairs on some prompts and scores them on the others. The smallest subset has "
            f"{_fewest_problems(sample) if correct.size else 0}. Score more rows"
        )
    folds = _dealt(sample, N_FOLDS, N_DEALS, rng)
    whole = _cross_fitted(correct, sample, np.ones_like(folds, dtype=bool), folds, rng)
    inside = _dealt(sample, 2, N_SPLITS, rng) == 0
    halves = [_half(correct, sample, side, _dealt(sample, N_FOLDS, N_SPLITS, rng), rng) for side in (inside, ~inside)]
    if not all(np.isfinite(fitted.scores).all() for _, fitted in halves):
        halves = [_half(correct, sample, *half, rng) for half in _whole_splits(sample, rng)]
    scores = np.stack([fitted.scores for _, fitted in halves])
    places = tuple(
        Place(_values(correct, whole.order[:, :, place], folds), scores[:, :, place]) for place in range(top)
    )
    first = np.bincount(whole.order[:, :, 0].ravel(), minlength=len(correct)) / whole.order[:, :, 0].size
    fixed = np.stack([fitted.fixed for _, fitted in halves])
    every = Deals(np.ones_like(folds, dtype=bool), folds, whole.order)
    return HeldOut(_mean(whole.scores), places, first, fixed, (every, halves[0][0], halves[1][0]))


def place_limits(place: Place, estimate: float, sample: Sample) -> Limits:
    """The 95% interval of a place's held-out estimate, inside 0 and 1."""
    rows = effective_rows(place.values[None], sample)[0]
    variance = _half_variance(place.halves)
    # one right and one wrong row are added, so that an estimate of 0 or 1 still has a number of effective rows
    safe = (rows * estimate + 1) / (rows + 2)
    most = safe * (1 - safe) / variance if variance > 0 else np.inf
    return wilson(np.array(estimate), np.fmin(rows, most))


def lead_limits(place: Place, other: np.ndarray, other_halves: np.ndarray, sample: Sample) -> tuple[float, Limits]:
    """By how much a place's held-out score exceeds that of a rule that does not look at the rows, with 95% limits.

    Args:
        place: The place.
        other: How often the rule is right on each row, (rows,), 0 to 1.
        other_halves: Score of the rule on both halves of each split, (2, splits).
        sample: Weights, subsets and problems of the rows.
    """
    difference = place.values - other
    variance = _half_variance(place.halves - other_halves)
    return float(difference @ sample.weight), difference_limits(difference, sample, variance=variance)


class _Fitted(NamedTuple):
    """Rankings on some rows, and the scores of the ranked pairs on the rows put aside."""

    order: np.ndarray
    """Pairs, best first, ranked without each fold, (deals, folds, pairs), int."""
    scores: np.ndarray
    """Held-out score of each place, (deals, pairs); NaN where a subset has no rows left without a fold."""
    fixed: np.ndarray
    """Score of each pair itself, (deals, pairs)."""


def _cross_fitted(
    correct: np.ndarray, sample: Sample, inside: np.ndarray, folds: np.ndarray, rng: np.random.Generator
) -> _Fitted:
    """Rank without each fold and score on it, using only the rows that are inside.

    Args:
        correct: (pairs, rows).
        sample: Weights, subsets and problems of the rows.
        inside: (deals, rows), bool.
        folds: Number of each row's fold, (deals, rows).
        rng: Orders pairs of equal score.
    """
    rows = Rows((("", ""),), sample.weight[None], sample.subset, sample.problem)
    each = row_shares(sample, inside)
    orders, scores = [], np.zeros((len(folds), len(correct)))
    for fold in range(N_FOLDS):
        ranked_on = accuracy(correct, rows, (inside & (folds != fold)).astype(float))[:, 0]
        # accuracies are rounded to ten decimals, so these random numbers only break ties
        order = np.argsort(-ranked_on - 1e-11 * rng.random(ranked_on.shape), axis=1)
        # The last bits of a product differ from processor to processor.
        aside = np.round((each * (folds == fold)) @ correct.T, 12) + 0 * ranked_on
        scores = scores + np.take_along_axis(aside, order, axis=1)
        orders.append(order)
    return _Fitted(np.stack(orders, axis=1), scores, each @ correct.T)


def _half(
    correct: np.ndarray, sample: Sample, inside: np.ndarray, folds: np.ndarray, rng: np.random.Generator
) -> tuple[Deals, _Fitted]:
    """The estimate repeated on one half of each split. Arguments as in `_cross_fitted`."""
    fitted = _cross_fitted(correct, sample, inside, folds, rng)
    return Deals(inside, folds, fitted.order), fitted


def _whole_splits(sample: Sample, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """For both halves of each split, the rows inside and their folds; each half ranks and scores on every subset.

    Raises:
        PreconditionError: Too few of the random splits have such halves.
    """
    found: list[np.ndarray] = []
    for _ in range(0, MAX_SPLITS, 4 * N_SPLITS):
        inside = _dealt(sample, 2, 4 * N_SPLITS, rng) == 0
        folds = [_dealt(sample, N_FOLDS, 4 * N_SPLITS, rng) for _ in range(2)]
        whole = _has_every_subset(sample, inside, folds[0]) & _has_every_subset(sample, ~inside, folds[1])
        found.extend(np.stack([inside, *folds], axis=1)[whole])
        if len(found) >= N_SPLITS:
            first, *dealt = np.stack(found[:N_SPLITS], axis=1)
            return [(first == 1, dealt[0]), (first == 0, dealt[1])]
    raise PreconditionError(
        "choosing a pair needs more different prompts: its subsets share prompts, and hardly any random half of these "
        "rows has two prompts of every subset. Score more rows"
    )


def _has_every_subset(sample: Sample, inside: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether the rows inside are in two folds or more of every subset, (deals,)."""
    several = np.ones(len(inside), dtype=bool)
    for subset in np.unique(sample.subset):
        columns = sample.subset == subset
        mine, fold = inside[:, columns], folds[:, columns]
        lowest = np.where(mine, fold, N_FOLDS).min(axis=1)
        several &= lowest < np.where(mine, fold, -1).max(axis=1)
    return several


def row_shares(sample: Sample, inside: np.ndarray) -> np.ndarray:
    """Weight of each row where only the rows inside count, (deals, rows); NaN in a subset without rows inside."""
    each = np.zeros(inside.shape)
    for subset in np.unique(sample.subset):
        columns = np.flatnonzero(sample.subset == subset)
        n = inside[:, columns].sum(axis=1, keepdims=True)
        each[:, columns] = sample.weight[columns].sum() * inside[:, columns] / np.where(n > 0, n, np.nan)
    return each


def _values(correct: np.ndarray, order: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """How often the pair that a place had without a row's fold is right on that row, mean over the deals, (rows,)."""
    chosen = np.take_along_axis(order, folds, axis=1)
    return correct[chosen, np.arange(correct.shape[1])].mean(axis=0)


def _dealt(sample: Sample, n_piles: int, n_deals: int, rng: np.random.Generator) -> np.ndarray:
    """The pile of each row, (deals, rows), int.

    Problems are dealt evenly inside the smallest of the subsets that contain them.
    """
    sizes = np.bincount(sample.subset)[sample.subset]
    by_size = np.lexsort((sample.subset, sizes))
    _, first = np.unique(sample.problem[by_size], return_index=True)
    stratum = sample.subset[by_size][first]
    piles = np.zeros((n_deals, len(stratum)), dtype=int)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        order = rng.permuted(np.tile(np.arange(len(members)), (n_deals, 1)), axis=1)
        # the first pile is drawn too, so that the remainder does not always go to the same piles
        piles[:, members] = (order + rng.integers(n_piles, size=(n_deals, 1))) % n_piles
    return piles[:, sample.problem]


def _fewest_problems(sample: Sample) -> int:
    """Number of problems of the subset with the fewest."""
    both = np.unique(np.stack([sample.subset, sample.problem]), axis=1)
    return int(np.unique(both[0], return_counts=True)[1].min())


def _mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the deals in which no fold left a subset without rows, (places,)."""
    known = np.isfinite(scores).all(axis=1)
    return scores[known].mean(axis=0) if known.any() else np.full(scores.shape[1], np.nan)


def _half_variance(halves: np.ndarray) -> float:
    """Variance of an estimate on all rows, from its values on both halves of many splits, (2, splits)."""
    first, second = halves
    return float(((first - second) ** 2).mean() / 4) if halves.size else np.nan
