"""What a pair chosen for its score is worth on prompts that did not choose it: cross-fitting.

The best of many pairs on some rows owes part of its score to those rows. So the problems are dealt into five folds,
many times at random, the same for every pair. Each fold in turn is put aside: the pairs are ranked on the other four,
ties broken at random, and whoever comes first (second, …) is scored on the fold. Over the five folds every row is
judged once by a pair that it had no part in choosing, and the mean over the deals is the held-out estimate of that
place. It belongs to the place: another pair may come to it in another fold. Four fifths of the rows choose nearly as
well as all of them; halves choose worse, and would put the estimate about a point too low at 184 rows.

The variance of a cross-fitted estimate is not the variance of its rows: the folds share their rows (Bates, Hastie and
Tibshirani 2023). It is measured instead: the whole estimate is made again on both halves of many random splits, whose
difference has four times the variance of the estimate on all rows (McCarthy 1969).
"""

from typing import NamedTuple

import numpy as np

from bench.schema import PreconditionError
from bench.study.design import Rows, accuracy
from bench.study.interval import Limits, Sample, difference_limits, effective_rows, wilson

N_FOLDS, N_DEALS, N_SPLITS = 5, 40, 40
MIN_PROBLEMS = 4
"""Fewest problems of a subset that can be halved and ranked on part of each half."""


class Place(NamedTuple):
    """Whoever comes to one place of the ranking, on rows that did not put it there."""

    values: np.ndarray
    """How right it is on each row, mean over the deals, (rows,), 0 to 1."""
    halves: np.ndarray
    """Its held-out score on both halves of each split, (2, splits)."""


class HeldOut(NamedTuple):
    """Held-out estimates of a set of pairs."""

    estimate: np.ndarray
    """By place, best first, (pairs,)."""
    places: tuple[Place, ...]
    """The first of them in detail."""
    first_share: np.ndarray
    """In which share of the rankings each pair came first, (pairs,)."""
    fixed: np.ndarray
    """Every pair's own score on both halves of each split, (2, splits, pairs)."""


def held_out_scores(correct: np.ndarray, sample: Sample, *, rng: np.random.Generator) -> np.ndarray:
    """What the pair of each place is expected to score on other prompts, (pairs,), best place first.

    Args:
        correct: 1 right, 0 wrong or tie, (pairs, rows); none is left out.
        sample: What counts how, and which rows go together.
        rng: Source of the deals and of who comes first among equals.

    Returns:
        NaN everywhere for a single pair, which nothing chose, and where a subset has fewer than two problems.
    """
    correct, sample = _counted(correct, sample)
    if len(correct) < 2 or not correct.size or _fewest_problems(sample) < 2:
        return np.full(len(correct), np.nan)
    folds = _dealt(sample, N_FOLDS, N_DEALS, rng)
    return _mean(_cross_fitted(correct, sample, np.ones_like(folds, dtype=bool), folds, rng).scores)


def held_out(correct: np.ndarray, sample: Sample, *, rng: np.random.Generator, top: int) -> HeldOut:
    """The same with what its first `top` places take to compare them; arguments as in `held_out_scores`.

    Raises:
        PreconditionError: A subset has too few problems.
    """
    correct, sample = _counted(correct, sample)
    if not correct.size or _fewest_problems(sample) < MIN_PROBLEMS:
        raise PreconditionError(
            f"choosing needs at least {MIN_PROBLEMS} different prompts in every subset that counts, to rank the pairs "
            f"on some and score them on others; the smallest has {_fewest_problems(sample) if correct.size else 0}. "
            "Score more rows"
        )
    folds = _dealt(sample, N_FOLDS, N_DEALS, rng)
    whole = _cross_fitted(correct, sample, np.ones_like(folds, dtype=bool), folds, rng)
    inside = _dealt(sample, 2, N_SPLITS, rng) == 0
    again = [
        _cross_fitted(correct, sample, side, _dealt(sample, N_FOLDS, N_SPLITS, rng), rng) for side in (inside, ~inside)
    ]
    halves = np.stack([each.scores for each in again])
    # a split of which some part lacks a subset says nothing
    known = np.isfinite(halves).all(axis=(0, 2))
    places = tuple(
        Place(_values(correct, whole.order[:, :, place], folds), halves[:, known, place]) for place in range(top)
    )
    first = np.bincount(whole.order[:, :, 0].ravel(), minlength=len(correct)) / whole.order[:, :, 0].size
    return HeldOut(_mean(whole.scores), places, first, np.stack([each.fixed for each in again])[:, known])


def place_limits(place: Place, estimate: float, sample: Sample) -> Limits:
    """The 95% interval of a place's held-out estimate, inside 0 and 1."""
    rows = effective_rows(place.values[None], sample)[0]
    variance = _half_variance(place.halves)
    # one right and one wrong row more, so that an estimate of 0 or 1 still says how many rows it is worth
    safe = (rows * estimate + 1) / (rows + 2)
    most = safe * (1 - safe) / variance if variance > 0 else np.inf
    return wilson(np.array(estimate), np.fmin(rows, most))


def lead_limits(place: Place, other: np.ndarray, other_halves: np.ndarray, sample: Sample) -> tuple[float, Limits]:
    """What a place is held out to score above a rule that looks at no rows, and the 95% limits of that.

    Args:
        place: The place.
        other: How right the rule is on each row, (rows,), 0 to 1.
        other_halves: Its score on both halves of each split, (2, splits).
        sample: What counts how, and which rows go together.
    """
    difference = place.values - other
    variance = _half_variance(place.halves - other_halves)
    return float(difference @ sample.weight), difference_limits(difference, sample, variance=variance)


class _Fitted(NamedTuple):
    """Rankings of some rows, and what they are worth on the rows put aside."""

    order: np.ndarray
    """Pairs, best first, without each fold, (deals, folds, pairs), int."""
    scores: np.ndarray
    """Held-out score of each place, (deals, pairs); NaN where a fold leaves a subset without rows."""
    fixed: np.ndarray
    """Each pair's own score, (deals, pairs)."""


def _cross_fitted(
    correct: np.ndarray, sample: Sample, inside: np.ndarray, folds: np.ndarray, rng: np.random.Generator
) -> _Fitted:
    """Rank without each fold and score on it, among the rows that are inside.

    Args:
        correct: (pairs, rows).
        sample: What counts how.
        inside: (deals, rows), bool.
        folds: Number of each row's fold, (deals, rows).
        rng: Who comes first among equals.
    """
    rows = Rows((("", ""),), sample.weight[None], sample.subset, sample.problem)
    each = _each_row(sample, inside)
    orders, scores = [], 0.0
    for fold in range(N_FOLDS):
        ranked_on = accuracy(correct, rows, (inside & (folds != fold)).astype(float))[:, 0]
        # scores are exact to ten decimals, so this breaks ties and nothing else
        order = np.argsort(-ranked_on - 1e-11 * rng.random(ranked_on.shape), axis=1)
        aside = (each * (folds == fold)) @ correct.T + 0 * ranked_on
        scores = scores + np.take_along_axis(aside, order, axis=1)
        orders.append(order)
    return _Fitted(np.stack(orders, axis=1), scores, each @ correct.T)


def _each_row(sample: Sample, inside: np.ndarray) -> np.ndarray:
    """What each row counts where only those inside do, (deals, rows)."""
    each = np.zeros(inside.shape)
    for subset in np.unique(sample.subset):
        columns = np.flatnonzero(sample.subset == subset)
        n = inside[:, columns].sum(axis=1, keepdims=True)
        each[:, columns] = sample.weight[columns].sum() * inside[:, columns] / np.where(n > 0, n, np.nan)
    return each


def _values(correct: np.ndarray, order: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """How right whoever came to a place without a row's fold is on that row, mean over the deals, (rows,)."""
    chosen = np.take_along_axis(order, folds, axis=1)
    return correct[chosen, np.arange(correct.shape[1])].mean(axis=0)


def _dealt(sample: Sample, n_piles: int, n_deals: int, rng: np.random.Generator) -> np.ndarray:
    """The pile of each row, (deals, rows), int: problems are dealt evenly inside the smallest subset that has them."""
    sizes = np.bincount(sample.subset)[sample.subset]
    by_size = np.lexsort((sample.subset, sizes))
    _, first = np.unique(sample.problem[by_size], return_index=True)
    stratum = sample.subset[by_size][first]
    piles = np.zeros((n_deals, len(stratum)), dtype=int)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        order = rng.permuted(np.tile(np.arange(len(members)), (n_deals, 1)), axis=1)
        # where a deal begins is drawn too, so that no pile gets the odd ones always
        piles[:, members] = (order + rng.integers(n_piles, size=(n_deals, 1))) % n_piles
    return piles[:, sample.problem]


def _counted(correct: np.ndarray, sample: Sample) -> tuple[np.ndarray, Sample]:
    """Without the rows that count nothing, problems numbered from 0."""
    kept = sample.weight > 0
    problem = np.unique(sample.problem[kept], return_inverse=True)[1]
    return correct[:, kept], Sample(sample.weight[kept], sample.subset[kept], problem)


def _fewest_problems(sample: Sample) -> int:
    """Problems of the subset that has fewest."""
    both = np.unique(np.stack([sample.subset, sample.problem]), axis=1)
    return int(np.unique(both[0], return_counts=True)[1].min())


def _mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the deals in which every fold left every subset some rows, (places,)."""
    known = np.isfinite(scores).all(axis=1)
    return scores[known].mean(axis=0) if known.any() else np.full(scores.shape[1], np.nan)


def _half_variance(halves: np.ndarray) -> float:
    """Variance of an estimate on all rows, from its values on both halves of many splits, (2, splits)."""
    return float(((halves[0] - halves[1]) ** 2).mean() / 4) if halves.size else np.nan
