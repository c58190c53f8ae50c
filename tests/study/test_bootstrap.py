"""The crossed bootstrap and its intervals."""

import numpy as np
import pytest

from bench.study.bootstrap import (
    Resampling,
    basic_interval,
    correlation_interval,
    crossed_bootstrap,
    draw_models,
    draw_prompts,
    estimate,
    prompt_bootstrap,
)
from bench.study.design import Rows, Study, plain_accuracy

NAN = float("nan")
STUDY = Study(np.array(list("abcd")), np.array(["f", "f", "f", "g"]), np.array([0, 0, 1]), np.array([1, 2, 2]))
ROWS = Rows(
    (("overall", "score"), ("section", "chat")),
    np.array([[0.1, 0.1, 0.4, 0.4], [0, 0, 0.5, 0.5]]),
    np.array([0, 0, 1, 1]),
    np.array([0, 1, 0, 2]),
)
CORRECT = np.array([[1.0, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]])


def weights_and_mean(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.column_stack([weights, answers.mean(axis=(1, 2))])


def drawn(seed: int, *, n_draws: int = 1_200, n_jobs: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return crossed_bootstrap(CORRECT, STUDY, ROWS, weights_and_mean, resampling=Resampling(n_draws, n_jobs), rng=rng)


def test_a_family_keeps_its_size():
    times = draw_models(STUDY.family, 500, rng=np.random.default_rng(0))
    assert (times[:, :3].sum(axis=1) == 3).all()
    assert (times[:, 3] == 1).all()
    assert times[:, :3].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.2)


def test_a_pair_stands_as_often_as_its_models_meet_and_no_model_meets_itself():
    weights = drawn(0)[:, :3].astype(int)
    # of three models drawn three times, at most two different meet twice: 2 x 1
    assert set(np.unique(weights)) == {0, 1, 2}
    # all three different, or one twice and one once, or one three times and no pair at all
    assert {tuple(sorted(line)) for line in weights.tolist()} == {(1, 1, 1), (0, 0, 2), (0, 0, 0)}


def test_rows_of_one_problem_are_drawn_together():
    times = draw_prompts(ROWS, 200, rng=np.random.default_rng(0))
    assert (times[:, 0] == times[:, 2]).all()
    assert (times[:, 0] != times[:, 1]).all()
    assert (times > 0).all()


def test_a_seed_changes_the_draws_and_repeats_them():
    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()


def test_draws_do_not_hang_on_the_number_of_processes():
    assert (drawn(3, n_jobs=1) == drawn(3, n_jobs=2)).all()


def test_fewer_draws_than_a_chunk_and_more_than_one_come_out_as_asked():
    assert [len(drawn(0, n_draws=n)) for n in (3, 500, 501)] == [3, 500, 501]


def test_the_sample_itself_counts_everything_once():
    found = estimate(CORRECT, STUDY, ROWS, weights_and_mean)
    assert found.tolist() == [1, 1, 1, plain_accuracy(CORRECT, ROWS).mean()]


def test_draws_of_prompts_vary_as_a_mean_of_problems_does():
    # 400 problems of one row: standard error sqrt(p (1 - p) / n) = 0.02449, Bayesian draws a hair less
    rows = Rows((("overall", "score"),), np.full((1, 400), 1 / 400), np.zeros(400, dtype=int), np.arange(400))
    correct = (np.arange(400) % 5 < 2).astype(float)[None]
    draws = prompt_bootstrap(correct, rows, n_draws=4_000, rng=np.random.default_rng(0))
    assert draws.mean() == pytest.approx(0.4, abs=0.002)
    assert draws.std() == pytest.approx(np.sqrt(0.24 / 400), rel=0.05)


def test_six_rows_of_one_problem_are_no_six_problems():
    one = Rows((("overall", "score"),), np.full((1, 600), 1 / 600), np.zeros(600, dtype=int), np.arange(600) % 100)
    correct = (np.arange(600) % 100 < 50).astype(float)[None]
    draws = prompt_bootstrap(correct, one, n_draws=3_000, rng=np.random.default_rng(0))
    assert draws.std() == pytest.approx(0.5 / np.sqrt(100), rel=0.06)


def test_the_basic_interval_mirrors_the_quantiles():
    draws = np.arange(1, 1000) / 1000
    assert basic_interval(0.6, draws) == pytest.approx((1.2 - 0.975, 1.2 - 0.025))


def test_a_correlations_interval_stays_inside_its_bounds():
    draws = np.tanh(np.linspace(1.0, 3.0, 1001))
    low, high = correlation_interval(np.tanh(2.5), draws)
    assert (low, high) == pytest.approx((np.tanh(5 - 2.95), np.tanh(5 - 1.05)), rel=1e-3)
    assert high < 1


def test_draws_of_exactly_1_do_no_harm():
    draws = np.concatenate([np.linspace(-0.5, 0.9, 999), [1.0]])
    low, high = correlation_interval(0.3, draws)
    assert -1 < low < 0.3 < high < 1


@pytest.mark.parametrize("draws", [np.full(100, 0.2), np.full(100, NAN)])
def test_without_an_estimate_or_draws_there_is_no_interval(draws):
    assert np.isnan(basic_interval(NAN, np.full(100, 0.2))).all()
    assert np.isnan(basic_interval(0.2, np.full(100, NAN))).all()
    assert np.isnan(correlation_interval(1.0, draws)).all()


def test_a_few_draws_without_a_value_are_passed_over_and_many_are_not():
    draws = np.concatenate([np.full(96, 0.5), np.full(4, NAN)])
    assert basic_interval(0.4, draws) == pytest.approx((0.3, 0.3))
    assert np.isnan(basic_interval(0.4, np.concatenate([draws, [NAN] * 2]))).all()
