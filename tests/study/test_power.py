"""How often a planned study finds its effect."""

import numpy as np
import pytest
from scipy import stats

from bench.study.power import POWER, SPREAD, Wish, even_sizes, power, scaled_sizes, slope_for, study_of_sizes


def test_models_are_dealt_evenly_or_in_the_proportions_of_a_study():
    assert even_sizes(14, 4) == (4, 4, 3, 3)
    assert scaled_sizes((10, 11, 12, 11), 88) == (20, 22, 24, 22)
    assert scaled_sizes((10, 2), 6) == (5, 2)


def test_the_pairs_are_those_inside_families():
    made = study_of_sizes((3, 2))
    assert list(zip(made.strong.tolist(), made.weak.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (3, 4)]


@pytest.mark.parametrize("rho", [0.3, -0.6])
def test_the_slope_gives_the_wanted_rho(rho):
    rng = np.random.default_rng(0)
    gap, noise = np.abs(np.sqrt(2) * rng.standard_normal(100_000)), rng.standard_normal(100_000)
    assert stats.spearmanr(gap, slope_for(rho) * gap + noise).statistic == pytest.approx(rho, abs=0.02)
    assert slope_for(0.0) == 0


def test_without_an_effect_the_power_is_the_level_and_a_large_effect_is_found():
    table = power(
        [Wish((6, 6), rho, 10_000) for rho in (0.0, 0.9)], rng=np.random.default_rng(0), n_worlds=60, n_draws=99
    )
    assert tuple(table.columns) == POWER
    assert table["power"].tolist()[0] <= 0.12 and table["power"].tolist()[1] >= 0.95
    assert (table["low"] <= table["power"]).all() and (table["power"] <= table["high"]).all()
    assert table[["n_models", "n_families", "n_pairs"]].to_numpy().tolist() == [[12, 2, 30]] * 2


def test_a_seed_repeats_the_power_and_few_rows_lower_it():
    few, same, many = (
        power([Wish((6, 6), 0.8, n)], rng=np.random.default_rng(1), n_worlds=60, n_draws=99) for n in (20, 20, 10**6)
    )
    assert few.equals(same)
    # over 20 rows the variance of an accuracy is more than three times that between pairs
    assert 3 * SPREAD**2 < 0.25 / 20
    assert few["power"][0] < many["power"][0]
