"""Tables for people: the exact text of small ones, what fits into a width, and nothing that is missing as nan."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.cli import boards
from bench.cli.columns import measured
from bench.cli.options import Format
from bench.cli.printed import emit
from bench.cli.tables import fold, gap_unit, print_frame, with_gap
from bench.cli.views import VIEWS, View
from bench.schema import ACCURACY, LEADERBOARD
from bench.study.judging import JUDGED

POINTS, BITS = "AlpacaEval 2 length-controlled win rate (points)", "Minus bits per byte of a text"

ROW = {
    "rank": 1, "rank_low": 1, "rank_high": 2, "pair_id": "llama-3-base-simpo--llama-3-base-slic-hf", "strong": "a",
    "weak": "b", "family": "", "gap_points": 22.449999999, "score": 0.5642, "score_low": 0.545, "score_high": 0.5834,
    "score_held_out": np.nan, "chat": 0.735, "chat_hard": 0.471, "safety": 0.559, "reasoning": 0.489,
    "n_examples": 2985, "n_excluded": 0,
    "reward": "sum", "dtype": "bfloat16", "strong_revision": "x" * 40, "weak_revision": "y" * 40,
    "n_params": 16060522496.0, "licence": "llama3", "cost_flop": 18942908333252608.0,
}  # fmt: skip
BOARD = pd.DataFrame([ROW, ROW | {"rank": 2, "rank_low": 1, "rank_high": 2, "pair_id": "second", "score": 0.5}])
assert tuple(BOARD.columns) == LEADERBOARD


@pytest.fixture
def shown(capsys, monkeypatch):
    """What is printed of a frame, at a width; None: where stdout is no terminal."""

    def call(frame: pd.DataFrame, view, width: int | None = None) -> list[str]:
        monkeypatch.delenv("COLUMNS", raising=False)
        if width:
            monkeypatch.setenv("COLUMNS", str(width))
        print_frame(frame, view)
        return capsys.readouterr().out.splitlines()

    return call


def accuracies(rows: list[tuple]) -> pd.DataFrame:
    """ACCURACY of the pair "second": (level, name, accuracy, n)."""
    cells = [
        ["second", "sum", level, name, share, np.nan, np.nan, np.nan, 0.0, n, 0, 0] for level, name, share, n in rows
    ]
    return pd.DataFrame(cells, columns=list(ACCURACY))


def test_a_leaderboard_at_80_columns_folds_names_and_says_what_is_not_shown(shown):
    assert shown(BOARD, with_gap(boards.leaderboard_view(BOARD), BOARD, POINTS), 80) == [
        "                                                         chat",
        "                                                   chat  hard  safety  reasoning",
        "    rank  pair                            score %     %     %       %          %",
        "1 [1, 2]  llama-3-base-simpo--  56.4 [54.5, 58.3]  73.5  47.1    55.9       48.9",
        "          llama-3-base-slic-hf",
        "2 [1, 2]  second                50.0 [54.5, 58.3]  73.5  47.1    55.9       48.9",
        "n: scored rows; rows left out were too long or not finite. [low, high]: 95%",
        "intervals over prompts; rows of one problem count together. gap: strong less",
        "weak in AlpacaEval 2 length-controlled win rate (points).",
        "Too narrow for: gap, n, left out, reward, dtype, parameters, work per row,",
        "licence, strong, weak; leaderboard.csv and --json have all columns.",
    ]


def test_where_stdout_is_no_terminal_all_columns_stand_on_one_line(shown):
    heading, first, _, note = shown(BOARD, with_gap(boards.leaderboard_view(BOARD), BOARD, POINTS))
    assert heading.split()[:3] == ["rank", "pair", "score"]
    numbers = "56.4 [54.5, 58.3] 73.5 47.1 55.9 48.9 22.4 2,985 0 sum bfloat16 16.1 B 18.9 PFLOP llama3 a b"
    assert first.split() == f"1 [1, 2] {ROW['pair_id']} {numbers}".split()
    assert "\x1b" not in heading + first and not first.endswith(" ")
    assert note.startswith("n: scored rows") and note.endswith(f"gap: strong less weak in {POINTS}.")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal(shown, width):
    for view in VIEWS.values():
        assert max(map(len, shown(BOARD, view, width))) <= width


def test_the_exact_text_of_a_small_table(shown):
    frame = pd.DataFrame(
        {"name": ["score", "chat"], "difference": [0.0213, -0.1], "low": [0.001, np.nan], "high": [0.0417, np.nan],
         "p_bootstrap": [0.04, np.nan], "n_rows": [2985, 358]}
    )  # fmt: skip
    view = VIEWS["compare"]._replace(note="n: rows.")
    assert shown(frame, view) == [
        "rows   difference (points)      p      n",
        "score    +2.1 [+0.1, +4.2]  0.040  2,985",
        "chat                 -10.0      -    358",
        "n: rows.",
    ]
    assert shown(frame, view, 24) == [
        "              difference",
        "rows            (points)",
        "score  +2.1 [+0.1, +4.2]",
        "chat               -10.0",
        "n: rows.",
        "Too narrow for: p, n;",
        "--format csv prints all",
        "columns.",
    ]


def test_what_is_missing_in_every_row_has_no_column_and_elsewhere_a_dash(shown):
    frame = pd.DataFrame({"model_id": ["a", "b"], "n_params": pd.array([None, 8_030_000_000], dtype="Int64"),
                          "arena_hard": [np.nan, np.nan], "licence": [None, "mit"]})  # fmt: skip
    assert shown(frame, VIEWS["models"]._replace(note="")) == [
        "model  parameters  licence",
        "a               -  -",
        "b          8.03 B  mit",
    ]


def test_a_column_that_no_table_knows_is_printed_by_its_kind(shown):
    frame = pd.DataFrame({"new_share": [0.123456, 2.0], "n_new": [1, 20_000], "word": ["x", "y"]})
    assert shown(frame, VIEWS[""]) == ["new share   n new  word", "    0.123       1  x", "     2.00  20,000  y"]


def test_control_characters_and_markup_of_a_name_are_shown_as_text(shown):
    assert shown(pd.DataFrame({"model_id": ["[red]a\x1b[31m"]}), VIEWS["models"]._replace(note="")) == [
        "model", "[red]a [31m",
    ]  # fmt: skip


def test_rows_without_sections_show_their_plain_accuracy(shown):
    board = BOARD.drop(columns=["chat", "chat_hard", "safety", "reasoning"]).assign(gap_points=np.nan)
    frame, output, view = boards.board_view(board.iloc[1:], accuracies([("overall", "score", 0.5, 8)]), POINTS)
    assert output is Format.table
    heading, row, _ = shown(frame, view)
    assert heading.split()[:4] == ["rank", "pair", "accuracy", "%"]
    assert row.split()[3:7] == ["second", "50.0", "[54.5,", "58.3]"]


def test_rows_of_some_of_rewardbenchs_subsets_show_their_plain_accuracy_instead_of_a_score(shown):
    sections = dict.fromkeys(("score", "score_low", "score_high", "chat", "chat_hard", "safety", "reasoning"), np.nan)
    board = BOARD.iloc[1:].assign(**sections, rank=pd.NA)
    rows = [("overall", "score", np.nan, 10), ("subset", "hep-cpp", 0.5, 4), ("subset", "hep-go", 1.0, 6)]
    frame, _, view = boards.board_view(board, accuracies(rows), POINTS)
    heading, row, note = shown(frame, view)
    # The same problems are in both subsets, so ten rows are not ten independent ones.
    assert row.split()[:4] == ["not", "ranked", "second", "80.0"] and "[" not in row
    assert "accuracy %" in heading and "nan" not in row and note.startswith("No score: ")
    lone = accuracies([("overall", "score", np.nan, 4), rows[1]]).assign(low=0.45, high=0.55)
    frame, _, view = boards.board_view(board, lone, POINTS)
    assert shown(frame, view)[1].split()[3:6] == ["50.0", "[45.0,", "55.0]"]


def test_a_gap_is_told_in_the_unit_that_the_registry_names(shown):
    frame = pd.DataFrame({"pair_id": ["a"], "gap_points": [0.051234567]})
    view = with_gap(VIEWS["pairs"], frame, BITS)
    assert shown(frame, view) == [
        "pair     gap", "a     0.0512", "gap: strong less weak in minus bits per byte of a text.",
    ]  # fmt: skip
    assert (gap_unit(POINTS), gap_unit(BITS)) == ("points", "minus bits per byte of a text")


def test_csv_and_json_keep_every_digit(capsys):
    frame = pd.DataFrame({"pair_id": ["a"], "gap_points": [0.1 + 0.2], "cost_flop": [18942908333252608.0]})
    emit(frame, Format.csv, VIEWS["pairs"])
    assert capsys.readouterr().out.splitlines()[1] == "a,0.30000000000000004,1.894290833325261e+16"
    emit(frame, Format.json, VIEWS["pairs"])
    assert json.loads(capsys.readouterr().out) == frame.to_dict("records")


def test_a_judged_measure_is_told_in_its_own_unit(shown):
    rows = [[None] * 2 + ["sum", name, *numbers, *[1] * 6] for name, *numbers in (
        ("reward", -1.5, 2.25, 3.75, 1.0, 6.5), ("win_rate", 0.5, 0.613, 0.113, 0.05, 0.17),
        ("bytes", 300.0, 412.5, 112.5, 90.0, np.nan),
    )]  # fmt: skip
    found = pd.DataFrame(rows, columns=list(JUDGED))
    assert measured(found, "after") == ["2.25", "61.3", "412"]
    assert measured(found, "difference") == ["+3.75", "+11.3", "+112"]
    assert measured(found, "high") == ["+6.50", "+17.0", None]
    told = found.assign(**{name: measured(found, name) for name in ("before", "after", "difference", "low", "high")})
    rows = shown(told, VIEWS["judge"])[1:3]
    assert "+3.75 [+1.00, +6.50]" in rows[0] and "+11.3 [+5.0, +17.0]" in rows[1]


def test_a_text_is_folded_after_spaces_and_hyphens():
    assert fold("llama-3-base-simpo--llama-3-base", 20) == ["llama-3-base-simpo--", "llama-3-base"]
    assert fold("one two three", 8) == ["one two", "three"]
    assert fold("abcdefgh", 3) == ["abc", "def", "gh"]
    assert fold("", 3) == [""]


def test_many_packages_are_printed_as_the_first_and_the_last(shown):
    frame = pd.DataFrame({"location": ["a-1==2 a-2==2 a-3==2", "me/mine", "base + noise 0 (seed 1)"]})
    assert [line.strip() for line in shown(frame, View(("location",)))[1:4]] == [
        "a-1==2 to a-3==2",
        "me/mine",
        "base + noise 0 (seed 1)",
    ]


def test_the_note_of_judge_names_the_intervals_that_the_table_has():
    note = VIEWS["judge"].note
    assert "a proportion's for win rates, Student's t for the others" in note and "redraw" not in note
