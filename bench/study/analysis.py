"""Computes the statistics of a study from its scores and its models' published performances."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import OK, REWARDS, Example
from bench.study.baselines import GAP_NOISE, LEFT_OUT, Noise, baseline_judges, gap_noise, leave_one_out
from bench.study.benchmarks import benchmark_of
from bench.study.bootstrap import Resampling
from bench.study.correlate import correlate, groups_of
from bench.study.decompose import DECOMPOSITION, decompose
from bench.study.design import (
    Judged,
    Rows,
    Study,
    on_axis,
    oriented,
    performance_of,
    plain_accuracy,
    rows_of,
    study_of,
)
from bench.study.reward import RewardMatrix, reward_matrix

LEFT_OUT_COLUMNS = ("reward", "performance", *LEFT_OUT)
GAP_NOISE_COLUMNS = ("reward", "performance", *GAP_NOISE)
DECOMPOSITION_COLUMNS = ("reward", "performance", *DECOMPOSITION)


class Analysis(NamedTuple):
    """The tables that a study has beside its leaderboard."""

    correlation: pd.DataFrame
    """CORRELATION. `reward` is one of REWARDS or, on the study's own axis, a name of `baselines.baseline_judges`."""
    left_out: pd.DataFrame
    """LEFT_OUT_COLUMNS, for the headline reward."""
    gap_noise: pd.DataFrame
    """GAP_NOISE_COLUMNS, for the headline reward."""
    decomposition: pd.DataFrame
    """DECOMPOSITION_COLUMNS, for the headline reward."""


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
        pairs: pair_id, strong, weak, family, and `start`, the model that its family's tuning began with, "" if
            unknown; one row per pair.
        examples: The data set by example_id.
        axes: Published scores by performance_id and then by model_id. The first performance is the study's own axis.
        noise: Assumed error of the published scores.
        resampling: Number of draws and of processes.
        rng: Source of the draws.
    """
    study = study_of(pairs)
    matrices = {reward: reward_matrix(scores, pairs, reward=reward) for reward in REWARDS}
    rows = rows_of(matrices[REWARDS[0]].by_example(examples)[0])
    answers = {reward: judgements(matrix, examples) for reward, matrix in matrices.items()}
    baselines = baseline_judges(study, *_of_models(study, scores, matrices[REWARDS[0]], examples))
    performances = {name: performance_of(study, points) for name, points in axes.items()}
    rngs = rng.spawn(3)
    correlation = correlate(study, rows, answers, performances, baselines=baselines, resampling=resampling, rng=rngs[0])
    first = next(iter(performances.values()))
    headline = on_axis(study, answers[REWARDS[0]], first)
    names = {"reward": REWARDS[0], "performance": next(iter(axes))}
    left_out, noisy, apart = (pd.DataFrame(columns=list(names)) for names in (LEFT_OUT, GAP_NOISE, DECOMPOSITION))
    if groups_of(headline, rows, plain_accuracy(oriented(headline), rows)):
        left_out, noisy = leave_one_out(headline, rows), gap_noise(headline, rows, noise=noise, rng=rngs[2])
        length = on_axis(study, baselines["prefers-longer"], first).answers
        apart = decompose(headline, length, rows, starts=set(pairs["start"]), resampling=resampling, rng=rngs[1])
    tables = ((left_out, LEFT_OUT_COLUMNS), (noisy, GAP_NOISE_COLUMNS), (apart, DECOMPOSITION_COLUMNS))
    return Analysis(correlation, *(table.assign(**names)[list(columns)] for table, columns in tables))


def correctness(
    scores: Mapping[str, pd.DataFrame], pairs: pd.DataFrame, examples: Mapping[str, Example], *, reward: str
) -> tuple[np.ndarray, Rows]:
    """Judgements from 0 (wrong) to 1 (right), NaN where excluded, (pairs, rows), and the description of the rows."""
    matrix = reward_matrix(scores, pairs, reward=reward)
    ordered, rewards = matrix.by_example(examples)
    return benchmark_of(ordered).judge(ordered, rewards).values, rows_of(ordered)


def judgements(matrix: RewardMatrix, examples: Mapping[str, Example]) -> Judged:
    """The judgements of the pairs, and those with the two models of each pair swapped.

    Swapping the models of a pair negates its rewards. For the reward `mean` this assumes that both models count the
    same tokens, which holds for models of one family with one template.
    """
    ordered, rewards = matrix.by_example(examples)
    judge = benchmark_of(ordered).judge
    return Judged(judge(ordered, rewards).values, judge(ordered, [-each for each in rewards]).values)


def _of_models(
    study: Study, scores: Mapping[str, pd.DataFrame], matrix: RewardMatrix, examples: Mapping[str, Example]
) -> tuple[list[Example], list[np.ndarray], list[np.ndarray]]:
    """The examples; each model's log-probabilities of their responses, (models, responses) each; their bytes."""
    found = []
    for value in (_total, lambda frame: frame["n_bytes"].astype(float)):
        values = [value(scores[model].set_index(["example_id", "response_id"])) for model in study.model_ids]
        table = np.stack([each.loc[matrix.responses].to_numpy() for each in values])
        found.append(RewardMatrix(table, matrix.responses).by_example(examples)[1])
    return matrix.by_example(examples)[0], found[0], found[1]


def _total(frame: pd.DataFrame) -> pd.Series:
    """Log-probability of the response and its end of turn, nats; missing unless the status is ok."""
    return (frame["logp_sum_nats"] + frame["logp_end_nats"]).where(frame["status"] == OK)
