"""Reads what a report shows: the tables of a results folder, and the stored scores behind them if they exist."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.current import check_tables
from bench.files import read_if_there, write_whole
from bench.lookup import Lookup, stored_sets
from bench.registry import Pair, Registry
from bench.schema import CORRELATION, Dataset, DrsowError, PreconditionError
from bench.store.folder import Store, read_table
from bench.store.places import found_folder, shown_data
from bench.study.across import board as board_over_all
from bench.study.board import stored_accuracy, stored_decomposition
from bench.study.measure import read_for
from bench.study.overview import data_columns
from bench.study.report.cases import N_PAIRS, N_ROWS, Case, cases, wrong_rows
from bench.study.report.sure import Checks, stored_checks
from bench.study.stretches import STRETCHES
from bench.subject import Sets, Subject, result_folder, rewards_place

STORED_STRETCHES = (
    "pair_id", "example_id", "response_id", *STRETCHES, "strong_revision", "weak_revision", "data_digest",
)  # fmt: skip
"""Columns of stretches.parquet. The revisions and the digest say which models and data the numbers belong to."""


class Report(NamedTuple):
    """The contents of a report."""

    subject: str
    note: str
    """The registry's note on the subject."""
    dataset: Dataset
    performance: str
    """Name of the performance that the gaps are measured in; "" if the subject has none."""
    axis: str
    """performance_id of that performance."""
    board: pd.DataFrame
    """LEADERBOARD."""
    accuracy: pd.DataFrame
    """ACCURACY under the leaderboard's reward, with `low` and `high`."""
    correlation: pd.DataFrame
    """CORRELATION; empty where there is none."""
    manifest: dict[str, Any]
    cases: tuple[Case, ...]
    missing: str
    """Why there are no cases; "" if there are some."""
    n_wrong: Mapping[str, int] = {}
    """For each pair that has cases, the number of rows that it gets wrong, without ties."""
    overview: pd.DataFrame | None = None
    """OVERVIEW of the subject's pairs over all benchmarks; None if only one has results."""
    decomposition: pd.DataFrame | None = None
    """DECOMPOSITION of a study; empty or None for a pair."""
    rewards: pd.DataFrame | None = None
    """SIDE_BY_SIDE of the subject's pair; None if `drsow rewards` did not write it."""
    checks: Checks | None = None
    """The tables on length and confidence; None if an earlier version wrote the folder."""

    @property
    def data(self) -> str:
        """The data's name on the page."""
        return shown_data(self.dataset)


def gather(
    store: Store, registry: Registry, subject: Subject, dataset: Dataset, *, reward: str, lookup: Lookup
) -> Report:
    """Read the contents of a report.

    Raises:
        PreconditionError: The results folder has no tables of these rows, or they are older than the stored scores.
        UsageError: Several score sets fit, or the tables are of another dtype or arithmetic.
    """
    folder = _checked_folder(store, subject, dataset, reward, lookup)
    board = read_table(folder / "leaderboard.csv")
    rows = stored_accuracy(folder)
    axis = subject.axes[0] if subject.axes else ""
    over_all = board_over_all(store, registry, [subject], reward=reward, lookup=lookup)
    found: tuple[Case, ...] = ()
    n_wrong: dict[str, int] = {}
    missing = ""
    try:
        sets = stored_sets(store, subject, dataset, lookup)
        found, n_wrong = _cases(folder, subject, dataset, sets, board)
    except PreconditionError as error:
        missing = str(error)
    return Report(
        subject.name,
        registry.studies[subject.name].note if subject.name in registry.studies else subject.pairs[0].note,
        dataset,
        registry.performances[axis].name if axis else "",
        axis,
        board,
        rows[rows["reward"] == reward].reset_index(drop=True),
        _correlation(folder),
        json.loads(read_if_there(folder / "manifest.json") or b"{}"),
        found,
        missing,
        n_wrong,
        over_all if len(data_columns(over_all)) > 1 else None,
        stored_decomposition(folder),
        _rewards(store, subject, dataset),
        stored_checks(folder),
    )


def _checked_folder(store: Store, subject: Subject, dataset: Dataset, reward: str, lookup: Lookup) -> Path:
    """The results folder, if its tables are of the scores that are asked for."""
    folder = result_folder(store, subject, dataset, reward=reward)
    check_tables(folder, store, subject, dataset, lookup, reward=reward)
    return folder


def _correlation(folder: Path) -> pd.DataFrame:
    """CORRELATION; empty for a subject that is no study."""
    path = folder / "correlation.csv"
    return read_table(path) if path.is_file() else pd.DataFrame(columns=list(CORRELATION))


def _rewards(store: Store, subject: Subject, dataset: Dataset) -> pd.DataFrame | None:
    folder = found_folder(store, rewards_place(subject, dataset))
    return read_table(folder / "rewards.csv") if folder and (folder / "rewards.csv").is_file() else None


def stretched_rows(
    store: Store, subject: Subject, dataset: Dataset, *, reward: str, lookup: Lookup
) -> list[tuple[Pair, list[str]]]:
    """The best pairs, and the example_ids whose stretches a report shows."""
    board = read_table(_checked_folder(store, subject, dataset, reward, lookup) / "leaderboard.csv")
    sets = stored_sets(store, subject, dataset, lookup)
    wrong = {pair: _wrong(subject, pair, sets, dataset, reward) for pair in _best(subject, board)}
    return [(pair, list(rows.head(N_ROWS).index)) for pair, rows in wrong.items()]


def store_stretches(store: Store, subject: Subject, dataset: Dataset, frame: pd.DataFrame, *, reward: str) -> Path:
    """Store the stretches of the rows that a report shows, so that later reports need no models.

    Args:
        store: The store of the results.
        subject: The subject of the report.
        dataset: The data set of the report.
        frame: STORED_STRETCHES without the data's digest.
        reward: The reward of the report.
    """
    path = result_folder(store, subject, dataset, reward=reward) / "stretches.parquet"
    table = frame.assign(data_digest=dataset.digest)[list(STORED_STRETCHES)]
    write_whole(path, table.to_parquet(index=False))
    return path


def _best(subject: Subject, board: pd.DataFrame) -> list[Pair]:
    """The best ranked pairs, best first."""
    pairs = {pair.pair_id: pair for pair in subject.pairs}
    ranked = board.dropna(subset=["rank", "score"])["pair_id"]
    return [pairs[pair_id] for pair_id in ranked if pair_id in pairs][:N_PAIRS]


def _wrong(subject: Subject, pair: Pair, sets: Sets, dataset: Dataset, reward: str) -> pd.DataFrame:
    """The rows that a pair gets wrong, largest margin first."""
    strong, weak = subject.sides(pair)
    right = {example.example_id: example.right for example in dataset.examples}
    return wrong_rows(read_for(sets[strong], reward), read_for(sets[weak], reward), reward=reward, right=right)


def _cases(
    folder: Path, subject: Subject, dataset: Dataset, sets: Sets, board: pd.DataFrame
) -> tuple[tuple[Case, ...], dict[str, int]]:
    """The cases of the best pairs, and how many rows each of these pairs gets wrong."""
    examples = {example.example_id: example for example in dataset.examples}
    reward = board["reward"].iloc[0]
    stretches = _stretches(folder, dataset, board)
    found: list[Case] = []
    n_wrong = {}
    for pair in _best(subject, board):
        mine = stretches[stretches["pair_id"] == pair.pair_id]
        wrong = _wrong(subject, pair, sets, dataset, reward)
        n_wrong[pair.pair_id] = len(wrong)
        found += cases(pair.pair_id, wrong.head(N_ROWS), examples, mine)
    return tuple(found), n_wrong


def _stretches(folder: Path, dataset: Dataset, board: pd.DataFrame) -> pd.DataFrame:
    """The stored stretches that belong to these models and these data."""
    data = read_if_there(folder / "stretches.parquet")
    if data is None:
        return pd.DataFrame(columns=list(STORED_STRETCHES))
    try:
        frame = pd.read_parquet(io.BytesIO(data), columns=list(STORED_STRETCHES))
    except (OSError, ValueError) as error:
        raise DrsowError(
            f"{folder / 'stretches.parquet'}: cannot read this table ({error}). Delete it; `drsow report --tokens` "
            "writes a new one"
        ) from error
    keys = ["pair_id", "strong_revision", "weak_revision"]
    current = frame.merge(board[keys], on=keys, how="inner", validate="many_to_one")
    return current[current["data_digest"] == dataset.digest]
