"""Plans a study: how often its declared test finds an effect of a given size, by number of models.

The number of models decides, not the number of pairs or rows: the pairs share the models, and what a model prefers
apart from its performance shows in all of its pairs. So a made-up study has model effects. A pair's accuracy is

    1/2 + slope x gap + own(strong) - own(weak) + noise

with normal performances and normal own effects. The slope is chosen so that Spearman's rho of gap and accuracy is the
wanted one on endlessly many rows. The noise is that of a finite number of rows. For margins that are normal and
independent between models, two thirds of the variance of an accuracy over rows belong to the two models, because the
pairs of a model share its log-probabilities: the signs of x - y and of x - z correlate by 1/3.

Each made-up study goes through the test of real studies, `qap` with exchangeable labels.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, spearmanr

from bench.study.design import Study
from bench.study.qap import exchangeable_p, relabellings

POWER = ("n_models", "n_families", "n_pairs", "rho", "n_rows", "power", "low", "high", "n_worlds")
"""One row for each number of models. `power` is the share of made-up studies in which the declared test rejects at 5%;
`low` and `high` are its 95% limits: the error of the simulation."""

SPREAD = 0.063
"""Standard deviation of a pair's accuracy around the line of the gap, on endlessly many rows. That of the simulated
worlds in `results/statistics`. It matters only beside the noise of few rows."""

_GRID = 200
"""Quantiles of the gap and of the noise from which a slope's rho is computed."""


N_WORLDS = 200
"""Number of made-up studies of each plan: the error of a power is at most 7 points."""


class Wish(NamedTuple):
    """What is planned."""

    sizes: tuple[int, ...]
    """Number of models of each family, at least 2 each."""
    rho: float
    """Spearman's rho of gap and accuracy inside families, on endlessly many rows."""
    n_rows: int


def power(
    wishes: list[Wish], *, rng: np.random.Generator, n_worlds: int = N_WORLDS, n_draws: int = 199
) -> pd.DataFrame:
    """POWER of each plan.

    Args:
        wishes: The plans.
        rng: Source of the made-up studies.
        n_worlds: Number of made-up studies of each plan.
        n_draws: Relabellings in each.
    """
    rows = []
    for wish, own in zip(wishes, rng.spawn(len(wishes)), strict=True):
        study, slope = study_of_sizes(wish.sizes), slope_for(wish.rho)
        hits = sum(_p_value(study, slope, wish.n_rows, n_draws, rng=own) <= 0.05 for _ in range(n_worlds))
        limits = binomtest(hits, n_worlds).proportion_ci(method="wilson")
        counts = (sum(wish.sizes), len(wish.sizes), len(study.strong), wish.rho, wish.n_rows)
        rows.append((*counts, hits / n_worlds, limits.low, limits.high, n_worlds))
    return pd.DataFrame(rows, columns=list(POWER))


def even_sizes(n_models: int, n_families: int) -> tuple[int, ...]:
    """The models dealt evenly to the families."""
    return tuple(n_models // n_families + (family < n_models % n_families) for family in range(n_families))


def scaled_sizes(sizes: tuple[int, ...], n_models: int) -> tuple[int, ...]:
    """Families in the proportions of `sizes`, with about `n_models` models and at least 2 each."""
    return tuple(max(2, round(size * n_models / sum(sizes))) for size in sizes)


def study_of_sizes(sizes: tuple[int, ...]) -> Study:
    """All unordered pairs inside families of these sizes."""
    first, second = np.triu_indices(sum(sizes), 1)
    family = np.repeat([f"{number:04d}" for number in range(len(sizes))], sizes)
    inside = family[first] == family[second]
    return Study(np.arange(sum(sizes)).astype(str), family, first[inside], second[inside])


def slope_for(rho: float) -> float:
    """The slope, in SPREADs per standard deviation of the performance, whose Spearman's rho is the wanted one."""
    # The gap of two normal performances is half-normal.
    share = (np.arange(_GRID) + 0.5) / _GRID
    gap, noise = np.sqrt(2) * norm.ppf(0.5 + share / 2)[:, None], norm.ppf(share)[None]
    low, high = 0.0, 1.0
    whole = np.broadcast_to(gap, (_GRID, _GRID)).ravel()

    def reached(slope: float) -> float:
        return float(spearmanr(whole, (slope * gap + noise).ravel()).statistic)

    while reached(high) < abs(rho):
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < abs(rho) else (low, middle)
    return float(np.copysign((low + high) / 2, rho)) if rho else 0.0


def _p_value(study: Study, slope: float, n_rows: int, n_draws: int, *, rng: np.random.Generator) -> float:
    """The declared test's p in one made-up study."""
    performance = rng.standard_normal(len(study.model_ids))
    of_rows = 0.25 / n_rows / SPREAD**2
    own = np.sqrt(0.5 + of_rows / 3) * rng.standard_normal(len(performance))
    noise = np.sqrt(of_rows / 3) * rng.standard_normal(len(study.strong))
    gap = performance[study.strong] - performance[study.weak]
    # A pair turned round has the other sign, and so has its noise.
    lean = slope * gap + own[study.strong] - own[study.weak] + noise
    labels = relabellings(study.family, n_draws=n_draws, rng=rng)
    return exchangeable_p(study, performance, 0.5 + SPREAD * lean, labels)
