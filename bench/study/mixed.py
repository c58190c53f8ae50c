"""A mixed model as a second opinion on the slopes of the strong and the weak model.

Accuracy depends on both performances and on the family; each model also has a random effect as the strong one of its
pairs, and another one as the weak one. The two effects are crossed: every strong model meets many weak ones. The
model's standard errors rest on normal, independent effects, so it confirms the permutation tests and does not replace
them.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri


class MixedSlopes(NamedTuple):
    """The estimates of `apart.SLOPES`, their 95% limits and two-sided p, (3,) each; all NaN if there is no fit.

    Some fits to few pairs give a negative variance. Then none of the three is right, so all limits and p are NaN.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


_DIGITS = 6
"""Significant digits of the estimates: the search for the maximum stops near it, on each processor elsewhere."""

_NONE = MixedSlopes(*np.full((4, 3), np.nan))


def mixed_slopes(
    y: np.ndarray, better: np.ndarray, worse: np.ndarray, models: tuple[np.ndarray, np.ndarray], family: np.ndarray
) -> MixedSlopes:
    """Fit the mixed model by restricted maximum likelihood, to 6 significant digits.

    Args:
        y: Accuracy of each pair, (pairs,).
        better: Performance of the better model, (pairs,).
        worse: (pairs,).
        models: Indices of the better and of the worse model, (pairs,) each.
        family: (pairs,), int from 0.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    centre = pd.DataFrame({"better": better, "worse": worse}).groupby(family).transform("mean").to_numpy()
    families = np.eye(family.max(initial=0) + 1)[:, family]
    fixed = np.column_stack([better - centre[:, 0], worse - centre[:, 1], *families])
    if np.linalg.matrix_rank(fixed) < fixed.shape[1] or len(y) <= fixed.shape[1] + 2:
        return _NONE
    parts = [pd.get_dummies(side).to_numpy(dtype=float) for side in models]
    names = [[str(number) for number in range(part.shape[1])] for part in parts]
    spec = VCSpec(["strong", "weak"], [[name] for name in names], [[part] for part in parts])
    # All pairs are one group, in which both effects are crossed.
    model = MixedLM(y, fixed, groups=np.zeros(len(y)), exog_vc=spec)
    with warnings.catch_warnings():
        # A variance of 0 is at the boundary: statsmodels warns, and the slopes stay right.
        warnings.simplefilter("ignore")
        try:
            fit = model.fit(reml=True, method=["lbfgs"])
        except np.linalg.LinAlgError:
            return _NONE
        covariance = np.asarray(fit.cov_params())[: fixed.shape[1], : fixed.shape[1]]
    contrasts = np.zeros((3, fixed.shape[1]))
    contrasts[[0, 1, 2, 2], [0, 1, 0, 1]] = 1
    estimate = contrasts @ np.asarray(fit.fe_params)
    variance = np.einsum("ij,jk,ik->i", contrasts, covariance, contrasts)
    error = np.sqrt(np.where((variance > 0).all(), variance, np.nan))
    half = ndtri(0.975) * error
    found = estimate, estimate - half, estimate + half, 2 * ndtr(-np.abs(estimate) / error)
    return MixedSlopes(*(np.array([float(f"{value:.{_DIGITS}g}") for value in each]) for each in found))
