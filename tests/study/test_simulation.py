"""What the committed simulation says, and that the module which made it still runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulation import COLUMNS, KINDS, MEASURES, METHODS, Size, figure, simulate

STORED = Path(__file__).parents[2] / "results" / "statistics" / "simulation.csv"


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return pd.read_csv(STORED)


def value(frame: pd.DataFrame, world: str, method: str, measure: str) -> float:
    """A measure where no effect is planted, or where the largest is."""
    rows = frame[(frame["world"] == world) & (frame["method"] == method) & (frame["measure"] == measure)]
    return rows.sort_values("effect")["value"].iloc[-1]


def test_the_stored_table_is_of_all_worlds_and_methods(stored):
    assert tuple(stored.columns) == COLUMNS
    assert (stored["n_worlds"] == 400).all()
    assert (stored["n_draws"] == 599).all()
    assert set(stored["method"]) == set(METHODS)
    assert len(stored[["world", "effect"]].drop_duplicates()) == len(KINDS)


@pytest.mark.parametrize("method", ["qap-exchangeable", "qap-sign-only"])
def test_without_an_effect_the_test_rejects_at_its_level(stored, method):
    assert 0.025 <= value(stored, "none", method, "rejection") <= 0.08


def test_where_only_the_order_counts_the_test_of_that_null_rejects_at_its_level(stored):
    assert 0.025 <= value(stored, "order-only", "qap-sign-only", "rejection") <= 0.08


@pytest.mark.parametrize("method", ["qap-exchangeable", "qap-sign-only", "bootstrap-basic-z"])
def test_a_family_that_judges_better_is_no_evidence_for_the_headline(stored, method):
    assert 0.025 <= value(stored, "family", method, "rejection") <= 0.08


def test_a_family_that_judges_better_is_taken_for_evidence_where_families_are_pooled(stored):
    assert value(stored, "family", "pooled-basic-z", "rejection") > 0.2
    assert value(stored, "family", "naive-pearson", "rejection") > 0.5


@pytest.mark.parametrize("world", ["none", "planted", "family", "family-planted"])
def test_the_interval_covers_the_true_rho(stored, world):
    assert 0.92 <= value(stored, world, "bootstrap-basic-z", "coverage") <= 0.99


@pytest.mark.parametrize("world", ["planted", "family-planted"])
def test_the_largest_planted_rho_is_nearly_always_found(stored, world):
    rows = stored[(stored["world"] == world) & (stored["method"] == "dyadic-t")]
    strongest = rows[rows["effect"] == rows["effect"].max()]
    assert strongest["truth"].iloc[0] == pytest.approx(0.56, abs=0.03)
    assert value(stored, world, "qap-exchangeable", "rejection") > 0.9


def test_naive_pearson_does_not_keep_its_level(stored):
    assert value(stored, "none", "naive-pearson", "rejection") > 0.1


def test_a_few_worlds_give_every_measure():
    few = Size(n_worlds=3, n_draws=99, n_truth_models=88, n_truth_worlds=2)
    frame = simulate(KINDS[:1], few)
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["measure"]) == set(MEASURES)
    assert frame.dropna().shape == frame.shape
    assert (frame["low"] <= frame["value"]).all()
    assert (frame["value"] <= frame["high"]).all()
    again = simulate(KINDS[:1], few)
    pd.testing.assert_frame_equal(frame, again)


def test_the_figure_has_a_panel_a_measure_and_a_line_a_method(stored):
    drawn = figure(stored)
    assert [axes.get_xlabel() for axes in drawn.axes] == ["Rejects at 5%", "95% interval covers", "Width"]
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == list(METHODS.values())
    n_marks = sum(len(container[0].get_xdata()) for container in drawn.axes[0].containers)
    assert n_marks == (stored["measure"] == "rejection").sum()


@pytest.mark.slow
def test_four_hundred_worlds_give_the_stored_table_again(stored):
    made = simulate()
    numbers = ["truth", "truth_stderr", "value", "low", "high"]
    assert made.drop(columns=numbers).equals(stored.drop(columns=numbers))
    np.testing.assert_allclose(made[numbers], stored[numbers], atol=0.003)
