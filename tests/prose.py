"""Numbers in prose, each read from the committed table that it is a number of.

    python tests/prose.py

writes the numbers of PAGES anew; `tests/test_prose.py` fails where one differs from its table. A page says where its
numbers are from in comments, which no reader of the page sees:

    <!-- plain = sample/accuracy.csv reward=sum level=overall -->

names a row: a file beside the page and what tells the row from all others. Of a .json or .toml file a list of tables
is named too: `manifest.json score_sets key.model_id=tiny`. And

    The pair scores 56.4%<!-- {plain.accuracy:.1%} -->.

says what the text before the comment is: a format (as in Python) of that row's cells. A format of `p` is percent
without the sign. A number with a decimal point or a percent sign that no comment explains is an error, unless its line
says `<!-- no result: REASON -->`.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from string import Formatter

import pandas as pd

ROOT = Path(__file__).parents[1]

PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "guides" / "customise.md",
    ROOT / "docs" / "explanation" / "method.md",
    ROOT / "docs" / "explanation" / "statistics.md",
    # make perf and make perf-gpu write theirs whole, from a template; run: pages of tuned models
    *(page for page in sorted((ROOT / "results").glob("**/README.md")) if not {"perf", "run"} & set(page.parts)),
]

_ROW = re.compile(r"^(\w+) = (\S+)((?: \S+)*)$")
_COMMENT = re.compile(r"<!-- (.*?) -->", re.DOTALL)
_NO_RESULT = "no result: "
# the level of every interval, arXiv numbers and versions are no results
_NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)(?!95%)\d[\d,]*(?:\.\d+%?|%)(?![\w.]*\d)")
_PASSED_OVER = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<[^<>!]*>|(?:arXiv|Python) \d+\.\d+", re.DOTALL)


class Number(float):
    """A cell that knows how prose writes it."""

    def __format__(self, spec: str) -> str:
        """Python's format, and `p` for percent without the sign; with a real minus, and none before a 0."""
        text = format(100 * self, f"{spec[:-1]}f") if spec.endswith("p") else float.__format__(self, spec)
        text = re.sub(r"^-(?=[0.,]*%?$)", "+" if spec.startswith("+") else "", text)
        return text.replace("-", "−")


class Row(dict):
    """A table's row; its cells are attributes where their names allow."""

    def __getattr__(self, name: str) -> object:
        if name not in self:
            raise AttributeError(f"no column {name!r}")
        return self[name]


def rows_of(page: Path, text: str) -> dict[str, Row]:
    """The rows that a page names."""
    named = (_ROW.match(comment) for comment in _COMMENT.findall(text))
    return {found[1]: _row(page.parent / found[2], found[3].split()) for found in named if found}


def wrong_numbers(page: Path, text: str) -> list[str]:
    """What is wrong with a page's numbers, a line each."""
    rows = rows_of(page, text)
    found = []
    for comment, shape in _formats(text):
        expected = shape.format_map(rows)
        if not text[: comment.start()].endswith(expected):
            found.append(f"line {_line(text, comment.start())}: {shape} is {expected!r} in its table")
    return found + [f"line {_line(text, at)}: {number} names no table" for at, number in _unexplained(text, rows)]


def rewritten(page: Path, text: str) -> str:
    """The page with every number as its table has it.

    Raises:
        ValueError: what stands before a comment does not look like its format.
    """
    rows, result, end = rows_of(page, text), [], 0
    for comment, shape in _formats(text):
        before = text[end : comment.start()]
        pattern = "".join(
            re.escape(literal) + ("" if field is None else r"[−+-]?[\d,.]+%?") for literal, field, *_ in _parts(shape)
        )
        stands = re.search(f"{pattern}$", before)
        if stands is None:
            raise ValueError(f"{page}, line {_line(text, comment.start())}: no number of the format {shape}")
        result += [before[: stands.start()], shape.format_map(rows), comment[0]]
        end = comment.end()
    return "".join([*result, text[end:]])


def _row(path: Path, words: list[str]) -> Row:
    """The one row of a table for which every `column=value` holds."""
    table = _table(path, words.pop(0) if path.suffix != ".csv" else "")
    for column, _, value in (word.partition("=") for word in words):
        table = table[table[column] == value]
    if len(table) != 1:
        raise ValueError(f"{path}: {len(table)} rows where {' and '.join(words)}")
    return Row({name: _cell(value) for name, value in table.iloc[0].items()})


def _table(path: Path, key: str) -> pd.DataFrame:
    """A table of text cells; of a .json or .toml file the list of tables under a key."""
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    text = path.read_text(encoding="utf-8")
    return pd.json_normalize((json.loads(text) if path.suffix == ".json" else tomllib.loads(text))[key])


def _cell(value: object) -> object:
    try:
        return Number(value)
    except (TypeError, ValueError):
        return value


def _formats(text: str) -> list[tuple[re.Match, str]]:
    """Comments that say what stands before them: those with a cell in them."""
    return [(comment, comment[1]) for comment in _COMMENT.finditer(text) if "{" in comment[1]]


def _parts(shape: str) -> list[tuple]:
    return list(Formatter().parse(shape))


def _unexplained(text: str, rows: dict[str, Row]) -> list[tuple[int, str]]:
    """Numbers that look like results and name no table: where, and which."""
    blank = list(text)
    for comment, shape in _formats(text):
        begin = comment.start() - len(shape.format_map(rows))
        blank[begin : comment.start()] = " " * (comment.start() - begin)
    for each in (*_PASSED_OVER.finditer(text), *_COMMENT.finditer(text)):
        blank[each.start() : each.end()] = re.sub(r"[^\n]", " ", each[0])
    excused = {_line(text, c.start()) for c in _COMMENT.finditer(text) if c[1].startswith(_NO_RESULT)}
    found = [(each.start(), each[0]) for each in _NUMBER.finditer("".join(blank))]
    return [(at, number) for at, number in found if _line(text, at) not in excused]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


if __name__ == "__main__":
    for each in PAGES:
        content = each.read_text(encoding="utf-8")
        new = rewritten(each, content)
        if new != content:
            each.write_text(new, encoding="utf-8")
            print(each.relative_to(ROOT), file=sys.stderr)
