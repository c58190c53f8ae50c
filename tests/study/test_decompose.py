"""Is it the gap: the table of slopes and checks, the verdict, and what shows them."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.schema import CORRELATION
from bench.study import figures
from bench.study.bootstrap import Resampling
from bench.study.decompose import DECOMPOSITION, adjusted, decompose
from bench.study.decomposition_table import decomposition_table
from bench.study.design import Judged, Rows, Study, judged, on_axis
from bench.study.mixed import mixed_slopes
from bench.study.partial import partial_spearman, partial_test
from bench.study.qap import relabellings
from bench.study.tables import latex, markdown
from bench.study.verdict import CHECKS, EITHER, MIXED, SLOPES, TITLES, WORLDS, verdict

NAN = float("nan")
FAMILY = np.array(["f"] * 6 + ["g"] * 5)
FIRST, SECOND = (np.concatenate([a, b + 6]) for a, b in zip(np.triu_indices(6, 1), np.triu_indices(5, 1), strict=True))
STUDY = Study(np.array(list("abcdefghijk")), FAMILY, FIRST, SECOND)
SCORES = np.array([30.0, 25, 24, 18, 11, 4, 9, 7.5, 7.5, 2, 0])
ROWS = Rows((("overall", "score"),), np.full((1, 60), 1 / 60), np.zeros(60, dtype=int), np.arange(60))


def decomposed(*, rows: Rows = ROWS, starts=("f", "k"), scores: np.ndarray = SCORES) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    margins = rng.standard_normal((len(SCORES), 60)) + 0.05 * SCORES[:, None]
    of_pairs = margins[FIRST] - margins[SECOND]
    axis = on_axis(STUDY, judged(of_pairs), scores)
    longer = on_axis(STUDY, judged(of_pairs * np.sign(rng.standard_normal(60))), scores)
    return decompose(axis, longer.answers, rows, starts=starts, resampling=Resampling(60), rng=rng)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return decomposed()


def made(either: float, strong: tuple, weak: tuple, total: tuple, *, n_models: int = 44) -> pd.DataFrame:
    """DECOMPOSITION from the p of the declared test, and estimate and p of each slope."""
    rows = [(EITHER, NAN, either), *((name, *of) for name, of in zip(SLOPES, (strong, weak, total), strict=True))]
    frame = pd.DataFrame(rows, columns=["estimator", "estimate", "p_value"])
    return adjusted(frame.assign(low=frame["estimate"] - 1, high=frame["estimate"] + 1, n_models=n_models))


def test_the_table_has_a_row_an_estimator_and_says_what_is_behind_it(table):
    assert tuple(table.columns) == DECOMPOSITION
    assert table["estimator"].tolist() == [EITHER, *SLOPES, *CHECKS, *MIXED] == list(TITLES)
    # 15 + 10 pairs, of which h and i have no gap; without f and k 10 + 6 are left, without h and i 15
    counts = table.set_index("estimator")[["n_pairs", "n_models", "n_prompts"]]
    assert counts.loc["strong"].tolist() == [24, 11, 60]
    assert counts.loc["spearman-without-starts"].tolist() == [15, 9, 60]
    # a family of five models gives some draws without a rho
    known = table[table["estimator"].isin([*SLOPES, "within-strong", *MIXED])]
    assert (known["low"] < known["estimate"]).all() and (known["estimate"] < known["high"]).all()


def test_a_study_that_names_no_start_has_no_row_without_starts():
    assert "spearman-without-starts" not in set(decomposed(starts=())["estimator"])


def test_only_the_declared_test_is_primary_and_two_sets_are_adjusted_apart(table):
    rows = table.set_index("estimator")
    assert table["primary"].sum() == 1 and rows.loc[EITHER, "primary"]
    assert rows.loc[EITHER, "p_holm"] == rows.loc[EITHER, "p_value"]
    # of the slopes at most one is 0 if the declared test is right, so each has the larger of two p
    larger = np.maximum(rows.loc[list(SLOPES), "p_value"], rows.loc[EITHER, "p_value"])
    assert rows.loc[list(SLOPES), "p_holm"].tolist() == larger.tolist()
    least = rows.loc[list(CHECKS), "p_value"].min()
    assert rows.loc[list(CHECKS), "p_holm"].min() == pytest.approx(min(1, 3 * least))
    assert rows.loc[list(MIXED), "p_holm"].isna().all()


def test_a_seed_repeats_the_table(table):
    pd.testing.assert_frame_equal(decomposed(), table)


def test_the_strong_slope_the_weak_slope_and_their_sum_add_up(table):
    strong, weak, total = table.set_index("estimator").loc[list(SLOPES), "estimate"]
    assert strong + weak == pytest.approx(total)


def test_without_a_gap_or_an_overall_score_there_is_nothing_to_take_apart():
    for found in (decomposed(scores=np.ones(11)), decomposed(rows=ROWS._replace(levels=(("section", "chat"),)))):
        assert found.empty and tuple(found.columns) == DECOMPOSITION
        assert verdict(found).world == "undecided"
        assert "nothing to take apart" in verdict(found).words


@pytest.mark.parametrize(
    ("found", "world", "words"),
    [
        (made(0.2, (1, 0.01), (-1, 0.01), (0, 0.9)), "nothing", "p = 0.200"),
        (made(0.001, (1, 0.001), (0, 0.5), (1, 0.02)), "only-strong", "strong +1.00, weak +0.00"),
        (made(0.001, (0, 0.5), (-1, 0.001), (-1, 0.02)), "only-weak", "only the weak model"),
        (made(0.001, (1, 0.02), (-1, 0.001), (0, 0.5)), "difference", "the difference counts"),
        (made(0.001, (1, 0.001), (0, 0.5), (1, 0.06)), "undecided", "only the strong model or the difference"),
        (made(0.001, (1, 0.001), (-3, 0.001), (-2, 0.01)), "undecided", "both models count, but not as a difference"),
        (made(0.001, (-1, 0.001), (0, 0.5), (-1, 0.001)), "undecided", "against the claim's direction"),
        (made(0.001, (-1, 0.001), (1, 0.001), (0, 0.9)), "undecided", "against the claim's direction"),
        # Two worlds stand, and neither has the slopes that these are.
        (made(0.03, (-1, 0.03), (-0.5, 0.2), (-1.5, 0.1)), "undecided", "against the claim's direction"),
        (made(0.001, (1, 0.01), (1, 0.1), (2, 0.1)), "undecided", "it may be only the strong model ("),
        (made(NAN, (NAN, NAN), (NAN, NAN), (NAN, NAN)), "undecided", "do not vary enough"),
        (made(0.001, (1, 0.02), (-1, 0.001), (0, 0.5), n_models=7), "undecided", "7 models are too few"),
    ],
)
def test_a_verdict_follows_from_the_declared_test_and_the_three_slopes(found, world, words):
    assert verdict(found).world == world in WORLDS
    assert words in verdict(found).words


def test_a_partial_rho_is_that_of_the_residual_ranks_of_each_family():
    rng = np.random.default_rng(1)
    x, y, given = rng.random((3, 22))
    family = np.array([0] * 12 + [1] * 10)
    expected = []
    for name in (0, 1):
        ranks = [stats.rankdata(values[family == name]) for values in (x, y, given)]
        r = np.corrcoef(ranks)
        expected.append((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)))
    found = partial_spearman(x, y[None], given[None], np.ones((1, 22)), family)
    assert found[0] == pytest.approx(np.average(expected, weights=[12, 10]))
    # a pair with weight 2 counts as two equal pairs
    twice = np.append(np.arange(22), 0)
    weights = np.ones((1, 22))
    weights[0, 0] = 2
    repeated = partial_spearman(x[twice], y[None, twice], given[None, twice], np.ones((1, 23)), family[twice])
    assert partial_spearman(x, y[None], given[None], weights, family)[0] == pytest.approx(repeated[0])


def test_an_accuracy_that_is_length_preference_leaves_no_partial_rho():
    rng = np.random.default_rng(2)
    forward = 0.5 + 0.01 * (SCORES[FIRST] - SCORES[SECOND])
    judge = Judged(forward, 1 - forward)
    found = partial_test(STUDY, SCORES, judge, judge, relabellings(FAMILY, n_draws=19, rng=rng))
    assert np.isnan(found.p_value)


def test_the_mixed_model_finds_planted_slopes_inside_families():
    rng = np.random.default_rng(3)
    family = (FAMILY[FIRST] == "g").astype(int)
    better, worse = np.maximum(SCORES[FIRST], SCORES[SECOND]), np.minimum(SCORES[FIRST], SCORES[SECOND])
    y = 0.8 * better - 0.5 * worse + 30 * family + 0.1 * rng.standard_normal(len(FIRST))
    found = mixed_slopes(y, better, worse, (FIRST, SECOND), family)
    assert found.estimate == pytest.approx([0.8, -0.5, 0.3], abs=0.02)
    assert (found.low < found.estimate).all() and (found.estimate < found.high).all()
    assert (found.p_value < 0.001).all()


def test_a_mixed_model_of_too_few_pairs_has_no_numbers():
    one = np.array([0, 0, 1])
    found = mixed_slopes(np.arange(3.0), np.array([3.0, 3, 2]), np.array([2.0, 1, 1]), (one, one + 1), np.zeros(3, int))
    assert np.isnan(np.stack(found)).all()


def test_a_mixed_model_without_a_variance_has_estimates_and_neither_limits_nor_warnings():
    first, second = map(np.array, zip(*itertools.combinations(range(4), 2), strict=True))
    scores, y = np.arange(4.0)[::-1], np.random.default_rng(1).standard_normal(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = mixed_slopes(y, scores[first], scores[second], (first, second), np.zeros(6, int))
    assert np.isfinite(found.estimate).all()
    assert np.isnan([found.low, found.high, found.p_value]).all()


def shown(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(reward="sum", performance="board")


def test_the_printed_table_has_the_verdict_and_says_which_test_was_declared(table):
    printed = decomposition_table(shown(table), provenance="Model at c0ffee.")
    assert printed.cells["Estimator"].tolist() == list(TITLES.values())
    assert printed.cells["p by Holm"].tolist()[0] == "declared"
    assert printed.cells["p by Holm"].tolist()[-1] == "–"
    assert printed.note.startswith(verdict(table).words) and printed.note.endswith("Model at c0ffee.")
    assert "Reward: sum. Performance: board." in markdown(printed)
    assert r"$\rho$" in latex(printed)


def test_few_models_print_words_instead_of_an_interval(table):
    few = shown(table).assign(n_models=5, low=NAN, high=NAN)
    assert decomposition_table(few, provenance="").cells["95% interval"].tolist()[1] == "too few models"


def correlation() -> pd.DataFrame:
    row = ("sum", "overall", "score", "all", "board", "spearman", 0.3, 0.1, 0.5, 0.01, 24, 11, 60, 0.01, True)
    return pd.DataFrame([row], columns=list(CORRELATION))


def test_the_figure_shows_all_slopes_all_rhos_and_the_verdict(table):
    figure = figures.decomposition(shown(table), correlation())
    plane, slopes, rhos = figure.axes
    assert (
        verdict(table).words[:30] in figure.get_suptitle()
        and "11 models, 24 pairs, 60 prompts" in figure.get_suptitle()
    )
    assert [len(axes.get_yticklabels()) for axes in (slopes, rhos)] == [7, 3]
    assert rhos.get_yticklabels()[0].get_text() == "ρ, as declared"
    assert len(plane.containers) == 1


def test_a_figure_without_estimates_says_so(table):
    words = [text.get_text() for text in figures.decomposition(shown(table).iloc[:0], correlation()).axes[0].texts]
    assert words == ["There is nothing to take apart."]
