"""From options to what the stages take, and from frames to what is printed.

What is slow to import is imported where it is used: a wrong name is told before pandas is there.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.cli.options import TemplateMode
from bench.schema import Dataset, Example, UsageError

if TYPE_CHECKING:
    from bench.registry import Registry
    from bench.subject import Subject


class Rows(NamedTuple):
    """Which rows of which data set, as the options name them."""

    data: str
    limit: int | None


def select(
    registry: Path | None, pair: list[str] | None, study: str | None, template: TemplateMode
) -> tuple["Registry", list["Subject"]]:
    """The registry and what to run of it: each pair a subject of its own, a study one subject."""
    known = _with_names(registry, pair, study)
    return known, _subjects(known, pair, study, template)


class Stored(NamedTuple):
    """What a verb works on that reads only what is stored."""

    known: "Registry"
    subjects: list["Subject"]
    dataset: Dataset


def select_stored(
    registry: Path | None, pair: list[str] | None, study: str | None, template: TemplateMode, *, rows: Rows
) -> Stored:
    """`select` and the data set, which is not looked for on the hub: no socket is opened."""
    known = _with_names(registry, pair, study)
    # Before the subjects, which are slow to import: what is missing is told at once.
    dataset = load(*rows, offline=True)
    return Stored(known, _subjects(known, pair, study, template), dataset)


def _with_names(registry: Path | None, pair: list[str] | None, study: str | None) -> "Registry":
    """The registry, once it knows every name."""
    from bench.registry import load_registry

    if bool(pair) == bool(study):
        raise UsageError("name what to run: --pair PAIR (once or more) or --study STUDY")
    known = load_registry(registry)
    _ = known.study(study) if study else [known.pair(name) for name in pair]
    return known


def _subjects(known: "Registry", pair: list[str] | None, study: str | None, template: TemplateMode) -> list["Subject"]:
    from bench.subject import Subject

    native = template is TemplateMode.native
    if study:
        entry = known.study(study)
        axes = tuple(dict.fromkeys(axis for axis in (entry.performance, entry.second_performance) if axis))
        return [Subject(study, tuple(known.study_pairs(entry)), native, axes)]
    return [Subject(name, (known.pair(name),), native) for name in dict.fromkeys(pair)]


def load(data: str, limit: int | None, *, offline: bool = False) -> Dataset:
    """The data set; `offline` for verbs that read only what is stored."""
    from bench.data.load import load_data

    return load_data(data, limit_per_subset=limit, offline=offline)


def one_example(dataset: Dataset, example_id: str) -> Example:
    """The example of that id."""
    known = {example.example_id: example for example in dataset.examples}
    if example_id not in known:
        close = difflib.get_close_matches(example_id, known, n=1)
        raise UsageError(
            f"{dataset.data_id}: no row {example_id!r}" + (f", did you mean {close[0]!r}?" if close else "")
        )
    return known[example_id]


def gap_name(known: "Registry", subject: "Subject") -> str:
    """What the gaps of a subject are measured in: the name of its performance, with the unit."""
    from bench.registry import PERFORMANCE

    return known.performances[subject.axes[0] if subject.axes else PERFORMANCE].name
