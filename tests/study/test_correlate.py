"""The table of effects, intervals and tests, on a made-up study."""

import resource
import time

import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor
from part_weights import weights_vector
from scipy import stats
from worlds import dataset, difference, draw_models, draw_rows, model_margins, study

from bench.schema import CORRELATION, REWARDS, SECTIONS
from bench.study.bootstrap import Resampling
from bench.study.compare import holm
from bench.study.correlate import ALL, HEADLINE, POOLED, SIGN_ONLY, correlate
from bench.study.design import Judged, judged, plain_accuracy, rows_of
from bench.study.effects import EFFECTS

NAN = float("nan")
FEW = Resampling(n_draws=99)


def world(*, effect: float, seed: int = 0):
    """Study, rows, margins (pairs, rows) and the boards of a made-up world."""
    rng = np.random.default_rng(seed)
    models = draw_models(effect=effect, rng=rng)
    made, position = study(models)
    margins = model_margins(models, draw_rows(rng=rng), rng=rng)[position]
    boards = {name: scores[position] for name, scores in models.performance.items()}
    return made, rows_of(dataset().examples), difference(margins[made.strong], margins[made.weak]), boards


@pytest.fixture(scope="module")
def planted():
    return world(effect=0.15, seed=3)


@pytest.fixture(scope="module")
def table(planted) -> pd.DataFrame:
    made, rows, margins, boards = planted
    return correlate(made, rows, {"sum": judged(margins)}, boards, resampling=FEW, rng=np.random.default_rng(1))


def cell(table: pd.DataFrame, **where) -> pd.Series:
    wanted = {"estimator": "spearman", "name": "score", "family": ALL, "performance": "alpaca_eval_2_lc"} | where
    found = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


def test_columns_are_the_schemas(table):
    assert tuple(table.columns) == CORRELATION


def test_there_is_a_row_for_the_score_each_section_and_each_family(table):
    rows = table[(table["estimator"] == "spearman") & (table["performance"] == "arena_hard")]
    expected = [("score", ALL), *((name, ALL) for name in SECTIONS)]
    expected += [("score", family) for family in ("alpha", "beta", "delta", "gamma")]
    assert list(zip(rows["name"], rows["family"], strict=True)) == expected
    assert set(table["estimator"]) == {*EFFECTS, SIGN_ONLY}


def test_effects_are_scipys_over_the_pairs_with_a_gap(planted, table):
    made, _, margins, boards = planted
    gap = np.round(boards["alpaca_eval_2_lc"][made.strong] - boards["alpaca_eval_2_lc"][made.weak], 9)
    family = made.family[made.strong]
    weights = weights_vector(pd.Series([e.subset for e in dataset().examples]), name="safety")
    # sums of one product in two orders differ in the last bit, and would break ties
    safety = np.round((margins > 0) @ weights, 10)
    used = gap != 0
    assert 0 < used.sum() < 221
    pooled = stats.spearmanr(gap[used], safety[used]).statistic
    assert cell(table, name="safety", estimator=POOLED)["estimate"] == pytest.approx(pooled)
    inside = [used & (family == name) for name in np.unique(family)]
    own = [stats.spearmanr(gap[part], safety[part]).statistic for part in inside]
    rho = np.average(own, weights=[part.sum() for part in inside])
    assert cell(table, name="safety")["estimate"] == pytest.approx(rho)
    rest = [np.concatenate([values[part] - values[part].mean() for part in inside]) for values in (gap, 100 * safety)]
    slope = (rest[0] @ rest[1]) / (rest[0] @ rest[0])
    assert cell(table, name="safety", estimator="slope")["estimate"] == pytest.approx(slope)
    assert cell(table, name="safety")["n_pairs"] == used.sum()
    assert cell(table, name="safety", estimator="mean-accuracy")["estimate"] == pytest.approx(safety[used].mean())


def test_counts_are_of_what_was_used(table):
    overall = cell(table)
    assert (overall["n_models"], overall["n_prompts"]) == (44, 2985)
    assert cell(table, name="chat")["n_prompts"] == 358
    second = cell(table, performance="arena_hard")
    # gamma has two models without a score: 12 x 11 / 2 - 10 x 9 / 2 = 21 pairs fewer, and equal scores
    assert second["n_models"] == 42
    assert second["n_pairs"] <= 200
    assert cell(table, family="alpha")["n_pairs"] <= 45


def test_the_estimate_lies_in_its_interval(table):
    known = table.dropna(subset=["low"])
    assert len(known) == len(table)
    correlations = known[known["estimator"] != "slope"]
    assert (known["low"] < known["high"]).all()
    assert correlations["low"].between(-1, 1).all()
    assert ((known["low"] <= known["estimate"]) & (known["estimate"] <= known["high"])).mean() > 0.95


def test_the_headline_is_the_mean_of_the_families_rows_weighted_by_their_pairs(table):
    rows = table[(table["estimator"] == HEADLINE) & (table["performance"] == "alpaca_eval_2_lc")]
    families = rows[rows["family"] != ALL]
    expected = np.average(families["estimate"], weights=families["n_pairs"])
    assert cell(table)["estimate"] == pytest.approx(expected)
    assert set(table.loc[table["estimator"] == POOLED, "family"]) == {ALL}


def test_one_test_is_declared_and_holm_adjusts_all_others(planted):
    made, rows, margins, boards = planted
    answers = {"sum": judged(margins), "mean": judged(margins[:, ::-1])}
    table = correlate(made, rows, answers, boards, resampling=FEW, rng=np.random.default_rng(1))
    assert table["primary"].sum() == 1
    first = table[table["primary"]].iloc[0]
    wanted = ["sum", "overall", "score", ALL, "alpaca_eval_2_lc", HEADLINE]
    assert first[["reward", "level", "name", "family", "performance", "estimator"]].tolist() == wanted
    assert first["p_holm"] == first["p_value"]
    rest = table[~table["primary"]]
    assert rest["p_holm"].tolist() == pytest.approx(holm(rest["p_value"]).tolist(), nan_ok=True)
    # two rewards x two axes x nine groups x two nulls, less the declared one
    assert rest["p_value"].notna().sum() == 71


def test_under_eight_models_there_is_no_interval(planted):
    made, rows, margins, boards = planted
    few = np.flatnonzero(made.family == "alpha")[:7]
    family = made.family[made.strong]
    kept = (family == "beta") | (np.isin(made.strong, few) & np.isin(made.weak, few))
    part = made._replace(strong=made.strong[kept], weak=made.weak[kept])
    axis = {"alpaca_eval_2_lc": boards["alpaca_eval_2_lc"]}
    answers = {"sum": judged(margins[kept])}
    found = correlate(part, rows, answers, axis, resampling=FEW, rng=np.random.default_rng(1)).set_index("family")
    assert found["estimate"].notna().all()
    assert found.loc["alpha", ["low", "high"]].isna().all(axis=None)
    assert found.loc[[ALL, "beta"], ["low", "high"]].notna().all(axis=None)
    assert found.loc["alpha", "p_value"].notna().sum() == 2


def test_rho_alone_is_tested_and_twice(table):
    tested = table.dropna(subset=["p_value"])
    assert set(tested["estimator"]) == {"spearman", SIGN_ONLY}
    assert cell(table)["p_value"] == 0.01
    assert cell(table)["estimate"] == cell(table, estimator=SIGN_ONLY)["estimate"]


def test_a_seed_changes_the_draws_and_repeats_them(planted, table):
    made, rows, margins, boards = planted
    answers, first = {"sum": judged(margins)}, {"alpaca_eval_2_lc": boards["alpaca_eval_2_lc"]}
    again, other = (
        correlate(made, rows, answers, first, resampling=FEW, rng=np.random.default_rng(seed)) for seed in (1, 2)
    )
    same = table[table["performance"] == "alpaca_eval_2_lc"].reset_index(drop=True)
    # Holm's method adjusts over all tests of a table, and the other one has more of them
    pd.testing.assert_frame_equal(again.drop(columns="p_holm"), same.drop(columns="p_holm"))
    assert (other["estimate"] == again["estimate"]).all()
    assert (other["low"] != again["low"]).any()


def test_naming_strong_and_weak_the_other_way_changes_no_number(planted, table):
    made, rows, margins, boards = planted
    swapped = made._replace(strong=made.weak, weak=made.strong)
    found = correlate(swapped, rows, {"sum": judged(-margins)}, boards, resampling=FEW, rng=np.random.default_rng(1))
    pd.testing.assert_frame_equal(found, table)


def test_a_judge_that_is_the_same_for_all_pairs_has_an_accuracy_and_no_rho(planted):
    made, rows, margins, boards = planted
    coin = np.full(margins.shape, 0.5)
    found = correlate(made, rows, {"chance": Judged(coin, coin)}, boards, resampling=FEW, rng=np.random.default_rng(0))
    assert np.isnan(cell(found)["estimate"])
    assert np.isnan(cell(found)["p_value"])
    mean = cell(found, estimator="mean-accuracy")
    assert (mean["estimate"], mean["low"], mean["high"]) == (0.5, 0.5, 0.5)
    slope = cell(found, estimator="slope")
    assert (slope["estimate"], slope["low"], slope["high"]) == (0, 0, 0)


def test_rows_left_out_for_a_pair_are_left_out_of_its_accuracy(planted):
    made, rows, margins, boards = planted
    part = margins.copy()
    part[0, :50] = NAN
    right = part[0] > 0
    answers = judged(part)
    # the first subset has 100 of chat's 358 rows, of which 50 are left; in chat a row counts alike in all subsets
    chat = (2 * right[50:100].sum() + right[100:358].sum()) / 358
    assert plain_accuracy(answers.forward, rows)[1, 0] == pytest.approx(chat)
    found = correlate(made, rows, {"sum": answers}, boards, resampling=FEW, rng=np.random.default_rng(0))
    assert found["estimate"].notna().all()


@pytest.mark.slow
def test_ten_thousand_draws_at_full_size_take_less_than_a_minute_and_2_gb(planted):
    made, rows, margins, boards = planted
    answers = {reward: judged(margins) for reward in REWARDS}
    start = time.perf_counter()
    correlate(made, rows, answers, boards, resampling=Resampling(10_000, 2), rng=np.random.default_rng(0))
    assert time.perf_counter() - start < 60
    # the workers have to end before the system says how much they had
    get_reusable_executor().shutdown(wait=True)
    own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    assert own + 2 * worker < 2_000_000
