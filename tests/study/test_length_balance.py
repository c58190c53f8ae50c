"""Length-balanced accuracy, worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import SUBSET_WEIGHTS, Example
from bench.study.benchmarks import Answers, benchmark_of
from bench.study.interval import wilson
from bench.study.length_balance import LENGTH_BALANCED, Lengths, length_balanced, length_note
from bench.study.metrics import measured

NAN = float("nan")


def balanced(rows: list[tuple[float, int]], *, subsets: list[str] | None = None, problems: list[int] | None = None):
    """The table of (1 right, 0 wrong or NaN; bytes of right minus bytes of wrong) rows."""
    values, difference = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    examples = [Example(str(i), s, (), (), ("chosen",)) for i, s in enumerate(subsets or [""] * len(rows))]
    runs = pd.DataFrame({"pair_id": ["p"], "reward": ["sum"]})
    answers = Answers(values[None], np.zeros((1, len(rows)), dtype=bool))
    alone = Lengths((difference > 0) * 1.0, (difference < 0) * 1.0, difference == 0)
    layout = benchmark_of(examples).layout(examples)
    numbers = np.arange(len(rows)) if problems is None else np.array(problems)
    return length_balanced(runs, answers, alone, layout, numbers), measured(runs, answers, layout, numbers)


def score(rows: list[tuple[float, int]], **more: list[int]) -> pd.Series:
    return balanced(rows, **more)[0].iloc[0]


def test_rows_whose_longer_response_is_right_weigh_as_much_as_the_others():
    # right on 2 of 3 where the longer one is right, wrong on the one row where it is not: (2/3 + 0) / 2
    found = score([(1, 5), (1, 9), (0, 2), (0, -3)])
    assert found["accuracy"] == 0.5
    assert found["balanced"] == pytest.approx(1 / 3)
    assert (found["longer"], found["shorter"]) == (0.75, 0.25)
    assert (found["n_longer"], found["n_shorter"], found["n_equal"], found["n_excluded"]) == (3, 1, 0, 0)


def test_a_judge_of_length_alone_scores_one_half_in_either_direction():
    sizes = [4, 1, 9, -2, 7]
    assert score([(float(size > 0), size) for size in sizes])["balanced"] == pytest.approx(0.5)
    assert score([(float(size < 0), size) for size in sizes])["balanced"] == pytest.approx(0.5)


def test_rows_of_equal_length_keep_their_weight():
    # a quarter of the rows is equally long and right; of the others 1/1 where longer and 0/2 where shorter is right
    found = score([(1, 0), (1, 3), (0, -1), (0, -2)])
    assert found["balanced"] == pytest.approx(0.25 * 1 + 0.75 * (1 + 0) / 2)
    assert found["n_equal"] == 1
    # an equal length decides nothing, so it is wrong for both judges of length
    assert (found["longer"], found["shorter"]) == (0.25, 0.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_where_length_says_the_label_of_every_row_there_is_no_balanced_accuracy(sign):
    found = score([(1, sign * 5), (0, sign * 2)])
    assert found["accuracy"] == 0.5
    assert found[["balanced", "low", "high"]].isna().all()
    assert found["as_good"] == ("longer" if sign > 0 else "shorter")


def test_an_excluded_row_has_no_weight_and_is_counted():
    with_it, without = score([(1, 5), (NAN, 5), (0, -3)]), score([(1, 5), (0, -3)])
    assert with_it["balanced"] == without["balanced"] == 0.5
    assert (with_it["n_longer"], with_it["n_excluded"]) == (1, 1)


def test_length_alone_is_as_good_where_it_is_right_as_often_as_the_pair():
    assert score([(1, 5), (1, 9), (0, 2), (0, -3)])["as_good"] == "longer"
    assert score([(1, -5), (1, -9), (1, -2), (0, 3)])["as_good"] == "shorter"
    # 3/4 beats 1/2 in both directions
    assert score([(1, 5), (1, -9), (1, -2), (0, 3)])["as_good"] == ""


def test_length_that_is_never_right_is_as_good_as_no_pair():
    # equal lengths: both judges of length score 0, as the pair does
    table = balanced([(0, 0), (0, 0)])[0]
    assert (table.loc[0, "longer"], table.loc[0, "shorter"], table.loc[0, "as_good"]) == (0.0, 0.0, "")
    assert length_note(table, "p") == ""


@pytest.mark.parametrize("sign", [1, -1])
def test_length_is_said_to_decide_every_row_only_where_it_does(sign):
    decides = "Length decides the label of every row"
    assert decides in length_note(balanced([(1, sign * 5), (0, sign * 2)])[0], "p")
    # the third row has equal lengths, so no judge of length decides it
    said = length_note(balanced([(1, sign * 5), (0, sign * 2), (0, 0)])[0], "p")
    rows = "every row" if sign > 0 else "no row"
    assert said.endswith(
        f"The longer response is right in {rows} of different lengths, so there is nothing to balance with."
    )
    assert decides not in said


def test_the_longest_response_can_be_wrong_where_the_shortest_is_wrong_too():
    # Of three responses the right one is the shortest in row 0 and the middle one in row 1.
    examples = [Example(str(i), "", (), (), ("0",)) for i in range(2)]
    layout, runs = benchmark_of(examples).layout(examples), pd.DataFrame({"pair_id": ["p"], "reward": ["sum"]})
    answers = Answers(np.array([[0.0, 1.0]]), np.zeros((1, 2), dtype=bool))
    alone = Lengths(np.zeros(2), np.array([1.0, 0.0]), np.zeros(2, dtype=bool))
    said = length_note(length_balanced(runs, answers, alone, layout, np.arange(2)), "p")
    assert said == (
        "Warning: always preferring the shorter response scores 50.0%, and p scores 50.0%. The longer response is "
        "right in no row of different lengths, so there is nothing to balance with."
    )


def test_the_interval_is_wilsons_with_the_variance_of_each_side():
    # Weights 1/6, 1/6, 1/6 and 1/2. With a right and a wrong row added, the sides have the accuracies 3/5 and 1/3, so
    # the variance is 3/36 6/25 + 1/4 2/9, and that of one row (3/5 + 1/3) / 2 = 7/15 less its square.
    found = score([(1, 5), (1, 9), (0, 2), (0, -3)])
    n = 7 / 15 * 8 / 15 / (3 / 36 * 6 / 25 + 1 / 4 * 2 / 9)
    assert (found["low"], found["high"]) == pytest.approx(tuple(wilson(np.array(1 / 3), np.array(n))))
    # Rows 0 and 1 are one problem: 1 / ((2/3)^2 + (1/3)^2) = 9/5 of them on their side.
    found = score([(1, 5), (1, 9), (0, 2), (0, -3)], problems=[0, 0, 1, 2])
    safe = (9 / 5 * 2 / 3 + 1) / (9 / 5 + 2)
    whole = (safe + 1 / 3) / 2
    n = whole * (1 - whole) / ((4 + 1) / 36 * safe * (1 - safe) + 1 / 4 * 2 / 9)
    assert (found["low"], found["high"]) == pytest.approx(tuple(wilson(np.array(1 / 3), np.array(n))))


def test_the_interval_holds_the_truth_where_a_rare_side_is_judged_worse():
    # 900 rows whose longer response is right, judged at 99%, and 100 judged at 90%: the truth is 94.5%.
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        right = rng.random(1000) < np.repeat([0.99, 0.90], [900, 100])
        found = score(list(zip(right.astype(float), np.repeat([1, -1], [900, 100]), strict=True)))
        hits += found["low"] <= 0.945 <= found["high"]
    assert hits >= 276  # of 285 expected; before, 89% of the intervals held it


def test_every_part_has_the_accuracy_of_its_table_and_a_section_balances_its_rows_together():
    # Each subset has a right row whose longer response is right and a wrong row whose longer one is wrong, but in
    # alpacaeval-easy the longer one is right in both.
    subsets = [subset for subset in SUBSET_WEIGHTS for _ in range(2)]
    rows = [(float(i % 2 == 0), 5 if i % 2 == 0 or i < 2 else -5) for i in range(len(subsets))]
    table, accuracy = balanced(rows, subsets=subsets)
    assert tuple(table.columns) == LENGTH_BALANCED
    assert table[["level", "name"]].equals(accuracy[["level", "name"]])
    np.testing.assert_allclose(table["accuracy"], accuracy["accuracy"], atol=1e-12)
    named = table.set_index("name")
    assert np.isnan(named.loc["alpacaeval-easy", "balanced"])
    # chat: of 358, easy has weight 100, half of it a wrong row whose longer response is right; the rest is balanced
    longer_right, longer_wrong = (50 + 129) / (50 + 179), 0
    assert named.loc["chat", "balanced"] == pytest.approx((longer_right + longer_wrong) / 2)


def test_a_part_without_rows_is_missing_never_zero():
    table, _ = balanced([(1, 5), (0, -5)], subsets=["math-prm", "math-prm"])
    named = table.set_index("name")
    assert named.loc["score", ["accuracy", "balanced", "longer"]].isna().all()
    assert named.loc["score", "as_good"] == ""
    assert named.loc["math-prm", "balanced"] == 0.5
