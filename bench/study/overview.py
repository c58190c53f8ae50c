"""Puts the results of pairs on several benchmarks into one table: a row per pair, a column per benchmark.

A benchmark's number is its score. RM-Bench's hard column is printed beside its score, because it shows whether a reward
measures style or length. Ranks are among the measured pairs of the table; as in a leaderboard, a pair of which rows
were left out has no rank on that benchmark. Published rows are below the measured one of their pair, without a rank.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.store.places import SHORT
from bench.study.benchmarks import BENCHMARKS, column, of_table

OVERVIEW = ("pair_id", "system", "strong", "weak", "mean_rank", "n_ranked", "source")
"""The columns of the table besides those of the benchmarks. `system` is "measured" or "published". `mean_rank` is the
mean of the pair's ranks on the `n_ranked` data sets that rank it; of rows drawn of one data set, and of the whole one,
the most rows count. `source` says where a published row is from, and why
it differs. A benchmark has the columns NAME, NAME_low, NAME_high (95% interval) and NAME_rank; fractions. NAME
is that of the data's results folder; where other rows have it already, the first digits of the rows' digest follow."""

BESIDE = {"rm-bench": ("hard",)}
"""Parts of a benchmark that the table has besides its score."""


_KEY = ["pair_id", "reward", "level", "name"]


class Measured(NamedTuple):
    """The tables of some pairs on one data set."""

    data: str
    """Name of the data set's results folder."""
    accuracy: pd.DataFrame
    """ACCURACY of the pairs under one reward."""
    digest: str = ""
    """Digest of the data set's rows: tables of other rows are another data set, whatever its name."""
    kind: str = ""
    """The dtypes and kinds of arithmetic of the scores, in words; "" if all are imported."""


def overview(measured: Sequence[Measured], pairs: pd.DataFrame, published: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Make the table.

    Args:
        measured: The tables of the pairs, by data set; a pair may be in several tables of one data set, one for each
            results folder.
        pairs: pair_id, strong, weak; one row per pair.
        published: Published rows by benchmark, percent: pair_id, source, differs_because, customised, and the parts.

    Returns:
        OVERVIEW and the columns of the benchmarks; best mean rank first.
    """
    frame = pairs[["pair_id", "strong", "weak"]].assign(system="measured", source="")
    ranks, every_data = [], _by_data(measured)
    for found in every_data:
        tables = _numbers(found, column(found.data))
        if any(name in frame for table in tables for name in table if name != "pair_id"):
            tables = _numbers(found, column(f"{found.data}-{found.digest[:SHORT]}"))
        for numbers in tables:
            frame = frame.merge(numbers, on="pair_id", how="left", validate="one_to_one")
        ranks += [name for name in tables[0] if name.endswith("_rank") and _counts(found.data, every_data)]
    frame["mean_rank"] = frame[ranks].astype(float).mean(axis=1) if ranks else np.nan
    frame["n_ranked"] = frame[ranks].notna().sum(axis=1) if ranks else 0
    frame = frame.sort_values(["mean_rank", "pair_id"], na_position="last", ignore_index=True)
    more = _published(pairs, published)
    order = {pair_id: place for place, pair_id in enumerate(frame["pair_id"])}
    values = [name for name in frame if name not in OVERVIEW]
    every = pd.concat([frame, more], ignore_index=True) if len(more) else frame
    every = every.sort_values("pair_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
    has_number = every[[name for name in every if name not in OVERVIEW]].notna().any(axis=1)
    columns = [*OVERVIEW[:-1], *values, *(name for name in every if name not in (*OVERVIEW, *values)), OVERVIEW[-1]]
    # A pair without a measured number is there as its published rows, if it has any.
    return every.loc[has_number | ~every["pair_id"].isin(more.get("pair_id", [])), columns].reset_index(drop=True)


def data_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of the benchmarks in a table, without their limits and ranks."""
    names = [name for name in map(str, frame) if name not in OVERVIEW]
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high", "_rank")}
    return [name for name in names if name not in ends]


def _by_data(measured: Sequence[Measured]) -> list[Measured]:
    """The tables of each data set as one, under the first name that its rows have."""
    parts: dict[str, list[Measured]] = {}
    for each in measured:
        parts.setdefault(each.digest or each.data, []).append(each)
    return [
        each[0]._replace(accuracy=pd.concat([one.accuracy for one in each]).drop_duplicates(_KEY, ignore_index=True))
        for each in parts.values()
    ]


def _counts(data: str, every: Sequence[Measured]) -> bool:
    """Whether the ranks on a data set enter the mean: those on rows drawn of it would count these rows twice."""
    (name, n), known = _drawn(data), [_drawn(other.data) for other in every]
    return n == max(number for other, number in known if other == name)


def _drawn(data: str) -> tuple[str, float]:
    """The data set that the rows of a results folder were drawn of, and how many of each subset; all of them: inf."""
    found = re.fullmatch(r"(.+)-([0-9]+)-per-subset", data)
    return (found[1], float(found[2])) if found else (data, math.inf)


def _numbers(found: Measured, name: str) -> list[pd.DataFrame]:
    """For the score and each part beside it: pair_id, the number, its limits, and the rank of the score."""
    rows = found.accuracy
    wanted = {name: ("overall", "score")}
    wanted |= {f"{name}_{part}": ("style", part) for part in BESIDE.get(of_table(rows).name, ())}
    tables = []
    for key, (level, part) in wanted.items():
        mine = rows[(rows["level"] == level) & (rows["name"] == part)]
        table = mine[["pair_id", "accuracy", "low", "high"]].set_axis(
            ["pair_id", key, f"{key}_low", f"{key}_high"], axis=1
        )
        if level == "overall":
            whole = mine["accuracy"].where(mine["n_excluded"] == 0)
            table[f"{key}_rank"] = whole.rank(ascending=False, method="min").astype("Int64")
        tables.append(table)
    return tables


def _published(pairs: pd.DataFrame, published: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The published rows of the pairs, one per source and benchmark."""
    lines = []
    for benchmark in BENCHMARKS:
        rows = published.get(benchmark.name)
        if rows is None:
            continue
        known = rows.merge(pairs[["pair_id", "strong", "weak"]], on="pair_id", how="inner", validate="many_to_one")
        for row in known.to_dict("records"):
            reason = f"; differs because: {row['differs_because']}" if row["differs_because"] else ""
            key, score = column(benchmark.name), row["score"]
            if pd.isna(score):
                # Missing if one of them is.
                score = float(np.mean([row[name] for name in benchmark.sections]))
                reason = f" (mean of its sections){reason}"
            values = {key: score / 100}
            values |= {f"{key}_{part}": row[part] / 100 for part in BESIDE.get(benchmark.name, ())}
            ours = {name: row[name] for name in ("pair_id", "strong", "weak")}
            lines.append(ours | values | {"system": "published", "source": f"{row['source']}{reason}"})
    return pd.DataFrame(lines)
