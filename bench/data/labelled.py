"""Turns one row of labelled responses into an example; the columns say in which format the row is.

A row of JudgeBench has the columns of `sources.JUDGE_BENCH`. RewardBench 2 and RM-Bench have lists of texts as chosen
and rejected. A user's own file has `candidates` and `right`. Every other row is one preference.
"""

import re
from collections.abc import Sequence

from bench.data.cells import is_empty, spelled
from bench.data.rows import candidates, example_of, own_id, preference, text_of, turns_of
from bench.data.rows import prompt as prompt_alone
from bench.data.sources import JUDGE_BENCH, Row
from bench.schema import CHOSEN, REJECTED, RM_BENCH_IDS, RM_BENCH_STYLES, Example

DOMAINS = ("chat", "code", "math", "safety-refuse", "safety-response")
"""RM-Bench's domains, which are the subsets of its examples."""

N_STYLES = len(RM_BENCH_STYLES)
"""Number of texts in each list of RM-Bench."""

_SUBSET_DOMAINS = {"alpacaeval": "chat", "xstest-should-respond": "safety-response"}
"""Domain of RM-Bench's files without a column `domain`, by their column `subset`."""

_NAMED_DOMAIN = re.compile(r"(?<![a-z])(chat|code|math|safety[-_ ]refuse|safety[-_ ]response)(?![a-z])")

TIES = "Ties"
"""The subset of RewardBench 2 whose prompts come in two forms."""

_TIES_ID = re.compile(r"(ref|tied):[0-9]+")


def labelled(row: Row) -> Example:
    """A prompt with its responses and the set of right ones, in any format that drsow reads."""
    if set(JUDGE_BENCH) <= set(row.names):
        return _judge_bench(row)
    if "candidates" in row.names and CHOSEN not in row.names:
        if "right" not in row.names:
            raise row.error("right", "missing; candidates without it have no label (`drsow annotate` labels them)")
        return _own(row)
    sides = [_texts(row, field) for field in (CHOSEN, REJECTED)]
    if sides[0] is None and sides[1] is None:
        return preference(row)
    for field, texts in zip((CHOSEN, REJECTED), sides, strict=True):
        if not texts:
            raise row.error(field, "must be a list of one or more texts, because the other side is a list of texts")
    chosen, rejected = (texts or [] for texts in sides)
    if (domain := _domain(row)) and _has_styles(row, chosen, rejected):
        return _made(row, domain, RM_BENCH_IDS, [*chosen, *rejected], RM_BENCH_IDS[: len(chosen)])
    return _several(row, chosen, rejected)


def ties_number(example: Example) -> str:
    """The N that both forms of a prompt of RewardBench 2's Ties share, `ref:N` and `tied:N`; "" for other examples."""
    form, _, number = own_id(example).partition(":")
    return number if example.subset == TIES and form in ("ref", "tied") else ""


def has_lists(row: Row) -> bool:
    """Whether a row has lists of texts as chosen or rejected, as the benchmarks have."""
    return any(_texts(row, field) is not None for field in (CHOSEN, REJECTED))


def prompt(row: Row) -> Example:
    """The prompt alone, of a row in any format that drsow reads."""
    if set(JUDGE_BENCH) <= set(row.names):
        return _judge_bench(row)._replace(responses=(), right=())
    return prompt_alone(row)


def _judge_bench(row: Row) -> Example:
    """The right response becomes "chosen". One row of the benchmark has two equal responses, which are a tie."""
    label = row.value("label")
    if label not in ("A>B", "B>A"):
        raise row.error("label", f"must be 'A>B' or 'B>A', is {label!r:.40}")
    order = ("response_A", "response_B") if label == "A>B" else ("response_B", "response_A")
    texts = [text_of(row, field, row.value(field)) for field in order]
    responses = ((CHOSEN, texts[0]), (REJECTED, texts[1]))
    names = {"subset": "source", "id": "pair_id"}
    cells = {ours: row.value(theirs) for ours, theirs in names.items() if theirs in row.names}
    named = row._replace(cells=cells, names=tuple(cells))
    return example_of(named, turns_of(row, "question"), responses, right=(CHOSEN,))


def _own(row: Row) -> Example:
    """A user's row: `candidates`, and `right` with the positions of the right ones, counted from 0.

    A candidate with the text of a right one is right too.
    """
    found = candidates(row)
    value = row.value("right")
    value = spelled(value) if isinstance(value, str) else value
    places = value if isinstance(value, list) else [value]
    n = len(found.responses)
    if not places or not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x < n for x in places):
        known = f"0 to {n - 1}"
        raise row.error("right", f"must be the position of the right candidate, {known}, or a list of positions")
    texts = {text for place, (_, text) in enumerate(found.responses) if place in places}
    right = tuple(name for name, text in found.responses if text in texts)
    if len(right) == n:
        raise row.error("right", "has all candidates, so none is wrong")
    return found._replace(right=right)


def _several(row: Row, chosen: Sequence[str], rejected: Sequence[str]) -> Example:
    """A row with lists of right and wrong responses, as in RewardBench 2."""
    count = row.value("num_correct")
    if not is_empty(count) and str(count) != str(len(chosen)):
        raise row.error("num_correct", f"is {count!r:.40}, but {CHOSEN} has {len(chosen)} texts")
    is_ties = not is_empty(count) and row.value("subset") == TIES
    if is_ties and not _TIES_ID.fullmatch(str(row.value("id"))):
        raise row.error("id", f"must be 'ref:N' or 'tied:N' in the subset Ties, is {row.value('id')!r:.40}")
    sides = ((CHOSEN, chosen), (REJECTED, rejected))
    names = [f"{side}-{number}" for side, texts in sides for number in range(len(texts))]
    subset = row.value("subset") if "subset" in row.names else ""
    return _made(row, subset, names, [*chosen, *rejected], names[: len(chosen)])


def _made(row: Row, subset: object, names: Sequence[str], texts: Sequence[str], right: Sequence[str]) -> Example:
    """The example of a row with its own subset and response_ids."""
    cells = {"subset": subset} | ({"id": row.value("id")} if "id" in row.names else {})
    named = row._replace(cells=cells, names=tuple(cells))
    return example_of(named, turns_of(row, "prompt"), tuple(zip(names, texts, strict=True)), right=tuple(right))


def _texts(row: Row, field: str) -> list[str] | None:
    """The texts of a column that holds a list of texts, checked; None for any other value."""
    value = row.value(field)
    if isinstance(value, str) and value.lstrip().startswith("[") and _spells_lists(row):
        value = spelled(value)
    if not isinstance(value, list) or not any(isinstance(item, str) for item in value):
        return None
    return [text_of(row, f"{field}[{number}]", text) for number, text in enumerate(value)]


def _spells_lists(row: Row) -> bool:
    """Whether the texts of chosen and rejected spell a benchmark's lists of texts.

    A text that spells a list may be a response, so other columns must name the benchmark.
    """
    if "num_correct" in row.names:
        return True
    if "domain" not in row.names or row.value("domain") not in DOMAINS:
        return False
    sides = [spelled(text) if isinstance(text := row.value(field), str) else None for field in (CHOSEN, REJECTED)]
    return all(
        isinstance(texts, list) and len(texts) == N_STYLES and all(isinstance(text, str) for text in texts)
        for texts in sides
    )


def _domain(row: Row) -> str:
    """RM-Bench's domain of a row, from its columns or its file's name; "" for other data."""
    if "num_correct" in row.names:
        return ""
    if "domain" in row.names:
        domain = row.value("domain")
        return domain if isinstance(domain, str) and domain in DOMAINS else ""
    subset = row.value("subset")
    known = _SUBSET_DOMAINS.get(subset, "") if isinstance(subset, str) else ""
    source = re.split(r"[/\\]", row.where.rpartition(", ")[0])[-1].lower()
    found = _NAMED_DOMAIN.search(source)
    return known or (re.sub(r"[_ ]", "-", found[1]) if found else "")


def _has_styles(row: Row, chosen: Sequence[str], rejected: Sequence[str]) -> bool:
    """Whether both sides have RM-Bench's three styles; a row of a named domain must have them."""
    for field, texts in ((CHOSEN, chosen), (REJECTED, rejected)):
        if len(texts) != N_STYLES and "domain" in row.names:
            raise row.error(
                field, f"must have three texts (concise, detailed plain, detailed markdown), has {len(texts)}"
            )
    return len(chosen) == len(rejected) == N_STYLES
