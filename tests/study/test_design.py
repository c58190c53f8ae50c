"""Pairs, rows and problems as the statistics see them."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.schema import SUBSET_WEIGHTS, Example, Message
from bench.study.design import (
    Judged,
    Rows,
    accuracy,
    judged,
    on_axis,
    oriented,
    performance_of,
    plain_accuracy,
    prompt_clusters,
    rows_of,
    study_of,
)

NAN = float("nan")
PAIRS = pd.DataFrame({"strong": ["b", "c", "c"], "weak": ["a", "a", "b"], "family": "f"})
ONE_SUBSET = Rows((("overall", "score"),), np.full((1, 4), 0.25), np.zeros(4, dtype=int), np.arange(4))


def example(subset: str, number: str, prompt: str) -> Example:
    return Example(f"{subset}/{number}", subset, (Message("user", prompt),), ())


def test_models_are_numbered_and_pairs_point_at_them():
    study = study_of(PAIRS)
    assert study.model_ids[study.strong].tolist() == ["b", "c", "c"]
    assert study.model_ids[study.weak].tolist() == ["a", "a", "b"]
    assert study.family.tolist() == ["f"] * 3


def test_a_model_in_two_families_is_refused():
    with pytest.raises(ValueError, match="c: this model is in pairs of more than one family"):
        study_of(PAIRS.assign(family=["f", "f", "g"]))


@pytest.mark.parametrize("last", [("b", "b"), ("a", "b")])
def test_a_pair_stands_once_and_has_two_models(last):
    strong, weak = last
    pairs = pd.DataFrame({"strong": ["b", strong], "weak": ["a", weak], "family": "f"})
    with pytest.raises(ValueError, match=f"{strong}, {weak}: a pair has two different models"):
        study_of(pairs)


def test_a_model_without_a_score_takes_its_pairs_with_it():
    study = study_of(PAIRS)
    answers = judged(np.array([[1.0], [2.0], [3.0]]))
    axis = on_axis(study, answers, performance_of(study, {"a": 1.0, "b": 4.0}))
    assert axis.study.model_ids.tolist() == ["b", "a"]
    assert (axis.study.strong.tolist(), axis.study.weak.tolist()) == ([0], [1])
    assert axis.gap.tolist() == [3.0]
    assert axis.answers.forward.shape == (1, 1)


def test_an_axis_that_turns_a_pair_round_turns_its_answers():
    study = study_of(PAIRS.iloc[:1])
    answers = judged(np.array([[1.0, -1.0, 0.0, 2.0]]))
    assert oriented(on_axis(study, answers, np.array([5.0, 1.0]))).tolist() == [[1, 0, 0, 1]]
    assert oriented(on_axis(study, answers, np.array([1.0, 5.0]))).tolist() == [[0, 1, 0, 0]]
    assert oriented(on_axis(study, answers, np.array([3.0, 3.0]))).tolist() == [[1, 0, 0, 1]]


def test_equal_scores_of_a_decimal_board_make_a_gap_of_0():
    study = study_of(PAIRS.iloc[:1])
    axis = on_axis(study, judged(np.zeros((1, 1))), np.array([0.1 + 0.2, 0.3]))
    assert axis.gap.tolist() == [0.0]


def test_a_tie_is_wrong_both_ways_and_a_missing_row_is_left_out():
    answers = judged(np.array([[0.5, -0.5, 0.0, NAN]]))
    np.testing.assert_equal(answers, Judged(np.array([[1, 0, 0, NAN]]), np.array([[0, 1, 0, NAN]])))
    forward, turned = (plain_accuracy(side, ONE_SUBSET)[0, 0] for side in answers)
    assert (forward, turned) == pytest.approx((1 / 3, 1 - 1 / 3 - 1 / 3))


def test_pairs_that_differ_only_by_rounding_are_ties():
    rows = ONE_SUBSET._replace(weights=np.array([[0.1, 0.2, 0.3, 0.4]]), subset=np.arange(4))
    # 0.1 + 0.2 is more than 0.3 in binary
    first, second = plain_accuracy(np.array([[1.0, 1, 0, 0], [0, 0, 1, 0]]), rows)[0]
    assert first == second


def test_a_row_counted_twice_is_two_rows_and_its_subset_keeps_its_weight():
    # two subsets, of weight 0.8 and 0.2
    rows = Rows((("overall", "score"),), np.array([[0.4, 0.4, 0.1, 0.1]]), np.array([0, 0, 1, 1]), np.arange(4))
    correct = np.array([[1.0, 0, 1, 0]])
    times = np.array([[1.0, 1, 1, 1], [2, 1, 0, 3]])
    assert accuracy(correct, rows, times)[:, 0, 0] == pytest.approx([0.5, 0.8 * 2 / 3 + 0])


def test_a_subset_without_a_counted_row_is_missing_only_where_it_is_needed():
    levels = (("overall", "score"), ("section", "chat"))
    rows = Rows(levels, np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 1]), np.arange(2))
    np.testing.assert_equal(plain_accuracy(np.array([[1.0, NAN]]), rows), [[NAN], [1.0]])


def test_levels_are_the_score_and_every_whole_section():
    whole = [example(subset, "1", subset) for subset in SUBSET_WEIGHTS]
    names = [name for _, name in rows_of(whole).levels]
    assert names == ["score", "chat", "chat-hard", "safety", "reasoning"]
    assert [name for _, name in rows_of(whole[:-1]).levels] == ["chat", "chat-hard", "safety"]
    assert rows_of(whole).weights.sum(axis=1) == pytest.approx([1.0] * 5)


def test_other_data_has_a_plain_score():
    rows = rows_of([example("mine", "1", "a"), example("mine", "2", "b"), example("yours", "1", "c")])
    assert rows.levels == (("overall", "score"),)
    assert rows.weights.tolist() == [[1 / 3] * 3]
    assert rows.subset.tolist() == [0, 0, 0]


def test_equal_prompts_and_one_problem_in_several_languages_are_one_cluster():
    examples = [
        example("alpacaeval-easy", "30", "Name a fish."),
        example("alpacaeval-hard", "900", "Name a fish."),
        example("hep-python", "3692", "In Python"),
        example("hep-go", "3856", "In Go"),
        example("hep-go", "3857", "In Go, another"),
        example("math-prm", "3692", "A sum"),
        example("hep-js", "first", "No number"),
    ]
    assert prompt_clusters(examples).tolist() == [0, 0, 1, 1, 2, 3, 4]


def test_clusters_chain():
    examples = [example("hep-go", "1", "a"), example("hep-js", "1", "b"), example("mine", "7", "b")]
    assert prompt_clusters(examples).tolist() == [0, 0, 0]


def test_rewardbench_has_1913_problems():
    if "DRSOW_REWARDBENCH" not in os.environ:
        pytest.skip("DRSOW_REWARDBENCH is not set")
    lines = Path(os.environ["DRSOW_REWARDBENCH"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    clusters = pd.Series(prompt_clusters([example(r["subset"], str(r["id"]), r["prompt"]) for r in rows]))
    # 2,733 prompt texts; 984 HumanEvalPack rows are 164 problems
    assert clusters.nunique() == 2733 - 984 + 164
    code = clusters[[r["subset"].startswith("hep-") for r in rows]]
    assert (code.value_counts() == 6).all()
