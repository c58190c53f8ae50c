"""What the committed placebo of the ladders' study says, and that it is of the study's own statistics."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from placebo import CASES, COLUMNS, N_DRAWS, N_FLIPS, Placebo, observed

STORED = Path(__file__).parents[2] / "results" / "statistics" / "placebo.csv"


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return pd.read_csv(STORED)


def test_the_stored_table_is_of_the_tables_in_git(stored):
    assert tuple(stored.columns) == COLUMNS
    assert (stored["n_flips"] == N_FLIPS).all() and (stored["n_draws"] == N_DRAWS).all()
    for case in CASES:
        for estimator, (_, p) in observed(*case).items():
            mine = stored[(stored["reward"] == case[0]) & (stored["performance"] == case[1])]
            assert set(mine.loc[mine["estimator"] == estimator, "observed_p"]) == {p}


def test_the_test_of_rho_holds_its_level_for_measured_scores_and_not_for_the_order_of_the_rungs(stored):
    rates = stored[stored["measure"] == "rejection"].set_index(["reward", "performance", "estimator"])
    assert rates.loc[("sum", "ifeval", "spearman"), "low"] <= 0.05
    recipe = rates.loc[[key for key in rates.index if key[1] == "net_preferences"]]
    assert (recipe["low"] > 0.05).all()


@pytest.mark.skipif("DRSOW_REWARDBENCH" not in os.environ, reason="needs RewardBench (DRSOW_REWARDBENCH)")
@pytest.mark.parametrize("case", CASES)
def test_without_a_flip_it_is_the_studys_own_rho_and_p(case):
    placebo, rng = Placebo(*case), np.random.default_rng(0)
    rho, p, either = placebo.tests(np.zeros(placebo.rows.cluster.max() + 1, dtype=bool), rng)
    known = observed(*case)
    assert rho == pytest.approx(known["spearman"][0], abs=1e-11)
    assert p == pytest.approx(known["spearman"][1], abs=0.07)
    if "either" in known:
        assert either == pytest.approx(known["either"][1], abs=0.1)
