"""The crossed bootstrap: models and prompts are both drawn again, because both are samples.

Models are drawn with replacement inside their family, so that each family keeps its size. A pair then stands as
often as the product of its models' counts. A model drawn twice would also be paired with itself: its gap is 0, and
pairs of gap 0 are left out of every estimate, so such pairs are never formed.

Prompts are weighted by the problem under them: each problem gets an exponential weight, rows of one problem the
same one (Rubin's Bayesian bootstrap, 1981). Unlike counts, no weight is 0, so no subset is ever empty. A subset's
share in a section stays what it is.

Draws that share models and prompts this way are somewhat too wide (McCullagh 2000; Owen 2007), which the families'
small sizes partly undo. What interval that gives is settled by simulation: `results/statistics/README.md`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

from bench.study.design import Rows, Study, accuracy, plain_accuracy

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Accuracies (draws, levels, pairs) and how often each pair stands (draws, pairs) -> estimates (draws, k)."""

_CHUNK = 500
"""Draws handled at once; part of what a seed means."""


class Resampling(NamedTuple):
    """How much to draw, and on how many processes."""

    n_draws: int = 10_000
    n_jobs: int = 1
    """The result does not hang on it."""


def estimate(correct: np.ndarray, study: Study, rows: Rows, statistic: Statistic) -> np.ndarray:
    """The statistic of the sample itself, (k,); arguments as in `crossed_bootstrap`."""
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
    """Draws of a statistic over models and prompts.

    Args:
        correct: (pairs, rows), 1 right, 0 wrong, NaN left out.
        study: Models and pairs.
        rows: What counts how, and which rows go together.
        statistic: What is estimated.
        resampling: Number of draws and of processes.
        rng: Source of the draws; equal seeds give equal draws on any number of processes.

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
    """How often each row is counted when problems are drawn again, (draws, rows), exponential with mean 1."""
    return rng.standard_exponential((n_draws, rows.cluster.max() + 1))[:, rows.cluster]


def prompt_bootstrap(correct: np.ndarray, rows: Rows, *, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Accuracies when the prompts alone are drawn again, the same ones for every pair, (draws, levels, pairs)."""
    parts = [
        accuracy(correct, rows, draw_prompts(rows, min(_CHUNK, n_draws - start), rng=rng))
        for start in range(0, n_draws, _CHUNK)
    ]
    return np.concatenate(parts)


def draw_models(family: np.ndarray, n_draws: int, *, rng: np.random.Generator) -> np.ndarray:
    """How often each model is drawn, (draws, models); counts of a family sum to its size."""
    times = np.empty((n_draws, len(family)))
    for name in np.unique(family):
        members = np.flatnonzero(family == name)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_draws)
    return times


def basic_interval(estimate: float, draws: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """The basic bootstrap interval: the draws' quantiles mirrored at the estimate.

    Args:
        estimate: The sample's.
        draws: (draws,); those without a value are passed over while they are under 5%.
        level: Coverage, 0 to 1.

    Returns:
        Both limits; NaN where there is no estimate, or too few draws have a value.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(estimate) or len(known) < 0.95 * len(draws):
        return np.nan, np.nan
    # the k-th smallest and the k-th largest with k = tail x (n + 1): of 999 draws the 25th and the 975th
    k = max(1, int((len(known) + 1) * (1 - level) / 2 + 1e-9))
    low, high = np.sort(known)[[k - 1, len(known) - k]]
    return 2 * estimate - high, 2 * estimate - low


def correlation_interval(estimate: float, draws: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """The basic interval of a correlation, taken on Fisher's z = atanh(r), where its error hangs less on its size.

    Mirrored on its own scale, an interval of a large correlation reaches beyond 1 and covers too rarely. NaN where
    the estimate is 1 or -1: then there are too few pairs to say.
    """
    if abs(estimate) >= 1 - 1e-12:
        return np.nan, np.nan
    with np.errstate(divide="ignore"):
        low, high = np.tanh(basic_interval(np.arctanh(estimate), np.arctanh(draws), level=level))
    return float(low), float(high)


def _draw(correct: np.ndarray, study: Study, rows: Rows, statistic: Statistic, chunk: tuple[int, int]) -> np.ndarray:
    """One chunk of draws, (n, k)."""
    n_draws, seed = chunk
    rng = np.random.default_rng(seed)
    models = draw_models(study.family, n_draws, rng=rng)
    answers = accuracy(correct, rows, draw_prompts(rows, n_draws, rng=rng))
    return statistic(answers, models[:, study.strong] * models[:, study.weak])
