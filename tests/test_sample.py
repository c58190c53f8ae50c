"""The built-in preference rows: complete, balanced in length, and right about their Python code."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.schema import CHOSEN, REJECTED, SECTIONS

SAMPLE = Path(__file__).parents[1] / "pairs" / "sample.jsonl"
FIELDS = {"prompt", CHOSEN, REJECTED, "subset", "id", "why"}
PYTHON = "hep-python"
TIME_LIMIT_S = 10


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The rows as they stand in the file."""
    return [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def run_passes(code: str, test: str) -> bool:
    """Whether the asserts of `test` hold after `code`, in a Python of their own; running too long is no pass."""
    command = [sys.executable, "-I", "-c", f"{code}\n\n{test}\n"]
    try:
        return subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def test_each_of_the_23_subsets_has_eight_rows(rows):
    subsets = [subset for section in SECTIONS.values() for subset in section]
    assert Counter(row["subset"] for row in rows) == dict.fromkeys(subsets, 8)
    assert len(rows) == 184


def test_ids_are_unique_in_their_subset(rows):
    assert max(Counter((row["subset"], row["id"]) for row in rows).values()) == 1


def test_no_prompt_occurs_twice(rows):
    assert max(Counter(row["prompt"] for row in rows).values()) == 1


def test_every_field_is_filled_and_only_python_rows_carry_a_test(rows):
    for row in rows:
        expected = FIELDS | {"test"} if row["subset"] == PYTHON else FIELDS
        assert set(row) == expected, f"{row['subset']}/{row['id']}"
        blank = [name for name, text in row.items() if not text.strip()]
        assert not blank, f"{row['subset']}/{row['id']}: {blank}"


def test_chosen_differs_from_rejected(rows):
    assert not [f"{row['subset']}/{row['id']}" for row in rows if row[CHOSEN] == row[REJECTED]]


@pytest.mark.parametrize("longer, shorter", [(CHOSEN, REJECTED), (REJECTED, CHOSEN)])
def test_length_does_not_give_the_label_away(rows, longer, shorter):
    share = sum(len(row[longer]) > len(row[shorter]) for row in rows) / len(rows)
    assert 0.35 <= share <= 0.65


@pytest.mark.parametrize("row_id", [str(number) for number in range(1, 9)])
def test_chosen_python_passes_its_test_and_rejected_fails_it(rows, row_id):
    (row,) = [row for row in rows if (row["subset"], row["id"]) == (PYTHON, row_id)]
    compile(row[REJECTED], f"{PYTHON}/{row_id}", "exec")  # a syntax error would fail for the wrong reason
    assert run_passes(row[CHOSEN], row["test"])
    assert not run_passes(row[REJECTED], row["test"])
