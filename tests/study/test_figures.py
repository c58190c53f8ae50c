"""Figures: their labels, the number of points, and that the same figure gives the same bytes. Never pixels."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from made_report import sure_frames
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.schema import CORRELATION, LEADERBOARD, MARGINS, SECTIONS, SUBSET_WEIGHTS
from bench.study import figures
from bench.study.benchmarks.rm_bench import RM_BENCH
from bench.study.correlate import ALL
from bench.study.figures.style import looks
from bench.study.leaderboard import frontier
from bench.study.metrics import accuracy, accuracy_by_length

NAN = float("nan")
PAIR = pd.Series({"pair_id": "a--b", "strong": "model-a", "weak": "model-b", "gap_points": 3.5})
PAIRS = PAIR.to_frame().T


def margins(subsets: dict[str, int], *, pair_id: str = "a--b", seed: int = 0) -> pd.DataFrame:
    """MARGINS with so many random rows per subset."""
    rng = np.random.default_rng(seed)
    rows = [
        (pair_id, "sum", f"{subset}/{row}", subset, rng.normal(0.3), "ok")
        for subset, n in subsets.items()
        for row in range(n)
    ]
    return pd.DataFrame(rows, columns=list(MARGINS))


def rewardbench_accuracy() -> pd.DataFrame:
    return accuracy(margins(dict.fromkeys(SUBSET_WEIGHTS, 8)))


def board(n_pairs: int = 12, *, sections: bool = True, seed: int = 1) -> pd.DataFrame:
    """LEADERBOARD of pairs of three families."""
    rng = np.random.default_rng(seed)
    ends = list(itertools.combinations(range(7), 2))
    family = [pair % 3 for pair in range(n_pairs)]
    frame = pd.DataFrame(
        {
            "rank": pd.array(range(1, n_pairs + 1), dtype="Int64"),
            "pair_id": [f"pair-{pair}" for pair in range(n_pairs)],
            "strong": [f"model-{family[pair]}-{ends[pair // 3][0]}" for pair in range(n_pairs)],
            "weak": [f"model-{family[pair]}-{ends[pair // 3][1]}" for pair in range(n_pairs)],
            "family": [f"family-{number}" for number in family],
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
        ("sum", "overall" if name == "score" else "section", name, ALL, "alpaca_eval_2_lc", estimator, value,
         value - 0.1, value + 0.1, 0.0004, 12, 8, 184, 0.0004 if name == "score" else 0.06, name == "score")
        for name in names
        for estimator, value in (("spearman", 0.42), ("slope", 0.5))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(CORRELATION))


def texts(figure: Figure) -> str:
    """Everything that is written on a figure."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def n_points(figure: Figure) -> int:
    """Points of all scatter plots."""
    return sum(len(points.get_offsets()) for points in _clouds(figure))


def _clouds(figure: Figure) -> list[PathCollection]:
    return [cloud for axes in figure.axes for cloud in axes.collections if isinstance(cloud, PathCollection)]


def overlapping(axis: Axis) -> list[tuple[str, str]]:
    """Neighbours among an axis's tick labels that cover each other."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    return [
        (left.get_text(), right.get_text())
        for (left, left_box), (right, right_box) in itertools.pairwise(zip(labels, boxes, strict=True))
        if left_box.overlaps(right_box)
    ]


def by_length(pairs: list[str]) -> pd.DataFrame:
    frame = pd.concat([margins({"mine": 184}, pair_id=pair, seed=seed) for seed, pair in enumerate(pairs)])
    difference = pd.Series(np.arange(184.0), index=[f"mine/{row}" for row in range(184)])
    return accuracy_by_length(frame, difference)


def variants() -> pd.DataFrame:
    rows = [
        (variant, router, section, 0.6, 0.5, 0.7, *([NAN] * 3 if variant == "plain" else [0.04, -0.01, 0.09]), 184)
        for variant, router in (("plain", NAN), ("both", "oracle"), ("both", "classifier"))
        for section in ("score", *SECTIONS)
    ]
    columns = ["variant", "router", "section", "accuracy", "low", "high", "difference", "difference_low"]
    return pd.DataFrame(rows, columns=[*columns, "difference_high", "n_examples"])


def curves() -> pd.DataFrame:
    rows = [
        (step, measure, series, 0.5 + step / 1000, 0.4, 0.7)
        for measure, series in (("loss", "train"), ("reward", "a--b"), ("win_rate", "a--b"))
        for step in (0, 50, 100)
    ]
    return pd.DataFrame(rows, columns=["step", "measure", "series", "value", "low", "high"])


def subset_accuracy(board: pd.DataFrame) -> pd.DataFrame:
    rows = [margins(dict.fromkeys(SUBSET_WEIGHTS, 8), pair_id=pair) for pair in board["pair_id"]]
    return accuracy(pd.concat(rows))


def reliability(pairs: tuple[str, ...] = ("a--b",), n: int = 184) -> Figure:
    known, bins, _ = sure_frames(pairs, n)
    return figures.reliability(bins, known, PAIRS)


def coverage(pairs: tuple[str, ...] = ("a--b",), n: int = 184) -> Figure:
    known, _, kept = sure_frames(pairs, n)
    return figures.coverage(kept, known, PAIRS)


EVERY = {
    "pair_accuracy": lambda: figures.pair_accuracy(rewardbench_accuracy(), PAIR),
    "gap_accuracy": lambda: figures.gap_accuracy(board(), correlation(), performance="a board's points"),
    "accuracy_cost": lambda: figures.accuracy_cost(board(), frontier(board())),
    "strong_weak_heatmap": lambda: figures.strong_weak_heatmap(board()),
    "strong_weak_overview": lambda: figures.strong_weak_overview(board()),
    "subset_pair_heatmap": lambda: figures.subset_pair_heatmap(subset_accuracy(board(5)), board(5)),
    "ablation": lambda: figures.ablation(variants(), "a--b"),
    "margin_distributions": lambda: figures.margin_distributions(margins({"hep-js": 92, "mine": 92}), PAIRS),
    "length_accuracy": lambda: figures.length_accuracy(by_length(["a--b"]), PAIRS),
    "reliability": reliability,
    "coverage": coverage,
    "tuning": lambda: figures.tuning(curves(), n_models=3, n_pairs=1, n_prompts=184),
}


@pytest.mark.parametrize("name", EVERY)
def test_the_same_figure_gives_the_same_bytes(name):
    # SVG has every coordinate in full
    assert figures.encode(EVERY[name](), "svg") == figures.encode(EVERY[name](), "svg")


@pytest.mark.parametrize("file_format", figures.FORMATS)
def test_every_format_gives_the_same_bytes(file_format):
    once, again = EVERY["pair_accuracy"](), EVERY["pair_accuracy"]()
    assert figures.encode(once, file_format) == figures.encode(again, file_format)


@pytest.mark.parametrize("file_format", figures.FORMATS)
def test_a_letter_that_the_font_lacks_is_no_warning(file_format, recwarn):
    warnings.simplefilter("always")
    figures.encode(figures.pair_accuracy(accuracy(margins({"\u5b89\u5168": 8})), PAIR), file_format)
    assert [str(each.message) for each in recwarn] == []


def test_no_figure_warns_of_a_letter_that_the_font_lacks_while_it_is_drawn(recwarn):
    warnings.simplefilter("always")
    foreign = board(5).replace("family-0", "\u5b89\u5168")
    foreign["strong"] = "\u5b89" + foreign["strong"]
    table = subset_accuracy(foreign).replace("hep-js", "\u5168")
    figures.strong_weak_heatmap(foreign)
    figures.strong_weak_overview(foreign)
    figures.subset_pair_heatmap(table, foreign)
    assert [str(each.message) for each in recwarn] == []


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_says_how_many_models_pairs_and_prompts(name):
    written = texts(EVERY[name]())
    assert "model" in written
    assert "pair" in written
    assert "184 prompts" in written


@pytest.mark.parametrize("name", EVERY)
def test_nothing_reaches_over_the_edge_and_no_label_over_its_neighbour(name):
    figure = EVERY[name]()
    figures.encode(figure, "svg")
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) >= 0
    assert [overlapping(axis) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if overlapping(axis)] == []


def cells(domains: list[str]) -> pd.DataFrame:
    """The rows of RM-Bench's matrices in ACCURACY."""
    styles = ("concise", "plain", "markdown")
    places = [f"{right} over {wrong}" for right in styles for wrong in styles]
    names = places + [f"{domain}: {place}" for domain in domains for place in places]
    return pd.DataFrame({"name": names}).assign(
        pair_id="a--b", reward="sum", level="cell", accuracy=0.5, low=0.4, high=0.6, n_examples=184
    )


FAMILIES = [f"a-family-with-a-name-of-{n}-letters-{n}" for n in "abcd" for _ in range(3)]
LONG = pd.Series({"strong": "a-model-of-a-long-name-0.5b-instruct-q4", "weak": "another-model-of-a-long-name-270m-q4"})
TIES = pd.DataFrame({"pair_id": "a--b", "reward": "sum", "prompt": ["1", "2"], "spread": [1.0, 2.0]}).assign(
    lead_tied=3.0, lead_ref=-1.0
)


@pytest.mark.parametrize(
    ("figure", "n_panels"),
    [
        (lambda: figures.style_matrix(cells(["chat"]), LONG), 1),
        (lambda: figures.style_matrix(cells(["chat", "math", "code", "safety"]), LONG), 5),
        (lambda: figures.ties_margins(TIES), 2),
        # One panel of few models, and the scale.
        (lambda: figures.strong_weak_heatmap(board(3).assign(family="one")), 2),
        (lambda: figures.strong_weak_overview(board(3).assign(family="one")), 2),
        # The legend has as many columns as fit.
        (lambda: figures.gap_accuracy(board().assign(family=FAMILIES), correlation()), 5),
    ],
)
def test_a_figure_of_few_panels_stays_inside_its_edges(figure, n_panels):
    drawn = figure()
    figures.encode(drawn, "svg")
    box, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0
    assert sum(axes.axison for axes in drawn.axes) == n_panels


def test_a_file_holds_no_date():
    figure = EVERY["pair_accuracy"]()
    assert b"CreationDate" not in figures.encode(figure, "pdf")
    assert b"dc:date" not in figures.encode(figure, "svg")


def test_a_pair_shows_its_score_sections_and_subsets():
    written = texts(figures.pair_accuracy(rewardbench_accuracy(), PAIR))
    for name in ("score", *SECTIONS, *SUBSET_WEIGHTS):
        assert name in written.split("\n")
    assert "strong: model-a" in written
    assert "gap 3.5" in written
    assert "chance" in written


def test_a_pair_without_a_published_gap_says_so():
    pair = PAIR.copy()
    pair["gap_points"] = NAN
    assert "no published gap" in texts(figures.pair_accuracy(rewardbench_accuracy(), pair))


def test_a_subset_without_a_scored_row_is_called_missing():
    frame = margins({"mine": 4, "other": 2})
    frame.loc[frame["subset"] == "other", "margin_nats"] = NAN
    written = texts(figures.pair_accuracy(accuracy(frame), PAIR))
    assert "missing  0 (0, 2)" in written.split("\n")


def test_a_name_with_a_dollar_sign_is_drawn_as_it_is():
    frame = accuracy(margins({"$x^2": 4, "$": 4}))
    assert "$x^2" in texts(figures.pair_accuracy(frame, PAIR))


def test_the_gap_is_drawn_a_point_a_pair_in_five_panels():
    figure = figures.gap_accuracy(board(), correlation(), performance="a board's points")
    assert len(figure.axes) == 5
    assert n_points(figure) == 5 * 12
    written = texts(figure)
    assert "Gap, strong minus weak: a board's points" in written
    assert "ρ = 0.42 [0.32, 0.52], p < 0.001" in written
    # a section's p is Holm's
    assert "ρ = 0.42 [0.32, 0.52], p = 0.060" in written
    assert "ρ: Spearman's inside families" in written
    assert "p: QAP, labels exchangeable inside families" in written
    assert "family-1 (4 pairs)" in written


def test_a_figure_says_what_its_benchmark_judges():
    columns = {**dict.fromkeys(RM_BENCH.columns, 0.5), "score": 0.5, "gap_points": 1.0, "family": "one"}
    frame = PAIRS.assign(**columns, reward="sum", n_examples=184)
    judged = "right above wrong, nine comparisons per prompt"
    assert f"Accuracy: {judged}" in texts(figures.gap_accuracy(frame, correlation(())))
    names = ["score", *RM_BENCH.sections]
    table = pd.DataFrame({"pair_id": "a--b", "reward": "sum", "level": ["overall"] + ["section"] * 4, "name": names})
    table = table.assign(accuracy=0.5, low=0.4, high=0.6, n_examples=184, n_ties=0, n_excluded=0)
    assert f"Accuracy: {judged}, ties wrong (95% interval)" in texts(figures.pair_accuracy(table, PAIR))


def test_the_gap_is_drawn_before_the_correlation_is_known():
    figure = figures.gap_accuracy(board(), correlation(()))
    assert n_points(figure) == 5 * 12
    assert "ρ =" not in texts(figure)


def test_two_performances_in_one_figure_are_an_error():
    both = pd.concat([correlation(), correlation().assign(performance="arena_hard")])
    with pytest.raises(ValueError, match="one performance and one reward"):
        figures.gap_accuracy(board(), both)


def test_a_study_without_published_gaps_is_drawn_empty_and_says_so():
    figure = figures.gap_accuracy(board().assign(gap_points=NAN), correlation(()))
    assert n_points(figure) == 0
    assert "12 pairs are not drawn, without a gap or a score" in texts(figure)


def test_data_without_sections_have_one_gap_panel():
    figure = figures.gap_accuracy(board(sections=False), correlation(("score",)))
    assert len(figure.axes) == 1
    assert n_points(figure) == 12


def test_a_family_has_a_line_of_the_common_slope_through_its_own_means():
    frame = board(sections=False)
    (axes,) = figures.gap_accuracy(frame, correlation(("score",))).axes
    lines = [line for line in axes.lines if len(set(line.get_ydata())) > 1]
    assert len(lines) == 3
    for line, (_, rows) in zip(lines, frame.groupby("family"), strict=True):
        assert np.interp(rows["gap_points"].mean(), *line.get_data()) == pytest.approx(rows["score"].mean())
        assert (np.diff(line.get_ydata()) / np.diff(line.get_xdata())).tolist() == pytest.approx([0.005])


def test_without_an_interval_the_figure_says_that_there_are_too_few_models():
    figure = figures.gap_accuracy(board(), correlation().assign(low=NAN, high=NAN))
    assert "ρ = 0.42 (too few models), p < 0.001" in texts(figure)
    # The words are long: they stand below the panel's title, not over it.
    for axes in figure.axes:
        found = {text.get_text(): text for text in axes.findobj(Text)}
        left, right = (found[axes.get_title(loc=side)] for side in ("left", "right"))
        assert left.get_text().strip() and left.get_window_extent().y1 > right.get_window_extent().y1 + 5


def test_pairs_without_a_gap_are_counted_not_drawn():
    frame = board()
    frame.loc[:2, "gap_points"] = NAN
    figure = figures.gap_accuracy(frame, correlation())
    assert n_points(figure) == 5 * 9
    assert "3 pairs are not drawn, without a gap or a score" in texts(figure)


def test_pairs_of_no_family_are_drawn_and_said_to_be():
    for family in ("", NAN):
        figure = figures.gap_accuracy(board().assign(family=family), correlation())
        assert n_points(figure) == 5 * 12
        assert "no family (12 pairs)" in texts(figure)


def test_cost_is_drawn_a_point_a_pair_and_names_the_frontier():
    frame = board()
    frame.loc[0, "cost_flop"] = NAN
    best = frontier(frame)
    figure = figures.accuracy_cost(frame, best)
    assert n_points(figure) == 11 + len(best)
    written = texts(figure)
    for row in best.itertuples():
        assert f"{row.score:.1%}  {row.strong}" in written
    assert "1 pair is not drawn, without a cost or a score" in written


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.5e12, 8.5e12), (2.01e12, 10.1e12), (5.01e12, 25.1e12), (1.9e12, 1.8e14), (1.1e12, 1.2e14), (1e9, 1e15)],
)
def test_the_axis_of_cost_has_two_labels_at_least(low, high):
    frame = board().assign(cost_flop=np.geomspace(low, high, 12))
    figure = figures.accuracy_cost(frame, frontier(frame))
    figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    begin, end = axis.get_view_interval()
    shown = [tick for tick in axis.get_major_ticks() if begin <= tick.get_loc() <= end and tick.label1.get_text()]
    assert len(shown) >= 2 and overlapping(axis) == []


def n_numbered_cells(figure: Figure) -> int:
    return sum(text.get_text() != "" for axes in figure.axes for text in axes.texts)


def test_a_heat_map_has_a_panel_a_family_and_a_number_a_pair():
    figure = figures.strong_weak_heatmap(board())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "family-0: 5 models, 4 pairs"
    assert len(titles) == 4 + 1
    assert n_numbered_cells(figure) == 12
    assert n_numbered_cells(figures.strong_weak_overview(board())) == 12


def test_equal_scores_have_one_colour_in_all_panels():
    panels = figures.strong_weak_heatmap(board().assign(score=0.5)).axes[:3]
    norms = [panel.collections[0].norm for panel in panels]
    assert {(norm.vmin, norm.vmax) for norm in norms} == {(0.45, 0.55)}


@pytest.mark.parametrize("draw", [figures.strong_weak_heatmap, figures.strong_weak_overview])
@pytest.mark.parametrize("n_pairs", [1, 3, 12])
def test_the_colour_bar_has_a_width_and_its_label_meets_no_title(draw, n_pairs):
    figure = draw(board(n_pairs).assign(family="one"))
    figures.encode(figure, "svg")
    *panels, bar = figure.axes
    box = bar.get_window_extent()
    assert box.width / figure.dpi > 0.05 and box.height / figure.dpi > 1.2
    label = bar.yaxis.label.get_window_extent()
    assert not [axes for axes in panels if axes._left_title.get_window_extent().overlaps(label)]


def test_models_stand_strongest_first():
    frame = pd.DataFrame({"strong": ["b", "b", "c"], "weak": ["a", "c", "a"]})
    frame = frame.assign(pair_id=frame["strong"] + frame["weak"], family="f", score=0.6, reward="sum", n_examples=4)
    (axes, _) = figures.strong_weak_heatmap(frame).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c", "a"]


def test_few_pairs_are_named_under_the_subsets_and_many_by_family():
    few, many = board(5), board(41)
    assert "pair-3" in texts(figures.subset_pair_heatmap(subset_accuracy(few), few))
    written = texts(figures.subset_pair_heatmap(subset_accuracy(many), many))
    assert "family-0\n14 pairs" in written
    assert "pair-3" not in written
    assert "hep-js (8)" in written


def test_reliability_has_a_panel_a_pair_and_a_point_a_bin_and_says_each_error_with_its_interval():
    panels = reliability(("a--b", "c--d")).axes
    known, bins, _ = sure_frames(("a--b", "c--d"), 184)
    drawn = [len(bars[0].get_xdata()) for axes in panels for bars in axes.containers]
    assert drawn == bins.groupby("pair_id").size().tolist()
    row = known.iloc[1]
    words = f"calibration error {row.error:.1%} [{row.error_low:.1%}, {row.error_high:.1%}]"
    assert panels[1].get_title(loc="left") == f"c\n--d\n{words}"
    low, high = panels[0].get_ylim()
    assert low <= bins["low"].min() and bins["high"].max() <= high and panels[1].get_ylim() == (low, high)


def test_coverage_has_a_line_by_margin_and_one_by_confidence():
    (axes,) = coverage().axes
    assert axes.get_legend_handles_labels()[1] == [
        "a--b: largest margins",
        "a--b: largest confidences",
    ]
    assert [len(line.get_xdata()) for line in axes.lines[1:]] == [20, 20]


def test_too_few_labels_for_a_calibration_are_said_to_be():
    assert "too few labelled rows for a calibration" in texts(reliability(n=5))
    (axes,) = coverage(n=5).axes
    assert [len(line.get_xdata()) for line in axes.lines[1:]] == [5]


def test_margins_of_more_than_three_pairs_are_refused():
    frame = pd.concat([margins({"mine": 4}, pair_id=pair) for pair in "abcd"])
    with pytest.raises(ValueError, match="4 pairs in one figure of margins"):
        figures.margin_distributions(frame, PAIRS)


def test_of_several_candidates_the_lengths_are_means():
    lengths = by_length(["a--b"])
    assert "Bytes of chosen minus bytes of rejected" in texts(figures.length_accuracy(lengths, PAIRS))
    several = PAIRS.assign(**dict.fromkeys(RM_BENCH.columns, 0.5))
    words = "Mean bytes of the right responses minus mean bytes of the wrong ones"
    assert words in texts(figures.length_accuracy(lengths, several))


def test_a_share_that_is_not_the_benchmarks_accuracy_is_not_called_so():
    several = PAIRS.assign(**dict.fromkeys(RM_BENCH.columns, 0.5))
    for pairs, few, many in (
        (PAIRS, "Accuracy (95% interval)", "Accuracy, one line per pair"),
        (several, "Best right above best wrong (95% interval)", "Best right above best wrong, one line per pair"),
    ):
        assert figures.length_accuracy(by_length(["a--b"]), pairs).axes[0].get_ylabel() == few
        assert figures.length_accuracy(by_length(list("abcdefg")), pairs).axes[0].get_ylabel() == many


def test_no_two_of_72_names_look_the_same():
    found = looks(map(str, range(72))).values()
    assert len({(look["colour"], look["marker"]) for look in found}) == 72
    assert len({(look["colour"], look["line"]) for look in found}) == 72


def test_many_pairs_are_drawn_as_lines_by_length():
    names = [f"pair-{position}" for position in range(8)]
    figure = figures.length_accuracy(by_length(names), board(8))
    assert sum(len(line.get_xdata()) == 10 for line in figure.axes[0].lines) == 8
    assert "0 to\n18" in texts(figure)


def test_the_plain_run_has_no_difference_to_itself():
    left, right = figures.ablation(variants(), "a--b").axes
    assert [np.isfinite(bars[0].get_xdata()).sum() for bars in left.containers] == [5, 5, 5]
    assert [np.isfinite(bars[0].get_xdata()).sum() for bars in right.containers] == [0, 5, 5]


def test_tuning_has_a_panel_a_measure_with_percent_for_the_win_rate_alone():
    figure = figures.tuning(curves(), n_models=3, n_pairs=1, n_prompts=184)
    figure.draw_without_rendering()
    percents = ["%" in axes.get_yticklabels()[0].get_text() for axes in figure.axes]
    assert percents == [False, False, True]


@pytest.mark.parametrize(
    ("values", "margin_words", "length_words"),
    [
        ([2.5], "all: 1 prompt\n", "Too few rows"),
        ([0.0] * 4, "all margins are equal", "Too few rows"),
        ([NAN] * 3, "all 3 rows are left out", "all rows are left out"),
    ],
)
def test_rows_of_no_variation_are_drawn_with_what_cannot_be_shown_in_words(values, margin_words, length_words):
    rows = margins({"mine": len(values)}).assign(margin_nats=values)
    same = pd.Series(7, index=rows["example_id"])
    assert margin_words in texts(figures.margin_distributions(rows, PAIRS)) + "\n"
    assert length_words in texts(figures.length_accuracy(accuracy_by_length(rows, same), PAIRS))


def test_no_margin_of_a_few_lies_outside_the_figure():
    rows = margins({"mine": 3}).assign(margin_nats=[-5.0, 0.5, 900.0])
    assert "0 of 3 margins lie outside" in texts(figures.margin_distributions(rows, PAIRS))


def test_many_pairs_of_one_bin_are_still_seen():
    pairs = [f"pair-{number}" for number in range(7)]
    rows = pd.concat([margins({"mine": 5}, pair_id=pair) for pair in pairs])
    bins = accuracy_by_length(rows, pd.Series(7, index=pd.unique(rows["example_id"])))
    (axes,) = figures.length_accuracy(bins, board(7).assign(pair_id=pairs)).axes
    assert [line.get_marker() for line in axes.get_lines()[1:]] == ["_"] * 7


def test_a_correlation_without_a_value_or_an_interval_says_so():
    known = correlation(("score",))
    shown = texts(figures.gap_accuracy(board(sections=False), known.assign(low=NAN, high=NAN)))
    assert "ρ = 0.42 (too few models), p < 0.001" in shown and "nan" not in shown
    shown = texts(
        figures.gap_accuracy(
            board(sections=False), known.assign(estimate=NAN, low=NAN, high=NAN, p_value=NAN, p_holm=NAN)
        )
    )
    assert "ρ has no value: too few pairs, or all pairs are equal" in shown and "nan" not in shown


def test_pairs_without_a_score_leave_their_figures_empty_and_said_to_be():
    none = board(sections=False).assign(score=NAN, score_low=NAN, score_high=NAN, rank=pd.NA)
    assert "there is nothing to show" in texts(figures.gap_accuracy(none, correlation(("score",))))
    assert "there is nothing to show" in texts(figures.accuracy_cost(none, none.iloc[:0]))
