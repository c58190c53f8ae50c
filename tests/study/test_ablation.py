"""What a variant brings, by hand: paired, with what a row left out does."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import ABLATION, Dataset, Example, Message
from bench.study.ablation import Run, ablation

ROWS = tuple(
    Example(f"s/{i}", "s", (Message("user", str(i)),), (("chosen", "a"), ("rejected", "b"))) for i in range(80)
)
WEAK_ID = "weak"


def scores(right: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """SCORES of both models on the first rows: a row is right (1), wrong (0), a tie (=) or too long (-)."""
    lines = {"strong": [], WEAK_ID: []}
    for row, sign in zip(ROWS, right, strict=False):
        chosen = {"1": -1.0, "0": -3.0, "=": -2.0, "-": float("nan")}[sign]
        status = "too_long" if sign == "-" else "ok"
        for response, value in (("chosen", chosen), ("rejected", -2.0)):
            lines["strong"].append((row.example_id, response, value, 0.0, 1, 1, status))
            lines[WEAK_ID].append((row.example_id, response, -2.0, 0.0, 1, 1, "ok"))
    columns = ["example_id", "response_id", "logp_sum_nats", "logp_end_nats", "n_tokens", "n_bytes", "status"]
    return tuple(pd.DataFrame(lines[side], columns=columns) for side in ("strong", WEAK_ID))


def table(**right: str) -> pd.DataFrame:
    runs = {Run(*name.split("_")): scores(signs) for name, signs in right.items()}
    data = Dataset("rows", "rows", "0", ROWS[: max(map(len, right.values()))])
    frame = ablation(runs, data, reward="sum", rng=np.random.default_rng(0))
    assert tuple(frame) == ABLATION
    return frame.set_index(["variant", "router"])


def test_differences_are_to_the_plain_run_and_misrouting_to_the_known_sections():
    found = table(plain="11000000", both_section="11110000", both_classifier="11100=00")
    assert found["accuracy"].tolist() == [0.25, 0.5, 0.375]
    assert found["difference"].tolist()[1:] == pytest.approx([0.25, 0.125])
    assert found.loc[("both", "classifier"), "routing_difference"] == pytest.approx(-0.125)
    assert found.loc[("both", "classifier"), "n_ties"] == 1
    assert found["difference"].isna().tolist() == [True, False, False]
    assert found["routing_difference"].isna().tolist() == [True, True, False]


def test_the_interval_is_of_paired_differences():
    found = table(plain="11000000" * 10, both_section="11110000" * 10).loc[("both", "section")]
    # Twenty rows of eighty gain: the standard error of the mean difference is sqrt(0.25 x 0.75 / 80) = 0.0484.
    assert found["difference_high"] - found["difference_low"] == pytest.approx(2 * 1.96 * 0.0484, rel=0.25)


def test_a_difference_of_fewer_than_ten_rows_has_no_interval():
    few = table(plain="11000000", both_section="11110000").loc[("both", "section")]
    assert few["difference"] == 0.25 and few[["difference_low", "difference_high"]].isna().all()


def test_a_row_that_one_run_leaves_out_counts_in_no_difference():
    found = table(plain="11000000", both_section="-1110000").loc[("both", "section")]
    assert (found["n_examples"], found["n_excluded"]) == (7, 1)
    # Of the seven rows that both have, the plain run has one right and the other three.
    assert found["difference"] == pytest.approx(2 / 7)
