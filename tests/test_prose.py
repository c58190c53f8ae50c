"""Numbers in prose are those of the tables beside it."""

from pathlib import Path

import pytest
from prose import PAGES, ROOT, rewritten, wrong_numbers

TABLE = "name,share,low,count\na,0.5638,-0.0004,1960\nb,0.1,-0.24,7\n"
SOURCES = "<!-- a = t.csv name=a -->\n<!-- b = t.csv name=b -->\n"


@pytest.fixture
def page(tmp_path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "m.json").write_text('{"sets": [{"key": {"id": "x"}, "n": 3.25}, {"key": {"id": "y"}, "n": 4.5}]}')
    return tmp_path / "README.md"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_numbers_of_a_page_are_those_of_its_tables(path):
    # `python tests/prose.py` writes them anew
    assert wrong_numbers(path, path.read_text(encoding="utf-8")) == []


def test_a_number_of_the_table_is_right_in_every_form(page):
    text = SOURCES + (
        "Scores 56.4%<!-- {a.share:.1%} --> [−0.0, 56.4]<!-- [{b.low:.1f}, {a.share:.1p}] -->".replace("−0.0", "−0.2")
        + ", +0.0<!-- {a.low:+.1f} -->, 1,960<!-- {a.count:,.0f} --> rows."
    )
    assert wrong_numbers(page, text) == []
    other = "<!-- x = m.json sets key.id=x -->It is 3.25<!-- {x.n:.2f} --> of x<!-- {x[key.id]} -->."
    assert wrong_numbers(page, other) == []


def test_a_number_that_differs_from_its_table_is_told_by_its_line(page):
    wrong = wrong_numbers(page, SOURCES + "Scores 56.5%<!-- {a.share:.1%} -->.")
    assert wrong[0] == "line 3: {a.share:.1%} is '56.4%' in its table"


@pytest.mark.parametrize("number", ["0.27", "50%", "12.5%"])
def test_a_number_that_names_no_table_is_told(page, number):
    assert wrong_numbers(page, f"One.\nIt is {number} of all.") == [f"line 2: {number} names no table"]
    assert wrong_numbers(page, f"It is {number} of all.<!-- no result: a setting -->") == []
    assert wrong_numbers(page, f"`{number}`, 95% intervals, version 1.0.0, arXiv 2409.17169") == []


def test_numbers_are_written_anew(page):
    stale = SOURCES + "Scores 50.0%<!-- {a.share:.1%} --> [1, 2]<!-- [{b.low:.2f}, {b.count:.0f}] -->, and 9 more."
    fresh = rewritten(page, stale)
    assert fresh == stale.replace("50.0%", "56.4%").replace("[1, 2]", "[−0.24, 7]")
    assert wrong_numbers(page, fresh) == []
    assert rewritten(page, fresh) == fresh


def test_a_row_that_is_not_one_is_refused(page):
    with pytest.raises(ValueError, match="0 rows where name=c"):
        wrong_numbers(page, "<!-- c = t.csv name=c -->")
