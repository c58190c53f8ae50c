"""Measures what each component of the prompt customisation changes in the accuracy of one pair.

All runs of the pair judge the same rows, so every comparison is paired.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import ABLATION, Dataset, Example
from bench.study.benchmarks import STUDIED, benchmark_of
from bench.study.compare import compare
from bench.study.design import Rows, prompt_clusters, rows_of
from bench.study.metrics import measured
from bench.study.reward import RewardMatrix, rewards

PLAIN = "plain"
KNOWN = "section"
"""The router that knows the section of each row. The other routers are compared with it."""


class Run(NamedTuple):
    """How a run changed the prompts: by which variant of the domain text, and with which router of the domains."""

    variant: str
    router: str = ""

    @property
    def label(self) -> str:
        """Name of the run in the comparisons."""
        return f"{self.variant} {self.router}".strip()


def ablation(
    runs: Mapping[Run, tuple[pd.DataFrame, pd.DataFrame]],
    dataset: Dataset,
    *,
    reward: str,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Compute the ABLATION table for several runs of one pair on the same rows.

    Every difference is paired: both runs judge the same rows, and `compare` resamples problems, so that the rows of one
    problem stay together. A row that one of the two runs excludes counts in neither.

    Args:
        runs: SCORES of the strong and of the weak model, by run. The plain run must be among them.
        dataset: The rows of the plain run; every run has the same rows.
        reward: A name of `rewards.known.KNOWN`.
        rng: Source of the bootstrap draws.
    """
    examples = dataset.examples
    benchmark = benchmark_of(examples)
    answers = benchmark.judge(examples, _rewards(runs, examples, reward))
    labels = pd.DataFrame({"pair_id": [run.label for run in runs], "reward": reward})
    board = measured(labels, answers, benchmark.layout(examples), prompt_clusters(examples))
    board = board[board["level"].isin(STUDIED)].rename(columns={"pair_id": "label", "name": "section"})
    correct, rows = answers.values, rows_of(examples)
    names = pd.DataFrame([(run.label, run.variant, run.router) for run in runs], columns=["label", "variant", "router"])
    frame = names.merge(board, on="label", how="left", validate="one_to_many")
    against = {
        "difference": {run: Run(PLAIN) for run in runs if run.variant != PLAIN},
        "routing": {run: Run(run.variant, KNOWN) for run in runs if run.variant != PLAIN and run.router != KNOWN},
    }
    for (name, others), seed in zip(against.items(), rng.spawn(2), strict=True):
        pairs = [(run.label, other.label) for run, other in others.items() if other in runs]
        found = _differences(correct, list(labels["pair_id"]), rows, pairs, name, seed)
        frame = frame.merge(found, on=["label", "section"], how="left", validate="one_to_one")
    return frame[list(ABLATION)]


def _rewards(
    runs: Mapping[Run, tuple[pd.DataFrame, pd.DataFrame]], examples: Sequence[Example], reward: str
) -> list[np.ndarray]:
    """Rewards of the responses of each example, (runs, responses) each."""
    responses = pd.MultiIndex.from_tuples([(e.example_id, name) for e in examples for name, _ in e.responses])
    tables = [rewards(*scores, reward=reward).set_index(["example_id", "response_id"]) for scores in runs.values()]
    values = np.stack([table["reward"].loc[responses].to_numpy() for table in tables])
    return RewardMatrix(values, responses).by_example({e.example_id: e for e in examples})[1]


def _differences(
    correct: np.ndarray,
    labels: list[str],
    rows: Rows,
    pairs: list[tuple[str, str]],
    name: str,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Label, section, and a difference with its limits; one row per comparison and level."""
    value = "difference" if name == "difference" else f"{name}_difference"
    columns = {"first": "label", "name": "section", "difference": value, "low": f"{name}_low", "high": f"{name}_high"}
    if not pairs:
        return pd.DataFrame(columns=list(columns.values()))
    found = compare(correct, labels, rows, pairs, rng=rng)
    return found.loc[found["level"].isin(STUDIED), list(columns)].rename(columns=columns)
