"""Slopes of the strong and of the weak model: least squares, and permutation tests whose worlds are known."""

import numpy as np
import pytest
import statsmodels.api as sm

from bench.study.apart import DESIGNS, labelled, less_means, rest, slope_of, slope_test, slope_tests, slopes
from bench.study.design import Study, pair_families
from bench.study.effects import membership
from bench.study.qap import relabellings

FAMILY = np.array(["f"] * 7 + ["g"] * 6)
FIRST, SECOND = (np.concatenate([a, b + 7]) for a, b in zip(np.triu_indices(7, 1), np.triu_indices(6, 1), strict=True))
STUDY = Study(np.array(list("abcdefghijklm")), FAMILY, FIRST, SECOND)
FIVE = Study(np.array(list("abcde")), np.array(["f"] * 5), *np.triu_indices(5, 1))
SCORES = np.array([30.0, 25, 24, 18, 11, 4, 1, 9, 7.5, 7.0, 2, 1.5, 0])


def ordered(scores: np.ndarray = SCORES):
    return labelled(STUDY, scores, np.arange(len(scores))[None])


def test_slopes_are_ordinary_least_squares_with_an_intercept_a_block():
    rng = np.random.default_rng(1)
    better, worse, y = rng.random((3, 20))
    weights = rng.integers(0, 3, 20).astype(float)
    block = np.array([0, 1] * 10)
    design = np.column_stack([better, worse, block == 0, block == 1]).astype(float)
    strong, weak = sm.WLS(y, design, weights=weights).fit().params[:2]
    found = slopes(better, worse, y[None], weights[None], block)
    assert found[0] == pytest.approx([strong, weak, strong + weak])


def test_slopes_on_variables_that_go_together_are_missing():
    first = np.arange(5.0)
    assert np.isnan(slopes(first, 2 * first, first[None] ** 2, np.ones((1, 5)), np.zeros(5, dtype=int))).all()


def test_a_slope_with_one_strong_model_compares_its_pairs_alone():
    # two strong models; within each, a point of gap is worth 2 points, and between them 50 points more are no evidence
    gap, y, strong = np.array([1.0, 3, 2, 4]), np.array([[10.0, 14, 62, 66]]), np.array([0, 0, 1, 1])
    assert slope_of(gap, y, np.ones((1, 4)), strong) == pytest.approx([2])
    assert np.isnan(slope_of(np.array([1.0, 1, 2, 2]), y, np.ones((1, 4)), strong)).all()


def test_less_means_is_zero_where_only_rounding_is_left():
    values = np.array([0.1 + 0.2, 0.3, 5.0])
    assert less_means(values, np.ones((1, 3)), np.array([0, 0, 1])).tolist() == [[0, 0, 0]]


def test_the_tested_slope_is_that_of_least_squares_and_its_error_counts_shared_models():
    rng = np.random.default_rng(0)
    y = rng.random(len(FIRST))
    pairs, models = ordered(), membership(FIRST, SECOND, len(SCORES))
    block = pair_families(STUDY)
    design = sm.add_constant(np.column_stack([pairs.better[0], pairs.worse[0], block == 1]).astype(float))
    fit = sm.OLS(y, design).fit()
    found = slope_test(pairs, y[None], DESIGNS["weak"], block=block, models=models)
    assert found.slope[0] == pytest.approx(fit.params[2])
    # the sum over models of (sum of the model's scores)^2, less the squares that both models of a pair count
    fixed = sm.add_constant(np.column_stack([pairs.better[0], block == 1]).astype(float))
    x = sm.OLS(pairs.worse[0], fixed).fit().resid
    scores = x * fit.resid
    variance = sum(scores[(m == FIRST) | (m == SECOND)].sum() ** 2 for m in range(len(SCORES))) - (scores**2).sum()
    error = np.sqrt(max(variance, (scores**2).sum())) / (x @ x)
    assert found.t[0] == pytest.approx(fit.params[2] / error)


def test_a_pair_listed_the_other_way_round_gives_the_same_tests():
    rng = np.random.default_rng(2)
    own = rng.standard_normal(len(SCORES)) * 0.1
    forward = 0.5 + own[FIRST] - own[SECOND]
    labels = relabellings(FAMILY, n_draws=99, rng=rng)
    found = slope_tests(STUDY, SCORES, forward, 1 - forward, labels)
    swapped = STUDY._replace(strong=SECOND, weak=FIRST)
    assert slope_tests(swapped, SCORES, 1 - forward, forward, labels) == pytest.approx(found)


def test_the_rest_is_what_least_squares_on_the_null_leaves_and_turns_with_the_order():
    # accuracy is 2 points a point of the strong model's performance, and what the models bring themselves
    own = np.random.default_rng(3).standard_normal(len(SCORES))
    pairs, block = ordered(), pair_families(STUDY)
    lean = 0.02 * pairs.better[0] + 0.01 * (own[FIRST] - own[SECOND])
    design = np.column_stack([pairs.better[0], block == 0, block == 1]).astype(float)
    residual = sm.OLS(lean, design).fit().resid
    assert rest(pairs, lean, DESIGNS["weak"].null, block) == pytest.approx(residual)
    # the same pairs listed the other way round: the first model is the worse one
    turned = labelled(STUDY._replace(strong=SECOND, weak=FIRST), SCORES, np.arange(len(SCORES))[None])
    assert rest(turned, -lean, DESIGNS["weak"].null, block) == pytest.approx(-residual)


def simulated(strong: float, weak: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    own = 0.6 * rng.standard_normal(len(SCORES))
    pairs = ordered()
    y = strong * pairs.better[0] + weak * pairs.worse[0] + pairs.side[0] * (own[FIRST] - own[SECOND])
    forward = 0.5 + 0.01 * np.where(pairs.side[0] < 0, -y, y)
    return slope_tests(STUDY, SCORES, forward, 1 - forward, relabellings(FAMILY, n_draws=199, rng=rng))


@pytest.mark.parametrize(("strong", "weak", "true"), [(1.0, 0.0, "weak"), (0.0, -1.0, "strong"), (1.0, -1.0, "sum")])
def test_of_the_three_hypotheses_that_of_the_world_stands(strong, weak, true):
    found = [simulated(strong, weak, seed) for seed in range(8)]
    for name in ("either", "strong", "weak", "sum"):
        rejected = sum(p[name] <= 0.05 for p in found)
        assert rejected <= 2 if name == true else rejected >= 7


def test_performances_that_do_not_vary_have_no_p():
    flat = np.ones(len(SCORES))
    forward = np.random.default_rng(0).random(len(FIRST))
    found = slope_tests(
        STUDY, flat, forward, 1 - forward, relabellings(FAMILY, n_draws=9, rng=np.random.default_rng(0))
    )
    assert np.isnan(list(found.values())).all()


def plain_t(x: np.ndarray, y: np.ndarray, fixed: list[np.ndarray]) -> float:
    """|t| of a slope of FIVE with some columns held fixed; pairs that share a model are dependent."""
    of = np.column_stack([np.ones(10), *fixed])
    x, y = (values - of @ np.linalg.lstsq(of, values, rcond=None)[0] for values in (x, y))
    slope = (x @ y) / (x @ x)
    u = x * (y - slope * x)
    pairs = list(zip(FIVE.strong, FIVE.weak, strict=True))
    shared = np.array([[bool(set(one) & set(other)) for other in pairs] for one in pairs])
    return abs(slope) * (x @ x) / np.sqrt(max(u @ shared @ u, u @ u))


def plain_p(scores: np.ndarray, lean: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The share of relabellings that are as extreme as the one observed, by name of the test."""
    observed, found = labelled(FIVE, scores, np.arange(5)[None]), {}
    nulls = {"strong": observed.worse[0], "weak": observed.better[0], "sum": observed.better[0] - observed.worse[0]}
    nulls["within-strong"] = observed.better[0]
    rests = {name: sm.OLS(lean, sm.add_constant(null)).fit().resid for name, null in nulls.items()}
    for pairs in (labelled(FIVE, scores, label[None]) for label in [np.arange(5), *labels]):
        b, w, side, leader = (values[0] for values in pairs)
        same = [(leader == model).astype(float) for model in range(5)]
        found.setdefault("either", []).append(max(plain_t(x, side * lean, []) for x in (b, w, b - w)))
        for name, x, fixed in ("strong", b, [w]), ("weak", w, [b]), ("sum", w, [b - w]), ("within-strong", -w, same):
            found.setdefault(name, []).append(plain_t(x, side * rests[name], fixed))
    return {name: np.mean(np.array(t) >= t[0] * (1 - 1e-9)) for name, t in found.items()}


def test_each_p_is_the_share_of_all_relabellings_that_are_as_extreme():
    rng = np.random.default_rng(5)
    scores, own = np.array([9.0, 7, 4, 3.5, 0]), rng.standard_normal(5)
    lean = 0.01 * scores[FIVE.strong] + 0.02 * (own[FIVE.strong] - own[FIVE.weak]) + 0.01 * rng.standard_normal(10)
    labels = relabellings(FIVE.family, n_draws=119, rng=rng)
    assert len(labels) == 119
    assert slope_tests(FIVE, scores, 0.5 + lean, 0.5 - lean, labels) == pytest.approx(plain_p(scores, lean, labels))
