"""Which candidate is chosen, which rejected, and why a prompt is skipped: worked out by hand."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from bench.prefer.annotate import PREFERENCES, Filters, annotate
from bench.prefer.export import check_folder, data_card, length_bias, records, write_preferences
from bench.schema import Example, Message, UsageError


def prompts(*candidates: list[tuple[str, float | None]]) -> tuple[list[Example], pd.DataFrame]:
    """Examples "0", "1", … from (text, reward) candidates; None is a candidate that was not scored."""
    examples, rows = [], []
    for number, texts in enumerate(candidates):
        named = tuple((str(i), text) for i, (text, _) in enumerate(texts))
        examples.append(Example(str(number), "", (Message("user", "q"),), named))
        for i, (_, value) in enumerate(texts):
            rows.append(
                (str(number), str(i), np.nan if value is None else value, "too_long" if value is None else "ok")
            )
    return examples, pd.DataFrame(rows, columns=["example_id", "response_id", "reward", "status"])


def annotated(*candidates, seed: int = 0, **filters):
    return annotate(*prompts(*candidates), Filters(**filters), rng=np.random.default_rng(seed))


def test_a_folder_with_nothing_but_half_a_file_of_a_killed_run_takes_preferences(tmp_path):
    (tmp_path / ".0123456789abcdef.tmp").write_text('{"vari')
    check_folder(tmp_path, "candidates.jsonl")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="the folder has files that drsow annotate did not write"):
        check_folder(tmp_path, "candidates.jsonl")


def reasons(found) -> dict[str, str]:
    return dict(found.skipped.itertuples(index=False))


def test_the_highest_reward_is_chosen_and_the_lowest_rejected():
    found = annotated([("aa", 1.0), ("é", 3.5), ("c", -2.0), ("d", None)])
    assert tuple(found.preferences) == PREFERENCES
    assert found.preferences.iloc[0].tolist()[:-1] == ["0", "1", "2", 5.5, 3.5, -2.0, 2, 1, 3]
    assert np.isnan(found.preferences["confidence"][0])
    assert reasons(found) == {}


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([("a", 1.0), ("b", None)], "unscored"),
        ([("a", None), ("b", None)], "unscored"),
        ([("a", 1.0), ("a", 1.5), ("a", 0.0)], "equal"),
        ([("a", 1.0), ("b", 1.0), ("c", 1.0)], "tie"),
    ],
)
def test_a_prompt_that_teaches_nothing_is_skipped_with_its_reason(candidates, reason):
    found = annotated(candidates, [("a", 1.0), ("b", 0.0)])
    assert reasons(found) == {"0": reason}
    assert found.preferences["example_id"].tolist() == ["1"]


def test_the_rejected_is_never_the_chosen_text_under_another_number():
    found = annotated([("a", 2.0), ("a", -9.0), ("b", 1.0)]).preferences.iloc[0]
    assert (found["chosen_id"], found["rejected_id"], found["margin"]) == ("0", "2", 1.0)


def test_of_equal_rewards_the_first_candidate_counts():
    found = annotated([("a", 2.0), ("b", 2.0), ("c", 0.0), ("d", 0.0)]).preferences.iloc[0]
    assert (found["chosen_id"], found["rejected_id"]) == ("0", "2")


def test_a_random_rejected_is_any_but_the_best_and_hangs_on_the_seed():
    one = [("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 0.0)]
    drawn = annotated(*[one] * 300, rejected="random").preferences["rejected_id"]
    assert drawn.value_counts().between(70, 130).all() and set(drawn) == {"1", "2", "3"}
    assert drawn.tolist() == annotated(*[one] * 300, rejected="random").preferences["rejected_id"].tolist()
    assert drawn.tolist() != annotated(*[one] * 300, rejected="random", seed=1).preferences["rejected_id"].tolist()


FOUR = [
    [("aaaa", 1.0), ("b", 0.0)],  # margin 1, four times as long
    [("a", 9.0), ("b", 0.5)],  # margin 8.5
    [("a", 3.0), ("b", 1.0)],  # margin 2
    [("a", -1.0), ("b", -4.0)],  # margin 3, the poorest rejected response
]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"min_margin": 2.0}, {"0": "margin"}),
        ({"max_length_ratio": 2.0}, {"0": "length_ratio"}),
        ({"poorest_share": 0.25}, {"3": "rejected_quality"}),
        ({"poorest_share": 0.5}, {"3": "rejected_quality", "0": "rejected_quality"}),
        ({"widest_share": 0.25}, {"1": "reward_gap"}),
        # Of the three that the margin leaves, a third is one: the widest of them.
        ({"min_margin": 2.0, "widest_share": 0.34}, {"0": "margin", "1": "reward_gap"}),
        ({"poorest_share": 0.2, "widest_share": 0.2}, {}),
    ],
)
def test_each_filter_takes_what_it_says(filters, expected):
    found = annotated(*FOUR, **filters)
    assert reasons(found) == expected
    assert len(found.preferences) + len(found.skipped) == len(FOUR)
    assert found.skipped["example_id"].tolist() == sorted(expected)


def test_a_chosen_response_is_too_long_only_beside_a_shorter_rejected_one():
    twice, half = [("aaaa", 1.0), ("bb", 0.0)], [("aa", 1.0), ("bbbb", 0.0)]
    assert reasons(annotated(twice, half, max_length_ratio=1.9)) == {"0": "length_ratio"}
    assert reasons(annotated(twice, half, max_length_ratio=2.0)) == {}


@pytest.mark.parametrize(("share", "n_left_out"), [(0.29, 29), (0.57, 57), (0.299, 29), (0.07, 7), (0, 0), (1, 100)])
@pytest.mark.parametrize("name", ["poorest_share", "widest_share"])
def test_a_share_of_a_hundred_prompts_is_as_many_as_it_says(name, share, n_left_out):
    hundred = [[("a", 200.0), ("b", float(i))] for i in range(100)]
    assert len(annotated(*hundred, **{name: share}).skipped) == n_left_out


def tenths(frame: pd.DataFrame) -> np.ndarray:
    """A tenth of the margin as the confidence."""
    return frame["margin"].to_numpy(dtype=float) / 10


def test_a_label_that_is_not_sure_enough_is_skipped_and_the_others_say_how_sure_they_are():
    examples, rewards = prompts([("a", 9.0), ("b", 0.0)], [("a", 4.0), ("b", 0.0)], [("a", 6.0), ("b", 0.0)])
    filters = Filters(min_confidence=0.6)
    found = annotate(examples, rewards, filters, rng=np.random.default_rng(0), confidence=tenths)
    assert found.preferences[["example_id", "confidence"]].to_numpy().tolist() == [["0", 0.9], ["2", 0.6]]
    assert reasons(found) == {"1": "confidence"}
    # no labelled rows: nothing is sure
    assert set(reasons(annotate(examples, rewards, filters, rng=np.random.default_rng(0))).values()) == {"confidence"}


@pytest.mark.parametrize(
    ("confidence", "values", "said"),
    [
        (tenths, [0.9, 0.4], "- confidence: median 0.65, least 0.4, largest 0.9"),
        (None, [None, None], "- the column confidence is empty: it needs labels of 10 or more"),
    ],
)
def test_the_set_and_its_card_say_how_sure_each_label_is(tmp_path, confidence, values, said):
    examples, rewards = prompts([("a", 9.0), ("b", 0.0)], [("a", 4.0), ("b", 0.0)])
    found = annotate(examples, rewards, Filters(), rng=np.random.default_rng(0), confidence=confidence)
    rows = records(examples, found, rewards, {"0": "chat", "1": "chat"})
    card = data_card(found, length_bias(examples, found, rewards), {})
    write_preferences(tmp_path, rows, found.skipped, card, {})
    lines = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert [line["confidence"] for line in lines] == values
    column = pq.read_table(tmp_path / "preferences.parquet")["confidence"]
    assert column.to_pylist() == values and str(column.type) == "double"
    assert said in (tmp_path / "README.md").read_text()


def test_the_length_bias_is_the_mean_of_spearmans_rho_of_the_prompts_that_have_one():
    drawn = np.random.default_rng(0)
    candidates = [
        [("x" * int(drawn.integers(1, 4)), float(drawn.integers(4))) for _ in range(drawn.integers(2, 6))]
        for _ in range(40)
    ]
    columns = [list(zip(*((len(text), value) for text, value in each), strict=True)) for each in candidates]
    rhos = [spearmanr(*both).statistic for both in columns if all(len(set(values)) > 1 for values in both)]
    assert 0 < len(rhos) < 40
    examples, rewards = prompts(*candidates)
    found = annotate(examples, rewards, Filters(), rng=np.random.default_rng(0))
    assert length_bias(examples, found, rewards)["rho_length"] == pytest.approx(np.mean(rhos), abs=1e-12)
    equal, none = prompts([("a", 1.0), ("b", 2.0)])
    assert np.isnan(length_bias(equal, found, none)["rho_length"])


def test_an_ensemble_by_the_minimum_labels_what_all_pairs_agree_on():
    examples, rewards = prompts([("a", 0.0), ("b", 0.0), ("c", 0.0)], [("a", 0.0), ("b", 0.0)])
    # Of the first prompt: a over b by 2 and 0.5, a over c by 3 and -1, b over c by 1 and -1.5. Of the second: a over b
    # by 1 and -1.
    rewards["standard"] = [np.array(pair) for pair in ([3, 1], [1, 0.5], [0, 2], [1, 0], [0, 1])]
    found = annotate(examples, rewards, Filters(), rng=np.random.default_rng(0))
    row = found.preferences.iloc[0]
    assert (row["chosen_id"], row["rejected_id"], row["margin"]) == ("0", "1", 0.5)
    assert reasons(found) == {"1": "disagree"}


def test_a_random_rejected_of_an_ensemble_by_the_minimum_is_one_that_all_pairs_reject():
    one = [("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)]
    examples, rewards = prompts(*[one] * 100)
    # All pairs prefer a to b and to d; they disagree on a and c.
    rewards["standard"] = [np.array(pair) for pair in ([3, 1], [1, 0.5], [0, 2], [0, 0])] * 100
    found = annotate(examples, rewards, Filters(rejected="random"), rng=np.random.default_rng(0))
    assert found.skipped.empty
    assert found.preferences["rejected_id"].value_counts().between(30, 70).all()
    assert set(found.preferences["rejected_id"]) == {"1", "3"}
