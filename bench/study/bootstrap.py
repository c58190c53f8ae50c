"""The crossed bootstrap: it resamples models and prompts, because both are samples.

Models are drawn with replacement inside their family, so each family keeps its size. The weight of a pair is the
product of the counts of its two models. A model that is drawn twice could be paired with itself; that pair would have a
gap of 0, and every estimate leaves such pairs out, so they are never formed.

Prompts are weighted by problem: each problem gets an exponential weight, which all its rows share (Rubin's Bayesian
bootstrap, 1981). Unlike counts, these weights are never 0, so no subset is ever empty. The weight of a subset in its
section does not change.

Such draws vary somewhat too much (McCullagh 2000; Owen 2007); the small size of the families partly compensates for
this. A simulation decided which interval to take from the draws: `results/statistics/README.md`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

from bench.study.design import Rows, Study, accuracy, plain_accuracy

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps accuracies (draws, levels, pairs) and weights of the pairs (draws, pairs) to estimates (draws, k)."""

_CHUNK = 500
"""Number of draws computed at once. Another value gives other draws for the same seed."""


class Resampling(NamedTuple):
    """Number of draws, and of processes."""

    n_draws: int = 10_000
    n_jobs: int = 1
    """The result does not depend on it."""


def estimate(correct: np.ndarray, study: Study, rows: Rows, statistic: Statistic) -> np.ndarray:
    """The statistic of the sample itself, (k,). Arguments as in `crossed_bootstrap`."""
    return statistic(plain_accuracy(correct, rows)[None], np.ones((1, len(study.strong))))[0]


def crossed_bootstrap(
    correct: np.ndarray,
    study: Study,
    rows: Rows,
    statistic: Statistic,
    *,
    resampling: Resampling,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a statistic over models and prompts.

    Args:
        correct: (pairs, rows), 1 right, 0 wrong, NaN excluded.
        study: Models and pairs.
        rows: Levels and weights of the rows, and their problems.
        statistic: What is estimated.
        resampling: Number of draws and of processes.
        rng: Source of the draws. Equal seeds give equal draws on any number of processes.

    Returns:
        (draws, k).
    """
    starts = range(0, resampling.n_draws, _CHUNK)
    seeds = rng.integers(2**63, size=len(starts))
    run = delayed(_draw)
    parts = Parallel(n_jobs=resampling.n_jobs)(
        run(correct, study, rows, statistic, (min(_CHUNK, resampling.n_draws - start), int(seed)))
        for start, seed in zip(starts, seeds, strict=True)
    )
    return np.concatenate(parts)


def draw_prompts(rows: Rows, n_draws: int, *, rng: np.random.Generator) -> np.ndarray:
    """Weight of each row when problems are resampled, (draws, rows): exponential with mean 1."""
    return rng.standard_exponential((n_draws, rows.cluster.max() + 1))[:, rows.cluster]


def prompt_bootstrap(correct: np.ndarray, rows: Rows, *, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Accuracies when only the prompts are resampled, with the same weights for every pair.

    With m problems in a subset exponential weights vary too little, by the factor sqrt((m - 1) / (m + 1)). So the
    deviations from the subset's accuracy are divided by this factor, and a draw may lie outside 0 and 1.

    Args:
        correct: (pairs, rows), 1 right, 0 wrong, NaN excluded.
        rows: Levels and weights of the rows, and their problems.
        n_draws: Number of draws.
        rng: Source of the draws.

    Returns:
        (draws, levels, pairs); NaN on a level where a subset that counts has a single problem.
    """
    parts = [
        _drawn_prompts(correct, rows, draw_prompts(rows, min(_CHUNK, n_draws - start), rng=rng))
        for start in range(0, n_draws, _CHUNK)
    ]
    return np.concatenate(parts)


def _drawn_prompts(correct: np.ndarray, rows: Rows, times: np.ndarray) -> np.ndarray:
    """`prompt_bootstrap` of given weights, (draws, rows)."""
    result = np.zeros((len(times), len(rows.levels), len(correct)))
    for subset in np.unique(rows.subset):
        columns = np.flatnonzero(rows.subset == subset)
        levels = np.flatnonzero(rows.weights[:, columns].any(axis=1))
        names = tuple(rows.levels[level] for level in levels)
        part = Rows(names, rows.weights[np.ix_(levels, columns)], rows.subset[columns], rows.cluster[columns])
        n = len(np.unique(part.cluster))
        own = plain_accuracy(correct[:, columns], part)
        drawn = accuracy(correct[:, columns], part, times[:, columns])
        result[:, levels] += own + np.sqrt((n + 1) / (n - 1) if n > 1 else np.nan) * (drawn - own)
    return result


def draw_models(family: np.ndarray, n_draws: int, *, rng: np.random.Generator) -> np.ndarray:
    """How often each model is drawn, (draws, models). The counts of a family sum to its size."""
    times = np.empty((n_draws, len(family)))
    for name in np.unique(family):
        members = np.flatnonzero(family == name)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_draws)
    return times


def basic_interval(estimate: float, draws: np.ndarray) -> tuple[float, float]:
    """The 95% basic bootstrap interval: the quantiles of the draws, mirrored at the estimate.

    Args:
        estimate: The estimate from the sample.
        draws: (draws,). Draws without a value are ignored while they are fewer than 5%.

    Returns:
        Both limits; NaN where there is no estimate, or where too few draws have a value.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(estimate) or len(known) < 0.95 * len(draws):
        return np.nan, np.nan
    # the k-th smallest and the k-th largest draw, where k = 0.025 x (n + 1): of 999 draws the 25th and the 975th
    k = max(1, int((len(known) + 1) * 0.025 + 1e-9))
    low, high = np.sort(known)[[k - 1, len(known) - k]]
    return 2 * estimate - high, 2 * estimate - low


def correlation_interval(estimate: float, draws: np.ndarray) -> tuple[float, float]:
    """The 95% basic interval of a correlation, computed on Fisher's z = atanh(r), where the error depends less on r.

    On the scale of r, the interval of a large correlation would extend beyond 1 and would contain the true value too
    rarely. NaN where the estimate is 1 or -1: there are too few pairs for an interval.
    """
    if abs(estimate) >= 1 - 1e-12:
        return np.nan, np.nan
    with np.errstate(divide="ignore"):
        low, high = np.tanh(basic_interval(np.arctanh(estimate), np.arctanh(draws)))
    return float(low), float(high)


def _draw(correct: np.ndarray, study: Study, rows: Rows, statistic: Statistic, chunk: tuple[int, int]) -> np.ndarray:
    """Compute one chunk of draws, (n, k)."""
    n_draws, seed = chunk
    rng = np.random.default_rng(seed)
    models = draw_models(study.family, n_draws, rng=rng)
    answers = accuracy(correct, rows, draw_prompts(rows, n_draws, rng=rng))
    return statistic(answers, models[:, study.strong] * models[:, study.weak])
