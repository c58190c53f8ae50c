"""The verbs `run`, `leaderboard`, `compare` and `figures`: scores what is missing, and writes tables and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.files import read_if_there
from bench.lookup import Lookup, stored_sets, tell_mix
from bench.registry import Registry
from bench.schema import Dataset, UsageError
from bench.scoring import run
from bench.store.folder import Store
from bench.study.board import Written, comparison, write_results
from bench.subject import Subject
from bench.verbs.score import score_all
from bench.verbs.session import Session, for_reward


class Outcome(NamedTuple):
    """What a run wrote, and what failed."""

    written: list[Written]
    """The leaderboards, each with its results folder."""
    errors: list[str]
    """One line for each model that failed and each folder that could not be written."""
    code: int
    """The exit code if no leaderboard was written."""


def run_subjects(
    session: Session,
    subjects: Sequence[Subject],
    dataset: Dataset,
    *,
    reward: str,
    spread: run.Spread,
    seed: int | None,
) -> Outcome:
    """Score what is missing, each model once, and write every subject's tables and figures.

    A model that fails stops only its own pairs: the study's tables hold the other pairs. Tables that have the failed
    ones too are not replaced. Of several shards, the last one to finish writes the tables; the others write none.

    Args:
        session: The registry, where scores and results are, and how passes are computed.
        subjects: Pairs and studies.
        dataset: The preferences.
        reward: The headline reward.
        spread: The processes that share the work.
        seed: Of the statistics' random draws; None derives it from the data.
    """
    store, registry = session.store, session.registry
    sets, errors, code = score_all(for_reward(session, reward), subjects, dataset, spread)
    if spread.n_shards > 1 and not all(sets.get(side) for subject in subjects for side in subject.passes()):
        return Outcome([], errors, code)
    done = []
    for subject in subjects:
        whole = tuple(pair for pair in subject.pairs if all(side in sets for side in subject.sides(pair)))
        lost = tuple(pair.pair_id for pair in subject.pairs if pair not in whole)
        left = subject._replace(pairs=whole, left_out=lost)
        if left.pairs:
            mine = {side: sets[side] for side in left.passes()}
            tell_mix(store, left, dataset, mine, Lookup(session.options.dtype))
            done.append(write_results(store, registry, left, dataset, mine, reward=reward, seed=seed))
            if not done[-1].problem:
                draw(registry, subject, done[-1].folder)
    return Outcome(done, errors + [each.problem for each in done if each.problem], code)


def redo_subjects(
    registry: Registry,
    subjects: Sequence[Subject],
    dataset: Dataset,
    store: Store,
    *,
    lookup: Lookup,
    reward: str,
    seed: int | None = None,
) -> list[Written]:
    """Write every subject's tables again from stored scores. It loads no model.

    Raises:
        PreconditionError: a model of a subject is not scored on the data.
    """
    every = [(subject, stored_sets(store, subject, dataset, lookup)) for subject in subjects]
    return [write_results(store, registry, subject, dataset, sets, reward=reward, seed=seed) for subject, sets in every]


def compared_pairs(
    subjects: Sequence[Subject], dataset: Dataset, store: Store, *, lookup: Lookup, reward: str, seed: int | None = None
) -> pd.DataFrame:
    """COMPARISON of two pairs from stored scores.

    Raises:
        UsageError: both are the same pair, or a model of both is scored under two chat templates.
        PreconditionError: a model is not scored on the data.
    """
    if len(subjects) != 2:
        raise UsageError("both names are the same pair; compare takes two different pairs")
    pairs = [subject.pairs[0] for subject in subjects]
    # One look-up for both pairs: it finds sets of one dtype and arithmetic for all of their models.
    sets = stored_sets(store, subjects[0]._replace(pairs=tuple(pairs)), dataset, lookup)
    found = comparison(pairs, sets, dataset, reward=reward, native=subjects[0].native, seed=seed)
    if found.empty:
        raise UsageError(f"{dataset.data_id}: no section of RewardBench is whole in it, so there is nothing to compare")
    return found


def draw(registry: Registry, subject: Subject, folder: Path) -> list[Path]:
    """Draw a results folder's figures and write its printable tables from its CSVs. Returns the files."""
    from bench.study.draw import write_figures, write_tables

    axis = subject.axes[0] if subject.axes else None
    words = f"Data and versions: manifest.json of {folder.parent.name}/{folder.name}."
    return write_figures(folder, registry, axis=axis) + write_tables(folder, registry, axis=axis, provenance=words)


def figures_are_older(folder: Path) -> bool:
    """Whether a results folder has figures of other tables than it has now, by the CSV of numbers beside each."""
    same = {"margins.csv": "margins.csv", "length.csv": "length.csv", "gap_accuracy.csv": "leaderboard.csv"}
    drawn = {name: read_if_there(folder / "figures" / figure) for figure, name in same.items()}
    return any(data is not None and data != read_if_there(folder / name) for name, data in drawn.items())
