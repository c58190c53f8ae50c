"""Turns the options of a command into the registry, subjects and data set that a verb takes.

Slow modules are imported inside functions, so that a wrong name is reported before pandas is imported.
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
    """The rows that --data and --limit-per-subset name."""

    data: str
    limit: int | None


def select(
    registry: Path | None, pair: list[str] | None, study: str | None, template: TemplateMode
) -> tuple["Registry", list["Subject"]]:
    """The registry and the subjects to run: one for each pair, or one for the study."""
    known = _with_names(registry, pair, study)
    return known, _subjects(known, pair, study, template)


class Stored(NamedTuple):
    """What a verb that only reads the store works on."""

    known: "Registry"
    subjects: list["Subject"]
    dataset: Dataset


def select_stored(
    registry: Path | None, pair: list[str] | None, study: str | None, template: TemplateMode, *, rows: Rows
) -> Stored:
    """`select` and the data set. The hub is not asked, so no socket is opened."""
    known = _with_names(registry, pair, study)
    # The data are loaded before the subjects, whose module is slow to import, so that missing data is reported at once.
    dataset = load(*rows, offline=True)
    return Stored(known, _subjects(known, pair, study, template), dataset)


def _with_names(registry: Path | None, pair: list[str] | None, study: str | None) -> "Registry":
    """The registry, which knows every name that the options give."""
    from bench.registry import load_registry

    if bool(pair) == bool(study):
        words = "both are given; " if pair else ""
        raise UsageError(f"{words}name what to run: --pair PAIR (once or more) or --study STUDY")
    known = load_registry(registry)
    if study:
        known.study(study)
    for name in pair or ():
        known.pair(name)
    return known


def _subjects(known: "Registry", pair: list[str] | None, study: str | None, template: TemplateMode) -> list["Subject"]:
    from bench.subject import Subject

    native = template is TemplateMode.native
    if study:
        entry = known.study(study)
        axes = tuple(dict.fromkeys(axis for axis in (entry.performance, entry.second_performance) if axis))
        return [Subject(study, tuple(known.study_pairs(entry)), native, axes, known.folder)]
    return [Subject(name, (known.pair(name),), native, registry=known.folder) for name in dict.fromkeys(pair or ())]


def load(data: str, limit: int | None, *, offline: bool = False) -> Dataset:
    """The data set. With `offline`, for verbs that only read the store, the hub is not asked."""
    from bench.data.load import load_data

    return load_data(data, limit_per_subset=limit, offline=offline)


def one_example(dataset: Dataset, example_id: str) -> Example:
    """The example with an id."""
    known = {example.example_id: example for example in dataset.examples}
    if example_id not in known:
        close = difflib.get_close_matches(example_id, known, n=1)
        raise UsageError(
            f"{dataset.data_id}: no row {example_id!r}" + (f", did you mean {close[0]!r}?" if close else "")
        )
    return known[example_id]
