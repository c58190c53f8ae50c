"""Rho between gap and accuracy among pairs that like long responses equally well.

A model that was tuned more may write, and prefer, longer responses. If the longer response is the better one, a wide
gap then makes a better judge by length alone. So this module takes length preference out of both gap and accuracy: it
is the share of rows in which a pair prefers the longer response, right or wrong.

The test permutes the models' scores inside families, as `qap` does; accuracy and length preference stay with the models
together. The statistic is divided by its dyadic-robust standard error, so that the test keeps its level although the
relabelled gaps no longer go together with length preference (DiCiccio and Romano 2017).
"""

from typing import NamedTuple

import numpy as np

from bench.study.apart import labelled
from bench.study.design import Judged, Study, pair_families
from bench.study.effects import (
    Standardised,
    comparable,
    correlation,
    dyadic_test,
    family_by_family,
    membership,
    midranks,
    standardised,
)
from bench.study.qap import p_value

_CHUNK = 400
"""Number of relabellings computed at once."""


class PartialTest(NamedTuple):
    """A partial rho and its p; NaN where gap or accuracy do not vary."""

    rho: float
    p_value: float


def partial_spearman(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, weights: np.ndarray, family: np.ndarray
) -> np.ndarray:
    """The mean of the families' partial Spearman's rhos of x and y with `given` held fixed, (draws,).

    Each family counts by its number of pairs. A family's partial rho is the correlation of the residuals of both
    ranks after a regression on the ranks of `given`.

    Args:
        x: (pairs,).
        y: (draws, pairs).
        given: (draws, pairs).
        weights: (draws, pairs).
        family: (pairs,), int from 0.
    """
    return correlation(*comparable(*_residual_ranks(x, y, given, weights, family), weights))


def partial_test(
    study: Study, performance: np.ndarray, accuracy: Judged, given: Judged, labels: np.ndarray
) -> PartialTest:
    """Test the partial rho of gap and accuracy.

    Args:
        study: Models and pairs; every model has a score.
        performance: Published score of each model, (models,).
        accuracy: Accuracy of each pair, and with its two models swapped, (pairs,) each; NaN for pairs to leave out.
        given: Length preference of each pair, and with its two models swapped, likewise.
        labels: Result of `qap.relabellings`.
    """
    used = np.isfinite(np.stack([*accuracy, *given])).all(axis=0)
    study = study._replace(strong=study.strong[used], weak=study.weak[used])
    family, models = pair_families(study), membership(study.strong, study.weak, len(performance))
    (forward, turned), (long_forward, long_turned) = ([side[used] for side in each] for each in (accuracy, given))
    rhos, ts = [], []
    every = np.vstack([np.arange(len(performance)), labels])
    for start in range(0, len(every), _CHUNK):
        pairs = labelled(study, performance, every[start : start + _CHUNK])
        y = np.where(pairs.side < 0, turned, forward)
        length = np.where(pairs.side < 0, long_turned, long_forward)
        ranks = _residual_ranks(np.round(pairs.better - pairs.worse, 9), y, length, pairs.weights, family)
        rho, t = dyadic_test(*comparable(*ranks, pairs.weights), models)
        rhos.append(rho)
        ts.append(t)
    t = np.concatenate(ts)
    return PartialTest(float(rhos[0][0]), float("nan") if np.isnan(t[0]) else p_value(t[0], t[1:]))


def _residual_ranks(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, weights: np.ndarray, family: np.ndarray
) -> tuple[Standardised, Standardised]:
    """The ranks of x and y inside each family, less what the ranks of `given` explain, standardised."""
    x_ranks, y_ranks, ranks = (
        standardised(midranks(family_by_family(values, family), weights), weights, family) for values in (x, y, given)
    )
    members = (family[:, None] == np.arange(family.max(initial=0) + 1)).astype(float)
    n = weights @ members
    residuals = []
    for each in (x_ranks, y_ranks):
        r = ((weights * each.values * ranks.values) @ members / np.where(n > 0, n, 1.0))[:, family]
        rest = each.values - r * ranks.values
        # where both ranks are equal, only rounding is left
        residuals.append(standardised(np.where(np.abs(rest) > 1e-9, rest, 0.0), weights, family))
    return residuals[0], residuals[1]
