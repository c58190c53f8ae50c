"""A pair beside its strong model alone, on rows whose numbers are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from bench.registry import Pair
from bench.schema import SCORES, Dataset, Example, Message
from bench.study.alone import ALONE, alone_note, alone_of, by_alone
from bench.study.rewards.known import KNOWN
from bench.study.side_by_side import side_by_side
from bench.subject import Subject

N = 40
PAIR = Pair("p", "s", "w", "", "s", 1.0)
EXAMPLES = tuple(
    Example(str(i), "", (Message("user", str(i)),), (("chosen", "a"), ("rejected", "b"))) for i in range(N)
)
DATA = Dataset("rows", "rows", "x", EXAMPLES)


def scored(chosen_less_rejected: np.ndarray) -> pd.DataFrame:
    """SCORES of a model whose chosen responses are so many nats likelier; ten tokens each, eleven the rejected."""
    rows = [
        (str(i), name, -20.0 + lead * (name == "chosen"), -1.0, 10 + (name == "rejected"), 30, "ok")
        for i, lead in enumerate(chosen_less_rejected)
        for name in ("chosen", "rejected")
    ]
    return pd.DataFrame(rows, columns=list(SCORES))


@pytest.fixture(scope="module")
def scores():
    # Alone the strong model is right on the first 10 rows; less the weak one on the first 30.
    strong = np.where(np.arange(N) < 10, 2.0, -2.0)
    weak = np.where(np.arange(N) < 30, -4.0, 4.0)
    return {("s", "s"): scored(strong), ("w", "s"): scored(weak)}


def table_of(scores, reward="sum"):
    return by_alone(Subject("p", (PAIR,)), scores, DATA, ["p"], reward=reward, rng=np.random.default_rng(1))


def test_the_difference_is_that_of_the_rows_that_both_judge(scores):
    table = table_of(scores)
    assert tuple(table.columns) == ALONE
    (row,) = table.to_dict("records")
    assert (row["accuracy"], row["accuracy_alone"], row["difference"]) == (0.75, 0.25, 0.5)
    # 20 of 40 rows differ, all one way: the standard error of the difference is sqrt(0.5 * 0.5 / 40).
    half = 1.96 * np.sqrt(0.25 / N)
    assert [row["low"], row["high"]] == pytest.approx([0.5 - half, 0.5 + half], abs=0.03)
    # `drsow rewards` compares the same two the other way round.
    other = side_by_side(Subject("p", (PAIR,)), DATA, scores, rng=np.random.default_rng(1)).table.set_index("reward")
    assert other.loc["strong", "difference"] == -0.5


def test_a_row_that_one_model_could_not_score_counts_for_neither(scores):
    cut = scores["w", "s"].copy()
    cut.loc[cut["example_id"] == "0", "status"] = "too_long"
    (row,) = table_of(scores | {("w", "s"): cut}).to_dict("records")
    assert [row["accuracy"], row["accuracy_alone"]] == pytest.approx([29 / 39, 9 / 39], abs=1e-9)


def test_a_mean_is_compared_with_a_mean(scores):
    means = {reward for reward in KNOWN if alone_of(reward) == "strong-mean"}
    assert means == {"mean", "per-byte", "length-regularised", "calibrated", "strong-mean", "trimmed"}
    # A mean of prefix sums is a weighted sum: where all tokens are alike it grows with their number.
    assert {alone_of(reward) for reward in KNOWN.keys() - means} == {"strong"}
    assert len(KNOWN) == 14
    (row,) = table_of(scores, reward="mean").to_dict("records")
    assert row["alone"] == "strong-mean"
    # A token of the rejected response has -21 / 11 nats: less than -19 / 10, more than -23 / 10.
    assert row["accuracy_alone"] == 10 / N


def test_the_sentence_names_both_and_leaves_out_an_interval_that_is_not_known(scores):
    table = table_of(scores)
    said = alone_note(table, "p")
    assert said.startswith("The strong model alone (`strong`) scores 25.0%; pair minus strong model: +50.0 [+3")
    assert alone_note(table.assign(low=np.nan, high=np.nan), "p").endswith("; pair minus strong model: +50.0 points.")
    assert alone_note(table.assign(difference=np.nan), "p") == ""
    assert (
        alone_note(table_of(scores, reward="strong"), "p")
        == alone_note(table_of(scores, reward="strong-mean"), "p")
        == ""
    )


def test_rows_without_a_score_have_no_line(scores):
    examples = tuple(example._replace(subset="alpacaeval-easy") for example in EXAMPLES)
    table = by_alone(
        Subject("p", (PAIR,)),
        scores,
        DATA._replace(examples=examples),
        ["p"],
        reward="sum",
        rng=np.random.default_rng(1),
    )
    assert tuple(table.columns) == ALONE and table.empty
    assert alone_note(table, "p") == ""
