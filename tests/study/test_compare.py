"""Pairs against pairs on the same rows."""

import numpy as np
import pytest
from scipy.stats import binomtest
from test_benchmarks import example

from bench.study.benchmarks.reward_bench_2 import REWARD_BENCH_2, SUBSETS
from bench.study.bootstrap import prompt_bootstrap
from bench.study.compare import COMPARISON, compare, confidence_set, holm
from bench.study.design import Rows, rows_of

NAN = float("nan")


def plain_rows(n_rows: int, n_clusters: int | None = None) -> Rows:
    cluster = np.arange(n_rows) % (n_clusters or n_rows)
    return Rows((("overall", "score"),), np.full((1, n_rows), 1 / n_rows), np.zeros(n_rows, dtype=int), cluster)


def table(correct: np.ndarray, rows: Rows, comparisons=(("a", "b"),), *, seed: int = 0):
    names = [chr(ord("a") + number) for number in range(len(correct))]
    return compare(correct, names, rows, comparisons, rng=np.random.default_rng(seed), n_draws=999)


def answers(n_both: int, n_first: int, n_second: int, n_none: int) -> np.ndarray:
    first = [1] * n_both + [1] * n_first + [0] * n_second + [0] * n_none
    second = [1] * n_both + [0] * n_first + [1] * n_second + [0] * n_none
    return np.array([first, second], dtype=float)


def test_mcnemar_is_the_binomial_test_of_the_rows_that_one_pair_alone_gets_right():
    row = table(answers(50, 12, 3, 35), plain_rows(100)).iloc[0]
    assert tuple(row.index) == COMPARISON
    assert (row["n_first_only"], row["n_second_only"], row["n_rows"]) == (12, 3, 100)
    # 2 x (C(15,0) + C(15,1) + C(15,2) + C(15,3)) / 2^15 = 2 x 576 / 32768
    assert row["p_mcnemar"] == pytest.approx(1152 / 32768)
    assert row["p_mcnemar"] == pytest.approx(binomtest(12, 15).pvalue)


def test_the_difference_is_weighted_and_its_interval_is_paired():
    row = table(answers(50, 12, 3, 35), plain_rows(100)).iloc[0]
    assert row["difference"] == pytest.approx(0.09)
    # the differences are 12 x 1, 3 x -1, 85 x 0: their standard error is sqrt(0.15 - 0.09²) / 10 = 0.0377
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.0377, rel=0.1)
    assert row["low"] < 0.09 < row["high"]
    assert np.isnan(row["p_bootstrap"])


def test_p_and_interval_of_a_difference_agree():
    for n_second in (10, 12, 14, 16, 18):
        row = table(answers(40, 26, n_second, 20), plain_rows(86 + n_second)).iloc[0]
        assert (row["p_bootstrap"] <= 0.05) == (row["low"] > 0)
        assert row["p_bootstrap"] == pytest.approx(row["p_mcnemar"], abs=0.08)


def test_where_few_rows_differ_the_bootstrap_gives_no_p_and_then_no_interval():
    # three rows, all one way: every draw of the rows has the same sign, so the bootstrap would be sure
    three, ten, many = (table(answers(0, n, 0, 0), plain_rows(n)).iloc[0] for n in (3, 10, 25))
    assert (three["difference"], three["p_mcnemar"]) == (1, 0.25)
    assert np.isnan(three[["low", "high", "p_bootstrap", "p_bootstrap_holm"]].astype(float)).all()
    assert np.isnan(ten["p_bootstrap"]) and np.isfinite(ten["low"])
    assert np.isfinite(many["p_bootstrap"])
    # ten rows of two problems are two
    assert np.isnan(table(answers(0, 10, 0, 0), plain_rows(10, 2)).iloc[0]["low"])


def test_rows_of_one_problem_count_as_one():
    once = table(answers(20, 16, 9, 15), plain_rows(60)).iloc[0]
    row = table(np.tile(answers(20, 16, 9, 15), 6), plain_rows(360, 60)).iloc[0]
    assert (row["n_rows"], row["n_clusters"], row["n_first_only"], row["n_second_only"]) == (360, 60, 16, 9)
    assert row["p_mcnemar"] == once["p_mcnemar"] > 0.05
    assert row["p_bootstrap"] > 0.05
    # Of the second problem each pair judges another row rightly: neither is better there.
    even = table(np.array([[1, 0, 1, 1], [0, 1, 1, 0]], dtype=float), plain_rows(4, 2)).iloc[0]
    assert (even["n_first_only"], even["n_second_only"]) == (1, 0)


def test_a_larger_margin_of_the_same_verdict_is_no_more_right():
    # RewardBench 2's Ties has a judgement between -1 and 1; rows of other subsets are judged alike here.
    examples = [example(subset, str(i), 1, 3) for subset in SUBSETS[:-1] for i in range(4)]
    ties = [example("Ties", f"{form}:{i}", n, 1) for i in range(20) for form, n in (("ref", 1), ("tied", 2))]
    rewards = [np.array([[1.0, 0, 0, 0]] * 2)] * len(examples)
    rewards += [np.array([[top, top - 1, 0.0][-2 if len(e.right) == 1 else 0 :] for top in (3.03, 3.0)]) for e in ties]
    values, rows = REWARD_BENCH_2.judge([*examples, *ties], rewards).values, rows_of([*examples, *ties])
    row = table(values, rows).iloc[0]
    assert 0 < row["difference"] < 1e-3
    assert (row["n_first_only"], row["n_second_only"], row["p_mcnemar"]) == (0, 0, 1)
    assert row["n_rows"] == len(examples) + len(ties) == 60


def subsets_of(n_problems: int, *, n_subsets: int = 23) -> Rows:
    n = n_subsets * n_problems
    subset = np.repeat(np.arange(n_subsets), n_problems)
    return Rows((("overall", "score"),), np.full((1, n), 1 / n), subset, np.arange(n))


@pytest.mark.parametrize("n_problems", [2, 4, 8])
def test_small_subsets_do_not_narrow_the_interval_of_a_difference(n_problems):
    # The score's standard error does not depend on how many subsets its rows are divided into, but for m / (m - 1).
    rng, rows, wanted, found = np.random.default_rng(4), subsets_of(n_problems), [], []
    for _ in range(40):
        correct = (rng.random((2, len(rows.subset))) < 0.5).astype(float)
        row = table(correct, rows).iloc[0]
        spread = [np.var((correct[0] - correct[1])[rows.subset == s], ddof=1) for s in range(23)]
        wanted.append(2 * 1.96 * np.sqrt(np.mean(spread) / len(rows.subset)))
        found.append(row["high"] - row["low"])
    assert np.mean(found) == pytest.approx(np.mean(wanted), rel=0.05)


def test_subsets_of_a_single_problem_have_neither_interval_nor_bootstrap_p():
    correct = np.array([np.ones(40), np.zeros(40)])
    row = table(correct, subsets_of(1, n_subsets=40)).iloc[0]
    assert np.isnan(row[["low", "high", "p_bootstrap"]].astype(float)).all()
    assert row["p_mcnemar"] < 1e-6 and row["difference"] == pytest.approx(1)


def test_equal_pairs_differ_by_nothing():
    row = table(answers(5, 0, 0, 5), plain_rows(10)).iloc[0]
    assert (row["difference"], row["p_mcnemar"]) == (0, 1)
    # that ten rows show no difference does not say that there is none
    assert np.isnan(row[["low", "high", "p_bootstrap"]].astype(float)).all()


def test_a_row_that_one_pair_lacks_is_no_comparison():
    correct = answers(5, 2, 1, 2)
    correct[1, 5] = NAN
    row = table(correct, plain_rows(10)).iloc[0]
    assert (row["n_rows"], row["n_first_only"]) == (9, 1)
    assert row["difference"] == pytest.approx(0)


def test_each_level_is_compared():
    levels = (("overall", "score"), ("section", "chat"))
    rows = Rows(levels, np.array([[0.1] * 5 + [0.5 / 5] * 5, [0.2] * 5 + [0] * 5]), np.arange(10) // 5, np.arange(10))
    correct = np.array([[1, 1, 1, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1, 1, 1, 1, 1]], dtype=float)
    found = table(correct, rows).set_index("name")
    assert found.loc["score", "difference"] == pytest.approx(0.2)
    assert found.loc["chat", "difference"] == pytest.approx(0.4)
    assert found.loc["chat", "n_rows"] == 5


def test_rows_that_make_no_level_whole_give_no_comparison():
    rows = plain_rows(4)._replace(levels=(), weights=np.empty((0, 4)))
    found = table(answers(1, 1, 1, 1), rows)
    assert len(found) == 0 and list(found.columns) == list(COMPARISON)


def test_holm_multiplies_the_smallest_p_by_the_size_of_the_declared_set():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])


def test_holm_is_over_the_comparisons_asked_for():
    rng = np.random.default_rng(0)
    correct = (rng.random((3, 200)) < np.array([[0.7], [0.6], [0.5]])).astype(float)
    asked = [("a", "b"), ("a", "c")]
    found = table(correct, plain_rows(200), asked)
    assert found[["first", "second"]].to_numpy().tolist() == [list(pair) for pair in asked]
    assert found["p_mcnemar_holm"].tolist() == pytest.approx(holm(found["p_mcnemar"]).tolist())
    alone = table(correct, plain_rows(200), asked[:1])
    assert alone["p_mcnemar_holm"].tolist() == alone["p_mcnemar"].tolist()


def test_holm_is_over_all_levels():
    levels = (("overall", "score"), ("section", "chat"), ("section", "safety"))
    weights = np.array([[1 / 200] * 200, [1 / 100] * 100 + [0] * 100, [0] * 100 + [1 / 100] * 100])
    rows = Rows(levels, weights, np.arange(200) // 100, np.arange(200))
    rng = np.random.default_rng(3)
    found = table((rng.random((2, 200)) < np.array([[0.7], [0.5]])).astype(float), rows)
    for name in ("p_mcnemar", "p_bootstrap"):
        assert found[f"{name}_holm"].tolist() == pytest.approx(holm(found[name]).tolist())
    assert found["p_mcnemar_holm"].min() == pytest.approx(3 * found["p_mcnemar"].min())


def test_a_seed_changes_the_draws_and_repeats_them():
    correct = answers(50, 12, 3, 35)
    first, again, other = (table(correct, plain_rows(100), seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert first["low"].iloc[0] != other["low"].iloc[0]


def confidence(correct: np.ndarray, *, seed: int = 0, n_draws: int = 499) -> np.ndarray:
    rows = plain_rows(correct.shape[1])
    draws = prompt_bootstrap(correct, rows, n_draws=n_draws, rng=np.random.default_rng(seed))[:, 0]
    return confidence_set(correct.mean(axis=1), draws, n_problems=correct.shape[1])


def test_a_pair_far_below_the_best_is_not_in_the_set():
    rng = np.random.default_rng(0)
    correct = (rng.random((4, 500)) < np.array([[0.8], [0.79], [0.5], [0.3]])).astype(float)
    p_values = confidence(correct)
    assert (p_values[:2] > 0.05).all()
    assert (p_values[2:] < 0.05).all()
    assert p_values.max() == 1


def test_the_p_of_two_pairs_is_that_of_their_difference():
    correct = answers(50, 12, 3, 35)
    rows = plain_rows(100)
    draws = prompt_bootstrap(correct, rows, n_draws=999, rng=np.random.default_rng(0))[:, 0]
    # worse is the second: its shortfall from the mean is half of the difference, one way as likely as the other
    reached = np.abs((draws[:, 0] - draws[:, 1]) - 0.09) >= 0.09
    assert confidence_set(correct.mean(axis=1), draws, n_problems=100) == pytest.approx([1, (1 + reached.sum()) / 1000])


def test_twins_share_their_fate():
    rng = np.random.default_rng(1)
    best = (rng.random(300) < 0.7).astype(float)
    p_values = confidence(np.array([best, best, (rng.random(300) < 0.4)], dtype=float))
    assert p_values[:2].tolist() == [1, 1]
    assert p_values[2] < 0.05


@pytest.mark.parametrize(("n_rows", "p"), [(2, 0.5), (8, 2 / 2**8), (30, 2 / 2**30)])
def test_a_pair_that_is_never_right_is_told_from_one_that_always_is(n_rows, p):
    p_values = confidence(np.array([np.ones(n_rows), np.zeros(n_rows), np.ones(n_rows)]))
    assert p_values.tolist() == [1, p, 1]


def test_p_values_never_fall_as_pairs_go():
    rng = np.random.default_rng(2)
    correct = (rng.random((12, 200)) < np.linspace(0.4, 0.6, 12)[:, None]).astype(float)
    p_values = confidence(correct)
    order = np.argsort(correct.mean(axis=1))
    assert p_values[order[0]] == p_values.min()
    assert p_values[order[-1]] > 0.5


def test_the_set_holds_the_best_pair_in_95_of_100_samples():
    held = []
    for sample in range(200):
        rng = np.random.default_rng([7, sample])
        taste = rng.random(150)
        # eight equally good pairs that share half of their answers: any of them is the best
        correct = np.where(rng.random((8, 150)) < 0.5, taste, rng.random((8, 150))) < 0.6
        held.append(confidence(correct.astype(float), seed=sample, n_draws=199)[0] > 0.05)
    assert 0.9 <= np.mean(held) <= 1
