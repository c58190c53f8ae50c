"""Computes the tables on what a pair's accuracy rests on: the strong model alone, length, the sureness of labels."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.schema import Dataset
from bench.store.folder import not_whole, read_table
from bench.study.alone import ALONE, ALONE_FILE, by_alone
from bench.study.benchmarks import benchmark_of
from bench.study.confidence import label_margins
from bench.study.design import prompt_clusters
from bench.study.length_balance import LENGTH_BALANCED, Lengths, length_balanced
from bench.study.measure import Scores, Table, pair_table
from bench.study.reliability import CALIBRATION, COVERAGE, RELIABILITY, sureness
from bench.study.reward import RewardMatrix, reward_matrix
from bench.subject import Subject

BALANCE_FILE = "length_balanced.csv"
CONFIDENCE_FILES = {"calibration.csv": CALIBRATION, "reliability.csv": RELIABILITY, "coverage.csv": COVERAGE}
"""Columns by file name."""


def stored_confidence(folder: Path) -> list[pd.DataFrame]:
    """The tables of CONFIDENCE_FILES in a results folder; empty if an earlier version wrote the folder.

    Raises:
        PreconditionError: A table is not whole.
    """
    files = [folder / name for name in CONFIDENCE_FILES]
    if not all(path.is_file() for path in files):
        return []
    tables = [read_table(path) for path in files]
    known = tables[0].get("confidence", pd.Series(dtype=float)).notna().any()
    for path, table in zip(files, tables, strict=True):
        # Of too few labels no confidence is known.
        if "confidence" not in table or (known and table.empty):
            raise not_whole(path)
    return tables


def checks(
    subject: Subject,
    scores: Scores,
    dataset: Dataset,
    best: Sequence[str],
    *,
    reward: str,
    rng: np.random.Generator,
) -> dict[str, Table]:
    """The tables of this module by file name.

    Args:
        subject: All pairs, whose accuracies are balanced by length.
        scores: SCORES of the pairs' models.
        dataset: The rows.
        best: The pair_ids whose labels are calibrated, and which are set beside their strong model alone.
        reward: The reward that judges.
        rng: Deals the folds and draws the bootstrap.
    """
    problems = pd.Series(prompt_clusters(dataset.examples), index=[e.example_id for e in dataset.examples])
    few = subject._replace(pairs=tuple(pair for pair in subject.pairs if pair.pair_id in best))
    balance = by_balance(subject, scores, dataset, problems, reward=reward)
    confidences = by_confidence(few, scores, dataset, problems, reward=reward, rng=rng)
    alone = by_alone(subject, scores, dataset, best, reward=reward, rng=copy.deepcopy(rng))
    return {ALONE_FILE: (alone, ALONE), BALANCE_FILE: (balance, LENGTH_BALANCED)} | confidences


def by_balance(subject: Subject, scores: Scores, dataset: Dataset, problems: pd.Series, *, reward: str) -> pd.DataFrame:
    """LENGTH_BALANCED of every pair. Each pair's own chat template decides the lengths."""
    examples = {example.example_id: example for example in dataset.examples}
    pairs, frames = pair_table(subject), {model: frame for (model, _), frame in scores.items()}
    owners = pd.Series([subject.sides(pair)[0][1] for pair in subject.pairs])
    parts = []
    for _, mine in pairs.groupby(owners, sort=False):
        matrix = reward_matrix(frames, mine, reward=reward)
        ordered, rewards = matrix.by_example(examples)
        benchmark = benchmark_of(ordered)
        sizes = frames[mine["strong"].iloc[0]].set_index(["example_id", "response_id"])["n_bytes"]
        n_bytes = RewardMatrix(sizes.loc[matrix.responses].to_numpy(float)[None], matrix.responses)
        lengths = n_bytes.by_example(examples)[1]
        longer, shorter = (benchmark.judge(ordered, [sign * each for each in lengths]) for sign in (1, -1))
        alone = Lengths(longer.values[0], shorter.values[0], longer.ties[0])
        numbers = problems.loc[[example.example_id for example in ordered]].to_numpy()
        runs, answers = mine[["pair_id"]].assign(reward=reward), benchmark.judge(ordered, rewards)
        parts.append(length_balanced(runs, answers, alone, benchmark.layout(ordered), numbers))
    place = {pair_id: number for number, pair_id in enumerate(pairs["pair_id"])}
    return pd.concat(parts).sort_values("pair_id", key=lambda ids: ids.map(place), kind="stable", ignore_index=True)


def by_confidence(
    subject: Subject,
    scores: Scores,
    dataset: Dataset,
    problems: pd.Series,
    *,
    reward: str,
    rng: np.random.Generator,
) -> dict[str, Table]:
    """The tables on the confidence of the labels of every pair: file name -> frame and columns.

    Args:
        subject: The pairs; the fits of many pairs take long.
        scores: SCORES of the pairs' models.
        dataset: The rows.
        problems: Number of each example's problem, by example_id.
        reward: The reward whose margins are calibrated.
        rng: Deals the folds and draws the bootstrap; every pair gets the same draws.
    """
    margins, ids = label_margins_of(subject, scores, dataset, reward=reward)
    problem = problems.loc[ids].to_numpy()
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in CONFIDENCE_FILES}
    for pair, mine in zip(subject.pairs, margins, strict=True):
        found = sureness(mine, problem, rng=copy.deepcopy(rng))
        frames = (pd.DataFrame([found.calibration]), found.reliability, found.coverage)
        for rows, frame in zip(parts.values(), frames, strict=True):
            rows.append(frame.assign(pair_id=pair.pair_id, reward=reward))
    return {
        name: (pd.concat(parts[name], ignore_index=True)[list(columns)], columns)
        for name, columns in CONFIDENCE_FILES.items()
    }


def label_margins_of(
    subject: Subject, scores: Scores, dataset: Dataset, *, reward: str
) -> tuple[np.ndarray, list[str]]:
    """Margins of the labels that the pairs give to the examples, (pairs, examples), and the example_ids."""
    frames = {model: frame for (model, _), frame in scores.items()}
    matrix = reward_matrix(frames, pair_table(subject), reward=reward)
    examples, rewards = matrix.by_example({example.example_id: example for example in dataset.examples})
    return label_margins(examples, rewards), [example.example_id for example in examples]
