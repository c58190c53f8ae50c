"""A study's statistics where there is little or nothing to correlate."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import CORRELATION, REWARDS, SCORES, Example, Message
from bench.study.analysis import DECOMPOSITION_COLUMNS, GAP_NOISE_COLUMNS, LEFT_OUT_COLUMNS, analyse, judgements
from bench.study.baselines import Noise
from bench.study.bootstrap import Resampling
from bench.study.reward import reward_matrix
from bench.study.verdict import verdict

MODELS = ("a", "b", "c")
PAIRS = pd.DataFrame(
    [("a--b", "a", "b", "f", "c"), ("a--c", "a", "c", "f", "c"), ("b--c", "b", "c", "f", "c")],
    columns=["pair_id", "strong", "weak", "family", "start"],
)
POINTS = {"a": 3.0, "b": 2.0, "c": 0.5}


def scores(n_rows: int, *, seed: int, status: str = "ok") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (str(i), side, rng.normal() if status == "ok" else np.nan, 0.0 if status == "ok" else np.nan, 2, 5, status)
        for i in range(n_rows)
        for side in ("chosen", "rejected")
    ]
    return pd.DataFrame(rows, columns=list(SCORES))


def analysed(axes: dict, *, n_rows: int = 4, status: str = "ok", subset: str = ""):
    texts = (("chosen", "yes"), ("rejected", "no"))
    examples = {str(i): Example(str(i), subset, (Message("user", str(i)),), texts) for i in range(n_rows)}
    tables = {model: scores(n_rows, seed=seed, status=status) for seed, model in enumerate(MODELS)}
    rng = np.random.default_rng(0)
    return analyse(tables, PAIRS, examples, axes, noise=Noise(1.0, "points"), resampling=Resampling(50), rng=rng)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"x": POINTS}, {"status": "too_long"}),
        ({"x": POINTS}, {"subset": "math-prm"}),
        ({"x": dict.fromkeys(MODELS, 1.0)}, {}),
        ({"x": {}}, {}),
    ],
    ids=["no row scored", "part of RewardBench", "no gap", "no published score"],
)
def test_a_study_without_a_gap_or_an_accuracy_has_no_statistics(axes, words):
    found = analysed(axes, **words)
    # What a judge of length alone gets is known without a score.
    assert not set(found.correlation["reward"]) & set(REWARDS)
    assert len(found.left_out) == len(found.gap_noise) == len(found.decomposition) == 0
    columns = [CORRELATION, LEFT_OUT_COLUMNS, GAP_NOISE_COLUMNS, DECOMPOSITION_COLUMNS]
    assert [tuple(frame.columns) for frame in found] == columns
    assert "nothing to take apart" in verdict(found.decomposition).words


def test_an_axis_without_scores_leaves_the_other_its_statistics():
    found = analysed({"x": POINTS, "y": {}})
    assert set(found.correlation["performance"]) == {"x"}
    assert set(found.correlation["n_pairs"]) == {3}


def test_one_row_has_an_estimate_and_is_not_a_failure():
    found = analysed({"x": POINTS}, n_rows=1)
    rho = found.correlation.query("reward == 'sum' and estimator == 'spearman' and family == 'all'")
    assert rho["n_prompts"].tolist() == [1]


def test_no_regression_pools_the_families():
    found = analysed({"x": POINTS})
    assert not found.correlation["estimator"].str.contains("gap-given|strong-given").any()


def test_three_models_are_taken_apart_without_an_interval_and_without_a_verdict():
    found = analysed({"x": POINTS}, n_rows=12).decomposition.set_index("estimator")
    assert set(found["world"]) == {"undecided"}
    assert found.loc[["strong", "weak", "sum"], ["low", "high"]].isna().all(axis=None)
    # without c, where tuning began, a and b are one pair
    assert found.loc["spearman-without-starts", ["n_pairs", "n_models"]].tolist() == [1, 2]


def test_a_pair_that_prefers_the_right_response_prefers_the_wrong_one_with_its_models_swapped():
    row = {"0": Example("0", "", (Message("user", "0"),), (("chosen", "yes"), ("rejected", "no")))}
    # The strong model gives the right response a nat more than the weak one, and the wrong response a nat less.
    logps = {"a": (-1.0, -3.0), "b": (-2.0, -2.0)}
    tables = {
        model: pd.DataFrame(
            [("0", name, logp, 0.0, 2, 5, "ok") for name, logp in zip(("chosen", "rejected"), both, strict=True)],
            columns=list(SCORES),
        )
        for model, both in logps.items()
    }
    found = judgements(reward_matrix(tables, PAIRS[:1], reward="sum"), row)
    assert (found.forward.tolist(), found.turned.tolist()) == ([[1.0]], [[0.0]])


def test_the_tables_beside_the_correlation_are_those_of_the_reward_sum():
    found = analysed({"x": POINTS}, n_rows=12)
    tables = (found.left_out, found.gap_noise, found.decomposition)
    assert [set(table["reward"]) for table in tables] == [{"sum"}] * 3
