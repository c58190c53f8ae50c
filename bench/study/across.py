"""Reads the stored results of pairs on every benchmark, and the published ones, for one table over all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.current import outdated_model
from bench.faults import warn
from bench.lookup import Lookup
from bench.registry import Registry
from bench.schema import IMPORTED, PARTS, PreconditionError
from bench.store.folder import Store, read_table
from bench.store.places import tables_of
from bench.study.benchmarks import of_table
from bench.study.board import stored_accuracy
from bench.study.measure import pair_table
from bench.study.overview import Measured, overview
from bench.subject import Subject, variant_of


def board(
    store: Store,
    registry: Registry,
    subjects: Sequence[Subject],
    *,
    reward: str,
    lookup: Lookup = Lookup(),  # noqa: B008
) -> pd.DataFrame:
    """OVERVIEW of the pairs of some subjects, from the tables in their results folders.

    Data of no benchmark have no column. A pair without stored results is in the table with its published rows. A
    warning on stderr names the data whose pairs were not all scored in the same way.
    """
    found = [each for subject in subjects for each in measured_of(store, subject, reward=reward, lookup=lookup)]
    _tell_mixes(found)
    pairs = pd.concat([pair_table(subject) for subject in subjects], ignore_index=True).drop_duplicates("pair_id")
    published = {name: references(registry, name) for name in PARTS}
    return overview(found, pairs, published)


def measured_of(store: Store, subject: Subject, *, reward: str, lookup: Lookup) -> list[Measured]:
    """The stored tables of a subject's pairs on every benchmark, under one reward.

    A warning on stderr names each folder whose tables cannot be read, or are of earlier scores.
    """
    found = []
    for folder, stored in tables_of(store, subject.name, variant_of(subject, reward)).items():
        try:
            rows = _current(folder, stored, subject, outdated_model(stored, store, lookup))
        except PreconditionError as error:
            warn(f"warning: left out of the board: {error}")
            continue
        if of_table(rows).sections:
            keys = [each["key"] for each in stored.get("score_sets", [])]
            kinds = sorted({f"{key['dtype']} by {key['ops']}" for key in keys if key["ops"] != IMPORTED})
            found.append(Measured(folder.name, rows, stored.get("data_digest", ""), " and ".join(kinds)))
    return found


def _current(folder: Path, stored: Mapping, subject: Subject, outdated: str) -> pd.DataFrame:
    """The ACCURACY in a folder of those pairs that the registry still has, under the reward of its leaderboard.

    Raises:
        PreconditionError: The tables cannot be read, or are of earlier scores of the model `outdated`.
    """
    if not stored:
        raise PreconditionError(f"{folder} has no readable manifest.json")
    if outdated:
        words = f"its tables are of earlier scores of {outdated}; `drsow leaderboard` on its rows writes them again"
        raise PreconditionError(f"{folder}: {words}")
    rows, ranked = stored_accuracy(folder), read_table(folder / "leaderboard.csv")
    same = ranked.merge(pair_table(subject), on=["pair_id", "strong", "weak"])["pair_id"]
    return rows[(rows["reward"] == ranked["reward"].iloc[0]) & rows["pair_id"].isin(same)].reset_index(drop=True)


def _tell_mixes(found: Sequence[Measured]) -> None:
    """Warn on stderr of tables of the same rows that are of different dtypes or kinds of arithmetic."""
    kinds: dict[str, dict[str, str]] = {}
    for each in found:
        kinds.setdefault(each.digest, {}).setdefault(each.kind, each.data)
    for names in kinds.values():
        if len(told := [kind for kind in names if kind]) > 1:
            words = f"its pairs were scored in different ways ({'; '.join(told)})"
            warn(f"warning: {names[told[0]]}: {words}, so rounding differences are part of their ranks")


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
