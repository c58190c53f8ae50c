"""What else a pair's accuracy could be, and how much rests on single models or scores."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.schema import Example
from bench.study.baselines import (
    GAP_NOISE,
    LEFT_OUT,
    Noise,
    baseline_judges,
    gap_noise,
    leave_one_out,
)
from bench.study.design import Rows, Study, judged, on_axis, plain_accuracy

NAN = float("nan")
FAMILY = np.array(["f"] * 5 + ["g"] * 4)
FIRST, SECOND = (np.concatenate([a, b + 5]) for a, b in zip(np.triu_indices(5, 1), np.triu_indices(4, 1), strict=True))
STUDY = Study(np.array(list("abcdefghi")), FAMILY, FIRST, SECOND)
SCORES = np.array([30.0, 25, 24, 18, 11, 9, 7.5, 7.5, 2])
ROWS = Rows((("overall", "score"),), np.full((1, 60), 1 / 60), np.zeros(60, dtype=int), np.arange(60))


def axis():
    rng = np.random.default_rng(0)
    model_margins = rng.standard_normal((9, 60)) + 0.03 * SCORES[:, None]
    return on_axis(STUDY, judged(model_margins[FIRST] - model_margins[SECOND]), SCORES)


def inside_families(gap: np.ndarray, y: np.ndarray, used: np.ndarray) -> float:
    """The mean of both families' rhos, weighted by their pairs."""
    parts = [used & (FAMILY[FIRST] == name) for name in "fg"]
    return np.average([stats.spearmanr(gap[p], y[p]).statistic for p in parts], weights=[p.sum() for p in parts])


def test_each_baseline_judges_as_it_is_called():
    pair = Study(np.array(["s", "w"]), np.array(["f", "f"]), np.array([0]), np.array([1]))
    margins = np.array([[2.0, -1, 1, NAN], [1.0, -3, 2, 1]])
    rows = [Example(str(i), "", (), (("chosen", "a"), ("rejected", "b"))) for i in range(4)]
    logps = [np.stack([margin, np.zeros(2)], axis=1) for margin in margins.T]
    sizes = [np.full((2, 2), [10.0 + longer, 10]) for longer in (5, -5, 0, 5)]
    found = baseline_judges(pair, rows, logps, sizes)
    expected = {
        "strong-alone": ([1, 0, 1, NAN], [1, 0, 1, 1]),
        "minus-weak-alone": ([0, 1, 0, 0], [0, 1, 0, NAN]),
        "longer": ([1, 0, 0, 1], [1, 0, 0, 1]),
        # the pair's margins are 1, 2, -1 and unknown; the third row's responses are equally long
        "prefers-longer": ([1, 0, 0, NAN], [0, 1, 0, NAN]),
        "chance": ([0.5] * 4, [0.5] * 4),
    }
    for name, (forward, turned) in expected.items():
        np.testing.assert_equal(found[name].forward[0], np.array(forward, dtype=float))
        np.testing.assert_equal(found[name].turned[0], np.array(turned, dtype=float))


def test_each_pair_has_the_lengths_of_its_own_template():
    # two families, whose templates render the same two responses: under the second one the chosen one is the shorter
    pairs = Study(np.array(list("abcd")), np.array(["f", "f", "g", "g"]), np.array([0, 2]), np.array([1, 3]))
    rows = [Example("0", "", (), (("chosen", "a"), ("rejected", "b")))]
    logps = [np.array([[2.0, 0], [1, 0], [2, 0], [1, 0]])]
    sizes = [np.array([[12.0, 10], [12, 10], [10, 11], [10, 11]])]
    found = baseline_judges(pairs, rows, logps, sizes)
    assert found["longer"].forward[:, 0].tolist() == [1, 0]
    # both pairs prefer the chosen response by 1 nat
    assert found["prefers-longer"].forward[:, 0].tolist() == [1, 0]


def test_each_model_and_each_family_is_left_out_once():
    table = leave_one_out(axis(), ROWS)
    assert tuple(table.columns) == LEFT_OUT
    assert table["left_out_name"].tolist() == [*"abcdefghi", "f", "g"]
    # a is in 4 of the 15 pairs with a gap; family g has 5 of them
    assert table.loc[0, ["n_pairs", "n_models"]].tolist() == [11, 8]
    assert table.iloc[-1][["left_out", "n_pairs", "n_models"]].tolist() == ["family", 10, 5]
    kept = (axis().gap != 0) & (FIRST != 0) & (SECOND != 0)
    y = plain_accuracy(axis().answers.forward, ROWS)[0]
    assert table.loc[0, "estimate"] == pytest.approx(inside_families(axis().gap, y, kept))


def test_a_study_of_one_family_cannot_do_without_it():
    inside = FAMILY[FIRST] == "g"
    alone = Study(STUDY.model_ids[5:], FAMILY[5:], FIRST[inside] - 5, SECOND[inside] - 5)
    margins = np.random.default_rng(0).standard_normal((6, 60))
    table = leave_one_out(on_axis(alone, judged(margins), SCORES[5:]), ROWS)
    without = table[table["left_out"] == "family"].iloc[0]
    assert (without["left_out_name"], without["n_pairs"]) == ("g", 0)
    assert np.isnan(without["estimate"])


def test_noise_in_the_scores_is_counted_and_wears_rho_off():
    noise = Noise(1.0, "points")
    table = gap_noise(axis(), ROWS, noise=noise, rng=np.random.default_rng(0), n_draws=400)
    assert tuple(table.columns) == GAP_NOISE
    table = table.set_index("stderr")
    none, one, two = (table.loc[stderr] for stderr in (0.0, 1.0, 2.0))
    used = axis().gap != 0
    rho = inside_families(axis().gap, plain_accuracy(axis().answers.forward, ROWS)[0], used)
    assert (none["estimate"], none["low"], none["high"]) == pytest.approx((rho, rho, rho))
    assert (none["n_uncertain"], none["share_turned"], none["n_pairs"]) == (0, 0, 15)
    # gaps below 2.77 points: b-c 1, f-g 1.5, f-h 1.5; below 5.54 also a-b 5 and none else; g-h has none
    gap = np.abs(axis().gap[used])
    assert one["n_uncertain"] == int((gap < 1.96 * 2**0.5).sum()) == 3
    assert two["n_uncertain"] == int((gap < 1.96 * 2 * 2**0.5).sum())
    assert 0 < one["share_turned"] < two["share_turned"] < 0.25
    assert two["high"] - two["low"] > one["high"] - one["low"] > 0


def test_the_ends_of_rho_under_noise_leave_out_a_fortieth_of_the_draws_each():
    table = gap_noise(axis(), ROWS, noise=Noise(1.0, "points"), rng=np.random.default_rng(0), n_draws=40)
    forward, turned = (plain_accuracy(correct, ROWS)[0] for correct in axis().answers)
    rhos = []
    for errors in np.random.default_rng(0).standard_normal((40, 9)):
        gap = np.round((SCORES + errors)[FIRST] - (SCORES + errors)[SECOND], 9)
        rhos.append(inside_families(np.abs(gap), np.where(gap < 0, turned, forward), axis().gap != 0))
    row = table[table["stderr"] == 1.0].iloc[0]
    assert row["estimate"] == pytest.approx(np.mean(rhos))
    # 40 draws: the fortieth lies just inside the least and the largest of them
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(rhos, [0.025, 0.975])))


def test_noise_is_in_the_unit_of_the_scores():
    points = axis()
    bits = points._replace(performance=points.performance / 50, gap=points.gap / 50)
    ours, other = (
        gap_noise(each, ROWS, noise=noise, rng=np.random.default_rng(0), n_draws=50)
        for each, noise in ((points, Noise(1.0, "points")), (bits, Noise(0.02, "bits per byte")))
    )
    assert other["stderr"].tolist() == [0, 0.02, 0.04]
    assert set(other["unit"]) == {"bits per byte"}
    same = [column for column in GAP_NOISE if column not in ("stderr", "unit")]
    pd.testing.assert_frame_equal(ours[same], other[same])


def test_a_seed_repeats_the_noise():
    noise = Noise(1.0, "points")
    tables = [gap_noise(axis(), ROWS, noise=noise, rng=np.random.default_rng(s), n_draws=50) for s in (1, 1, 2)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])
