"""QAP: would any labelling of the models have done? A permutation test of Spearman's rho between gap and accuracy.

The rho is the headline one of `effects`: the mean of the families' own, so that differences between families do not
count as evidence.

The performance scores are handed out anew among the models of each family, every gap is computed again, and a pair
whose order flips is turned round: its accuracy becomes the one with its two models swapped. Pairs with a gap of 0
are left out, draw by draw. So whatever ties pairs together, models and prompts alike, is in every draw.

Two null hypotheses, one formula. Write a pair's accuracy as level + side x lean, where level is the mean of its two
accuracies (forward and turned), side the sign of its gap and lean half of their difference:

- `exchangeable`: scores say nothing. Every relabelling inside families is equally likely given the models' answers,
  so the test is exact. It also rejects when stronger models judge better whatever the gap, if that moves rho.
- `sign_only`: scores order the models, and the better one judges better by an amount that does not hang on how much
  better it is: lean = advantage x side + rest, the rest exchangeable. Each family has an advantage of its own. It is
  estimated as the mean of side x lean over the family's pairs and stays with the order in every draw; the rest is
  relabelled and turned (Freedman and Lane 1983). Exact but for those estimates. Only permuting the sizes of the gaps
  while pairs stay as they are would not do: a pair's rest has the signs of its models in it, and they have to turn
  with the order.

Rho is divided by its dyadic-robust standard error, so that the test keeps its level also where gap and accuracy are
uncorrelated without being independent (DiCiccio and Romano 2017). Two-sided: |t| of a draw against |t| observed.
"""

import math
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from bench.study.design import Study, gaps
from bench.study.effects import comparable, dyadic_test, family_by_family, membership, standardised

_CHUNK = 400


class QapTest(NamedTuple):
    """A correlation and its two p-values; NaN where gap or accuracy do not vary."""

    rho: float
    """The mean of the families' Spearman's rhos, each weighted by its number of pairs."""
    t: float
    """rho over its dyadic-robust standard error."""
    exchangeable: float
    """p under: scores say nothing."""
    sign_only: float
    """p under: scores order the models, the size of a gap says nothing."""


def relabellings(family: np.ndarray, *, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Ways to hand out the models' scores anew inside their families.

    Args:
        family: Family of each model, (models,).
        n_draws: How many are drawn; where there are no more than that, each is given once, the identity left out.
        rng: Source of the draws.

    Returns:
        (draws, models), int: model i gets the score of model `[d, i]`.
    """
    blocks = [np.flatnonzero(family == name) for name in np.unique(family)]
    if math.prod(math.factorial(len(block)) for block in blocks) <= n_draws + 1:
        return _every(blocks, len(family))
    result = np.tile(np.arange(len(family)), (n_draws, 1))
    for block in blocks:
        result[:, block] = rng.permuted(result[:, block], axis=1)
    return result


def qap(study: Study, performance: np.ndarray, forward: np.ndarray, turned: np.ndarray, labels: np.ndarray) -> QapTest:
    """Test Spearman's rho between gap and accuracy.

    Args:
        study: Models and pairs, every model with a score.
        performance: Published score of each model, (models,), points.
        forward: Accuracy of each pair, (pairs,), 0 to 1, NaN for pairs to leave out.
        turned: The same with strong and weak swapped; 1 - accuracy - tie rate for a density-ratio reward.
        labels: What `relabellings` gave.

    Returns:
        rho and p = (1 + b) / (B + 1), b of B relabellings being at least as extreme; exact where they are all.
    """
    used = np.isfinite(forward) & np.isfinite(turned)
    study = study._replace(strong=study.strong[used], weak=study.weak[used])
    level, lean = (forward + turned)[used] / 2, (forward - turned)[used] / 2
    side = np.sign(gaps(study, performance))
    (rho, t), *_ = _statistics(study, performance, np.arange(len(performance))[None, :], [(level, lean)])
    if np.isnan(t[0]):
        return QapTest(*[math.nan] * 4)
    advantage = _advantage(study, side, lean)
    nulls = [(level, lean), (level + advantage, lean - advantage * side)]
    parts = [
        [t for _, t in _statistics(study, performance, labels[start : start + _CHUNK], nulls)]
        for start in range(0, len(labels), _CHUNK)
    ]
    drawn = [np.concatenate(draws) for draws in zip(*parts, strict=True)]
    return QapTest(float(rho[0]), float(t[0]), _p_value(t[0], drawn[0]), _p_value(t[0], drawn[1]))


def _advantage(study: Study, side: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """How much better the better model of a pair judges: the mean over its family's pairs with a gap, (pairs,)."""
    family = study.family[study.strong]
    result = np.zeros(len(side))
    for name in np.unique(family[side != 0]):
        inside = family == name
        result[inside] = (side * lean)[inside & (side != 0)].mean()
    return result


def _every(blocks: list[np.ndarray], n_models: int) -> np.ndarray:
    """All relabellings inside the blocks but the identity, (draws, models)."""
    choices = product(*(permutations(block) for block in blocks))
    result = np.array([np.concatenate(choice) for choice in choices])
    labels = np.empty_like(result)
    labels[:, np.concatenate(blocks)] = result
    return labels[(labels != np.arange(n_models)).any(axis=1)]


def _statistics(
    study: Study, performance: np.ndarray, labels: np.ndarray, nulls: list[tuple[np.ndarray, np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Spearman's rho and its t of each relabelling, (draws,) each, of every (level, lean), (pairs,) each.

    All accuracies that can occur are two a pair, and all gaps those between two models: they are numbered once, in
    order, and a draw's ranks follow from counting its numbers. That is some ten times faster than sorting each draw.
    """
    side = np.sign(gaps(study, performance[labels])).astype(int)
    in_draw = (side != 0).astype(float)
    of_model = np.unique(study.family, return_inverse=True)[1]
    family = of_model[study.strong]
    # only models of one family are paired: other gaps need no number
    size = np.where(of_model[:, None] == of_model, np.round(np.abs(performance[:, None] - performance), 9), 0.0)
    sizes, between = np.unique(family_by_family(size, of_model[:, None]), return_inverse=True)
    x = between.reshape(len(performance), -1)[labels[:, study.strong], labels[:, study.weak]]
    x_rank = standardised(_midranks(x, in_draw, len(sizes)), in_draw, family)
    models = membership(study.strong, study.weak, len(performance))
    results = []
    for level, lean in nulls:
        # ten decimals: accuracies that are equal in the data are ties in every draw
        y = np.round([level - lean, level, level + lean], 10)
        values, number = np.unique(family_by_family(y, family), return_inverse=True)
        y_rank = _midranks(number.reshape(3, -1)[side + 1, np.arange(len(level))], in_draw, len(values))
        y_rank = standardised(y_rank, in_draw, family)
        results.append(dyadic_test(*comparable(x_rank, y_rank, in_draw), models))
    return results


def _midranks(numbers: np.ndarray, weights: np.ndarray, n_values: int) -> np.ndarray:
    """`effects.midranks` of values given by their number in order, (draws, pairs)."""
    cells = numbers + n_values * np.arange(len(numbers))[:, None]
    count = np.bincount(cells.ravel(), weights.ravel(), minlength=n_values * len(numbers)).reshape(-1, n_values)
    return (np.cumsum(count, axis=1) - count / 2).ravel()[cells]


def _p_value(observed: float, draws: np.ndarray) -> float:
    """Share of draws, the observed one among them, that are at least as extreme."""
    # a draw in which gap or accuracy do not vary shows no correlation
    size = np.nan_to_num(np.abs(draws), nan=0.0, posinf=np.inf)
    return float((1 + np.sum(size >= abs(observed) * (1 - 1e-9))) / (1 + len(draws)))
