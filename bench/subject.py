"""The pair or study that a results folder is about."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.contrast import model_of
from bench.registry import Pair
from bench.schema import Dataset, UsageError
from bench.store.folder import ScoreSet, Store
from bench.store.places import Place, folder_to_read

Side = tuple[str, str]
"""A pass on some data: (model_id or name of a reader, owner of the chat template)."""

Sets = Mapping[Side, ScoreSet]
"""The complete score set of each pass."""


class Subject(NamedTuple):
    """The pair or study that a results folder is about."""

    name: str
    """The pair_id or study_id."""
    pairs: tuple[Pair, ...]
    native: bool = False
    """Whether each model reads its own chat template."""
    axes: tuple[str, ...] = ()
    """The performance_ids that a study's gaps are measured in, the study's main one first; empty for a pair."""
    registry: Path | None = None
    """The user's folder whose entries the registry has."""
    left_out: tuple[str, ...] = ()
    """pair_ids of a study's pairs that are not among `pairs` because a model failed."""

    def passes(self) -> list[Side]:
        """(model_id or reader, owner of the chat template) of every pass that the subject needs, each once."""
        return list(dict.fromkeys(side for pair in self.pairs for side in self.sides(pair)))

    def sides(self, pair: Pair) -> tuple[Side, Side]:
        """The passes of a pair's strong and weak side."""
        owners = (model_of(pair.strong), model_of(pair.weak)) if self.native else (pair.template, pair.template)
        return (pair.strong, owners[0]), (pair.weak, owners[1])

    @property
    def performance(self) -> str:
        """performance_id of the gaps: that of a study, or of all pairs that have a gap.

        Raises:
            UsageError: the pairs' gaps are measured in different ones.
        """
        if self.axes:
            return self.axes[0]
        known = [pair for pair in self.pairs if not math.isnan(pair.gap_points)] or self.pairs
        by_name = {pair.performance: pair.pair_id for pair in known}
        if len(by_name) > 1:
            told = ", ".join(f"{name} ({pair_id})" for name, pair_id in by_name.items())
            raise UsageError(f"the gaps of these pairs are measured in different performances: {told}")
        return next(iter(by_name))

    @property
    def option(self) -> str:
        """The command-line options that name the subject."""
        names = [f"--study {self.name}"] if self.axes else [f"--pair {pair.pair_id}" for pair in self.pairs]
        registry = [f"--registry {shlex.quote(str(self.registry))}"] if self.registry else []
        return " ".join([*names, *(["--template native"] if self.native else []), *registry])


def place_of(subject: Subject, dataset: Dataset, *, reward: str = "sum") -> Place:
    """Where a subject's tables on a data set are stored; native templates and other rewards have their own folders."""
    return Place(subject.name, dataset, variant_of(subject, reward))


def rewards_place(subject: Subject, dataset: Dataset) -> Place:
    """Where the comparison of a pair's rewards on a data set is stored."""
    return Place(subject.name, dataset, "-".join((["native"] if subject.native else []) + ["rewards"]))


def variant_of(subject: Subject, reward: str) -> str:
    """Name of the change of a subject's tables to those of shared templates and the reward `sum`, "" for none."""
    return "-".join((["native"] if subject.native else []) + ([reward] if reward != "sum" else []))


def result_folder(store: Store, subject: Subject, dataset: Dataset, *, reward: str = "sum") -> Path:
    """The folder with a subject's tables on these rows.

    Raises:
        PreconditionError: there are no tables of these rows; the message says which command writes them.
    """
    option = subject.option + (f" --reward {reward}" if reward != "sum" else "")
    return folder_to_read(store, place_of(subject, dataset, reward=reward), option=option)


def by_model(sets: Sets) -> dict[str, ScoreSet]:
    """The score set of each model.

    Raises:
        UsageError: a model has two score sets, under two chat templates, so its numbers are of two different texts.
    """
    found: dict[str, ScoreSet] = {}
    for (model_id, _), score_set in sets.items():
        if found.setdefault(model_id, score_set).key != score_set.key:
            names = [owner for model, owner in sets if model == model_id]
            raise UsageError(
                f"{model_id} is scored under the chat templates of {' and of '.join(names)}: these scores are of "
                "different texts and cannot share a table; make one study or run for each template, or use "
                "--template native"
            )
    return found
