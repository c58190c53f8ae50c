"""Agreement by halves: which rows are in them, and limits that were published."""

import numpy as np
import pandas as pd
import pytest

from bench.study.agreement import AGREEMENT, agreement
from bench.verbs.agree import agreement_table


def halves(margins: list[float], similarity: list[float], problems: list[int] | None = None) -> pd.DataFrame:
    names = [f"r{i}" for i in range(len(margins))]
    table = pd.DataFrame({"pair_id": "p", "reward": "sum", "example_id": names, "margin_nats": margins})
    number = pd.Series(range(len(names)) if problems is None else problems, index=names)
    found = agreement(table, pd.Series(similarity, index=names), rng=np.random.default_rng(0), problems=number)
    return found.set_index("half")


def test_halves_by_hand():
    found = halves([1.0, -1.0, 0.0, 2.0, float("nan"), 3.0], [0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    # Dissimilar: 1.0 (agrees), 0.0 (a tie, which does not), one without a score. Similar: 3.0 and 2.0 agree.
    assert found.loc["dissimilar", ["agreement", "n_examples", "n_ties", "n_excluded"]].tolist() == [0.5, 2, 1, 1]
    assert found.loc["similar", "agreement"] == pytest.approx(2 / 3)
    assert found.loc["dissimilar", "difference"] == pytest.approx(0.5 - 2 / 3)
    assert found.loc["dissimilar", ["similarity_low", "similarity_high"]].tolist() == [0.1, 0.3]
    assert found.loc["all", "agreement"] == pytest.approx(3 / 5)
    assert found.loc["random", "n_examples"] + found.loc["random", "n_excluded"] == 3
    assert found.loc[["similar", "random", "all"], "difference"].isna().all()


def test_limits_are_wilsons_and_newcombes():
    # Newcombe (1998), method 10, example (a): 56/70 - 48/80 = 0.2, 0.0524 to 0.3339; Wilson of 56/70: 0.6920 to 0.8777.
    margins = [1.0] * 56 + [-1.0] * 14 + [1.0] * 48 + [-1.0] * 32
    similarity = [0.0] * 70 + [1.0] * 80
    margins, similarity = margins + [float("nan")] * 10, similarity + [0.0] * 10
    row = halves(margins, similarity).loc["dissimilar"]
    assert (row["n_examples"], row["n_excluded"]) == (70, 10)
    assert [row["low"], row["high"]] == pytest.approx([0.6920, 0.8777], abs=2e-3)
    assert [row["difference_low"], row["difference_high"]] == pytest.approx([0.0524, 0.3339], abs=1e-4)


def test_a_half_without_a_scored_row_is_missing_not_zero():
    found = halves([float("nan"), 1.0], [0.1, 0.9])
    assert found.loc["dissimilar", ["agreement", "low", "difference"]].isna().all()
    assert found.loc["dissimilar", "n_excluded"] == 1 and found.loc["similar", "agreement"] == 1
    assert np.isnan(halves([1.0], [0.5]).loc["dissimilar", "agreement"])


def test_rows_of_one_prompt_are_one_piece_of_evidence():
    margins, similarity = [1.0, 1.0, -1.0, 1.0] * 6, [i / 24 for i in range(24)]
    apart, together = halves(margins, similarity).loc["all"], halves(margins, similarity, [0, 1, 2, 3] * 6).loc["all"]
    assert together["agreement"] == apart["agreement"] == 0.75
    assert together["low"] < apart["low"] < apart["high"] < together["high"]


def test_one_row_has_no_interval():
    assert halves([1.0, 1.0], [0.1, 0.9]).loc["similar", ["low", "high"]].isna().all()


def test_the_table_prints_no_limits_where_there_are_none():
    frame = halves([1.0, 1.0, -1.0], [0.1, 0.8, 0.9]).reset_index()
    lines = agreement_table(frame[list(AGREEMENT)]).splitlines()
    assert "nan" not in "".join(lines)
    # the similar half is one row, which has a share alone, and so has the difference to it
    assert any("| similar | 0.0 |" in line for line in lines)
    assert any("| dissimilar | 100.0 [34.2, 100.0] | +100.0 |" in line for line in lines)
    assert any("| 66.7 [20.8, 93.9] |" in line for line in lines)


def test_the_table_names_ties_and_rows_left_out_if_there_are_any():
    some = agreement_table(halves([1.0, 0.0, -1.0, float("nan")], [0.1, 0.2, 0.8, 0.9]).reset_index()[list(AGREEMENT)])
    assert some.splitlines()[-3:] == [
        "Ties, which count as disagreement: sum 1.",
        "",
        "Rows left out, because a response is too long or has a score that is not finite: sum 1.",
    ]
    assert agreement_table(halves([1.0, -1.0], [0.1, 0.9]).reset_index()[list(AGREEMENT)]).splitlines()[-1][0] == "|"
