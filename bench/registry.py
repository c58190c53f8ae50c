"""Loads the registry from `pairs/*.toml` and a user's folder, which can add entries but cannot replace one."""

import itertools
import math
import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from bench.contrast import Reader, model_of, readers_of, sides_of
from bench.entries import (
    SOURCE_TAGS,
    AdapterSource,
    Domain,
    Entry,
    Family,
    FolderSource,
    ModelSpec,
    NoiseSource,
    PairEntry,
    Performance,
    Reference,
    Study,
    UrlSource,
)
from bench.files import edited_text
from bench.links import problems, unknown
from bench.measured import MeasuredScore, with_scores
from bench.schema import UsageError

PERFORMANCE, SECOND_PERFORMANCE = "alpaca_eval_2_lc", "arena_hard"
"""The performances that gaps are measured in if no study names others."""


class Pair(NamedTuple):
    """A strong and a weak side; the reward is the difference of their log-probabilities."""

    pair_id: str
    """A named pair's name, or "<strong>--<weak>"."""
    strong: str
    """model_id, like `weak`; in a pair of one model, a side that reads a text has the name of its reader."""
    weak: str
    family: str
    """"" for a named pair."""
    template: str
    """model_id whose chat template both sides use."""
    gap_points: float
    """performance(strong) - performance(weak); NaN if a score is not published, and in a pair of one model."""
    references: tuple[Reference, ...] = ()
    note: str = ""
    performance: str = PERFORMANCE
    """performance_id that the gap is measured in."""

    @property
    def of_one_model(self) -> bool:
        """Whether both sides are the same weights, so that there is no gap."""
        return model_of(self.strong) == model_of(self.weak)


def gap_points(strong: ModelSpec, weak: ModelSpec, performance: str) -> float:
    """Performance(strong) - performance(weak) in points, NaN if a score is not published."""
    # Scores have few decimals; rounding removes the error of binary subtraction.
    return round(strong.score(performance) - weak.score(performance), 9)


@dataclass(frozen=True)
class Registry:
    """All entries by id, in the order of their files."""

    models: dict[str, ModelSpec]
    performances: dict[str, Performance]
    families: dict[str, Family]
    studies: dict[str, Study]
    pairs: dict[str, PairEntry]
    domains: dict[str, Domain]
    measured: frozenset[str] = frozenset()
    """ids of the scores that are from a scores.toml, not from a model's own entry."""
    folder: Path | None = None
    """The user's folder, None for drsow's own entries alone."""

    @property
    def readers(self) -> dict[str, Reader]:
        """The sides of pairs of one model that read a text, by name."""
        return {name: reader for entry in self.pairs.values() for name, reader in readers_of(entry).items()}

    def model(self, name: str) -> ModelSpec:
        """The model of that model_id."""
        return self.models[_known("model", name, self.models)]

    def weights(self, name: str) -> ModelSpec:
        """The model of that model_id, or the model that this reader is a side of."""
        return self.models[model_of(_known("model", name, [*self.models, *self.readers]))]

    def policy(self, name: str) -> ModelSpec:
        """The model with this model_id, or the model in this folder, for example one that `drsow tune` wrote.

        Raises:
            UsageError: There is no such model or folder, or it can only be scored.
        """
        folders = [path for path in (Path(name), Path(name) / "model") if (path / "config.json").is_file()]
        if name not in self.models and folders:
            folder = folders[0].resolve()
            words = re.sub(r"[^a-z0-9._]+", "-", f"{folder.parent.name}-{folder.name}".lower()).strip("-")
            source = FolderSource(folder=folder)
            return ModelSpec(model_id=f"policy-{words}"[:80], source=source, format="safetensors", method="unknown")
        spec = self.model(name)
        if kind := {NoiseSource: "noise model", UrlSource: "model on a server"}.get(type(spec.source)):
            raise UsageError(f"{name}: a {kind} can be scored, not sampled or tuned")
        return spec

    def study(self, name: str) -> Study:
        """The study of that study_id."""
        return self.studies[_known("study", name, self.studies)]

    def pair(self, name: str) -> Pair:
        """The named pair with this pair_id, or the pair of the first study that has it."""
        pairs = self._every_pair()
        return pairs[_known("pair", name, pairs)]

    def _every_pair(self) -> dict[str, Pair]:
        """Named and study pairs by pair_id. For equal ids, the named pair counts, then that of the first study."""
        studied = (pair for study in self.studies.values() for pair in self.study_pairs(study))
        return {pair.pair_id: pair for pair in reversed([*self.named_pairs(), *studied])}

    def models_of(self, name: str) -> list[str]:
        """The model_ids that a model, pair or study needs, including the owner of the chat template."""
        if name in self.models:
            return [name]
        if name in self.studies:
            pairs = self.study_pairs(self.studies[name])
        else:
            known = self._every_pair()
            pairs = [known[_known("model, pair or study", name, [*self.models, *known, *self.studies])]]
        return list(dict.fromkeys(model_of(m) for pair in pairs for m in (pair.strong, pair.weak, pair.template)))

    def named_pairs(self) -> list[Pair]:
        """The named pairs, with their gap in PERFORMANCE."""
        return [self._named(entry) for entry in self.pairs.values()]

    def study_pairs(self, study: Study) -> list[Pair]:
        """All unordered pairs inside each family. The strong model has the higher score, or first model_id in a tie."""
        return [
            self._ordered(first, second, family, study.performance)
            for family in (self.families[name] for name in study.families)
            for first, second in itertools.combinations([self.models[name] for name in family.members], 2)
        ]

    def _named(self, entry: PairEntry) -> Pair:
        one = entry.strong == entry.weak
        gap = math.nan if one else gap_points(self.models[entry.strong], self.models[entry.weak], PERFORMANCE)
        template = entry.template or entry.strong
        return Pair(entry.pair_id, *sides_of(entry), "", template, gap, entry.references, entry.note)

    def _ordered(self, first: ModelSpec, second: ModelSpec, family: Family, performance: str) -> Pair:
        strong, weak = sorted((first, second), key=lambda model: (-model.score(performance), model.model_id))
        pair_id = f"{strong.model_id}--{weak.model_id}"
        gap = gap_points(strong, weak, performance)
        sides = strong.model_id, weak.model_id
        return Pair(pair_id, *sides, family.family_id, family.template, gap, performance=performance)


_TABLES: dict[str, dict[str, type[Entry]]] = {
    "models.toml": {"models": ModelSpec},
    "pairs.toml": {"performances": Performance, "families": Family, "studies": Study, "pairs": PairEntry},
    "domains.toml": {"domains": Domain},
    "scores.toml": {"scores": MeasuredScore},
}


def pairs_folder() -> Path:
    """The folder of drsow's own entries: beside this file if installed, at the root of a checkout otherwise."""
    here = Path(__file__).resolve().parent
    return here / "pairs" if (here / "pairs").is_dir() else here.parent / "pairs"


def load_registry(extra: Path | None = None) -> Registry:
    """Reads drsow's own entries, and adds a user's entries; a user's measured score replaces drsow's own.

    Args:
        extra: The user's folder with a models.toml, pairs.toml, domains.toml or scores.toml.

    Raises:
        UsageError: An entry is wrong. The message names its file, id and field.
    """
    if extra is not None and not any((extra / name).is_file() for name in _TABLES):
        *most, last = _TABLES
        raise UsageError(f"{extra}: no folder with a {', '.join(most)} or {last}")
    # _TABLES, not the type checker, knows the kind of each table.
    tables: dict[str, dict[str, Any]] = {table: {} for kinds in _TABLES.values() for table in kinds}
    origins: dict[tuple[str, str], Path] = {}
    folders = [pairs_folder()] if extra is None else [pairs_folder(), extra]
    for path in [folder / name for folder in folders for name in _TABLES if (folder / name).is_file()]:
        for table, entry in _read(path):
            # A user's own measurement replaces one that comes with drsow; each folder has one file of them.
            replaces = table == "scores" and origins.get((table, entry.id)) != path
            if entry.id in tables[table] and not replaces:
                raise UsageError(f"{path}: {entry.id}: {entry.KEY} is taken by an entry of {origins[table, entry.id]}")
            tables[table][entry.id] = entry
            origins[table, entry.id] = path
    scores = tables.pop("scores")
    tables["models"] = with_scores(tables["models"], scores.values(), origins)
    registry = Registry(**tables, measured=frozenset(scores), folder=extra)
    for problem in problems(registry):
        path = origins[problem.table, problem.entry_id]
        raise UsageError(f"{path}: {problem.entry_id}: {problem.field}: {problem.words}")
    return replace(registry, models={name: _on_base(model, registry) for name, model in registry.models.items()})


def _read(path: Path) -> Iterator[tuple[str, Entry]]:
    try:
        content = tomllib.loads(edited_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error
    for table, rows in content.items():
        if table not in _TABLES[path.name]:
            raise UsageError(f"{path}: {unknown('table', table, _TABLES[path.name])}")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{path}: {table}: each entry begins with [[{table}]]")
        kind = _TABLES[path.name][table]
        for number, row in enumerate(rows, start=1):
            try:
                yield table, kind.model_validate(row, context=path.parent)
            except ValidationError as error:
                name = row.get(kind.KEY, f"entry {number} of {table}")
                raise UsageError(f"{path}: {name}: {_complaint(error, kind)}") from error


def _on_base(model: ModelSpec, registry: Registry) -> ModelSpec:
    if not isinstance(model.source, NoiseSource | AdapterSource):
        return model
    source = model.source.model_copy(update={"model": registry.models[model.source.base]})
    return model.model_copy(update={"source": source})


def _complaint(error: ValidationError, kind: type[Entry]) -> str:
    # A misspelt required field gives two errors, unknown and missing; the first one helps the user more.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"] if part not in SOURCE_TAGS.values())
    if first["type"] == "extra_forbidden":
        return unknown("field", field, kind.model_fields)
    words = "missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"{field}: {words}"


def _known(kind: str, name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    words = unknown(kind, name, known)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        words += f"; a hub repository is no model_id: `drsow models add {name} --registry DIR` writes an entry for it"
    raise UsageError(words)
