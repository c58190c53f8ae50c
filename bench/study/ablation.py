"""Measures what each component of the prompt customisation changes in the accuracy of one pair.

All runs of the pair judge the same rows, so every comparison is paired.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import ABLATION, Dataset
from bench.study.compare import compare
from bench.study.design import Rows, judged, prompt_clusters, rows_of
from bench.study.metrics import accuracy
from bench.study.reward import margins

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
        reward: One of `schema.REWARDS`.
        rng: Source of the bootstrap draws.
    """
    subsets = pd.Series({example.example_id: example.subset for example in dataset.examples}, name="subset")
    every = pd.concat([margins(*scores, subsets, pair_id=run.label) for run, scores in runs.items()])
    every = every[every["reward"] == reward]
    board = accuracy(every, pd.Series(prompt_clusters(dataset.examples), index=subsets.index))
    board = board[board["level"] != "subset"].rename(columns={"pair_id": "label", "name": "section"})
    wide = every.pivot(index="pair_id", columns="example_id", values="margin_nats")
    wide = wide.loc[[run.label for run in runs], [example.example_id for example in dataset.examples]]
    correct, rows = judged(wide.to_numpy()).forward, rows_of(dataset.examples)
    names = pd.DataFrame([(run.label, run.variant, run.router) for run in runs], columns=["label", "variant", "router"])
    frame = names.merge(board, on="label", how="left", validate="one_to_many")
    against = {
        "difference": {run: Run(PLAIN) for run in runs if run.variant != PLAIN},
        "routing": {run: Run(run.variant, KNOWN) for run in runs if run.variant != PLAIN and run.router != KNOWN},
    }
    for (name, others), seed in zip(against.items(), rng.spawn(2), strict=True):
        pairs = [(run.label, other.label) for run, other in others.items() if other in runs]
        found = _differences(correct, list(wide.index), rows, pairs, name, seed)
        frame = frame.merge(found, on=["label", "section"], how="left", validate="one_to_one")
    return frame[list(ABLATION)]


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
    return found.loc[found["level"] != "subset", list(columns)].rename(columns=columns)
