"""Effect sizes against SciPy, and their standard error against its definition."""

import numpy as np
import pytest
from scipy import stats

from bench.study.effects import (
    EFFECTS,
    centred,
    comparable,
    dyadic_test,
    effects,
    family_by_family,
    membership,
    midranks,
    spearman,
    standardised,
)

NAN = float("nan")
X = np.array([1.0, 1, 2, 5, 7, 7, 9])
Y = np.array([0.4, 0.5, 0.5, 0.45, 0.8, 0.7, 0.7])


def of(x: np.ndarray, y: np.ndarray, weights: np.ndarray, family: np.ndarray | None = None) -> dict[str, float]:
    """Effects of one draw, by name; of one family where none is given."""
    family = np.zeros(len(x), dtype=int) if family is None else family
    return dict(zip(EFFECTS, effects(x, y[None], weights[None].astype(float), family)[0], strict=True))


def by_scipy(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    line = stats.linregress(x, 100 * y)
    return {
        "spearman": stats.spearmanr(x, y).statistic,
        "spearman-pooled": stats.spearmanr(x, y).statistic,
        "kendall": stats.kendalltau(x, y).statistic,
        "pearson": stats.pearsonr(x, y).statistic,
        "slope": line.slope,
        "mean-accuracy": y.mean(),
    }


def test_a_perfect_order_is_1_and_the_slope_is_in_points_a_point():
    found = of(np.array([1.0, 2, 4]), np.array([0.5, 0.52, 0.56]), np.ones(3))
    ones = dict.fromkeys(("spearman", "spearman-pooled", "kendall", "pearson"), 1)
    assert found == pytest.approx(ones | {"slope": 2, "mean-accuracy": 0.526667})


def test_a_family_that_judges_better_at_wider_gaps_is_no_evidence_that_the_gap_counts():
    # ranks of accuracy 1, 3, 2 in the first family and 2, 3, 1 in the second: rho 1/2 and -1/2, tau 1/3 and -1/3
    x, y = np.array([1.0, 2, 3, 11, 12, 13]), np.array([0.4, 0.6, 0.5, 0.8, 0.9, 0.7])
    found = of(x, y, np.ones(6), np.array([0, 0, 0, 1, 1, 1]))
    assert [found[name] for name in ("spearman", "kendall", "pearson", "slope")] == pytest.approx([0] * 4, abs=1e-12)
    # ranks 1 to 6 against 1, 3, 2, 5, 6, 4: 1 - 6 x (0 + 1 + 1 + 1 + 1 + 4) / (6 x 35)
    assert found["spearman-pooled"] == pytest.approx(1 - 6 * 8 / 210)


def test_rho_is_the_mean_of_the_families_own_weighted_by_their_pairs():
    rng = np.random.default_rng(4)
    x, y = rng.integers(1, 9, 20).astype(float), rng.integers(1, 9, 20) / 10
    family = np.array([0, 1] * 5 + [1] * 10)
    own = [stats.spearmanr(x[family == name], y[family == name]).statistic for name in (0, 1)]
    found = of(x, y, np.ones(20), family)
    assert found["spearman"] == pytest.approx((5 * own[0] + 15 * own[1]) / 20)
    rest = [np.concatenate([v[family == f] - v[family == f].mean() for f in (0, 1)]) for v in (x, y)]
    assert found["pearson"] == pytest.approx(stats.pearsonr(*rest).statistic)
    assert found["slope"] == pytest.approx(100 * (rest[0] @ rest[1]) / (rest[0] @ rest[0]))


def test_kendall_counts_the_couples_of_one_family():
    rng = np.random.default_rng(5)
    x, y, family = rng.integers(1, 6, 15).astype(float), rng.integers(1, 6, 15) / 10, np.arange(15) % 3
    couples = [(i, j) for i in range(15) for j in range(i) if family[i] == family[j]]
    signs = np.array([(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in couples])
    expected = (signs[:, 0] * signs[:, 1]).sum() / np.sqrt((signs**2).sum(axis=0).prod())
    assert of(x, y, np.ones(15), family)["kendall"] == pytest.approx(expected)


def test_a_family_that_does_not_vary_has_no_say():
    y = np.concatenate([Y, [0.3, 0.3, 0.3]])
    family = np.array([1] * 7 + [0] * 3)
    for x in (np.concatenate([X, [1.0, 2, 3]]), np.concatenate([X, [4.0, 4, 4]])):
        expected = stats.spearmanr(X, Y).statistic
        assert of(x, y, np.ones(10), family)["spearman"] == pytest.approx(expected)
        assert spearman(x, y[None], np.ones((1, 10)), family) == pytest.approx([expected])


def test_the_largest_value_of_a_family_is_below_the_smallest_of_the_next():
    low, high, next_low, next_high = family_by_family(np.array([1.0, 3, 1, 3]), np.array([0, 0, 1, 1]))
    assert low < high < next_low < next_high


def test_a_family_that_is_absent_from_a_draw_leaves_the_others_alone():
    x, y, family = np.concatenate([X, X]), np.concatenate([Y, Y[::-1]]), np.array([0] * 7 + [1] * 7)
    weights = np.array([[1.0] * 7 + [0.0] * 7])
    expected = stats.spearmanr(X, Y).statistic
    assert spearman(x, y[None], weights, family) == pytest.approx([expected])


def test_values_are_taken_from_their_familys_mean_without_dust():
    found = standardised(np.array([0.1, 0.3, 0.1, 0.1, 0.1]), np.ones((1, 5)), np.array([0, 0, 1, 1, 1]))
    assert found.values[0].tolist() == pytest.approx([-1, 1, 0, 0, 0])
    assert found.values[0, 2:].tolist() == [0, 0, 0]
    assert found.varies[0].tolist() == [True, True, False, False, False]


def test_comparable_values_have_mean_0_and_variance_1_in_each_family():
    family = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    y = np.array([1.0, 5, 9, 2, 2, 4, 8, 6, 6])
    ones = np.ones((1, 9))
    x, y, weights = comparable(*(standardised(part, ones, family) for part in (np.arange(9.0) ** 2, y)), ones)
    assert weights[0].tolist() == [1] * 7 + [0] * 2
    for part in (x, y):
        for name in (0, 1):
            assert part[0, family == name].mean() == pytest.approx(0)
            assert part[0, family == name].std() == pytest.approx(1)


def test_effects_equal_scipys_with_ties():
    assert of(X, Y, np.ones(7)) == pytest.approx(by_scipy(X, Y))


def test_a_weight_is_how_often_a_pair_is_written_out():
    weights = np.array([2, 0, 1, 3, 1, 0, 2])
    assert of(X, Y, weights) == pytest.approx(by_scipy(np.repeat(X, weights), np.repeat(Y, weights)))


def test_many_draws_equal_one_by_one():
    rng = np.random.default_rng(0)
    y, weights = rng.integers(0, 40, (150, 90)) / 40, rng.integers(0, 3, (150, 90)).astype(float)
    x, one = rng.integers(1, 30, 90) / 10, np.zeros(90, dtype=int)
    for family in (one, rng.integers(0, 4, 90)):
        single = np.concatenate([effects(x, y[d : d + 1], weights[d : d + 1], family) for d in range(150)])
        np.testing.assert_allclose(effects(x, y, weights, family), single, rtol=1e-12, atol=1e-12)
    times = weights[7].astype(int)
    found = of(x, y[7], weights[7], one)
    assert found == pytest.approx(by_scipy(np.repeat(x, times), np.repeat(y[7], times)))
    written = of(*(np.repeat(part, times) for part in (x, y[7], np.ones(90), family)))
    assert dict(zip(EFFECTS, single[7], strict=True)) == pytest.approx(written)


def test_what_does_not_vary_has_no_correlation():
    flat = of(X, np.full(7, 0.1) + 0.2, np.ones(7))
    assert np.isnan([flat[name] for name in ("spearman", "spearman-pooled", "kendall", "pearson")]).all()
    # exactly 0: a draw that is off by a rounding error would leave 0 out of an interval of width 0
    assert flat["slope"] == 0
    assert np.isnan(of(np.full(7, 3.0), Y, np.ones(7))["slope"])
    assert np.isnan(list(of(X, Y, np.zeros(7)).values())).all()


def test_midranks_are_scipys_less_one_half():
    ranks = midranks(X, np.ones((1, 7)))[0]
    assert ranks.tolist() == (stats.rankdata(X) - 0.5).tolist()


def test_centred_leaves_no_dust():
    assert centred(np.full(3, 0.1), np.ones((1, 3))).tolist() == [[0, 0, 0]]


def test_the_dyadic_error_adds_up_pairs_that_share_a_model():
    first, second = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 2, 3, 2, 3, 3])
    x, y = np.array([1.0, 3, 2, 5, 4, 6]), np.array([2.0, 1, 4, 3, 6, 5])
    ones = np.ones((1, 6))
    r, t = (v[0] for v in dyadic_test(x[None], y[None], ones, membership(first, second, 4)))
    zx, zy = stats.zscore(x), stats.zscore(y)
    scores = zx * (zy - r * zx)
    share = [[len({a, b} & {c, d}) > 0 for c, d in zip(first, second, strict=True)]
             for a, b in zip(first, second, strict=True)]  # fmt: skip
    variance = max(scores @ np.array(share) @ scores, scores @ scores) / 36
    assert r == pytest.approx(stats.spearmanr(x, y).statistic)
    assert t == pytest.approx(r / np.sqrt(variance))


def test_a_perfect_correlation_has_an_infinite_t():
    x = np.array([[1.0, 2, 3]])
    r, t = dyadic_test(x, -x, np.ones((1, 3)), membership(np.array([0, 0, 1]), np.array([1, 2, 2]), 3))
    assert (r[0], t[0]) == (pytest.approx(-1), -np.inf)


def test_a_pair_of_weight_0_is_no_part_of_the_test():
    rng = np.random.default_rng(1)
    first, second = np.triu_indices(5, 1)
    x, y = rng.random((1, 10)), rng.random((1, 10))
    weights = np.ones((1, 10))
    weights[0, 3] = 0
    kept = np.arange(10) != 3
    whole = dyadic_test(x, y, weights, membership(first, second, 5))
    short = dyadic_test(x[:, kept], y[:, kept], weights[:, kept], membership(first[kept], second[kept], 5))
    np.testing.assert_allclose(whole, short, rtol=1e-12)


def test_rho_takes_a_gap_for_each_draw():
    x = np.array([[1.0, 2, 3], [3, 2, 1]])
    y = np.array([[1.0, 2, 3], [1, 2, 3]])
    assert spearman(x, y, np.ones((2, 3)), np.zeros(3, dtype=int)) == pytest.approx([1, -1])
