"""Combines the rewards of several pairs into one.

The rewards of pairs have different scales, so each is divided by the standard deviation of its margins first. A margin
has the opposite sign if the two responses change places. Over both orders its mean is 0, so the standard deviation is
the root mean square, and no constant is subtracted.

`mean` is the mean of the standardised rewards, `fitted` a weighted sum of them. The weights maximise the likelihood of
the labels in a logistic regression without an intercept, which would favour one of two equal responses. Weights are not
negative: pairs share models, so their margins are alike, and free weights of such margins take large values of both
signs that fit the noise. A linear discriminant has the same form, but a few rows with very large margins decide its
weights, and the summed log-ratios of long responses are such rows. `minimum` is the smallest standardised margin
(Coste et al., arXiv 2310.02743, take the smallest reward): it is above 0 only if all pairs prefer the same response.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

MEAN, MINIMUM, FITTED = "mean", "minimum", "fitted"
RULES = (MEAN, MINIMUM, FITTED)

PRIOR_ROWS = 1.0
"""Weight of the prior on the fitted weights, in rows. It keeps them finite where every row is right."""


class Recipe(NamedTuple):
    """How the rewards of some pairs become one."""

    rule: str
    """One of RULES."""
    scales: np.ndarray
    """Standard deviation of each pair's margins, in the unit of the reward, (pairs,)."""
    weights: np.ndarray
    """Weight of each standardised reward, (pairs,); they sum to 1. All are equal unless `rule` is FITTED."""

    @property
    def coefficients(self) -> np.ndarray:
        """What to multiply each pair's reward by, (pairs,)."""
        return self.weights / self.scales


def scales(margins: np.ndarray, row_weights: np.ndarray) -> np.ndarray:
    """Standard deviation of each pair's margins over both orders of the responses, (pairs,); 0 if all margins are 0.

    Args:
        margins: Margin of each pair on each row, (pairs, rows).
        row_weights: Weight of each row, (rows,).
    """
    return np.sqrt(margins**2 @ (row_weights / row_weights.sum()))


def fitted_weights(standard: np.ndarray, row_weights: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression whose every row is right, (pairs,): at least 0, with the sum 1.

    Args:
        standard: Standardised margin of each pair on each row, right response minus wrong, (pairs, rows).
        row_weights: Weight of each row, (rows,).

    Returns:
        Equal weights if no pair helps.
    """
    n_pairs, n_rows = standard.shape
    share = row_weights / row_weights.sum()

    # It takes long to import, and only this function needs it.
    from scipy.optimize import minimize

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        lead = weights @ standard
        wrong = np.exp(-np.logaddexp(0, lead))
        prior = PRIOR_ROWS / n_rows
        value = share @ np.logaddexp(0, -lead) + prior * weights @ weights / 2
        return float(value), prior * weights - standard @ (share * wrong)

    start = np.full(n_pairs, 1 / n_pairs)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_pairs).x
    return found / found.sum() if found.sum() > 0 else start


def recipe(rule: str, margins: np.ndarray, row_weights: np.ndarray) -> Recipe:
    """The scales, and the weights of a rule, from labelled rows.

    Args:
        rule: One of RULES.
        margins: Margin of each pair on each row, right response minus wrong, (pairs, rows). No pair has only zeros.
        row_weights: Weight of each row, (rows,).
    """
    scale = scales(margins, row_weights)
    if rule == FITTED:
        return Recipe(rule, scale, fitted_weights(margins / scale[:, None], row_weights))
    return Recipe(rule, scale, np.full(len(scale), 1 / len(scale)))


def least_margins(standard: np.ndarray) -> np.ndarray:
    """The smallest standardised margin of the pairs for each ordered pair of candidates, (candidates, candidates).

    Args:
        standard: Standardised reward of each pair for each candidate of a prompt, (pairs, candidates).

    Returns:
        Row: the candidate that is preferred; column: the one that is not. Above 0 where all pairs agree on that.
    """
    return (standard[:, :, None] - standard[:, None, :]).min(axis=0)


def distinct(sides: Iterable[tuple[str, str]], pass_of: Mapping[str, str]) -> list[str]:
    """One side for each pass that some pairs need, in the order of the pairs.

    Args:
        sides: Names of the strong and the weak side of each pair.
        pass_of: What identifies the pass of each side.
    """
    names = dict.fromkeys(name for pair in sides for name in pair)
    return list({pass_of[name]: name for name in reversed(names)}.values())[::-1]
