"""Figures: their labels, the number of points, and that the same figure gives the same bytes. Never pixels."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.schema import CORRELATION, LEADERBOARD, MARGINS, SECTIONS, SUBSET_WEIGHTS
from bench.study import figures
from bench.study.metrics import accuracy, intervals

NAN = float("nan")
PAIR = pd.Series({"pair_id": "a--b", "strong": "model-a", "weak": "model-b", "gap_points": 3.5})


def margins(subsets: dict[str, int], *, pair_id: str = "a--b", seed: int = 0) -> pd.DataFrame:
    """MARGINS with so many random rows a subset."""
    rng = np.random.default_rng(seed)
    rows = [
        (pair_id, "sum", f"{subset}/{row}", subset, rng.normal(0.3), "ok")
        for subset, n in subsets.items()
        for row in range(n)
    ]
    return pd.DataFrame(rows, columns=list(MARGINS))


def rewardbench_accuracy() -> pd.DataFrame:
    return intervals(accuracy(margins(dict.fromkeys(SUBSET_WEIGHTS, 8))))


def board(n_pairs: int = 12, *, sections: bool = True, seed: int = 1) -> pd.DataFrame:
    """LEADERBOARD of pairs of three families."""
    rng = np.random.default_rng(seed)
    strong = [f"model-{pair % 5}" for pair in range(n_pairs)]
    frame = pd.DataFrame(
        {
            "rank": pd.array(range(1, n_pairs + 1), dtype="Int64"),
            "pair_id": [f"pair-{pair}" for pair in range(n_pairs)],
            "strong": strong,
            "weak": [f"model-{5 + pair // 5}" for pair in range(n_pairs)],
            "family": [f"family-{pair % 3}" for pair in range(n_pairs)],
            "gap_points": rng.uniform(0.1, 20, n_pairs),
            "score": np.sort(rng.uniform(0.4, 0.8, n_pairs))[::-1],
            "n_examples": 184,
            "n_excluded": 0,
            "reward": "sum",
            "cost_flop": rng.uniform(1e12, 9e13, n_pairs),
        }
    )
    frame = frame.assign(score_low=frame["score"] - 0.05, score_high=frame["score"] + 0.05)
    parts = ("chat", "chat_hard", "safety", "reasoning")
    frame = frame.assign(**{part: rng.uniform(0.4, 0.8, n_pairs) if sections else NAN for part in parts})
    return frame.reindex(columns=list(LEADERBOARD))


def correlation(names: tuple[str, ...] = ("score", *SECTIONS)) -> pd.DataFrame:
    rows = [
        ("sum", "overall" if name == "score" else "section", name, "all", "alpaca_eval_2_lc", estimator, value,
         value - 0.1, value + 0.1, 0.0004, 12, 8, 184)
        for name in names
        for estimator, value in (("spearman", 0.42), ("slope", 0.5))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(CORRELATION))


def texts(figure: Figure) -> str:
    """Everything that is written on a figure."""
    figure.draw_without_rendering()
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(text.get_text() for text in found)


def n_points(figure: Figure) -> int:
    """Points of all scatter plots."""
    return sum(len(points.get_offsets()) for axes in figure.axes for points in axes.collections)


def clipped(figure: Figure) -> list[str]:
    """Visible texts that reach over the figure's edge."""
    figure.draw_without_rendering()
    page = figure.bbox.padded(1)
    return [
        text.get_text()
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))
        if text.get_visible() and text.get_text().strip() and not _inside(page, text.get_window_extent())
    ]


def _inside(page, box) -> bool:
    return page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


EVERY = {
    "pair_accuracy": lambda: figures.pair_accuracy(rewardbench_accuracy(), PAIR),
    "gap_accuracy": lambda: figures.gap_accuracy(board(), correlation()),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("file_format", figures.FORMATS)
def test_the_same_figure_gives_the_same_bytes(name, file_format):
    assert figures.encode(EVERY[name](), file_format) == figures.encode(EVERY[name](), file_format)


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_says_how_many_models_pairs_and_prompts(name):
    written = texts(EVERY[name]())
    assert "model" in written
    assert "pair" in written
    assert "184 prompts" in written


@pytest.mark.parametrize("name", EVERY)
def test_no_text_reaches_over_the_edge(name):
    assert clipped(EVERY[name]()) == []


def test_a_file_holds_no_date():
    figure = EVERY["pair_accuracy"]()
    assert b"CreationDate" not in figures.encode(figure, "pdf")
    assert b"dc:date" not in figures.encode(figure, "svg")


def test_a_pair_shows_its_score_sections_and_subsets():
    written = texts(figures.pair_accuracy(rewardbench_accuracy(), PAIR))
    for name in ("score", *SECTIONS, *SUBSET_WEIGHTS):
        assert name in written.split("\n")
    assert "strong: model-a" in written
    assert "gap 3.5 points" in written
    assert "chance" in written


def test_a_pair_without_a_published_gap_says_so():
    pair = PAIR.copy()
    pair["gap_points"] = NAN
    assert "no published gap" in texts(figures.pair_accuracy(rewardbench_accuracy(), pair))


def test_a_subset_without_a_scored_row_is_called_missing():
    frame = margins({"mine": 4, "other": 2})
    frame.loc[frame["subset"] == "other", "margin_nats"] = NAN
    written = texts(figures.pair_accuracy(intervals(accuracy(frame)), PAIR))
    assert "missing  0 (0, 2)" in written.split("\n")


def test_a_name_with_a_dollar_sign_is_drawn_as_it_is():
    frame = intervals(accuracy(margins({"$x^2": 4, "$": 4})))
    assert "$x^2" in texts(figures.pair_accuracy(frame, PAIR))


def test_the_gap_is_drawn_a_point_a_pair_in_five_panels():
    figure = figures.gap_accuracy(board(), correlation())
    assert len(figure.axes) == 5
    assert n_points(figure) == 5 * 12
    written = texts(figure)
    assert "AlpacaEval 2 LC win rate" in written
    assert "ρ = 0.42 [0.32, 0.52], p < 0.001" in written
    assert "family-1 (4 pairs)" in written


def test_data_without_sections_have_one_gap_panel():
    figure = figures.gap_accuracy(board(sections=False), correlation(("score",)))
    assert len(figure.axes) == 1
    assert n_points(figure) == 12


def test_the_regression_line_runs_through_the_means():
    frame = board(sections=False)
    (axes,) = figures.gap_accuracy(frame, correlation(("score",))).axes
    line = axes.lines[-1]
    assert np.interp(frame["gap_points"].mean(), *line.get_data()) == pytest.approx(frame["score"].mean())
    rise = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    assert rise == pytest.approx(0.005)


def test_pairs_without_a_gap_are_counted_not_drawn():
    frame = board()
    frame.loc[:2, "gap_points"] = NAN
    figure = figures.gap_accuracy(frame, correlation())
    assert n_points(figure) == 5 * 9
    assert "3 pairs without a gap or a score are not drawn" in texts(figure)


def test_drawing_leaves_no_global_figure_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in EVERY.values():
            figures.encode(make(), "png")
