"""Compares all rewards of one pair on the same rows: accuracy of each, and its difference to the reward `sum`."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import REWARDS, Dataset, DrsowError
from bench.study.benchmarks import STUDIED, benchmark_of
from bench.study.compare import compare
from bench.study.design import prompt_clusters, rows_of
from bench.study.measure import Scores, pair_table
from bench.study.metrics import measured
from bench.study.reward import reward_matrix
from bench.study.rewards.known import KNOWN
from bench.subject import Subject

BASE = REWARDS[0]
"""The reward that the others are compared with."""

SIDE_BY_SIDE = (
    "pair_id", "reward", "family", "level", "name", "accuracy", "low", "high",
    "difference", "difference_low", "difference_high", "p_bootstrap", "p_bootstrap_holm", "p_mcnemar", "p_mcnemar_holm",
    "n_only", "n_sum_only", "n_examples", "n_ties", "n_excluded",
)  # fmt: skip
"""One row per reward and level. `difference` is the reward's accuracy minus that of `sum` on the same rows, with its
95% interval; `n_only` counts the problems of which this reward judges more rows rightly, `n_sum_only` those of which
`sum` does. Holm's p are adjusted over all rewards on all levels. Values that do not apply are missing."""


class Compared(NamedTuple):
    """The rewards of a pair."""

    table: pd.DataFrame
    """SIDE_BY_SIDE."""
    left_out: dict[str, str]
    """Reward -> why it is not in the table."""


def side_by_side(subject: Subject, dataset: Dataset, scores: Scores, *, rng: np.random.Generator) -> Compared:
    """Compares the rewards of a subject's only pair.

    The comparison is paired: both rewards judge the same rows, and the bootstrap draws problems, so that the rows of
    one problem stay together.

    Args:
        subject: The pair.
        dataset: The rows.
        scores: SCORES of its two models; with TOKEN_SCORES' lists for the rewards of tokens.
        rng: Source of the draws.
    """
    pairs, frames = pair_table(subject), {model: frame for (model, _), frame in scores.items()}
    examples = {example.example_id: example for example in dataset.examples}
    found, left_out, ordered = {}, {}, list(dataset.examples)
    for name in KNOWN:
        try:
            matrix = reward_matrix(frames, pairs, reward=name)
        except DrsowError as error:
            # Its tokens are not stored, or those of one response do not match; rewards of sums have no such fault.
            left_out[name] = str(error)
        else:
            ordered, found[name] = matrix.by_example(examples)
    every = [np.concatenate(each) for each in zip(*found.values(), strict=True)]
    answers = benchmark_of(ordered).judge(ordered, every)
    runs = pd.DataFrame({"pair_id": subject.pairs[0].pair_id, "reward": list(found)})
    table = measured(runs, answers, benchmark_of(ordered).layout(ordered), prompt_clusters(ordered))
    table = table[table["level"].isin(STUDIED)]
    against = _against(answers.values, list(found), ordered, rng)
    table = table.merge(against, on=["reward", "level", "name"], how="left", validate="one_to_one")
    # A merge leaves counts beside missing ones as floats.
    table = table.astype({"n_only": "Int64", "n_sum_only": "Int64"})
    table["family"] = table["reward"].map({name: reward.family for name, reward in KNOWN.items()})
    return Compared(table[list(SIDE_BY_SIDE)], left_out)


def _against(correct: np.ndarray, names: list[str], ordered: list, rng: np.random.Generator) -> pd.DataFrame:
    """The columns of the comparison with BASE, by reward, level and name."""
    others = [(name, BASE) for name in names if name != BASE]
    renamed = {
        "first": "reward",
        "low": "difference_low",
        "high": "difference_high",
        "n_first_only": "n_only",
        "n_second_only": "n_sum_only",
    }
    columns = ["reward", "level", "name", *(c for c in SIDE_BY_SIDE if c.startswith(("difference", "p_", "n_only")))]
    if not others:
        return pd.DataFrame(columns=[*columns, "n_sum_only"])
    found = compare(correct, names, rows_of(ordered), others, rng=rng).rename(columns=renamed)
    return found[[*columns, "n_sum_only"]]
