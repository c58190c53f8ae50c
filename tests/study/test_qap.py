"""The permutation test against every relabelling written out by hand."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from bench.study.design import Study
from bench.study.qap import qap, relabellings

FIVE = Study(np.array(list("abcde")), np.array(["f"] * 5), *np.triu_indices(5, 1))
SCORES = np.array([10.0, 14.5, 11.5, 20.0, 14.5])
DECIMALS = np.array([10.1, 10.3, 10.5, 20.3, 10.5])
"""In binary, 10.3 - 10.1 is larger than 10.5 - 10.3."""


def plain_t(first: list[int], second: list[int], x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho and its dyadic-robust t, from the definitions."""
    zx, zy = stats.zscore(stats.rankdata(x)), stats.zscore(stats.rankdata(np.round(y, 10)))
    rho = np.mean(zx * zy)
    u = zx * (zy - rho * zx)
    variance = 0.0
    for p in range(len(x)):
        for q in range(len(x)):
            if {first[p], second[p]} & {first[q], second[q]}:
                variance += u[p] * u[q]
    return rho, rho / (np.sqrt(max(variance, (u**2).sum())) / len(x))


def plain_draw(scores: np.ndarray, level: np.ndarray, lean: np.ndarray) -> tuple[float, float]:
    """One labelling of the five models: turn pairs round, leave equal ones out, and test."""
    first, second, x, y = [], [], [], []
    for pair, (i, j) in enumerate(zip(*np.triu_indices(5, 1), strict=True)):
        gap = round(scores[i] - scores[j], 9)
        if gap:
            first, second = [*first, i], [*second, j]
            x, y = [*x, abs(gap)], [*y, level[pair] + np.sign(gap) * lean[pair]]
    return plain_t(first, second, np.array(x), np.array(y))


def plain_p(scores: np.ndarray, forward: np.ndarray, turned: np.ndarray, *, keep_order: bool) -> float:
    """The share of all 120 labellings that are as extreme as the one observed."""
    level, lean = (forward + turned) / 2, (forward - turned) / 2
    gaps = [round(scores[i] - scores[j], 9) for i, j in zip(*np.triu_indices(5, 1), strict=True)]
    side = np.sign(gaps)
    kept = (side * lean)[side != 0].mean() if keep_order else 0.0
    observed = abs(plain_draw(scores, level, lean)[1])
    labellings = [scores[list(order)] for order in permutations(range(5))]
    draws = [abs(plain_draw(each, level + kept, lean - kept * side)[1]) for each in labellings]
    return float(np.mean(np.array(draws) >= observed * (1 - 1e-9)))


def answers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tie_rate = rng.integers(0, 3, 10) / 100
    forward = rng.integers(30, 70, 10) / 100
    return forward, 1 - forward - tie_rate


@pytest.mark.parametrize(("scores", "seed"), [(SCORES, 0), (SCORES, 1), (SCORES, 2), (DECIMALS, 4)])
def test_exact_enumeration_on_five_models_equals_the_permutation_p(scores, seed):
    forward, turned = answers(seed)
    every = relabellings(FIVE.family, n_draws=9_999, rng=np.random.default_rng(0))
    assert len(every) == 119
    found = qap(FIVE, scores, forward, turned, every)
    assert found.exchangeable == pytest.approx(plain_p(scores, forward, turned, keep_order=False))
    assert found.sign_only == pytest.approx(plain_p(scores, forward, turned, keep_order=True))


def test_drawn_relabellings_come_close_to_all_of_them():
    forward, turned = answers(3)
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(5) for _ in range(20_000)])
    exact = qap(FIVE, SCORES, forward, turned, relabellings(FIVE.family, n_draws=119, rng=rng))
    found = qap(FIVE, SCORES, forward, turned, drawn)
    # four standard errors of a share of 20,000
    assert found.exchangeable == pytest.approx(exact.exchangeable, abs=0.015)
    assert found.sign_only == pytest.approx(exact.sign_only, abs=0.015)


def test_rho_and_t_are_those_of_the_pairs_with_a_gap():
    forward, turned = answers(4)
    found = qap(FIVE, SCORES, forward, turned, np.arange(5)[None, ::-1])
    rho, t = plain_draw(SCORES, (forward + turned) / 2, (forward - turned) / 2)
    assert (found.rho, found.t) == (pytest.approx(rho), pytest.approx(t))


def test_labels_stay_inside_their_family():
    family = np.array(["g", "f", "g", "f", "f", "g", "g", "f"] * 2)
    labels = relabellings(family, n_draws=50, rng=np.random.default_rng(0))
    assert labels.shape == (50, 16)
    assert (family[labels] == family).all()
    assert (np.sort(labels, axis=1) == np.arange(16)).all()


def test_a_seed_changes_the_relabellings_and_repeats_them():
    family = np.array(["f"] * 12)
    first, again, other = (relabellings(family, n_draws=99, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_few_relabellings_are_all_given_once_without_the_identity():
    family = np.array(["f", "g", "f", "g", "f"])
    labels = relabellings(family, n_draws=11, rng=np.random.default_rng(0))
    assert len(np.unique(labels, axis=0)) == len(labels) == 3 * 2 * 2 - 1
    assert (family[labels] == family).all()


def test_an_advantage_of_the_better_model_is_no_evidence_that_the_gap_counts():
    rng = np.random.default_rng(5)
    first, second = np.triu_indices(12, 1)
    study = Study(np.arange(12).astype(str), np.array(["f"] * 12), first, second)
    scores = rng.normal(20, 5, 12)
    taste = rng.normal(0, 0.05, 12)
    rest = taste[first] - taste[second]
    side = np.sign(scores[first] - scores[second])
    labels = relabellings(study.family, n_draws=499, rng=rng)
    p = [qap(study, scores, 0.5 + a * side + rest, 0.5 - a * side - rest, labels) for a in (0.0, 0.2)]
    assert p[0].sign_only == p[1].sign_only
    assert p[0].rho == pytest.approx(p[1].rho)


def test_each_family_has_an_advantage_of_its_own():
    first, second = (np.concatenate([part, part + 8]) for part in np.triu_indices(8, 1))
    study = Study(np.arange(16).astype(str), np.array(["f"] * 8 + ["g"] * 8), first, second)
    rng = np.random.default_rng(6)
    # the second family's gaps are far wider
    scores = np.concatenate([rng.normal(20, 1, 8), rng.normal(40, 10, 8)])
    taste = rng.normal(0, 0.05, 16)
    rest, side = taste[first] - taste[second], np.sign(scores[first] - scores[second])
    labels = relabellings(study.family, n_draws=499, rng=rng)
    ours = [np.where(first < 8, 0.0, advantage) * side + rest for advantage in (0.0, 0.2)]
    found = [qap(study, scores, 0.5 + lean, 0.5 - lean, labels) for lean in ours]
    # an advantage of one family moves neither the headline rho nor the test of its null
    assert found[0].rho == pytest.approx(found[1].rho)
    assert found[0].sign_only == found[1].sign_only


def test_rho_is_the_mean_of_the_families_own():
    rng = np.random.default_rng(7)
    first, second = (np.concatenate([part, part + 5]) for part in np.triu_indices(5, 1))
    study = Study(np.arange(10).astype(str), np.array(["f"] * 5 + ["g"] * 5), first, second)
    scores, forward = np.concatenate([SCORES, 3 * SCORES[::-1]]), rng.random(20)
    found = qap(study, scores, forward, 1 - forward, relabellings(study.family, n_draws=9, rng=rng))
    own = []
    for members in (slice(0, 10), slice(10, 20)):
        gap = scores[first[members]] - scores[second[members]]
        judged = np.where(gap < 0, 1 - forward[members], forward[members])[gap != 0]
        own.append(stats.spearmanr(np.abs(gap[gap != 0]), judged).statistic)
    assert found.rho == pytest.approx(np.mean(own))


def test_accuracy_that_grows_with_the_gap_is_found_under_both_nulls():
    first, second = np.triu_indices(10, 1)
    study = Study(np.arange(10).astype(str), np.array(["f"] * 10), first, second)
    scores = np.array([1.0, 2, 4, 7, 11, 16, 22, 29, 37, 46])
    lean = (scores[first] - scores[second]) / 200 + 0.01 * np.sin(np.arange(45))
    labels = relabellings(study.family, n_draws=999, rng=np.random.default_rng(0))
    found = qap(study, scores, 0.5 + lean, 0.5 - lean, labels)
    assert found.rho > 0.9
    assert found.exchangeable <= 0.002
    assert found.sign_only <= 0.002


def test_one_p_is_never_0():
    labels = np.repeat(np.arange(5)[None, ::-1], 9, axis=0)
    forward = np.array([0.1, 0.2, 0.3, 0.45, 0.5, 0.62, 0.7, 0.8, 0.9, 0.95])
    assert qap(FIVE, np.array([9.0, 7, 4, 2, 1]), forward, 1 - forward, labels).exchangeable >= 0.1


def test_a_relabelling_under_which_all_pairs_are_equally_right_is_not_extreme():
    study = Study(np.array(list("abc")), np.array(["f"] * 3), *np.triu_indices(3, 1))
    forward = np.array([0.6, 0.6, 0.4])
    every = relabellings(study.family, n_draws=5, rng=np.random.default_rng(0))
    # rho is 0.87, and in the orders bac, bca, cab, cba and acb -0.87, nothing, 0, 0 and nothing
    assert qap(study, np.array([3.0, 1, 0]), forward, 1 - forward, every).exchangeable == pytest.approx(2 / 6)


@pytest.mark.parametrize(("scores", "forward"), [(np.full(5, 3.0), np.arange(10) / 10), (SCORES, np.full(10, 0.5))])
def test_without_variation_there_is_no_p(scores, forward):
    found = qap(FIVE, scores, forward, 1 - forward, np.arange(5)[None, ::-1])
    assert np.isnan(found).all()


def test_a_pair_without_an_accuracy_is_left_out():
    forward, turned = answers(6)
    every = relabellings(FIVE.family, n_draws=119, rng=np.random.default_rng(0))
    kept = np.arange(10) != 4
    short = Study(FIVE.model_ids, FIVE.family, FIVE.strong[kept], FIVE.weak[kept])
    expected = qap(short, SCORES, forward[kept], turned[kept], every)
    forward[4] = np.nan
    assert qap(FIVE, SCORES, forward, turned, every) == expected
