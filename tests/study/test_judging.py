"""What a tuning brought: measures that can be worked out by hand, and an interval that covers the truth."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import OK, TOO_LONG
from bench.study.judging import JUDGED, judge
from bench.verbs.judge import judged_table


def judged(
    before: dict, after: dict, texts: dict | None = None, *, status: dict | None = None, problems: dict | None = None
) -> pd.DataFrame:
    """JUDGED by measure, of rewards a prompt; a text is as many letters as its number."""
    rows = [
        (name, side, value, (status or {}).get((name, side), OK))
        for side, by_prompt in (("before", before), ("after", after))
        for name, values in by_prompt.items()
        for value in values
    ]
    table = pd.DataFrame(rows, columns=["prompt_id", "side", "reward", "status"])
    texts = texts or {
        side: {name: ["x"] * len(values) for name, values in by_prompt.items()}
        for side, by_prompt in (("before", before), ("after", after))
    }
    numbers = {name: number for number, name in enumerate(texts["before"])}
    found = [["p", "no", "sum", *row] for row in judge(table, texts, problems or numbers)]
    return pd.DataFrame(found, columns=list(JUDGED)).set_index("measure")


def test_measures_by_hand():
    found = judged({"a": [0.0, 2.0], "b": [5.0, 5.0]}, {"a": [1.0, 3.0], "b": [5.0, 4.0]})
    # Prompt a: 1 beats 0 and not 2, 3 beats both: 3 of 4. Prompt b: 5 ties twice, 4 loses twice: 1 of 4.
    assert found.loc["win_rate", ["before", "after", "difference"]].tolist() == [0.5, 0.5, 0.0]
    # Means 1 and 5 before, 2 and 4.5 after.
    assert found.loc["reward", ["before", "after", "difference"]].tolist() == [3.0, 3.25, 0.25]
    # Differences of 1 and -0.5: a standard error of 0.75, and Student's t with one degree of freedom is 12.706.
    assert found.loc["reward", ["low", "high"]].tolist() == pytest.approx(
        [0.25 - 12.706 * 0.75, 0.25 + 12.706 * 0.75], abs=1e-3
    )
    assert found.loc["reward", ["n_prompts", "n_before", "n_after"]].tolist() == [2, 4, 4]


def test_an_empty_response_loses_and_has_no_reward():
    texts = {"before": {"a": ["x", "x"]}, "after": {"a": ["", "xyz"]}}
    found = judged({"a": [0.0, 0.0]}, {"a": [1.0]}, texts)
    assert found.loc["win_rate", "after"] == 0.5
    assert found.loc["reward", "after"] == 1.0
    assert found.loc["bytes", ["before", "after"]].tolist() == [1.0, 1.5]
    assert found.loc["bytes", ["n_empty_before", "n_empty_after"]].tolist() == [0, 1]


def test_what_was_too_long_is_counted_and_left_out():
    found = judged({"a": [0.0], "b": [0.0]}, {"a": [1.0], "b": [9.0]}, status={("b", "after"): TOO_LONG})
    assert found.loc["reward", ["after", "n_prompts", "n_excluded"]].tolist() == [1.0, 1, 1]


def test_responses_of_one_prompt_are_no_separate_evidence():
    # Eight responses a prompt that all say the same: the interval is that of one response per prompt.
    rng = np.random.default_rng(1)
    values = rng.normal(size=40)
    start = {str(i): [0.0] for i in range(40)}
    one = judged(start, {str(i): [v] for i, v in enumerate(values)})
    many = judged(start, {str(i): [v] * 8 for i, v in enumerate(values)})
    assert many.loc["reward", ["low", "high"]].tolist() == one.loc["reward", ["low", "high"]].tolist()


def test_equal_prompts_are_no_separate_evidence():
    rng = np.random.default_rng(1)
    values, start = rng.normal(size=40), {str(i): [0.0] for i in range(40)}
    one = judged(start, {str(i): [v] for i, v in enumerate(values)})
    # Every prompt is in the file three times.
    names = [(str(i), f"{i}-{copy}") for i in range(40) for copy in range(3)]
    thrice = judged(
        {name: [0.0] for _, name in names},
        {name: [values[int(prompt)]] for prompt, name in names},
        problems={name: int(prompt) for prompt, name in names},
    )
    columns = ["difference", "low", "high"]
    for measure in ("reward", "win_rate"):
        assert thrice.loc[measure, columns].tolist() == pytest.approx(one.loc[measure, columns].tolist(), abs=0.01)
    assert thrice["n_prompts"].tolist() == [120] * 3


def test_a_prompt_that_is_there_more_often_has_more_weight_and_the_limits_by_hand():
    # The prompts a and b are equal. The gaps are 1, 3 and 2, with the mean 2. The deviations of the two problems are
    # -1 + 1 = 0 and 0, so the interval has no width, where three separate prompts have one.
    start, after = {name: [0.0] for name in "abc"}, {"a": [1.0], "b": [3.0], "c": [2.0]}
    row = judged(start, after, problems={"a": 0, "b": 0, "c": 1}).loc["reward"]
    assert row[["difference", "low", "high"]].tolist() == [2.0, 2.0, 2.0]
    # Gaps of 1, 1 and 4: deviations of -2 and 2 from the mean 2, times 2 problems over 3 prompts. Their standard error
    # is 4 / 3, and Student's t with one degree of freedom is 12.706.
    row = judged(start, {"a": [1.0], "b": [1.0], "c": [4.0]}, problems={"a": 0, "b": 0, "c": 1}).loc["reward"]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([2, 2 - 16.941, 2 + 16.941], abs=1e-3)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(200):
        start = {str(i): [0.0] for i in range(32)}
        row = judged(start, {str(i): [v] for i, v in enumerate(rng.normal(0.3, 1, size=32))}).loc["reward"]
        hits += row["low"] <= 0.3 <= row["high"]
    assert hits == pytest.approx(190, abs=12)


def test_a_win_rate_of_all_prompts_has_a_width():
    found = judged({str(i): [0.0] for i in range(8)}, {str(i): [1.0] for i in range(8)}).loc["win_rate"]
    # Wilson's lower limit of 8 of 8 is 8 / (8 + 1.96²).
    assert (found["after"], found["high"]) == (1.0, 0.5)
    assert found["low"] == pytest.approx(8 / (8 + 1.959964**2) - 0.5, abs=1e-6)


def test_one_prompt_has_no_interval():
    found = judged({"a": [0.0, 1.0]}, {"a": [1.0, 2.0]})
    assert found[["low", "high"]].isna().all(axis=None)
    assert found["difference"].notna().all()


def test_the_table_prints_no_limits_where_there_are_none():
    text = judged_table(judged({"a": [0.0]}, {"a": [1.0]}).reset_index()[list(JUDGED)])
    assert "nan" not in text
    assert "| 0 | 1 | +1 |" in text


@pytest.mark.parametrize("status", [OK, TOO_LONG])
def test_the_table_names_the_responses_that_were_left_out_if_there_are_any(status):
    found = judged({"a": [0.0], "b": [0.0]}, {"a": [1.0], "b": [9.0]}, status={("b", "after"): status}).reset_index()
    text = judged_table(found[list(JUDGED)])
    assert text.endswith("are too long or have a score that is not finite: p 1.\n") == (status == TOO_LONG)
    assert ("left out" in text) == (status == TOO_LONG)
