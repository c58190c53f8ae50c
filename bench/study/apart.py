"""Regresses accuracy on the strong and on the weak model's performance, and tests both slopes by permutation.

That a larger gap makes a better judge is a claim about a difference: the strong model's slope is positive, the weak
model's is negative, and their sum is 0. All slopes are computed inside families. As everywhere, the better performing
model of a pair is its strong one.

The tests are QAP as in `qap`: they shuffle the models' scores inside families. If a slope is tested while another one
may be there, shuffling the scores alone would remove both. So each test first removes what its null allows (Freedman
and Lane 1983): it regresses the accuracy on the other variable, and shuffles the rest. Dekker, Krackhardt and
Snijders's double semi-partialling (2007) shuffles the residuals of the tested variable instead, and keeps the
accuracies in place. It does not fit here: who is strong depends on the scores, so a shuffle has to turn pairs round,
and accuracies that stay in place would break the bond between a model's part as the strong and as the weak one.

Each slope is divided by its dyadic-robust standard error (`effects.dyadic_test` explains it).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.study.design import Study, gaps, pair_families
from bench.study.effects import membership
from bench.study.qap import p_value

_CHUNK = 400
"""Number of relabellings computed at once."""

SLOPES = ("strong", "weak", "sum")
"""Slopes of accuracy on the strong model's and on the weak model's performance, each with the other held fixed, and
their sum. The sum is also the slope on either model's performance at a fixed gap."""


class Labelled(NamedTuple):
    """The pairs under each labelling, (draws, pairs) each."""

    better: np.ndarray
    """Performance of the better model."""
    worse: np.ndarray
    side: np.ndarray
    """1 if the pair's first model is the better one, -1 if its second is, 0 if they are equal."""
    leader: np.ndarray
    """Index of the better model."""

    @property
    def weights(self) -> np.ndarray:
        """1 for the pairs that have a gap, 0 for the others."""
        return (self.side != 0).astype(float)


class Design(NamedTuple):
    """A regression with one tested variable."""

    tested: Callable[[Labelled], np.ndarray]
    given: Callable[[Labelled], np.ndarray] | None
    """The variable that is held fixed in the regression."""
    null: Callable[[Labelled], np.ndarray] | None
    """The variable that may count if the null is true; None if neither performance counts."""
    one_strong: bool = False
    """Whether only pairs with the same strong model are compared; otherwise all pairs of a family are."""


def _better(pairs: Labelled) -> np.ndarray:
    return pairs.better


def _worse(pairs: Labelled) -> np.ndarray:
    return pairs.worse


def _gap(pairs: Labelled) -> np.ndarray:
    return pairs.better - pairs.worse


def _minus_worse(pairs: Labelled) -> np.ndarray:
    return -pairs.worse


DESIGNS = {
    "strong": Design(_better, _worse, _worse),
    "weak": Design(_worse, _better, _better),
    "sum": Design(_worse, _gap, _gap),
    "within-strong": Design(_minus_worse, None, _better, one_strong=True),
}
"""Tests of SLOPES, and of the gap's slope among the pairs of one strong model."""

SINGLE = (Design(_better, None, None), Design(_worse, None, None), Design(_gap, None, None))
"""The regressions on one variable. They describe the worlds in which only the strong model, only the weak model, or
their difference counts."""


class Slope(NamedTuple):
    """Slopes and their t, (draws,) each; NaN where the tested variable does not vary."""

    slope: np.ndarray
    t: np.ndarray


def labelled(study: Study, performance: np.ndarray, labels: np.ndarray) -> Labelled:
    """Order the two models of each pair under each labelling.

    Args:
        study: Models and pairs.
        performance: Published score of each model, (models,).
        labels: (draws, models): model i gets the score of model `[d, i]`.
    """
    scores = performance[labels]
    first, second = scores[:, study.strong], scores[:, study.weak]
    side = np.sign(gaps(study, scores))
    leader = np.where(side < 0, study.weak, study.strong)
    return Labelled(np.maximum(first, second), np.minimum(first, second), side, leader)


def slopes(better: np.ndarray, worse: np.ndarray, y: np.ndarray, weights: np.ndarray, block: np.ndarray) -> np.ndarray:
    """SLOPES of y by least squares with an intercept for each block, (draws, 3).

    Args:
        better: Performance of the better model, (pairs,).
        worse: (pairs,).
        y: (draws, pairs).
        weights: (draws, pairs).
        block: (pairs,), int from 0.

    Returns:
        NaN where the two variables go together, or one of them is constant.
    """
    a, b, c = (less_means(values, weights, block) for values in (better, worse, y))
    aa, bb, ab = ((weights * u * v).sum(axis=1) for u, v in ((a, a), (b, b), (a, b)))
    ac, bc = (weights * a * c).sum(axis=1), (weights * b * c).sum(axis=1)
    determinant = aa * bb - ab**2
    usable = determinant > 1e-12 * aa * bb
    with np.errstate(invalid="ignore", divide="ignore"):
        both = np.column_stack([bb * ac - ab * bc, aa * bc - ab * ac]) / determinant[:, None]
    both = np.where(usable[:, None], both, np.nan)
    return np.column_stack([both, both.sum(axis=1)])


def slope_test(pairs: Labelled, y: np.ndarray, design: Design, *, block: np.ndarray, models: np.ndarray) -> Slope:
    """The tested slope of a design, and its ratio to a dyadic-robust standard error.

    Args:
        pairs: The pairs under each labelling.
        y: Accuracy in each labelling, (draws, pairs).
        design: The regression.
        block: Family of each pair, (pairs,), int from 0.
        models: (pairs, models), 1 where the model is one of the pair's two.
    """
    weights, blocks = pairs.weights, pairs.leader if design.one_strong else block
    x, y = (less_means(values, weights, blocks) for values in (design.tested(pairs), y))
    whole = (weights * x * x).sum(axis=1)
    if design.given is not None:
        given = less_means(design.given(pairs), weights, blocks)
        x, y = _without(x, given, weights), _without(y, given, weights)
    square = (weights * x * x).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (weights * x * y).sum(axis=1) / np.where(square > 1e-9 * whole, square, np.nan)
        scores = weights * x * (y - slope[:, None] * x)
        alone = (scores**2).sum(axis=1)
        together = ((scores @ models) ** 2).sum(axis=1) - alone
        error = np.sqrt(np.maximum(together, alone)) / square
        return Slope(slope, slope / np.where(error < 1e-12, 0.0, error))


def less_means(values: np.ndarray, weights: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Values less the weighted mean of their block, (draws, pairs); 0 where only rounding makes a difference.

    Args:
        values: (pairs,) or (draws, pairs).
        weights: (draws, pairs).
        block: (pairs,) or (draws, pairs), int from 0.
    """
    n_blocks = int(block.max(initial=0)) + 1
    cells = block + n_blocks * np.arange(len(weights))[:, None]

    def total(of: np.ndarray) -> np.ndarray:
        return np.bincount(cells.ravel(), of.ravel(), minlength=n_blocks * len(weights))[cells]

    n = total(weights)
    # a block that is not in a draw has no mean; 1 avoids a division by 0
    rest = values - total(weights * values) / np.where(n > 0, n, 1.0)
    return np.where(np.abs(rest) > 1e-12 * np.abs(values).max(initial=0), rest, 0.0)


def slope_of(x: np.ndarray, y: np.ndarray, weights: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The slope of y on x with an intercept for each block, (draws,); NaN where x is constant in every block.

    Args:
        x: (pairs,).
        y: (draws, pairs).
        weights: (draws, pairs).
        block: (pairs,), int from 0.
    """
    x, y = (less_means(values, weights, block) for values in (x, y))
    square = (weights * x * x).sum(axis=1)
    return (weights * x * y).sum(axis=1) / np.where(square > 0, square, np.nan)


def slope_tests(
    study: Study, performance: np.ndarray, forward: np.ndarray, turned: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """QAP's p of each of DESIGNS, and of `either`: that neither performance counts.

    The statistic of `either` is the largest |t| of the SINGLE regressions. Its null says that scores carry no
    information. If the models of a family are exchangeable, every relabelling inside families is equally likely, and
    the test is exact.

    Args:
        study: Models and pairs; every model has a score.
        performance: Published score of each model, (models,).
        forward: Accuracy of each pair, (pairs,), 0 to 1, NaN for pairs to leave out.
        turned: The accuracy with strong and weak swapped.
        labels: Result of `qap.relabellings`.

    Returns:
        NaN where the tested variable does not vary.
    """
    used = np.isfinite(forward) & np.isfinite(turned)
    study = study._replace(strong=study.strong[used], weak=study.weak[used])
    level, lean = (forward + turned)[used] / 2, (forward - turned)[used] / 2
    block, models = pair_families(study), membership(study.strong, study.weak, len(performance))
    observed = labelled(study, performance, np.arange(len(performance))[None])
    rests = {name: rest(observed, lean, design.null, block) for name, design in DESIGNS.items()}
    every = np.vstack([np.arange(len(performance)), labels])
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("either", *DESIGNS)}
    for start in range(0, len(every), _CHUNK):
        pairs = labelled(study, performance, every[start : start + _CHUNK])
        y = level + pairs.side * lean
        single = [slope_test(pairs, y, design, block=block, models=models).t for design in SINGLE]
        found["either"].append(np.nan_to_num(np.abs(single), posinf=np.inf).max(axis=0))
        for name, design in DESIGNS.items():
            y = level + pairs.side * rests[name]
            found[name].append(slope_test(pairs, y, design, block=block, models=models).t)
    drawn = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: _p_of(t[0], t[1:]) for name, t in drawn.items()}


def rest(
    observed: Labelled, lean: np.ndarray, null: Callable[[Labelled], np.ndarray] | None, block: np.ndarray
) -> np.ndarray:
    """What the null leaves of each pair's lean towards its first model, (pairs,).

    A pair's accuracy is level + side x lean (`qap`). The part of side x lean that a regression on the null's variable
    explains belongs to the scores. The residual belongs to the models, so it is turned round with the order.
    """
    if null is None:
        return lean
    side, weights = observed.side[0], observed.weights
    centred = less_means(side * lean, weights, block)
    residual = _without(centred, less_means(null(observed), weights, block), weights)[0]
    return lean - side * (side * lean - residual)


def _without(values: np.ndarray, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The residuals of a regression through 0 of values on another variable, (draws, pairs)."""
    square = (weights * given * given).sum(axis=1, keepdims=True)
    return values - given * (weights * values * given).sum(axis=1, keepdims=True) / np.where(square > 0, square, np.inf)


def _p_of(observed: float, draws: np.ndarray) -> float:
    """The p-value; NaN where there is no statistic."""
    return float("nan") if np.isnan(observed) or observed == 0 else p_value(observed, draws)
