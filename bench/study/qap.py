"""QAP: a permutation test of Spearman's rho between gap and accuracy.

The test asks how often a random assignment of the published scores to the models gives an equally large rho. The rho is
the headline one of `effects`: the mean of the families' rhos, so differences between families are no evidence.

Each draw shuffles the performance scores among the models of each family and computes every gap again. If the order of
a pair changes, its accuracy becomes the accuracy with its two models swapped. Pairs with a gap of 0 in a draw are left
out of that draw. So every draw keeps all dependence between pairs, through models and through prompts.

The two null hypotheses use one formula. The accuracy of a pair is level + side x lean: level is the mean of its two
accuracies (forward and swapped), side is the sign of its gap, and lean is half the difference of the two accuracies.

- `exchangeable`: scores carry no information. If the models of a family are exchangeable, every relabelling inside
  families is equally likely given their answers, and the test is exact. Models that are tuned one from the other are
  not, and then it rejects too often (`tests/study/placebo.py`). It also rejects when stronger models judge better
  regardless of the gap, if that changes rho.
- `sign_only`: scores order the models, and the better model judges better by an amount that does not depend on the size
  of the gap: lean = advantage x side + rest, with an exchangeable rest. Each family has its own advantage, estimated as
  the mean of side x lean over the family's pairs. The advantage stays with the order in every draw, and the rest is
  relabelled and swapped (Freedman and Lane 1983). The test is exact except for these estimates. Permuting only the
  sizes of the gaps would be wrong: the rest of a pair contains the signs of its models, which must change with the
  order.

Rho is divided by its dyadic-robust standard error, so that the test keeps its level where gap and accuracy are
uncorrelated but dependent (DiCiccio and Romano 2017). The test is two-sided: it compares |t| of each draw with the
observed |t|.
"""

import math
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from bench.study.design import Study, gaps
from bench.study.effects import comparable, dyadic_test, family_by_family, membership, standardised

_CHUNK = 400
"""Number of relabellings computed at once."""


class QapTest(NamedTuple):
    """A correlation and its two p-values; NaN where gap or accuracy do not vary."""

    rho: float
    """The mean of the families' Spearman's rhos, each weighted by its number of pairs."""
    t: float
    """rho divided by its dyadic-robust standard error."""
    exchangeable: float
    """p under the null that scores carry no information."""
    sign_only: float
    """p under the null that scores order the models and the size of a gap carries no information."""


def relabellings(family: np.ndarray, *, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ways to shuffle the models' scores inside their families.

    Args:
        family: Family of each model, (models,).
        n_draws: Number of draws. If there are no more relabellings than that, each is given once, without the identity.
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
        study: Models and pairs; every model has a score.
        performance: Published score of each model, (models,), points.
        forward: Accuracy of each pair, (pairs,), 0 to 1, NaN for pairs to leave out.
        turned: The accuracy with strong and weak swapped; 1 - accuracy - tie rate for a density-ratio reward.
        labels: Result of `relabellings`.

    Returns:
        rho and p = (1 + b) / (B + 1), where b of B relabellings are at least as extreme; exact if they are all
        relabellings.
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
    exchangeable, sign_only = _drawn(study, performance, labels, nulls)
    return QapTest(float(rho[0]), float(t[0]), p_value(t[0], exchangeable), p_value(t[0], sign_only))


def exchangeable_p(study: Study, performance: np.ndarray, forward: np.ndarray, labels: np.ndarray) -> float:
    """The `exchangeable` p of `qap` alone, for pairs without ties and without missing accuracies."""
    nulls = [(np.full(len(forward), 0.5), forward - 0.5)]
    (_, t), *_ = _statistics(study, performance, np.arange(len(performance))[None, :], nulls)
    (drawn,) = _drawn(study, performance, labels, nulls)
    return math.nan if np.isnan(t[0]) else p_value(t[0], drawn)


def _drawn(
    study: Study, performance: np.ndarray, labels: np.ndarray, nulls: list[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """The t of each relabelling under each null, (draws,) each."""
    parts = [
        [t for _, t in _statistics(study, performance, labels[start : start + _CHUNK], nulls)]
        for start in range(0, len(labels), _CHUNK)
    ]
    return [np.concatenate(draws) for draws in zip(*parts, strict=True)]


def _advantage(study: Study, side: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """By how much the better model of a pair judges better: the mean over its family's pairs with a gap, (pairs,)."""
    family = study.family[study.strong]
    result = np.zeros(len(side))
    for name in np.unique(family[side != 0]):
        inside = family == name
        result[inside] = (side * lean)[inside & (side != 0)].mean()
    return result


def _every(blocks: list[np.ndarray], n_models: int) -> np.ndarray:
    """All relabellings inside the blocks without the identity, (draws, models)."""
    choices = product(*(permutations(block) for block in blocks))
    result = np.array([np.concatenate(choice) for choice in choices])
    labels = np.empty_like(result)
    labels[:, np.concatenate(blocks)] = result
    return labels[(labels != np.arange(n_models)).any(axis=1)]


def _statistics(
    study: Study, performance: np.ndarray, labels: np.ndarray, nulls: list[tuple[np.ndarray, np.ndarray]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Spearman's rho and its t for each relabelling, (draws,) each, and for each (level, lean), (pairs,) each.

    Each pair has two possible accuracies, and every possible gap is one between two models. So all values are numbered
    once, in ascending order, and the ranks of a draw follow from counting its numbers. This is some ten times faster
    than sorting each draw.
    """
    side = np.sign(gaps(study, performance[labels])).astype(int)
    in_draw = (side != 0).astype(float)
    of_model = np.unique(study.family, return_inverse=True)[1]
    family = of_model[study.strong]
    # only models of one family are paired, so gaps between families need no number
    size = np.where(of_model[:, None] == of_model, np.round(np.abs(performance[:, None] - performance), 9), 0.0)
    sizes, between = np.unique(family_by_family(size, of_model[:, None]), return_inverse=True)
    x = between.reshape(len(performance), -1)[labels[:, study.strong], labels[:, study.weak]]
    x_ranks = standardised(_midranks(x, in_draw, len(sizes)), in_draw, family)
    models = membership(study.strong, study.weak, len(performance))
    results = []
    for level, lean in nulls:
        # rounded to ten decimals, so that accuracies which are equal in the data are ties in every draw
        possible = np.round([level - lean, level, level + lean], 10)
        values, number = np.unique(family_by_family(possible, family), return_inverse=True)
        y = number.reshape(3, -1)[side + 1, np.arange(len(level))]
        y_ranks = standardised(_midranks(y, in_draw, len(values)), in_draw, family)
        results.append(dyadic_test(*comparable(x_ranks, y_ranks, in_draw), models))
    return results


def _midranks(numbers: np.ndarray, weights: np.ndarray, n_values: int) -> np.ndarray:
    """`effects.midranks` of values that are given by their number in ascending order, (draws, pairs)."""
    cells = numbers + n_values * np.arange(len(numbers))[:, None]
    count = np.bincount(cells.ravel(), weights.ravel(), minlength=n_values * len(numbers)).reshape(-1, n_values)
    return (np.cumsum(count, axis=1) - count / 2).ravel()[cells]


def p_value(observed: float, draws: np.ndarray) -> float:
    """Proportion of draws, including the observed one, that are at least as extreme."""
    # a draw in which gap or accuracy do not vary counts as no correlation
    size = np.nan_to_num(np.abs(draws), nan=0.0, posinf=np.inf)
    return float((1 + np.sum(size >= abs(observed) * (1 - 1e-9))) / (1 + len(draws)))
