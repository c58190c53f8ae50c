"""Computes the statistics of a study from its scores and its models' published performances."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import CHOSEN, CORRELATION, OK, REJECTED, REWARDS, Example
from bench.study.baselines import GAP_NOISE, LEFT_OUT, Noise, baseline_judges, gap_noise, leave_one_out, regression
from bench.study.bootstrap import Resampling
from bench.study.correlate import correlate, groups_of
from bench.study.design import (
    Rows,
    Study,
    judged,
    on_axis,
    oriented,
    performance_of,
    plain_accuracy,
    rows_of,
    study_of,
)
from bench.study.reward import margin_matrix

LEFT_OUT_COLUMNS = ("reward", "performance", *LEFT_OUT)
GAP_NOISE_COLUMNS = ("reward", "performance", *GAP_NOISE)


class Analysis(NamedTuple):
    """The tables that a study has beside its leaderboard."""

    correlation: pd.DataFrame
    """CORRELATION. `reward` is one of REWARDS or, on the study's own axis, a name of `baselines.baseline_judges`."""
    left_out: pd.DataFrame
    """LEFT_OUT_COLUMNS, for the headline reward."""
    gap_noise: pd.DataFrame
    """GAP_NOISE_COLUMNS, for the headline reward."""


def analyse(
    scores: Mapping[str, pd.DataFrame],
    pairs: pd.DataFrame,
    examples: Mapping[str, Example],
    axes: Mapping[str, Mapping[str, float]],
    *,
    noise: Noise,
    resampling: Resampling,
    rng: np.random.Generator,
) -> Analysis:
    """Compute all correlations of gap and accuracy that a study reports.

    Args:
        scores: SCORES by model_id.
        pairs: pair_id, strong, weak, family; one row per pair.
        examples: The data set by example_id.
        axes: Published scores by performance_id and then by model_id. The first performance is the study's own axis.
        noise: Assumed error of the published scores.
        resampling: Number of draws and of processes.
        rng: Source of the draws.
    """
    study = study_of(pairs)
    matrices = {reward: margin_matrix(dict(scores), pairs, reward=reward) for reward in REWARDS}
    ids = matrices[REWARDS[0]].example_ids
    rows = rows_of([examples[example_id] for example_id in ids])
    answers = {reward: judged(matrix.values) for reward, matrix in matrices.items()}
    baselines = baseline_judges(study, _model_margins(study, scores, ids), _length_difference(study, scores, ids))
    performances = {name: performance_of(study, points) for name, points in axes.items()}
    rngs = rng.spawn(3)
    correlation = correlate(study, rows, answers, performances, baselines=baselines, resampling=resampling, rng=rngs[0])
    headline = on_axis(study, answers[REWARDS[0]], next(iter(performances.values())))
    names = {"reward": REWARDS[0], "performance": next(iter(axes))}
    if not groups_of(headline, rows, plain_accuracy(oriented(headline), rows)):
        return Analysis(correlation, pd.DataFrame(columns=LEFT_OUT_COLUMNS), pd.DataFrame(columns=GAP_NOISE_COLUMNS))
    slopes = regression(headline, rows, resampling=resampling, rng=rngs[1]).assign(**names)
    return Analysis(
        pd.concat([correlation, slopes], ignore_index=True)[list(CORRELATION)],
        leave_one_out(headline, rows).assign(**names)[list(LEFT_OUT_COLUMNS)],
        gap_noise(headline, rows, noise=noise, rng=rngs[2]).assign(**names)[list(GAP_NOISE_COLUMNS)],
    )


def correctness(
    scores: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, examples: Mapping[str, Example], *, reward: str
) -> tuple[np.ndarray, Rows]:
    """Right (1), wrong or tie (0), excluded (NaN), (pairs, rows), and the description of the rows."""
    matrix = margin_matrix(dict(scores), pairs, reward=reward)
    return judged(matrix.values).forward, rows_of([examples[example_id] for example_id in matrix.example_ids])


def _model_margins(study: Study, scores: Mapping[str, pd.DataFrame], ids: np.ndarray) -> np.ndarray:
    """Log-probability of chosen minus that of rejected, (models, rows), nats; NaN where not scored."""
    return np.array([_difference(scores[model], ids, _total) for model in study.model_ids])


def _length_difference(study: Study, scores: Mapping[str, pd.DataFrame], ids: np.ndarray) -> np.ndarray:
    """Bytes of chosen minus bytes of rejected, (rows,)."""
    return _difference(scores[study.model_ids[0]], ids, lambda frame: frame["n_bytes"].astype(float))


def _total(frame: pd.DataFrame) -> pd.Series:
    """Log-probability of the response and its end of turn, nats; missing unless the status is ok."""
    return (frame["logp_sum_nats"] + frame["logp_end_nats"]).where(frame["status"] == OK)


def _difference(frame: pd.DataFrame, ids: np.ndarray, value: Callable[[pd.DataFrame], pd.Series]) -> np.ndarray:
    """A value of the chosen response minus that of the rejected one, (rows,)."""
    sides = {side: value(rows.set_index("example_id")) for side, rows in frame.groupby("response_id")}
    return (sides[CHOSEN].loc[ids] - sides[REJECTED].loc[ids]).to_numpy()
