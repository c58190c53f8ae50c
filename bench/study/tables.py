"""Makes printable tables from frames: numbers for CSV, and the same rows as Markdown and LaTeX text.

Numbers are in percent here, and the column's name says so. A number that nobody published or measured is empty in the
CSV and a dash in the text.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from bench.study.benchmarks import STUDIED, Benchmark, column, of_columns, of_table, title
from bench.study.correlate import ALL, TITLES, TOO_FEW, lacks_models
from bench.study.leaderboard import leader_note
from bench.study.overview import data_columns

DASH = "–"
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        DASH: "--",
        "ρ": r"$\rho$",
        "τ": r"$\tau$",
    }
)


class Table(NamedTuple):
    """One table as numbers and as text."""

    title: str
    frame: pd.DataFrame
    """Numbers, for the CSV file."""
    cells: pd.DataFrame
    """The same rows as text, under the headings that a reader sees."""
    note: str
    """Data, coverage and provenance, in a few sentences."""


def benchmark_table(runs: Mapping[str, pd.DataFrame], references: pd.DataFrame, *, provenance: str) -> Table:
    """The measured rows of each pair, and below them the published ones, marked as published.

    Args:
        runs: ACCURACY of the pairs under one reward, by what was run ("plain", or the name of a customisation).
        references: pair_id, source, differs_because, customised (bool), and in percent `score` and the benchmark's
            sections and styles, missing where not published.
        provenance: How the numbers were made, for the note.
    """
    benchmark = of_table(pd.concat(runs.values()))
    parts = _parts(benchmark)
    measured = [_measured(frame, parts).assign(system=name, source="measured") for name, frame in runs.items()]
    ours = pd.concat(measured)
    known = references[references["pair_id"].isin(ours["pair_id"])]
    published = known.rename(columns={name: f"{column(name)}_percent" for name in parts.values()}).assign(
        system="published" + known["customised"].map({True: ", customised", False: ""}).astype(str)
    )
    columns = ["pair_id", "system", *_percent_columns(parts), "n_examples", "n_excluded", "source"]
    order = {pair_id: position for position, pair_id in enumerate(pd.unique(ours["pair_id"]))}
    frame = pd.concat([ours.reindex(columns=columns), published.reindex(columns=columns)], ignore_index=True)
    frame = frame.sort_values("pair_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
    cells = pd.DataFrame({"Pair": frame["pair_id"], "System": frame["system"]})
    cells = cells.assign(**_score_cells(frame, parts), Prompts=count_texts(frame["n_examples"]))
    cells = cells.assign(**{"Left out": count_texts(frame["n_excluded"]), "Source": frame["source"]})
    reasons = [
        f"{row['source']}: {row['differs_because']}" for row in known.to_dict("records") if row["differs_because"]
    ]
    differs = f"Published rows differ because: {'; '.join(dict.fromkeys(reasons))}. " if reasons else ""
    note = (
        "Accuracies are in percent, with 95% intervals over prompts; prompts of one problem are treated as one. "
        f"Reward: {_one(pd.concat(runs.values())['reward'])}. {differs}{provenance}"
    )
    return Table(benchmark.title, frame.astype({"n_examples": "Int64", "n_excluded": "Int64"}), cells, note)


def leaderboard_table(board: pd.DataFrame, *, provenance: str) -> Table:
    """The pairs in their order, ranks and scores with their 95% intervals.

    Args:
        board: A leaderboard, complete or only its first rows.
        provenance: How the numbers were made, for the note.
    """
    frame = pd.DataFrame({name: board[name] for name in ("rank", "rank_low", "rank_high", "strong", "weak", "family")})
    parts = _parts(of_columns(board.columns))
    percents = ["score", "score_low", "score_high", "score_held_out", *[name for name in parts if name != "score"]]
    frame = frame.assign(
        gap_points=board["gap_points"],
        **{f"{name}_percent": 100 * board[name] for name in percents},
        n_examples=board["n_examples"],
        n_excluded=board["n_excluded"],
        cost_flop=board["cost_flop"],
    )
    ranks = [
        DASH if pd.isna(rank) else f"{rank} ({low}–{high})"
        for rank, low, high in board[["rank", "rank_low", "rank_high"]].itertuples(index=False)
    ]
    cells = pd.DataFrame({"Rank": ranks, "Strong": board["strong"].array, "Weak": board["weak"].array})
    numbers = frame.reset_index(drop=True)
    scores = _score_cells(numbers, parts)
    scores = {"Score": scores.pop("Score"), "Held out": number_texts(numbers["score_held_out_percent"], 1), **scores}
    cells = cells.assign(Gap=number_texts(numbers["gap_points"], 1), **scores)
    cells = cells.assign(Prompts=count_texts(numbers["n_examples"]))
    cells = cells.assign(**{"Left out": count_texts(numbers["n_excluded"])})
    cells = cells.assign(**{"TFLOP per row": number_texts(numbers["cost_flop"] / 1e12, 2)})
    note = (
        "Scores are in percent, gaps in their board's unit. The 95% intervals are over prompts; prompts of one problem "
        "are treated as one. A pair with rows left out is not ranked. Held out: the expected score, on other prompts, "
        "of the pair in this place. " + f"{leader_note(board)} Reward: {_one(board['reward'])}. {provenance}".lstrip()
    )
    return Table("Pairs by score", numbers, cells, note)


def correlation_table(correlation: pd.DataFrame, *, provenance: str) -> Table:
    """The correlation of gap and accuracy: overall, by section and by family.

    Args:
        correlation: CORRELATION of one reward and one performance.
        provenance: How the numbers were made, for the note.
    """
    frame = correlation[correlation["estimator"].isin(list(TITLES))].reset_index(drop=True)
    rows = frame.to_dict("records")
    cells = pd.DataFrame({"Of": frame["name"].map(title), "Family": frame["family"].replace(ALL, "all families")})
    cells = cells.assign(Estimator=frame["estimator"].map(TITLES), Estimate=number_texts(frame["estimate"], 2))
    cells["95% interval"] = [
        TOO_FEW if lacks_models(row) else DASH if pd.isna(row["low"]) else f"[{row['low']:.2f}, {row['high']:.2f}]"
        for row in rows
    ]
    cells["p"] = p_texts(frame["p_value"])
    holm = p_texts(frame["p_holm"])
    cells["p by Holm"] = ["declared" if row["primary"] else text for row, text in zip(rows, holm, strict=True)]
    cells = cells.assign(**{name.title(): count_texts(frame[f"n_{name}"]) for name in ("pairs", "models", "prompts")})
    note = (
        "Intervals resample models and prompts. p: QAP, labels exchangeable inside families, unless a row says "
        "otherwise. The declared test is not adjusted; Holm adjusts all other tests of the study together. "
        f"Reward: {_one(frame['reward'])}. Performance: {_one(frame['performance'])}. {provenance}"
    )
    return Table("Gap and accuracy", frame, cells, note)


def ablation_table(rows: pd.DataFrame, references: pd.DataFrame, *, provenance: str) -> Table:
    """One row per variant and router: the accuracy of each section in percent, and its difference to the plain run in
    points.

    Args:
        rows: ABLATION of one pair.
        references: The pair's published rows, as in `rewardbench_table`.
        provenance: How the numbers were made, for the note.
    """
    cells, labels = [], rows[["variant", "router"]].fillna("").drop_duplicates()
    for label in labels.itertuples(index=False):
        mine = rows[(rows["variant"] == label.variant) & (rows["router"].fillna("") == label.router)]
        line = {title(row["section"]): _gain(row) for row in mine.to_dict("records")}
        cells.append({"Variant": label.variant, "Router": label.router or DASH, **line, "Prompts": _most(mine)})
    for row in references.to_dict("records"):
        named = [name for name in dict.fromkeys(rows["section"]) if name in row]
        line = {title(name): DASH if pd.isna(row[name]) else f"{row[name]:.1f}" for name in named}
        words = "published, customised" if row["customised"] else "published"
        cells.append({"Variant": f"{words}: {row['source']}", "Router": DASH, **line, "Prompts": DASH})
    note = (
        "Accuracy in percent; in brackets its paired difference to the plain run in points, with the 95% interval. "
        f"Prompts: rows that both models scored. {provenance}"
    )
    return Table("Customisation by domain", rows, pd.DataFrame(cells).fillna(DASH), note)


def overview_table(frame: pd.DataFrame) -> Table:
    """The pairs over all benchmarks: the score of each with its interval and rank, and the mean rank.

    Args:
        frame: OVERVIEW with the columns of the benchmarks.
    """
    cells = pd.DataFrame({"Pair": frame["pair_id"], "System": frame["system"]})
    cells = cells.assign(**{"Mean rank": number_texts(frame["mean_rank"].astype(float), 1)})
    for name in data_columns(frame):
        ends = [f"{name}_low", f"{name}_high"]
        limits = frame.reindex(columns=ends).astype(float).itertuples(index=False)
        intervals = ["" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]" for low, high in limits]
        numbers = number_texts(100 * frame[name].astype(float), 1)
        cells[name.replace("_", "-")] = [n + interval for n, interval in zip(numbers, intervals, strict=True)]
    cells["Source"] = frame["source"]
    note = (
        "Scores are in percent, with 95% intervals over prompts. Mean rank: over the benchmarks that rank the pair, "
        "among the measured pairs of this table. RM-Bench's hard column compares plain right responses with fancier "
        "wrong ones."
    )
    return Table("Pairs over all benchmarks", frame, cells, note)


def _gain(row: Mapping[str, float]) -> str:
    """Text of an accuracy and its difference to the plain run."""
    if pd.isna(row["accuracy"]):
        return DASH
    if pd.isna(row["difference"]):
        return f"{100 * row['accuracy']:.1f}"
    # Adding 0 removes the sign of a rounded -0.0.
    difference, low, high = (
        round(100 * row[name], 1) + 0.0 for name in ("difference", "difference_low", "difference_high")
    )
    limits = "" if pd.isna(low) else f" [{low:+.1f}, {high:+.1f}]"
    return f"{100 * row['accuracy']:.1f} ({difference:+.1f}{limits})"


def _most(rows: pd.DataFrame) -> str:
    """Text of the largest number of scored rows."""
    return f"{int(rows['n_examples'].max()):,}"


def markdown(table: Table) -> str:
    """The table as Markdown, with a final line break."""
    names = list(table.cells)
    lines = [names, [":--" if _is_text(name) else "--:" for name in names]]
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in table.cells.itertuples(index=False)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n\n{table.note}\n"


def latex(table: Table) -> str:
    """The table as LaTeX (packages booktabs and longtable), with a final line break."""
    names = list(table.cells)
    rows = [[str(cell).translate(_LATEX) for cell in row] for row in table.cells.itertuples(index=False)]
    caption = f"{table.title}. {table.note}".translate(_LATEX)
    return "\n".join(
        [
            rf"\begin{{longtable}}{{{''.join('l' if _is_text(name) else 'r' for name in names)}}}",
            rf"\caption{{{caption}}}\\",
            r"\toprule",
            " & ".join(names) + r" \\",
            r"\midrule",
            r"\endhead",
            *[" & ".join(row) + r" \\" for row in rows],
            r"\bottomrule",
            r"\end{longtable}",
            "",
        ]
    )


def _parts(benchmark: Benchmark) -> dict[str, str]:
    """Column -> name of the score and of the benchmark's sections and styles."""
    return {"score": "score", **benchmark.columns}


def _measured(accuracy: pd.DataFrame, parts: Mapping[str, str]) -> pd.DataFrame:
    """One row per pair: score with its interval, sections and styles in percent, coverage."""
    tops = accuracy[accuracy["level"].isin(STUDIED)]
    wide = tops.pivot(index="pair_id", columns="name", values="accuracy").reindex(columns=list(parts.values()))
    percents = (100 * wide).rename(columns=lambda name: f"{column(name)}_percent")
    overall = tops[tops["level"] == "overall"].set_index("pair_id")
    frame = overall[["n_examples", "n_excluded"]].join(percents, validate="one_to_one")
    limits = {f"score_{end}_percent": 100 * overall[end] for end in ("low", "high")}
    return frame.assign(**limits).reset_index()


def _percent_columns(parts: Mapping[str, str]) -> list[str]:
    """The columns of numbers in percent, in their order."""
    score, *sections = [f"{name}_percent" for name in parts]
    return [score, "score_low_percent", "score_high_percent", *sections]


def _score_cells(frame: pd.DataFrame, parts: Mapping[str, str]) -> dict[str, list[str]]:
    """Text of the score with its interval, and of the sections and styles."""
    intervals = [
        "" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]"
        for low, high in frame[["score_low_percent", "score_high_percent"]].itertuples(index=False)
    ]
    cells = {title(name): number_texts(frame[f"{key}_percent"], 1) for key, name in parts.items()}
    scores = [score + interval for score, interval in zip(cells["Score"], intervals, strict=True)]
    return cells | {"Score": scores}


def number_texts(values: pd.Series, decimals: int) -> list[str]:
    """Text of numbers, a dash for a missing one."""
    return [DASH if pd.isna(value) else f"{value:.{decimals}f}" for value in values]


def count_texts(values: pd.Series) -> list[str]:
    """Text of counts, a dash for a missing one."""
    return [DASH if pd.isna(value) else f"{int(value):,}" for value in values]


def p_texts(values: pd.Series) -> list[str]:
    """Text of p-values, a dash for a missing one."""
    return [DASH if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}" for value in values]


def _one(names: pd.Series) -> str:
    """The only reward, or the only performance, of a table."""
    distinct = list(pd.unique(names))
    if len(distinct) != 1:
        raise ValueError(f"a table shows one {names.name}, not {', '.join(distinct)}")
    return distinct[0]


def _is_text(heading: str) -> bool:
    """Whether a column contains words."""
    words = "Pair System Source Strong Weak Variant Router Of Family Estimator Reward Formula"
    return heading in words.split()
