"""A single model's accuracy, and its standard error by clusters."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.study.performance import PERFORMANCE, share, table


def test_items_that_are_alone_have_the_standard_error_of_a_mean():
    # Three of four right: the sample variance is 4 / 3 x 0.75 x 0.25 = 0.25, and 0.25 / 4 = 0.0625 = 0.25^2.
    assert share(np.array([1, 1, 1, 0]), np.arange(4)) == (0.75, pytest.approx(0.25))


def test_items_of_one_prompt_count_together():
    # Two prompts of two instructions, one all right, one all wrong: off by +1 and -1, sqrt(2 / 1 x 2) / 4.
    assert share(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])) == (0.5, pytest.approx(0.5))


def test_a_single_prompt_has_no_standard_error_and_no_item_no_accuracy():
    accuracy, stderr = share(np.array([1, 0]), np.array([7, 7]))
    assert accuracy == 0.5 and math.isnan(stderr)
    assert all(math.isnan(value) for value in share(np.array([]), np.array([], dtype=int)))


def test_the_table_has_the_whole_and_each_rule():
    items = pd.DataFrame(
        [("case", True, 0), ("comma", False, 0), ("comma", True, 1)], columns=["name", "right", "cluster"]
    )
    found = table(items, model_id="mine", task="ifeval", n_left_out=5, n_empty=1)
    assert tuple(found.columns) == PERFORMANCE
    assert found[["level", "name", "n_prompts", "n_items"]].to_numpy().tolist() == [
        ["overall", "score", 2, 3], ["rule", "case", 1, 1], ["rule", "comma", 2, 2],
    ]  # fmt: skip
    assert found["accuracy"].tolist() == [pytest.approx(2 / 3), 1.0, 0.5]
    assert found["n_left_out"].isna().tolist() == [False, True, True] and found["n_left_out"][0] == 5
