"""All rewards of a pair on the same rows: what each says of rows that a person can judge, and what is left out."""

import numpy as np
import pandas as pd
import pytest

from bench.registry import Pair
from bench.schema import SCORES, Dataset, Example, Message
from bench.study import figures
from bench.study.reward_table import reward_table
from bench.study.side_by_side import SIDE_BY_SIDE, side_by_side
from bench.subject import Subject

SUBJECT = Subject("p", (Pair(pair_id="p", strong="s", weak="w", family="f", gap_points=1.0, template="s"),))


def example(number: int) -> Example:
    return Example(
        f"a/{number}", "a", (Message("user", f"{number}?"),), (("chosen", "x" * (number % 7 + 1)), ("rejected", "no"))
    )


ROWS = [example(number) for number in range(60)]
DATA = Dataset("rows", "rows", "0", tuple(ROWS))


def scored(chosen: float, rejected: float, *, tokens: bool) -> pd.DataFrame:
    """SCORES of two tokens per response: all chosen ones have one sum, all rejected ones another."""
    rows = []
    for row in ROWS:
        for name, text in row.responses:
            total = chosen if name == "chosen" else rejected
            rows.append((row.example_id, name, total, -1.0, 2, len(text), "ok"))
    frame = pd.DataFrame(rows, columns=list(SCORES))
    if not tokens:
        return frame
    lists = [[total, -1.0] for total in frame["logp_sum_nats"]]
    ends = [[size, size] for size in frame["n_bytes"]]
    return frame.assign(logp_nats=lists, logsumexp_nats=lists, top_logp_nats=lists, byte_end=ends)


def compared(*, tokens: bool):
    # Log-ratio: chosen -3 - -4 = 1, rejected -1 - -1 = 0. The strong model alone prefers the rejected response.
    scores = {("s", "s"): scored(-3.0, -1.0, tokens=tokens), ("w", "s"): scored(-4.0, -1.0, tokens=tokens)}
    return side_by_side(SUBJECT, DATA, scores, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def found():
    return compared(tokens=True)


def test_each_reward_has_its_accuracy_and_its_paired_difference_to_the_sum(found):
    table = found.table.set_index("reward")
    assert tuple(found.table.columns) == SIDE_BY_SIDE and not found.left_out
    assert table.loc[["sum", "mean", "peak", "clipped", "contrastive"], "accuracy"].tolist() == [1.0] * 5
    assert table.loc["strong", ["accuracy", "difference", "n_only", "n_sum_only"]].tolist() == [0.0, -1.0, 0, 60]
    assert table.loc["strong", "p_mcnemar"] == pytest.approx(2 * 0.5**60)
    assert table.loc["strong", "p_bootstrap_holm"] < 0.05 and table.loc["strong", "n_examples"] == 60
    assert pd.isna(table.loc["sum", "difference"])


def test_rewards_of_tokens_are_left_out_with_the_command_where_no_tokens_are_stored():
    found = compared(tokens=False)
    assert list(pd.unique(found.table["reward"])) == [
        "sum", "mean", "per-byte", "length-regularised", "calibrated", "strong", "strong-mean"
    ]  # fmt: skip
    assert set(found.left_out) == {
        "prefix-mean", "prefix-min", "peak", "last", "clipped", "trimmed", "contrastive"
    }  # fmt: skip
    assert all("`drsow run --tokens` stores them" in words for words in found.left_out.values())


def test_the_printable_table_has_a_line_a_reward(found):
    cells = reward_table(found.table).cells.set_index("Reward")
    assert len(cells) == 14
    assert cells.loc["strong", "Over sum (points)"].startswith("-100.0")
    assert cells.loc["sum", "Over sum (points)"] == "–" and cells.loc["sum", "Source"] == "2411.02481"


def test_the_figure_has_a_point_a_reward_and_a_marker_a_family(found):
    figure = figures.reward_families(found.table)
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == list(pd.unique(found.table["reward"]))
    markers = {line.lines[0].get_marker() for line in axes.containers}
    assert len(markers) == found.table["family"].nunique() == 4
    assert figures.encode(figure, "svg") == figures.encode(figures.reward_families(found.table), "svg")
