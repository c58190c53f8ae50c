"""What the committed simulation of the decomposition says, and that the module which made it still runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulation_decompose import COLUMNS, FULL, KINDS, Size, figure, simulate

from bench.study.verdict import CHECKS, MIXED, SLOPES

STORED = Path(__file__).parents[2] / "results" / "statistics" / "decompose.csv"


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return pd.read_csv(STORED)


def row(frame: pd.DataFrame, world: str, estimator: str, measure: str) -> pd.Series:
    rows = frame[(frame["world"] == world) & (frame["estimator"] == estimator) & (frame["measure"] == measure)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_stored_table_is_of_all_worlds(stored):
    assert tuple(stored.columns) == COLUMNS
    assert list(pd.unique(stored["world"])) == [kind.name for kind in KINDS]
    assert (stored["n_worlds"] == FULL.n_worlds).all() and (stored["n_draws"] == FULL.n_draws).all()


@pytest.mark.parametrize(
    ("world", "estimator"),
    [
        *(("nothing", name) for name in ("either", *SLOPES, *CHECKS)),
        ("only-strong", "weak"), ("only-strong", "within-strong"), ("only-weak", "strong"), ("difference", "sum"),
        ("length", "spearman-given-length"), ("length", "sum"),
    ],
)  # fmt: skip
def test_where_an_effect_is_absent_its_test_has_its_level(stored, world, estimator):
    assert 0.025 <= row(stored, world, estimator, "rejection")["value"] <= 0.08


@pytest.mark.parametrize(
    ("world", "estimator"), [(kind.name, name) for kind in KINDS for name in (*SLOPES, *CHECKS, *MIXED)]
)
def test_every_interval_covers_the_truth(stored, world, estimator):
    assert row(stored, world, estimator, "coverage")["value"] >= 0.9


@pytest.mark.parametrize("world", ["nothing", "only-strong", "only-weak", "difference"])
def test_the_verdict_names_the_world_in_nine_tenths(stored, world):
    assert row(stored, world, f"verdict-{world}", "named")["value"] >= 0.9


def test_one_small_world_gives_every_measure_and_goes_on_from_a_file(tmp_path):
    few = Size(n_worlds=2, n_draws=19, n_truth_models=44, n_truth_worlds=2)
    kept = tmp_path / "worlds.csv"
    first = simulate(KINDS[:1], few._replace(n_worlds=1), kept=kept)
    assert tuple(first.columns) == COLUMNS and set(first["measure"]) == {"rejection", "coverage", "named"}
    written = kept.read_text()
    simulate(KINDS[:1], few, kept=kept)
    assert kept.read_text().startswith(written)


def test_the_figure_has_a_panel_for_tests_intervals_and_verdicts(stored):
    labels = [axes.get_xlabel() for axes in figure(stored).axes]
    assert labels == ["Rejects at 5%, % of worlds", "95% interval holds the truth, %", "Verdict, % of worlds"]


@pytest.mark.slow
def test_the_worlds_give_the_stored_table_again(stored):
    made = simulate()
    numbers = ["truth", "truth_stderr", "value", "low", "high"]
    assert made.drop(columns=numbers).equals(stored.drop(columns=numbers))
    np.testing.assert_allclose(made[numbers], stored[numbers], atol=0.006)
