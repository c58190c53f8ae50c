"""Prepares the rows that the report's template prints: text for the reader, and numbers to sort by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.study.benchmarks import Benchmark, column, of_table
from bench.study.benchmarks import title as heading
from bench.study.correlate import ALL, HEADLINE, TOO_FEW, lacks_models
from bench.study.correlate import TITLES as ESTIMATORS
from bench.study.report import plots
from bench.study.report.gather import Report
from bench.study.tables import DASH

_PARTS = ["section", "style"]
"""Levels of the leaderboard's columns."""


class Cell(NamedTuple):
    """One number of a table."""

    text: str
    note: str
    """Smaller text below the number, such as an interval."""
    order: float
    """The number to sort by; -1 where the number is missing."""


class Figure(NamedTuple):
    """One figure."""

    title: str
    words: str
    """What the figure shows, for readers who cannot see it."""
    json: str


class Tab(NamedTuple):
    """The figures and statistics of the score or of one section."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    statistics: tuple[dict[str, str], ...]


def title(name: str) -> str:
    """The heading of the score, a section or a style."""
    return "Overall" if name == "score" else heading(name)


def share(value: float, low: float = np.nan, high: float = np.nan) -> Cell:
    """A proportion as percent with one decimal, and its interval."""
    if pd.isna(value):
        return Cell(DASH, "", -1.0)
    return Cell(f"{100 * value:.1f}", "" if pd.isna(low) else f"[{100 * low:.1f}, {100 * high:.1f}]", float(value))


def number(value: float, words: str = "{:,.0f}") -> Cell:
    """A count or a quantity."""
    return Cell(DASH, "", -1.0) if pd.isna(value) else Cell(words.format(value), "", float(value))


def board_rows(report: Report) -> list[dict[str, Any]]:
    """The rows of the leaderboard, one per pair."""
    tops = report.accuracy[report.accuracy["level"].isin(_PARTS)]
    sections = tops.set_index(["pair_id", "name"])[["accuracy", "low", "high"]]
    limits = sections.to_dict("index")
    rows = []
    for place, row in enumerate(report.board.to_dict("records")):
        rank = number(row["rank"])
        if rank.text != DASH:
            rank = rank._replace(note=f"[{row['rank_low']:.0f}, {row['rank_high']:.0f}]")
        cells = {
            name: share(row[column(name)], *_limits(limits.get((row["pair_id"], name)))) for name in _sections(report)
        }
        rows.append(
            {
                **{name: row[name] for name in ("pair_id", "strong", "weak", "family", "dtype", "licence")},
                "place": place,
                "rank": rank,
                "gap": number(row["gap_points"], "{:.1f}"),
                "score": share(row["score"], row["score_low"], row["score_high"]),
                "sections": list(cells.values()),
                "n_examples": number(row["n_examples"])._replace(note=_left_out(row["n_excluded"])),
                "n_params": number(row["n_params"] / 1e9, "{:,.1f}"),
                "cost": number(row["cost_flop"] / 1e12, "{:,.2f}"),
            }
        )
    return rows


def section_titles(report: Report) -> list[str]:
    """Headings of the sections' columns; none where the data have no sections."""
    return [title(name) for name in _sections(report)]


def tabs(report: Report) -> list[Tab]:
    """The score first, then the sections."""
    return [
        Tab(name, title(name), tuple(_figures(report, name)), tuple(_statistics(report, name)))
        for name in ("score", *_sections(report))
    ]


def details(report: Report) -> dict[str, list[dict[str, Any]]]:
    """For each pair its score, sections and subsets, each beside the median of all pairs."""
    rows = report.accuracy[report.accuracy["level"].isin(["overall", *_PARTS, "subset"])]
    middle = rows.groupby(["level", "name"])["accuracy"].median()
    rows = _in_order(report, rows)
    # The score has the same interval as in the leaderboard.
    limits = report.board.set_index("pair_id")[["score_low", "score_high"]].to_dict("index")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        ends = (row["low"], row["high"]) if row["level"] != "overall" else limits[row["pair_id"]].values()
        line = {
            "name": title(row["name"]) if row["level"] != "subset" else row["name"],
            "level": row["level"],
            "accuracy": share(row["accuracy"], *ends),
            "median": share(middle[row["level"], row["name"]]),
            "n_examples": number(row["n_examples"]),
            "n_ties": number(row["n_ties"]),
            "n_excluded": number(row["n_excluded"]),
        }
        found.setdefault(row["pair_id"], []).append(line)
    return found


def _subsets(report: Report) -> pd.DataFrame:
    """ACCURACY of the subsets."""
    return report.accuracy[report.accuracy["level"] == "subset"]


def _limits(row: Mapping[str, float] | None) -> tuple[float, float]:
    return (np.nan, np.nan) if row is None else (row["low"], row["high"])


def _left_out(n_excluded: int) -> str:
    return f"{n_excluded:,} left out" if n_excluded else ""


def _benchmark(report: Report) -> Benchmark:
    """The benchmark of the report's tables."""
    return of_table(report.accuracy)


def _sections(report: Report) -> list[str]:
    """The sections and styles that the data have."""
    there = set(report.accuracy.loc[report.accuracy["level"].isin(_PARTS), "name"])
    return [name for name in _benchmark(report).columns.values() if name in there]


def _in_order(report: Report, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the score, then of each section and its subsets."""
    order = {name: position for position, name in enumerate(_order(report))}
    return rows.sort_values("name", key=lambda names: names.map(order), kind="stable")


def _order(report: Report) -> list[str]:
    """Names: the score, then each section and its subsets, then the styles."""
    benchmark = _benchmark(report)
    subsets = benchmark.sorted(_subsets(report)["name"])
    names = ["score"]
    for section in _sections(report):
        names += [section, *(name for name in subsets if benchmark.section_of(name) == section)]
    return names + [name for name in subsets if name not in names]


def _figures(report: Report, name: str) -> list[Figure]:
    """The figures of the score or of one section."""
    words, benchmark = title(name), _benchmark(report)
    pairs = _pairs(report, name)
    within = _in_order(report, _subsets(report))
    if name != "score":
        within = within[within["name"].map(benchmark.section_of) == name]
    if len(pairs) < 2:
        every = report.accuracy[report.accuracy["level"].isin(["overall", *_PARTS, "subset"])]
        rows = every if name == "score" else pd.concat([_rows(report, name), within])
        rows = _in_order(report, rows)
        words = (
            f"{words}: accuracy with its 95% interval, one line per subset; dotted: chance. The pair's table has the "
            "numbers."
        )
        return [Figure("Accuracy by subset", words, plots.embedded(plots.intervals_by_name(rows)))]
    return [
        *_scatter(report, name, pairs),
        Figure(
            "Strong model by weak model",
            f"{words}: accuracy of each pair, one square per family. The leaderboard has the numbers.",
            plots.embedded(plots.strong_weak(pairs)),
        ),
        *(
            [
                Figure(
                    "Subsets",
                    f"{words}: accuracy of each pair on each subset. The pairs' tables have the numbers.",
                    plots.embedded(plots.subset_pair(within[[*_DRAWN, "name"]], pairs)),
                )
            ]
            if len(within)
            else []
        ),
    ]


_DRAWN = ["pair_id", "accuracy", "low", "high", "n_examples"]


def _rows(report: Report, name: str) -> pd.DataFrame:
    """ACCURACY of the score or of one section."""
    levels = ["overall"] if name == "score" else _PARTS
    return report.accuracy[report.accuracy["level"].isin(levels) & (report.accuracy["name"] == name)]


def _pairs(report: Report, name: str) -> pd.DataFrame:
    """pair_id, strong, weak, family, gap_points, and accuracy with its interval and count."""
    names = ["pair_id", "strong", "weak", "family", "gap_points"]
    if name == "score":
        columns = {"score": "accuracy", "score_low": "low", "score_high": "high"}
        return report.board[[*names, *columns, "n_examples"]].rename(columns=columns)
    return report.board[names].merge(_rows(report, name)[_DRAWN], on="pair_id", how="left", validate="one_to_one")


def _scatter(report: Report, name: str, pairs: pd.DataFrame) -> list[Figure]:
    """The figure of gap and accuracy; none if no pair has both."""
    drawn = pairs.dropna(subset=["gap_points", "accuracy"])
    if drawn.empty:
        return []
    words = (
        f"{title(name)}: accuracy against the gap, one point per pair; lines: common slope inside families; dotted: "
        "chance. "
        "The leaderboard has the numbers."
    )
    rows = _headline(report, name)
    slopes = rows.loc[rows["estimator"] == "slope", "estimate"]
    slope = slopes.iloc[0] / 100 if len(slopes) else np.nan
    performance = report.performance or "published performance"
    return [Figure("Gap and accuracy", words, plots.embedded(plots.gap_scatter(drawn, slope, performance=performance)))]


def _headline(report: Report, name: str) -> pd.DataFrame:
    """CORRELATION of the score or a section over all families, under the study's own performance and reward."""
    rows = _correlation(report, name)
    return rows[(rows["family"] == ALL) & (rows["reward"] == report.board["reward"].iloc[0])]


def _correlation(report: Report, name: str) -> pd.DataFrame:
    """CORRELATION of the score or of one section, on the study's own axis."""
    rows = report.correlation
    return rows[(rows["name"] == name) & (rows["performance"] == report.axis)]


def _statistics(report: Report, name: str) -> list[dict[str, str]]:
    """All effects under the headline reward over all families, then rho of the other families and rewards."""
    rows = _correlation(report, name)
    headline = (rows["family"] == ALL) & (rows["reward"] == report.board["reward"].iloc[0])
    rows = pd.concat([rows[headline], rows[~headline & (rows["estimator"] == HEADLINE)]])
    return [
        {
            "reward": row["reward"],
            "family": "all families" if row["family"] == ALL else row["family"],
            "estimator": ESTIMATORS.get(row["estimator"], row["estimator"]),
            "estimate": _signed(row["estimate"]),
            "interval": _interval(row),
            "p_value": _p_value(row["p_value"]),
            "p_holm": DASH if pd.isna(row["p_value"]) else "declared" if row["primary"] else _p_value(row["p_holm"]),
            "n": ", ".join(f"{row[f'n_{noun}']:,.0f} {noun}" for noun in ("pairs", "models", "prompts")),
        }
        for row in rows.to_dict("records")
    ]


def _interval(row: Mapping[str, float]) -> str:
    if lacks_models(row):
        return TOO_FEW
    return DASH if pd.isna(row["low"]) else f"[{_signed(row['low'])}, {_signed(row['high'])}]"


def _signed(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.2f}".replace("-", "−")


def _p_value(value: float) -> str:
    if pd.isna(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
