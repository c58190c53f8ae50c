"""Tables: their rows, their marks and their escapes."""

import numpy as np
import pandas as pd
import pytest

from bench.schema import CORRELATION, LEADERBOARD, MARGINS, SUBSET_WEIGHTS
from bench.study.metrics import accuracy
from bench.study.tables import (
    Table,
    benchmark_table,
    correlation_table,
    latex,
    leaderboard_table,
    markdown,
)

NAN = float("nan")
REFERENCES = pd.DataFrame(
    {
        "pair_id": ["b", "a", "a", "unseen"],
        "source": ["board", "board", "paper", "board"],
        "differs_because": "",
        "customised": [False, False, True, False],
        "score": [NAN, NAN, 82.6, 50.0],
        "chat": [92.2, 95.3, NAN, 50.0],
        "chat-hard": [60.5, 62.7, NAN, 50.0],
        "safety": [82.3, 61.0, 91.0, 50.0],
        "reasoning": [73.8, 77.9, 88.0, 50.0],
    }
)


def run(pairs: str, margin: float) -> pd.DataFrame:
    """ACCURACY with intervals: of four rows per subset, three have this margin and one is wrong."""
    rows = [
        (pair, "sum", f"{subset}/{row}", subset, margin if row else -1.0, "ok")
        for pair in pairs
        for subset in SUBSET_WEIGHTS
        for row in range(4)
    ]
    return accuracy(pd.DataFrame(rows, columns=list(MARGINS)))


def board() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "rank": pd.array([1, None], dtype="Int64"),
            "rank_low": pd.array([1, None], dtype="Int64"),
            "rank_high": pd.array([2, None], dtype="Int64"),
            "strong": ["s_1", "s_2"],
            "weak": ["w|1", "w_2"],
            "gap_points": [3.25, NAN],
            "score": [0.7512, 0.6],
            "score_low": [0.7, 0.5],
            "score_high": [0.8, 0.7],
            "chat_hard": [0.5, NAN],
            "n_examples": [2985, 2984],
            "n_excluded": [0, 1],
            "reward": "sum",
            "cost_flop": [2.5e12, NAN],
        }
    )
    return frame.reindex(columns=list(LEADERBOARD))


def table() -> Table:
    return benchmark_table({"plain": run("ab", 1.0), "both": run("a", -1.0)}, REFERENCES, provenance="Model at c0ffee.")


def test_published_rows_stand_under_ours_marked_as_published():
    frame = table().frame
    assert frame["pair_id"].tolist() == ["a"] * 4 + ["b"] * 2
    assert frame["system"].tolist() == ["plain", "both", "published", "published, customised", "plain", "published"]
    assert frame["source"].tolist() == ["measured", "measured", "board", "paper", "measured", "board"]


def test_our_rows_are_percent_with_their_interval_and_coverage():
    row = table().frame.iloc[0]
    assert row[["score_percent", "chat_percent", "reasoning_percent"]].tolist() == [75.0, 75.0, 75.0]
    assert row["score_low_percent"] < 75 < row["score_high_percent"]
    assert (row["n_examples"], row["n_excluded"]) == (92, 0)


def test_what_was_not_published_is_missing_not_zero():
    frame = table().frame
    assert np.isnan(frame.loc[2, "score_percent"])
    assert np.isnan(frame.loc[3, "chat_hard_percent"])
    assert pd.isna(frame.loc[3, "n_examples"])
    assert table().cells.loc[3, ["Score", "Chat", "Chat Hard", "Prompts"]].tolist() == ["82.6", "–", "–", "–"]


def test_pairs_without_a_reference_and_references_without_a_run_are_fine():
    frame = benchmark_table({"plain": run("c", 1.0)}, REFERENCES, provenance="").frame
    assert frame["system"].tolist() == ["plain"]


def test_a_table_shows_one_reward():
    mixed = {"plain": run("a", 1.0), "mean": run("a", 1.0).assign(reward="mean")}
    with pytest.raises(ValueError, match="one reward, not sum, mean"):
        benchmark_table(mixed, REFERENCES, provenance="")


def test_the_leaderboard_has_intervals_and_a_dash_for_what_is_not_ranked():
    cells = leaderboard_table(board(), provenance="").cells
    assert cells["Rank"].tolist() == ["1 (1–2)", "–"]
    assert cells["Score"].tolist() == ["75.1 [70.0, 80.0]", "60.0 [50.0, 70.0]"]
    assert cells["Gap"].tolist() == ["3.2", "–"]
    assert cells["Left out"].tolist() == ["0", "1"]
    assert cells["TFLOP per row"].tolist() == ["2.50", "–"]


def correlation() -> pd.DataFrame:
    """CORRELATION: the declared test, a section's slope, and a family of too few models."""
    rows = [
        ("sum", "overall", "score", "all", "board", "spearman", 0.314, -0.02, 0.55, 0.0004, 30, 12, 184, 0.0004, True),
        ("sum", "section", "chat", "all", "board", "slope", 0.5, 0.1, 0.9, NAN, 30, 12, 40, NAN, False),
        ("sum", "overall", "score", "f", "board", "spearman", -0.5, NAN, NAN, 0.02, 15, 6, 184, 0.6, False),
        ("sum", "overall", "score", "all", "board", "gap-given-strong", 0.5, 0.1, 0.9, NAN, 30, 12, 40, NAN, False),
    ]
    return pd.DataFrame(rows, columns=list(CORRELATION))


def test_the_correlation_says_its_null_its_declared_test_and_where_models_are_too_few():
    made = correlation_table(correlation(), provenance="Model at c0ffee.")
    assert made.cells["Of"].tolist() == ["Score", "Chat", "Score"]
    assert made.cells["Family"].tolist() == ["all families", "all families", "f"]
    assert made.cells["95% interval"].tolist() == ["[-0.02, 0.55]", "[0.10, 0.90]", "too few models"]
    assert made.cells["p"].tolist() == ["< 0.001", "–", "0.020"]
    assert made.cells["p by Holm"].tolist() == ["declared", "–", "0.600"]
    assert "QAP, labels exchangeable inside families" in made.note
    assert made.frame["estimate"].tolist() == [0.314, 0.5, -0.5]
    assert r"Spearman's $\rho$ inside families" in latex(made)


def test_a_number_is_rounded_once():
    shares = {"score": 0.40552, "score_low": 0.30552, "chat": 0.20552}
    cells = leaderboard_table(board().assign(**shares), provenance="").cells
    assert cells.loc[0, "Score"].startswith("40.6 [30.6, ")
    assert cells.loc[0, "Chat"] == "20.6"


def test_the_leaderboards_frame_holds_numbers():
    frame = leaderboard_table(board(), provenance="").frame
    assert frame["score_percent"].tolist() == [75.12, 60.0]
    assert frame["chat_hard_percent"].tolist()[0] == 50.0
    assert np.isnan(frame["chat_hard_percent"][1])


def test_markdown_has_a_line_a_row_and_escapes_bars():
    lines = markdown(leaderboard_table(board(), provenance="Model at c0ffee.")).splitlines()
    assert lines[2].startswith("| Rank | Strong | Weak | Gap | Score |")
    assert "w\\|1" in lines[4]
    assert len(lines) == 2 + 2 + 2 + 2
    assert lines[-1].endswith("Reward: sum. Model at c0ffee.")


def test_latex_has_a_line_a_row_and_escapes_its_own_characters():
    text = latex(leaderboard_table(board(), provenance="50% & more"))
    assert r"s\_1 & w|1 & 3.2 & 75.1 [70.0, 80.0]" in text
    assert r"50\% \& more" in text
    assert text.count(r" \\") == 1 + 2
    assert text.startswith(r"\begin{longtable}{rllrrrrrrrrrr}")


def test_equal_input_gives_equal_text():
    assert markdown(table()) == markdown(table())
    assert latex(table()) == latex(table())
