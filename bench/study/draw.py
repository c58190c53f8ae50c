"""Makes the figures and printable tables of a results folder from its CSV files. It needs no scores and no model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from bench.files import write_csv, write_whole
from bench.registry import Registry
from bench.store.folder import read_table
from bench.study import figures, tables
from bench.study.across import references
from bench.study.benchmarks import of_parts, of_table
from bench.study.board import stored_accuracy, stored_decomposition
from bench.study.checks import BALANCE_FILE, stored_confidence
from bench.study.decomposition_table import decomposition_table
from bench.study.leaderboard import frontier
from bench.study.length_table import length_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """One figure and the frame that it shows."""

    name: str
    frame: pd.DataFrame
    draw: "Callable[[], Figure]"


def write_figures(folder: Path, registry: Registry, *, axis: str | None = None) -> list[Path]:
    """Draw the figures of a results folder. Each figure is stored beside the CSV of the numbers that it shows.

    Args:
        folder: A results folder with at least leaderboard.csv and accuracy.csv.
        registry: Has the names of the performances.
        axis: performance_id of a study's gaps; None for a pair.

    Raises:
        PreconditionError: The folder has no tables. The message says what to run.
    """
    board = read_table(folder / "leaderboard.csv")
    written = []
    for drawing in _drawings(folder, board, registry, axis):
        figure = drawing.draw()
        for suffix in figures.FORMATS:
            path = folder / "figures" / f"{drawing.name}.{suffix}"
            write_whole(path, figures.encode(figure, suffix))
            written.append(path)
        write_csv(folder / "figures" / f"{drawing.name}.csv", drawing.frame, tuple(drawing.frame.columns))
    return written


def write_tables(folder: Path, registry: Registry, *, axis: str | None = None, provenance: str) -> list[Path]:
    """Write the benchmark's table, the leaderboard and a study's correlations as Markdown, LaTeX and CSV."""
    board = read_table(folder / "leaderboard.csv")
    rows = _headline(folder, board)
    made = {"leaderboard": tables.leaderboard_table(board, provenance=provenance)}
    benchmark = of_table(rows)
    if benchmark.sections:
        known = references(registry, benchmark.name)
        table = tables.benchmark_table({"plain": rows}, known, provenance=provenance)
        made[benchmark.name.replace("-", "")] = table
    if axis is not None and len(effects := _correlation(folder, board, axis)):
        made["correlation"] = tables.correlation_table(effects, provenance=provenance)
    if (folder / BALANCE_FILE).is_file():
        rows = read_table(folder / BALANCE_FILE)
        made["length_balanced"] = length_table(rows, list(board["pair_id"]), provenance=provenance)
    if len(apart := stored_decomposition(folder)):
        made["decomposition"] = decomposition_table(apart, provenance=provenance)
    written = []
    for name, table in made.items():
        stem = folder / "tables" / name
        write_whole(stem.with_suffix(".md"), tables.markdown(table).encode())
        write_whole(stem.with_suffix(".tex"), tables.latex(table).encode())
        write_csv(stem.with_suffix(".csv"), table.frame, tuple(table.frame.columns))
        written += [stem.with_suffix(suffix) for suffix in (".md", ".tex", ".csv")]
    return written


def write_ablation(folder: Path, registry: Registry, pair_id: str, *, provenance: str) -> list[Path]:
    """Draw ablation.csv, and write it as Markdown and LaTeX together with the pair's published rows."""
    rows = read_table(folder / "ablation.csv")
    known = references(registry, of_parts(set(rows["section"]) - {"score"}).name)
    table = tables.ablation_table(rows, known[known["pair_id"] == pair_id], provenance=provenance)
    figure = figures.ablation(rows, pair_id)
    files = {f"figures/ablation.{suffix}": figures.encode(figure, suffix) for suffix in figures.FORMATS}
    files |= {
        "tables/ablation.md": tables.markdown(table).encode(),
        "tables/ablation.tex": tables.latex(table).encode(),
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    write_csv(folder / "figures" / "ablation.csv", rows, tuple(rows.columns))
    return [folder / name for name in files]


def _drawings(folder: Path, board: pd.DataFrame, registry: Registry, axis: str | None) -> list[Drawing]:
    """The figures of a pair or, with an axis, of a study."""
    rows = _headline(folder, board)
    by_length, margins = read_table(folder / "length.csv"), read_table(folder / "margins.csv")
    drawn = [
        Drawing("margins", margins, lambda: figures.margin_distributions(margins, board)),
        Drawing("length", by_length, lambda: figures.length_accuracy(by_length, board)),
    ]
    drawn += _of_benchmark(folder, rows, board) + _of_confidence(folder, board)
    if axis is None:
        drawn.append(Drawing("accuracy", rows, lambda: figures.pair_accuracy(rows, board.iloc[0])))
        return drawn
    shown = _correlation(folder, board, axis)
    words = registry.performances[axis].name
    best = frontier(board)
    costed = board["cost_flop"].notna().any()
    apart = stored_decomposition(folder)
    return [
        *drawn,
        Drawing("gap_accuracy", board, lambda: figures.gap_accuracy(board, shown, performance=words)),
        Drawing("strong_weak", board, lambda: figures.strong_weak_heatmap(board)),
        Drawing("strong_weak_overview", board, lambda: figures.strong_weak_overview(board)),
        Drawing("subset_pair", rows, lambda: figures.subset_pair_heatmap(rows, board)),
        *([Drawing("decomposition", apart, lambda: figures.decomposition(apart, shown))] if len(apart) else []),
        *([Drawing("accuracy_cost", best, lambda: figures.accuracy_cost(board, best))] if costed else []),
    ]


def _of_benchmark(folder: Path, rows: pd.DataFrame, board: pd.DataFrame) -> list[Drawing]:
    """The figures of what the benchmark has besides accuracies by part: a matrix of styles, the margins of Ties."""
    drawn = []
    best = rows[rows["pair_id"] == board["pair_id"].iloc[0]]
    if (cells := best[best["level"] == "cell"].reset_index(drop=True)).size:
        drawn.append(Drawing("matrix", cells, lambda: figures.style_matrix(cells, board.iloc[0])))
    if (folder / "ties.csv").is_file():
        ties = read_table(folder / "ties.csv")
        drawn.append(Drawing("ties", ties, lambda: figures.ties_margins(ties)))
    return drawn


def _of_confidence(folder: Path, board: pd.DataFrame) -> list[Drawing]:
    """The figures on how sure labels are; none of too few labels, or of a folder that an earlier version wrote."""
    tables = stored_confidence(folder)
    if not tables or tables[0]["confidence"].isna().all():
        return []
    known, bins, kept = tables
    return [
        Drawing("reliability", bins, lambda: figures.reliability(bins, known, board)),
        Drawing("coverage", kept, lambda: figures.coverage(kept, known, board)),
    ]


def _correlation(folder: Path, board: pd.DataFrame, axis: str) -> pd.DataFrame:
    """CORRELATION under the leaderboard's reward, on one axis."""
    rows = read_table(folder / "correlation.csv")
    return rows[(rows["reward"] == board["reward"].iloc[0]) & (rows["performance"] == axis)]


def _headline(folder: Path, board: pd.DataFrame) -> pd.DataFrame:
    """ACCURACY under the leaderboard's reward."""
    rows = stored_accuracy(folder)
    return rows[rows["reward"] == board["reward"].iloc[0]].reset_index(drop=True)
