"""Effect sizes against SciPy, and their standard error against its definition."""

import numpy as np
import pytest
from scipy import stats

from bench.study.effects import EFFECTS, centred, dyadic_test, effects, membership, midranks, spearman

NAN = float("nan")
X = np.array([1.0, 1, 2, 5, 7, 7, 9])
Y = np.array([0.4, 0.5, 0.5, 0.45, 0.8, 0.7, 0.7])


def of(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    return dict(zip(EFFECTS, effects(x, y[None], weights[None].astype(float))[0], strict=True))


def by_scipy(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    line = stats.linregress(x, 100 * y)
    return {
        "spearman": stats.spearmanr(x, y).statistic,
        "kendall": stats.kendalltau(x, y).statistic,
        "pearson": stats.pearsonr(x, y).statistic,
        "slope": line.slope,
        "mean-accuracy": y.mean(),
    }


def test_a_perfect_order_is_1_and_the_slope_is_in_points_a_point():
    found = of(np.array([1.0, 2, 4]), np.array([0.5, 0.52, 0.56]), np.ones(3))
    assert found == pytest.approx({"spearman": 1, "kendall": 1, "pearson": 1, "slope": 2, "mean-accuracy": 0.526667})


def test_effects_equal_scipys_with_ties():
    assert of(X, Y, np.ones(7)) == pytest.approx(by_scipy(X, Y))


def test_a_weight_is_how_often_a_pair_is_written_out():
    weights = np.array([2, 0, 1, 3, 1, 0, 2])
    assert of(X, Y, weights) == pytest.approx(by_scipy(np.repeat(X, weights), np.repeat(Y, weights)))


def test_many_draws_equal_one_by_one():
    rng = np.random.default_rng(0)
    y, weights = rng.integers(0, 40, (150, 90)) / 40, rng.integers(0, 3, (150, 90)).astype(float)
    x = rng.integers(1, 30, 90) / 10
    single = np.concatenate([effects(x, y[d : d + 1], weights[d : d + 1]) for d in range(150)])
    np.testing.assert_allclose(effects(x, y, weights), single, rtol=1e-12)
    written = by_scipy(np.repeat(x, weights[7].astype(int)), np.repeat(y[7], weights[7].astype(int)))
    assert dict(zip(EFFECTS, single[7], strict=True)) == pytest.approx(written)


def test_what_does_not_vary_has_no_correlation():
    flat = of(X, np.full(7, 0.1) + 0.2, np.ones(7))
    assert np.isnan([flat[name] for name in ("spearman", "kendall", "pearson")]).all()
    assert flat["slope"] == pytest.approx(0, abs=1e-12)
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
    assert spearman(x, y, np.ones((2, 3))) == pytest.approx([1, -1])
