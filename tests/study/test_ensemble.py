"""Ensembles of pairs: their scales, weights and margins by hand; what they are held out from; what they cost."""

import numpy as np
import pandas as pd
import pytest
from test_benchmarks import pair, six

from bench.schema import SECTIONS, SUBSET_WEIGHTS, Dataset, UsageError
from bench.study import ensemble
from bench.study.choose import CHOICE, Choice, Wish, choose
from bench.study.design import Rows
from bench.study.ensemble_held_out import Combine, _cross_fitted
from bench.study.held_out import held_out
from bench.study.interval import Sample
from bench.verbs.ensemble import row_weights

ONES = np.ones(4)


def test_a_scale_is_the_standard_deviation_over_both_orders_of_the_responses():
    margins = np.array([[3.0, 4.0], [1.0, -1.0], [5.0, 5.0]])
    assert ensemble.scales(margins, np.ones(2)) == pytest.approx([np.std([3, -3, 4, -4]), 1, 5])
    # The second row weighs three times as much: (9 + 3 * 16) / 4.
    assert ensemble.scales(margins[:1], np.array([1.0, 3.0])) == pytest.approx([np.sqrt(57 / 4)])


def test_the_mean_gives_each_pair_the_same_say_whatever_its_unit():
    margins = np.array([[2.0, -2.0, 2.0, 2.0], [100.0, 100.0, -100.0, 100.0]])
    made = ensemble.recipe("mean", margins, ONES)
    assert made.scales.tolist() == [2, 100] and made.weights.tolist() == [0.5, 0.5]
    assert made.coefficients @ margins == pytest.approx([1, 0, 0, 1])


def test_fitted_weights_are_those_of_what_is_right():
    right, wrong, half = ONES, -ONES, np.array([1.0, -1.0, 1.0, -1.0])
    assert ensemble.fitted_weights(np.stack([right, wrong]), ONES) == pytest.approx([1, 0])
    assert ensemble.fitted_weights(np.stack([right, half]), ONES) == pytest.approx([1, 0], abs=1e-4)
    assert ensemble.fitted_weights(np.stack([right, right]), ONES) == pytest.approx([0.5, 0.5])
    # A pair that is right on three rows in four, twice: neither twin gets a negative weight.
    most = np.array([1.0, 1.0, 1.0, -1.0])
    found = ensemble.fitted_weights(np.stack([most, most, wrong]), ONES)
    assert found == pytest.approx([0.5, 0.5, 0], abs=1e-4)
    # No pair helps.
    assert ensemble.fitted_weights(np.stack([wrong, wrong]), ONES).tolist() == [0.5, 0.5]


def test_fitted_weights_are_those_of_a_logistic_regression():
    # One pair decides 4 rows, of which 3 are right: odds of 3, so its weight is log 3. The other decides 10 rows, of
    # which 9 are right: log 9, twice as much. The rows are there a thousand times, so the prior of one row is nothing.
    standard = np.zeros((2, 14))
    standard[0, :4], standard[1, 4:] = [1, 1, 1, -1], [1] * 9 + [-1]
    found = ensemble.fitted_weights(np.tile(standard, 1000), np.ones(14_000))
    assert found == pytest.approx([1 / 3, 2 / 3], abs=2e-3)
    # As the weight of its rows is 0, a pair has none.
    assert ensemble.fitted_weights(standard, np.repeat([1.0, 0.0], [4, 10])).tolist() == pytest.approx([1, 0], abs=1e-4)


def test_the_minimum_is_above_0_only_where_all_pairs_agree():
    standard = np.array([[3.0, 1.0, 0.0], [1.0, 0.5, 2.0]])
    found = ensemble.least_margins(standard)
    # 0 over 1: by 2 and by 0.5. 0 over 2: by 3 and by -1. 1 over 2: by 1 and by -1.5.
    assert found[0].tolist() == [0, 0.5, -1] and found[1, 2] == -1.5 and found[2, 0] == -3
    assert np.diag(found).tolist() == [0, 0, 0]


def test_passes_of_several_pairs_count_once():
    passes = {"a": "1", "b": "2", "c": "3", "twin of a": "1"}
    assert ensemble.distinct([("a", "b"), ("a", "c"), ("b", "c")], passes) == ["a", "b", "c"]
    assert len(ensemble.distinct([("a", "b"), ("twin of a", "c")], passes)) == 3


def world(margins: np.ndarray, n_problems: int) -> tuple[np.ndarray, Rows, Combine]:
    """Pairs with these margins, (pairs, rows), on rows of equal weight that share problems."""
    n_rows = margins.shape[1]
    cluster = np.arange(n_rows) % n_problems
    rows = Rows((("overall", "score"),), np.full((1, n_rows), 1 / n_rows), np.zeros(n_rows, dtype=int), cluster)
    names = [f"{i}" for i in range(len(margins))]
    flop = dict.fromkeys(("base", *names), 10.0)
    combine = Combine(
        margins,
        lambda c: (c @ margins > 0).astype(float),
        flop,
        dict.fromkeys(flop, 7.0),
        {side: side for side in flop},
        3,
    )
    return (margins > 0).astype(float), rows, combine


def board(n_pairs: int) -> pd.DataFrame:
    """Pairs "p0", "p1", … of a model each over one base."""
    names = [str(i) for i in range(n_pairs)]
    fixed = {"weak": "base", "gap_points": np.nan, "n_params": 14.0, "cost_flop": 20.0, "licence": "mit"}
    return pd.DataFrame({"pair_id": [f"p{name}" for name in names], "strong": names, **fixed})


def independent(n_pairs: int, n_rows: int, *, seed: int) -> np.ndarray:
    """Margins of pairs that are right on about two rows in three, each with its own unit and its own noise."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_pairs, n_rows)) + 0.45) * np.array([[1.0], [30.0], [0.1]])[:n_pairs]


def chosen(margins: np.ndarray, n_problems: int) -> pd.DataFrame:
    correct, rows, combine = world(margins, n_problems)
    rng = np.random.default_rng(1)
    return choose(board(len(margins)), correct, rows, Wish(), rng=rng, combine=combine).table.set_index("rule")


def test_an_ensemble_over_a_limit_is_left_out_and_an_ensemble_of_one_is_an_error():
    margins = independent(3, 60, seed=4)
    correct, rows, combine = world(margins, 60)

    def found(wish: Wish, combine: Combine = combine) -> Choice:
        return choose(board(3), correct, rows, wish, rng=np.random.default_rng(1), combine=combine)

    # A pair has two models of 7 parameters; three pairs over one base have four.
    assert "mean of 3" in found(Wish(max_params=28)).table["rule"].tolist() and not found(Wish(max_params=28)).notes
    small = found(Wish(max_params=27))
    assert small.table["rule"].tolist()[-1] == "random pair"
    assert small.notes == ("No ensemble of the best pairs: its n_params, 28, is over --max-params.",)
    assert found(Wish(budget_flop=39)).notes == (
        "No ensemble of the best pairs: its cost_flop, 40, is over --budget-flop.",
    )
    with pytest.raises(UsageError, match="--ensemble is 1: an ensemble has at least 2 pairs; 0 makes none"):
        found(Wish(), combine._replace(n_best=1))


def test_the_rows_of_an_ensemble_weigh_as_in_choose():
    half = Dataset("rb", "rb", "0", tuple(pair(subset, str(i)) for subset in SUBSET_WEIGHTS for i in range(3)))
    found = row_weights(half)
    for name, subsets in SECTIONS.items():
        inside = [example.subset in subsets for example in half.examples]
        assert found[inside].sum() == pytest.approx(1 / 4), name
    # RM-Bench judges each row nine times; rows of no benchmark, or of a part of one, are alike.
    assert row_weights(half._replace(examples=tuple(six("chat", i) for i in range(3)))) == pytest.approx([1 / 3] * 3)
    assert row_weights(half._replace(examples=half.examples[:7])).tolist() == [1] * 7


def test_a_mean_of_pairs_with_their_own_errors_beats_the_best_pair_and_says_what_it_costs():
    table = chosen(independent(3, 600, seed=4), 600)
    assert ("rule", *table.columns) == CHOICE
    mean, best = table.loc["mean of 3"], table.loc["best score"].iloc[0]
    # Three independent errors: the mean has a margin of 0.45 * sqrt(3) standard deviations, so 78% instead of 67%.
    assert 0.73 < mean["held_out"] < 0.83 and mean["over_best_low"] > 0
    assert mean["over_best"] == pytest.approx(mean["held_out"] - best["held_out"])
    assert (mean["n_passes"], mean["cost_flop"], mean["n_params"], best["n_passes"]) == (4, 40, 28, 2)
    assert set(mean["pair_id"].split(" + ")) == {"p0", "p1", "p2"}
    # All three are right on fewer rows than one alone.
    assert table.loc["minimum of 3", "over_best_high"] < 0
    assert "they agree on" in table.loc["minimum of 3", "why"]


def test_an_ensemble_of_equal_pairs_is_the_best_pair():
    one = independent(1, 200, seed=5)
    table = chosen(np.concatenate([one, 9 * one]), 200)
    for rule in ("mean of 2", "minimum of 2", "fitted of 2"):
        assert table.loc[rule, "over_best"] == 0
        assert -0.02 < table.loc[rule, "over_best_low"] < 0 < table.loc[rule, "over_best_high"] < 0.02


@pytest.mark.parametrize("rule", ["mean", "fitted"])
def test_a_problems_own_rows_do_not_change_how_it_is_judged(rule):
    margins = independent(3, 120, seed=6)
    correct, rows, combine = world(margins, 40)
    sample = Sample(rows.weights[0], rows.subset, rows.cluster)
    found = held_out(correct, sample, rng=np.random.default_rng(2), top=1)
    before = _cross_fitted(rule, correct, combine, sample, found.deals[0])
    # The three rows of problem 7 get another pair's scale in the fit; the judge keeps the true margins.
    mine = rows.cluster == 7
    changed = margins.copy()
    changed[0, mine] *= 1e4
    after = _cross_fitted(rule, correct, combine._replace(margins=changed), sample, found.deals[0])
    assert (before[:, mine] == after[:, mine]).all()
    assert (before[:, ~mine] != after[:, ~mine]).any()


def test_the_words_say_whether_an_ensemble_beats_the_best_pair():
    margins = independent(3, 600, seed=4)
    correct, rows, combine = world(margins, 600)
    words = choose(board(3), correct, rows, Wish(), rng=np.random.default_rng(1), combine=combine).words()
    assert "\nThe mean of 3 best pairs beats the best pair: +" in words
    assert "points on held-out problems, for 4 passes instead of 2." in words
    assert "\nThe minimum of 3 best pairs is worse than the best pair: -" in words
