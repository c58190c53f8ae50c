"""What the committed simulation of choosing and of the intervals says, and that the module which made it still runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulation_choose import CHOICES, COLUMNS, FEW, SHARES, SIZE, Size, figure, simulate

STORED = Path(__file__).parents[2] / "results" / "statistics" / "choose.csv"


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return pd.read_csv(STORED)


def chosen(frame: pd.DataFrame, quantity: str, measure: str) -> pd.DataFrame:
    """What the simulation of `choose` says of one quantity, a row per kind of world and number of rows."""
    rows = frame[(frame["claim"] == "choose") & (frame["quantity"] == quantity) & (frame["measure"] == measure)]
    assert len(rows) == 2 * len(CHOICES)
    return rows


def coverage(frame: pd.DataFrame, name: str, claim: str = "interval") -> pd.DataFrame:
    return frame[(frame["claim"] == claim) & (frame["quantity"] == name) & (frame["measure"] == "coverage")]


def test_the_stored_table_is_of_all_worlds(stored):
    assert tuple(stored.columns) == COLUMNS
    assert set(stored["world"]) == {*CHOICES, *SHARES}
    assert set(stored["n_rows"]) >= {184, 2985}
    n = stored[stored["claim"] == "choose"].groupby("n_rows")["n_worlds"].unique()
    assert (n[184].tolist(), n[2985].tolist()) == ([SIZE.n_choices], [SIZE.n_full_choices])


@pytest.mark.parametrize("quantity", ["held-out", "leaderboard-held-out"])
def test_the_held_out_estimate_is_within_half_a_point_of_the_truth(stored, quantity):
    assert (chosen(stored, quantity, "bias")["value"].abs() < 0.005).all()


def test_the_score_of_the_best_is_points_too_high_on_184_rows(stored):
    rows = chosen(stored, "score", "bias")
    assert (rows.loc[rows["n_rows"] == 184, "low"] > 0.01).all()


@pytest.mark.parametrize(
    "quantity",
    ["held-out", "largest-gap", "random-pair", "best-over-random-pair", "best-over-largest-gap",
     "best-in-confidence-set", "rank-of-the-best"],
)  # fmt: skip
def test_what_choose_says_holds_as_often_as_promised(stored, quantity):
    rows = chosen(stored, quantity, "coverage")
    assert (rows.loc[rows["n_rows"] == 184, "value"] >= 0.9).all()
    # fifty worlds: 90% may look like 84%
    assert (rows.loc[rows["n_rows"] == 2985, "value"] >= 0.84).all()


def test_no_limit_leaves_0_to_1(stored):
    assert (chosen(stored, "outside-0-to-1", "share")["value"] == 0).all()


def test_an_interval_needs_two_rows_a_subset_and_then_holds(stored):
    refused = stored[(stored["claim"] == "interval") & (stored["measure"] == "refused")]
    assert (refused["value"] == (refused["rows_a_subset"] == 1)).all()
    rows = coverage(stored, "score")
    assert len(rows) == len(SHARES) * len(FEW)
    assert (rows["value"] >= 0.9).all()


def test_reasonings_interval_holds_though_its_languages_go_together(stored):
    rows = coverage(stored, "reasoning")
    assert (rows.loc[rows["n_rows"] >= 184, "value"] >= 0.92).all()
    before = coverage(stored, "reasoning", "interval-before")
    assert (before.loc[before["n_rows"] == 2985, "value"] < 0.92).all()


def test_a_few_worlds_give_every_measure_again():
    few = Size(n_choices=2, n_full_choices=1, n_intervals=40)
    worlds = dict(list(CHOICES.items())[:1]), dict(list(SHARES.items())[:1])
    frame = simulate(few, choices=worlds[0], shares=worlds[1])
    assert tuple(frame.columns) == COLUMNS
    assert frame.drop(columns=["rows_a_subset", "low", "high"]).notna().all(axis=None)
    known = frame.dropna(subset=["low"])
    assert (known["low"] <= known["value"] + 1e-12).all()
    pd.testing.assert_frame_equal(frame, simulate(few, choices=worlds[0], shares=worlds[1]))


def test_the_figure_has_a_panel_for_bias_one_for_coverage_and_one_for_few_rows(stored):
    left, middle, right = figure(stored).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["score", "held\nout", "leaderboard\nheld out"]
    n_marks = sum(len(container[0].get_xdata()) for container in middle.containers)
    assert n_marks == ((stored["claim"] == "choose") & (stored["measure"] == "coverage")).sum()
    assert [text.get_text() for text in right.get_xticklabels()] == [*map(str, FEW), "all"]


@pytest.mark.slow
def test_all_worlds_give_the_stored_table_again(stored):
    made = simulate(n_jobs=-1)
    numbers = ["value", "low", "high"]
    texts = [name for name in COLUMNS if name not in numbers]
    pd.testing.assert_frame_equal(made[texts], stored[texts], check_dtype=False)
    np.testing.assert_allclose(made[numbers], stored[numbers], atol=0.01)
