"""Accuracy by subset, section and overall, against hand-worked tables and RewardBench's own function."""

import ast
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from part_weights import weights_vector

from bench.schema import ACCURACY, MARGINS, SECTIONS, SUBSET_WEIGHTS
from bench.study.benchmarks import Answers, Layout, Part
from bench.study.benchmarks.reward_bench import subset_shares
from bench.study.metrics import accuracy, accuracy_by_length, measured

NAN = float("nan")


def margins(by_subset: dict[str, list[float]], *, pair_id: str = "p", reward: str = "sum") -> pd.DataFrame:
    """MARGINS with the given margins; NaN becomes a row that was too long."""
    rows = [
        (pair_id, reward, f"{subset}/{row}", subset, value, "too_long" if np.isnan(value) else "ok")
        for subset, values in by_subset.items()
        for row, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(MARGINS))


def full(**changes: list[float]) -> dict[str, list[float]]:
    """Every RewardBench subset with one right and one wrong row, but for the changes."""
    return {subset: changes.get(subset, [1.0, -1.0]) for subset in SUBSET_WEIGHTS}


def row(frame: pd.DataFrame, name: str) -> pd.Series:
    (found,) = [series for _, series in frame[frame["name"] == name].T.items()]
    return found


def test_columns_and_order_are_the_schemas():
    frame = accuracy(margins(full()))
    assert tuple(frame.columns) == ACCURACY
    assert frame["level"].tolist() == ["overall"] + ["section"] * 4 + ["subset"] * 23
    assert frame["name"].tolist()[:5] == ["score", "chat", "chat-hard", "safety", "reasoning"]


def test_a_tie_counts_as_wrong_and_is_counted():
    found = row(accuracy(margins({"mine": [2.0, 0.0, -1.0, 0.5]})), "mine")
    assert (found["accuracy"], found["tie_rate"], found["n_ties"], found["n_examples"]) == (0.5, 0.25, 1, 4)


def test_a_row_without_a_margin_is_left_out_and_counted():
    found = row(accuracy(margins({"mine": [2.0, NAN, -1.0, NAN, 1.0]})), "mine")
    assert (found["accuracy"], found["n_examples"], found["n_excluded"]) == (2 / 3, 3, 2)


def test_a_section_weighs_its_subsets_and_the_score_is_the_sections_plain_mean():
    # reasoning: maths 1.0 at 984, hep-cpp 0.0 at 164, five more at 0.5 and 164 each
    frame = accuracy(margins(full(**{"math-prm": [1.0, 1.0, 3.0], "hep-cpp": [-1.0, -1.0]})))
    reasoning = (984 * 1.0 + 164 * 0.0 + 5 * 164 * 0.5) / 1968
    assert row(frame, "reasoning")["accuracy"] == pytest.approx(reasoning, abs=1e-15)
    assert row(frame, "chat")["accuracy"] == pytest.approx(0.5, abs=1e-15)
    assert row(frame, "score")["accuracy"] == pytest.approx((reasoning + 1.5) / 4, abs=1e-15)
    assert row(frame, "score")["n_examples"] == 23 * 2 + 1


def test_standard_errors_are_binomial_and_propagate_with_the_weights():
    frame = accuracy(margins(full()))
    subset = np.sqrt(0.5 * 0.5 / 2)
    assert row(frame, "hep-go")["stderr"] == pytest.approx(subset)
    chat = subset * np.sqrt(100**2 + 95**2 + 95**2 + 28**2 + 40**2) / 358
    assert row(frame, "chat")["stderr"] == pytest.approx(chat)
    sections = [row(frame, section)["stderr"] for section in SECTIONS]
    assert row(frame, "score")["stderr"] == pytest.approx(np.sqrt(np.square(sections).sum()) / 4)


def test_turning_a_pair_round_gives_one_minus_accuracy_minus_tie_rate_at_every_level():
    rng = np.random.default_rng(5)
    there = margins({subset: rng.integers(-2, 3, 9).astype(float).tolist() for subset in SUBSET_WEIGHTS})
    back = there.assign(margin_nats=-there["margin_nats"])
    forward, backward = accuracy(there), accuracy(back)
    np.testing.assert_allclose(1 - forward["accuracy"] - forward["tie_rate"], backward["accuracy"], atol=1e-12)


@pytest.mark.parametrize("missing", ["absent", "excluded"])
def test_a_missing_subset_makes_its_section_and_the_score_missing_never_zero(missing):
    by_subset = full(**{"hep-js": [NAN, NAN]})
    if missing == "absent":
        del by_subset["hep-js"]
    frame = accuracy(margins(by_subset))
    for name in ("reasoning", "score"):
        assert np.isnan(row(frame, name)["accuracy"])
        assert np.isnan(row(frame, name)["stderr"])
        assert np.isnan(row(frame, name)["tie_rate"])
    assert row(frame, "chat")["accuracy"] == 0.5
    assert row(frame, "reasoning")["n_excluded"] == (2 if missing == "excluded" else 0)


def test_other_data_have_a_plain_score_and_no_sections():
    frame = accuracy(margins({"mine": [1.0, 1.0, 1.0], "math-prm": [-1.0]}))
    assert frame["level"].tolist() == ["overall", "subset", "subset"]
    assert row(frame, "score")["accuracy"] == 0.75
    assert row(frame, "score")["stderr"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4))


def test_data_without_subsets_have_a_score():
    frame = accuracy(margins({"": [1.0, -1.0]}))
    assert frame["name"].tolist() == ["score", ""]


def test_pairs_and_rewards_are_kept_apart_in_the_order_they_come():
    frame = accuracy(
        pd.concat(
            [
                margins({"mine": [1.0, 1.0]}, pair_id="z"),
                margins({"mine": [1.0, -1.0]}, pair_id="z", reward="mean"),
                margins({"mine": [-1.0, -1.0]}, pair_id="a"),
            ]
        )
    )
    assert frame["pair_id"].tolist() == ["z"] * 4 + ["a"] * 2
    assert frame["reward"].tolist() == ["sum", "sum", "mean", "mean", "sum", "sum"]
    assert frame["accuracy"].tolist() == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("name", ["score", *SECTIONS])
def test_the_weights_give_the_same_accuracy_as_the_table(name):
    rng = np.random.default_rng(7)
    frame = margins({subset: rng.normal(size=rng.integers(1, 30)).tolist() for subset in SUBSET_WEIGHTS})
    weights = weights_vector(frame["subset"], name=name)
    assert weights.sum() == pytest.approx(1)
    correct = (frame["margin_nats"] > 0).to_numpy()
    assert correct @ weights == pytest.approx(row(accuracy(frame), name)["accuracy"], abs=1e-12)


def test_the_weights_of_other_data_are_plain():
    assert weights_vector(pd.Series(["x", "y", "y", "y"])).tolist() == [0.25] * 4


def test_the_weights_are_missing_where_a_subset_is():
    frame = margins({subset: [1.0] for subset in SUBSET_WEIGHTS if subset != "hep-js"})
    assert np.isnan(weights_vector(frame["subset"])).all()
    assert np.isnan(weights_vector(frame["subset"], name="reasoning")).all()
    assert weights_vector(frame["subset"], name="chat").sum() == pytest.approx(1)


def test_every_subset_lies_in_one_section_and_the_shares_sum_to_one():
    assert sorted(subset for names in SECTIONS.values() for subset in names) == sorted(SUBSET_WEIGHTS)
    assert all(sum(subset_shares(section).values()) == pytest.approx(1) for section in SECTIONS)
    assert subset_shares("reasoning")["math-prm"] == 0.5


def test_a_subsets_interval_is_wilsons():
    # 8 right of 10 at z = 1.96: 0.490 to 0.943 (Wilson 1927)
    found = row(accuracy(margins({"mine": [1.0] * 8 + [-1.0] * 2})), "mine")
    assert (round(found["low"], 3), round(found["high"], 3)) == (0.490, 0.943)


def test_an_interval_of_all_right_rows_has_a_width():
    found = row(accuracy(margins({"mine": [1.0] * 8})), "mine")
    assert found["high"] == 1.0
    assert found["low"] == pytest.approx(8 / (8 + 1.959964**2), abs=1e-6)


def test_the_score_and_its_only_subset_have_one_interval():
    frame = accuracy(margins({"mine": [1.0] * 8 + [-1.0] * 2}))
    assert row(frame, "score")[["stderr", "low", "high"]].equals(row(frame, "mine")[["stderr", "low", "high"]])


def test_the_score_of_equal_pairs_of_rows_has_less_evidence_than_its_rows():
    frame = accuracy(margins(full()))
    score = row(frame, "score")
    # 46 rows, but maths weighs as all code together: fewer than 46 that count alike
    n = 46
    plain = 1.959964 / (1 + 1.959964**2 / n) * np.sqrt(0.25 / n + 1.959964**2 / (4 * n * n))
    assert score["low"] < 0.5 - plain
    assert score["high"] == pytest.approx(1 - score["low"])


def test_rows_of_one_problem_are_one_piece_of_evidence():
    frame = margins({"mine": [1.0, 1.0, -1.0, 1.0] * 3})
    problems = pd.Series(np.tile(np.arange(4), 3), index=frame["example_id"])
    apart, together = row(accuracy(frame), "mine"), row(accuracy(frame, problems), "mine")
    assert together["accuracy"] == apart["accuracy"] == 0.75
    # four problems that are each judged alike three times: sqrt(0.75 x 0.25 / 4) instead of / 12
    assert together["stderr"] == pytest.approx(np.sqrt(0.1875 / 4))
    assert apart["stderr"] == pytest.approx(np.sqrt(0.1875 / 12))
    assert together["low"] < apart["low"] < apart["high"] < together["high"]


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_one_row_has_no_interval(value):
    frame = accuracy(margins({"mine": [value]}))
    assert frame[["low", "high"]].isna().all(axis=None)
    assert frame["accuracy"].notna().all()


def test_one_problem_however_many_rows_has_no_interval():
    frame = margins({"mine": [1.0, 1.0, -1.0]})
    assert accuracy(frame, pd.Series(7, index=frame["example_id"]))[["low", "high"]].isna().all(axis=None)


def test_a_subset_of_one_row_takes_the_interval_from_its_section_and_the_score():
    frame = accuracy(margins(full(**{"mt-bench-hard": [1.0]})))
    for name in ("mt-bench-hard", "chat-hard", "score"):
        assert row(frame, name)[["low", "high"]].isna().all()
        assert np.isfinite(row(frame, name)["accuracy"])
    assert row(frame, "chat")[["low", "high"]].notna().all()


def test_an_interval_is_missing_where_the_accuracy_is():
    frame = accuracy(margins({"hep-js": [1.0, -1.0]}))
    assert row(frame, "hep-js")[["low", "high"]].notna().all()
    assert row(frame, "reasoning")[["low", "high"]].isna().all()


def test_accuracy_is_counted_in_bins_of_length_difference():
    frame = margins({"mine": [-1.0, -1.0, 1.0, 0.0, 1.0, NAN, *[1.0] * 14]})
    difference = pd.Series([-90, -50, -10, 20, 30, 70, *range(80, 94)], index=frame["example_id"])
    found = accuracy_by_length(frame, difference)
    assert len(found) == 10
    found = found.iloc[:3]
    assert found["length_low_bytes"].tolist() == [-90, -10, 30]
    assert found["length_high_bytes"].tolist() == [-50, 20, 70]
    assert found["accuracy"].tolist() == [0.0, 0.5, 1.0]
    assert found["n_examples"].tolist() == [2, 2, 1]
    assert found["n_ties"].tolist() == [0, 1, 0]
    assert found["n_excluded"].tolist() == [0, 0, 1]
    assert (found["low"] <= found["accuracy"]).tolist() == [True, True, False]
    assert found["low"].isna().tolist() == [False, False, True]


def test_a_bin_of_rows_of_one_problem_has_less_evidence():
    frame = margins({"s": [1.0, 1.0, -1.0, -1.0] * 10})
    ids = frame["example_id"]
    difference, pairs = pd.Series(5, index=ids), pd.Series(np.arange(40) // 2, index=ids)
    alone, together = (accuracy_by_length(frame, difference, problems=p).iloc[0] for p in (None, pairs))
    assert together["high"] - together["low"] > 1.2 * (alone["high"] - alone["low"])


def test_a_mean_with_values_below_0_has_a_standard_error_and_no_limits():
    values = np.array([[0.5, -0.5, 1.0, 0.0]])
    layout = Layout(np.arange(4), np.zeros(4, dtype=int), (Part("subset", "Ties", np.ones(4, dtype=bool)),))
    found = measured(pd.DataFrame({"pair_id": ["p"], "reward": ["sum"]}), Answers(values, values > 1), layout).iloc[0]
    assert found["stderr"] > 0 and np.isnan(found["low"]) and np.isnan(found["high"])


def test_equal_length_differences_share_a_bin():
    frame = margins({"mine": [1.0] * 6})
    difference = pd.Series([0, 0, 0, 0, 0, 9], index=frame["example_id"])
    assert accuracy_by_length(frame, difference)["n_examples"].sum() == 6


@pytest.mark.parametrize("values", [[1.0] * 6, [1.0], [NAN, NAN]])
def test_rows_of_one_length_difference_are_one_bin(values):
    frame = margins({"mine": values})
    (row,) = accuracy_by_length(frame, pd.Series(-4, index=frame["example_id"])).to_dict("records")
    assert (row["length_low_bytes"], row["length_high_bytes"]) == (-4, -4)
    n_scored = len([value for value in values if value == value])
    assert (row["n_examples"], row["n_excluded"]) == (n_scored, len(values) - n_scored)


def rewardbench_reference() -> dict:
    """RewardBench's section function and its two tables, taken alone from its installed source."""
    try:
        files = metadata.files("rewardbench")
    except metadata.PackageNotFoundError:
        pytest.fail("the reference is not installed: pip install --no-deps rewardbench==0.1.4")
    wanted = {
        "rewardbench/utils.py": {"calculate_scores_per_section"},
        "rewardbench/constants.py": {"EXAMPLE_COUNTS", "SUBSET_MAPPING"},
    }
    space: dict = {}
    for path, names in wanted.items():
        (source,) = [file for file in files if str(file) == path]
        for node in ast.parse(source.read_text()).body:
            is_wanted = (isinstance(node, ast.FunctionDef) and node.name in names) or (
                isinstance(node, ast.Assign) and node.targets[0].id in names
            )
            if is_wanted:
                exec(compile(ast.Module([node], []), path, "exec"), space)
    return space


def test_sections_equal_rewardbenchs_own_function():
    reference = rewardbench_reference()
    rng = np.random.default_rng(11)
    frame = accuracy(margins({subset: rng.normal(0.3, 1, 40).tolist() for subset in SUBSET_WEIGHTS}))
    by_subset = frame[frame["level"] == "subset"].set_index("name")["accuracy"].to_dict()
    expected = reference["calculate_scores_per_section"](
        reference["EXAMPLE_COUNTS"], reference["SUBSET_MAPPING"], by_subset
    )
    ours = {"Chat": "chat", "Chat Hard": "chat-hard", "Safety": "safety", "Reasoning": "reasoning"}
    assert expected.keys() == ours.keys()
    for section, name in ours.items():
        assert row(frame, name)["accuracy"] == pytest.approx(expected[section], abs=1e-12)


def test_subsets_and_weights_are_rewardbenchs():
    reference = rewardbench_reference()
    assert reference["EXAMPLE_COUNTS"] == SUBSET_WEIGHTS
    assert [tuple(names) for names in reference["SUBSET_MAPPING"].values()] == list(SECTIONS.values())
