"""Phrases that we do not say: a reader whose second language is English has to read them twice.

All of bench/ is held to it: docstrings, comments and messages.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CLEAN = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "results/README.md", "bench"]
"""Pages, and folders of pages or modules, that are in plain words."""

UNSAID = {
    r"\bh[au]ngs? on\b": "depends on",
    r"\bstands? in (`|\[|its own)": "is in, is explained in",
    r"\bof (one's|our) own\b": "yours, ours, or a separate one",
    r"\bsays? of\b": "says about",
    r"\bwhoever comes\b": "the pair that comes to a place",
    r"\bis worth (what|it)\b": "a number, or deserves",
    r"\bwhat (it|that|this) is worth\b": "how often it errs, how much it brings",
    r"\bfor nothing\b": "without need",
    r"\bin one stroke\b": "atomically",
    r"\bno more is known\b": "say what is known",
    r"\bgo(es)? on where\b": "continues where",
    r"\bthere is none of\b": "there is no",
    r"\bover again\b": "again",
    r"\bnone other\b": "no other",
    r"\bas it were\b": "nothing",
    r"\ba \w+ of (its|their|your) own\b": "a separate one, its own one",
    r"\bbeg[iau]n(s|ning)? anew\b": "begins again",
    r"\blet(s|ting)? go\b": "releases",
    r"\bgoing on with\b": "continues with",
    r"\bone (a|an) (\w+)[,.;)]": "one per …",
    r"\b([Oo]ne (row|line|folder|file|module|value)|nats|FLOP) an? \w+": "one row per …, nats per …",
    r"\bin the mean\b": "on average",
    r"\bbelongs? into\b": "belongs in",
    r"\bNone where\b": "None if",
    r"\bstands? (behind|beside|before)\b": "is after, next to, before",
}
"""What we do not say -> what we say."""


def pages() -> list[Path]:
    """Every page and module that has to be plain."""
    roots = [ROOT / name for name in CLEAN]
    inside = [path for root in roots if root.is_dir() for path in sorted(root.rglob("*"))]
    return [
        path for path in (*roots, *inside) if path.suffix in {".md", ".py", ".cpp", ".h", ".html"} and path.is_file()
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_clean_page_says_nothing_that_has_to_be_read_twice(page):
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    found = [f"…{text[max(0, m.start() - 30) : m.end() + 10]}…" for phrase in UNSAID for m in re.finditer(phrase, text)]
    assert found == []
