"""A study's statistics where there is little or nothing to correlate."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import CORRELATION, REWARDS, SCORES, Example, Message
from bench.study.analysis import GAP_NOISE_COLUMNS, LEFT_OUT_COLUMNS, analyse
from bench.study.baselines import Noise
from bench.study.bootstrap import Resampling

MODELS = ("a", "b", "c")
PAIRS = pd.DataFrame(
    [("a--b", "a", "b", "f"), ("a--c", "a", "c", "f"), ("b--c", "b", "c", "f")],
    columns=["pair_id", "strong", "weak", "family"],
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
    assert len(found.left_out) == len(found.gap_noise) == 0
    assert [tuple(frame.columns) for frame in found] == [CORRELATION, LEFT_OUT_COLUMNS, GAP_NOISE_COLUMNS]


def test_an_axis_without_scores_leaves_the_other_its_statistics():
    found = analysed({"x": POINTS, "y": {}})
    assert set(found.correlation["performance"]) == {"x"}
    assert set(found.correlation["n_pairs"]) == {3}


def test_one_row_has_an_estimate_and_is_not_a_failure():
    found = analysed({"x": POINTS}, n_rows=1)
    rho = found.correlation.query("reward == 'sum' and estimator == 'spearman' and family == 'all'")
    assert rho["n_prompts"].tolist() == [1]
