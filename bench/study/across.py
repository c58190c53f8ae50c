"""Reads the stored results of pairs on every benchmark, and the published ones, for one table over all of them."""

from collections.abc import Sequence

import pandas as pd

from bench.faults import warn
from bench.registry import Registry
from bench.schema import PARTS, PreconditionError
from bench.store.folder import Store, read_table
from bench.store.places import tables_of
from bench.study.benchmarks import of_table
from bench.study.board import stored_accuracy
from bench.study.measure import pair_table
from bench.study.overview import Measured, overview
from bench.subject import Subject, variant_of


def board(store: Store, registry: Registry, subjects: Sequence[Subject], *, reward: str) -> pd.DataFrame:
    """OVERVIEW of the pairs of some subjects, from the tables in their results folders.

    Data of no benchmark have no column. A pair without stored results is in the table with its published rows.
    """
    found = [each for subject in subjects for each in measured_of(store, subject, reward=reward)]
    pairs = pd.concat([pair_table(subject) for subject in subjects], ignore_index=True).drop_duplicates("pair_id")
    published = {name: references(registry, name) for name in PARTS}
    return overview(found, pairs, published)


def measured_of(store: Store, subject: Subject, *, reward: str) -> list[Measured]:
    """The stored tables of a subject on every benchmark, under one reward; a warning names each that cannot be read."""
    found = []
    for folder, stored in tables_of(store, subject.name, variant_of(subject, reward)).items():
        if not stored:
            warn(f"warning: left out of the board: {folder} has no readable manifest.json")
            continue
        try:
            rows = stored_accuracy(folder)
        except PreconditionError as error:
            warn(f"warning: left out of the board: {error}")
            continue
        if of_table(rows).sections:
            mine = rows[rows["reward"] == read_table(folder / "leaderboard.csv")["reward"].iloc[0]]
            found.append(Measured(folder.name, mine.reset_index(drop=True), stored.get("data_digest", "")))
    return found


def references(registry: Registry, benchmark: str) -> pd.DataFrame:
    """The published rows of the registry's pairs on a benchmark, percent; one row per publication."""
    rows = [
        {
            "pair_id": pair.pair_id,
            "source": known.source,
            "differs_because": known.differs_because,
            "customised": known.customised,
            **known.percent,
        }
        for pair in registry.named_pairs()
        for known in pair.references
        if known.benchmark == benchmark
    ]
    columns = ["pair_id", "source", "differs_because", "customised", "score", *PARTS.get(benchmark, ())]
    return pd.DataFrame(rows).reindex(columns=columns)
