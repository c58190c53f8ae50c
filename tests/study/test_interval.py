"""The interval of a share: Wilson's where it can be worked out by hand, and how often it holds the truth."""

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from worlds import SIZES, draw_answers, limited, world_rows

from bench.study.interval import (
    Limits,
    Sample,
    apart,
    difference_limits,
    effective_rows,
    plain_sample,
    share_limits,
    standard_error,
    weighted_share,
    wilson,
)

NAN = float("nan")
Z = 1.959964


def answers(n_right: int, n: int) -> np.ndarray:
    return np.array([[1.0] * n_right + [0.0] * (n - n_right)])


def apart_rows(n: int) -> Sample:
    return plain_sample(np.arange(n))


@pytest.mark.parametrize(("n_right", "n"), [(0, 2), (2, 2), (1, 2), (8, 8), (8, 10), (56, 70), (0, 184), (120, 184)])
def test_independent_rows_of_one_subset_have_wilsons_interval(n_right, n):
    low, high = share_limits(answers(n_right, n), apart_rows(n))
    assert (low[0], high[0]) == pytest.approx(proportion_confint(n_right, n, method="wilson"), abs=1e-9)
    assert effective_rows(answers(n_right, n), apart_rows(n))[0] == pytest.approx(n)


def test_all_right_rows_leave_as_much_room_as_their_number_deserves():
    room = [1 - share_limits(np.ones((1, n)), apart_rows(n)).low[0] for n in (2, 8, 184)]
    # Wilson's lower limit of n of n is n / (n + z²)
    assert room == pytest.approx([Z**2 / (n + Z**2) for n in (2, 8, 184)], abs=1e-6)


def test_one_row_or_one_problem_has_no_interval():
    assert np.isnan(share_limits(np.ones((1, 1)), apart_rows(1))).all()
    assert np.isnan(share_limits(np.ones((1, 6)), plain_sample(np.zeros(6, dtype=int)))).all()
    assert np.isnan(share_limits(np.empty((1, 0)), apart_rows(0))).all()
    assert np.isnan(share_limits(np.full((1, 3), NAN), apart_rows(3))).all()


def test_a_row_that_is_left_out_is_not_counted():
    values = np.array([[1.0, NAN, 0.0, 1.0]])
    assert weighted_share(values, apart_rows(4))[0] == pytest.approx(2 / 3)
    assert effective_rows(values, apart_rows(4))[0] == pytest.approx(3)


def test_rows_that_one_problem_decides_are_one_row():
    # eight problems of six equal answers: as good as eight rows, but for two problems' worth of caution downwards
    values, problems = np.repeat(answers(5, 8), 6, axis=1), np.repeat(np.arange(8), 6)
    n = effective_rows(values, plain_sample(problems))[0]
    assert 8 < n < 10
    # correlation (8 x 1 + 2 x 1/2) / 10 = 0.9; 48 rows over 1 + (6 - 1) x 0.9
    assert n == pytest.approx(48 / 5.5)
    assert standard_error(values, plain_sample(problems))[0] == pytest.approx(np.sqrt(5 / 8 * 3 / 8 / 8))


def test_rows_of_one_problem_that_disagree_count_apart_but_for_caution():
    rng = np.random.default_rng(0)
    values, problems = (rng.random((400, 600)) < 0.6).astype(float), np.arange(600) % 100
    n = effective_rows(values, plain_sample(problems))
    # correlation (100 x 0 + 2 x 1/2) / 102, and a little more for never being below 0
    assert 500 < np.median(n) < 600


def test_two_equal_rows_of_each_problem_are_about_one():
    right = np.repeat(np.arange(40) % 2, 2)[None].astype(float)
    assert effective_rows(right, plain_sample(np.arange(80) // 2))[0] < 45


def test_subsets_that_weigh_more_than_their_rows_make_fewer_effective_rows():
    # two subsets of ten rows, one of them weighs nine tenths: (0.9² + 0.1²) / 10 instead of 1 / 20
    weight = np.repeat([0.09, 0.01], 10)
    sample = Sample(weight, np.repeat([0, 1], 10), np.arange(20))
    values = np.tile(answers(5, 10), 2)
    assert 11 < effective_rows(values, sample)[0] < 1 / (0.82 / 10)
    assert weighted_share(values, sample)[0] == pytest.approx(0.5)
    assert standard_error(values, sample)[0] == pytest.approx(np.sqrt(0.82 * 0.25 / 10))


def test_two_subsets_of_two_rows_are_worked_out_by_hand():
    # With one right and one wrong row added, the subsets have the shares 2/4 and 3/4 and the variances 1/4 and 3/16.
    # 1 / (1 - 2/16) = 8/7 takes off the bias of two rows, 1 / (1 - 4/36) = 9/8 that of four:
    # variance = 4 rows x (1/4)² x their subset's = 2/16 x (1/4 + 3/16) x 8/7 = 1/16; share = 5/8.
    sample = Sample(np.full(4, 0.25), np.array([0, 0, 1, 1]), np.arange(4))
    assert effective_rows(np.array([[1.0, 0.0, 1.0, 1.0]]), sample)[0] == pytest.approx(5 / 8 * 3 / 8 * 9 / 8 * 16)


def test_one_wrong_row_among_many_right_ones_does_not_narrow_the_interval():
    rows = world_rows(limited(8))
    sample = Sample(rows.weights[0], rows.subset, rows.cluster)
    values = np.ones((2, 184))
    values[1, 0] = 0
    low, high = share_limits(values, sample)
    assert low[1] < low[0] < 1
    assert high.tolist() == [1, pytest.approx(high[1])]
    assert high[1] - low[1] > high[0] - low[0]


def test_values_between_0_and_1_are_surer_than_coins():
    halves, coins = np.full((1, 20), 0.5), answers(10, 20)
    assert effective_rows(halves, apart_rows(20))[0] > 5 * effective_rows(coins, apart_rows(20))[0]


def test_limits_lie_inside_0_and_1_and_hold_the_share():
    rng = np.random.default_rng(1)
    rows = world_rows(limited(2))
    values = (rng.random((200, 46)) < rng.random((200, 1))).astype(float)
    for weights in rows.weights:
        sample = Sample(weights, rows.subset, rows.cluster)
        low, high = share_limits(values, sample)
        share = weighted_share(values, sample)
        assert (low >= 0).all() and (low <= share).all() and (share <= high + 1e-12).all() and (high <= 1).all()
        assert (high > low).all()


@pytest.mark.parametrize("n", range(2, 60))
def test_the_interval_of_rows_that_are_all_right_ends_at_1_however_their_weights_sum(n):
    assert share_limits(np.ones((1, n)), apart_rows(n)).high == 1.0


def test_the_difference_of_two_samples_is_newcombes():
    first, second = wilson(np.array(56 / 70), np.array(70)), wilson(np.array(48 / 80), np.array(80))
    found = apart(56 / 70, Limits(*first), 48 / 80, Limits(*second))
    assert found == pytest.approx(confint_proportions_2indep(56, 70, 48, 80, method="newcomb"), abs=1e-9)


def test_a_difference_has_the_larger_of_its_own_variance_and_a_known_one():
    values, sample = np.tile([1.0, -1.0, 0.0, 0.0], 25), plain_sample(np.arange(100))
    own, known = (difference_limits(values, sample, variance=variance) for variance in (0.0, 0.04))
    assert known.high - known.low > 1.5 * (own.high - own.low)


def test_the_difference_of_two_judges_of_the_same_rows_by_hand():
    # of 100 rows 12 go to the first alone and 3 to the second: variance (0.15 - 0.09²) / 99, and 1 / 102²
    values = np.repeat([1.0, -1.0, 0.0], [12, 3, 85])
    low, high = difference_limits(values, apart_rows(100))
    half = Z * np.sqrt((0.15 - 0.0081) / 99 + 1 / 102**2)
    assert (low, high) == pytest.approx((0.09 - half, 0.09 + half))
    # judges that differ nowhere are not known to be equal
    low, high = difference_limits(np.zeros(100), apart_rows(100))
    assert (low, high) == pytest.approx((-Z / 102, Z / 102))
    assert difference_limits(np.ones(3), apart_rows(3)).high == 1


@pytest.mark.parametrize("truth", [0.5, 0.65, 0.95])
@pytest.mark.parametrize("rows_a_subset", [2, 5, 8, None])
def test_the_scores_interval_holds_the_truth_from_two_rows_a_subset_on(truth, rows_a_subset):
    rows = world_rows(limited(rows_a_subset))
    n = 1000 if rows_a_subset else 200
    correct = draw_answers(np.full((n, len(SIZES)), truth), rows, 0.0, 0.75, rng=np.random.default_rng(4))
    low, high = share_limits(correct, Sample(rows.weights[0], rows.subset, rows.cluster))
    assert ((low <= truth) & (truth <= high)).mean() >= 0.9


@pytest.mark.parametrize("rows_a_subset", [8, 40])
def test_reasonings_interval_holds_the_truth_when_languages_go_together(rows_a_subset):
    rows = world_rows(limited(rows_a_subset))
    correct = draw_answers(np.full((1000, len(SIZES)), 0.65), rows, 0.0, 0.75, rng=np.random.default_rng(5))
    level = [name for _, name in rows.levels].index("reasoning")
    clustered = Sample(rows.weights[level], rows.subset, rows.cluster)
    together, alone = (
        np.mean((low <= 0.65) & (high >= 0.65))
        for low, high in (
            share_limits(correct, clustered),
            share_limits(correct, clustered._replace(problem=np.arange(len(rows.subset)))),
        )
    )
    assert together >= 0.92
    # taken for independent, the same rows promise too much
    assert alone < together - 0.02
