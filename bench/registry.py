"""Loads the registry from `pairs/*.toml` and a user's folder, which can add entries but cannot replace one."""

import difflib
import itertools
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

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
from bench.measured import MeasuredScore, with_scores
from bench.schema import UsageError

PERFORMANCE, SECOND_PERFORMANCE = "alpaca_eval_2_lc", "arena_hard"
"""The performances that gaps are measured in if no study names others."""


class Pair(NamedTuple):
    """A strong and a weak model; the reward is the difference of their log-probabilities."""

    pair_id: str
    """A named pair's alias, or "<strong>--<weak>"."""
    strong: str
    """model_id, like `weak` and `template`."""
    weak: str
    family: str
    """"" for a named pair."""
    template: str
    """The model whose chat template both models use."""
    gap_points: float
    """performance(strong) - performance(weak); NaN if a score is not published."""
    references: tuple[Reference, ...] = ()
    note: str = ""


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

    def model(self, name: str) -> ModelSpec:
        """The model of that model_id."""
        return self.models[_known("model", name, self.models)]

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
        """The named pair with this alias, or the pair with this pair_id from the first study that has it."""
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
        return list(dict.fromkeys(m for pair in pairs for m in (pair.strong, pair.weak, pair.template)))

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
        gap = gap_points(self.models[entry.strong], self.models[entry.weak], PERFORMANCE)
        template = entry.template or entry.strong
        return Pair(entry.pair_id, entry.strong, entry.weak, "", template, gap, entry.references, entry.note)

    def _ordered(self, first: ModelSpec, second: ModelSpec, family: Family, performance: str) -> Pair:
        strong, weak = sorted((first, second), key=lambda model: (-model.score(performance), model.model_id))
        pair_id = f"{strong.model_id}--{weak.model_id}"
        gap = gap_points(strong, weak, performance)
        return Pair(pair_id, strong.model_id, weak.model_id, family.family_id, family.template, gap)


class _Problem(NamedTuple):
    table: str
    entry_id: str
    field: str
    words: str


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
    """Reads drsow's own entries, and adds a user's entries.

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
            if entry.id in tables[table]:
                raise UsageError(f"{path}: {entry.id}: {entry.KEY} is taken by an entry of {origins[table, entry.id]}")
            tables[table][entry.id] = entry
            origins[table, entry.id] = path
    tables["models"] = with_scores(tables["models"], tables.pop("scores").values(), origins)
    registry = Registry(**tables)
    for table, entry_id, field, words in _problems(registry):
        raise UsageError(f"{origins[table, entry_id]}: {entry_id}: {field}: {words}")
    return replace(registry, models={name: _on_base(model, registry) for name, model in registry.models.items()})


def _read(path: Path) -> Iterator[tuple[str, Entry]]:
    try:
        content = tomllib.loads(edited_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error
    for table, rows in content.items():
        if table not in _TABLES[path.name]:
            raise UsageError(f"{path}: {_unknown('table', table, _TABLES[path.name])}")
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
        return _unknown("field", field, kind.model_fields)
    words = "missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"{field}: {words}"


def _problems(registry: Registry) -> Iterator[_Problem]:
    """Wrong references between entries. Only the first one is reliable, because later ones may follow from it."""
    for model in registry.models.values():
        yield from _strangers("models", model.id, "performance", {"scores": model.scores}, registry.performances)
        if isinstance(model.source, NoiseSource | AdapterSource):
            yield from _base_problems(registry, model, model.source)
    for family in registry.families.values():
        named = {"template": [family.template], "members": family.members}
        yield from _strangers("families", family.id, "model", named, registry.models)
        start = {"start": [family.start or family.members[0]]}
        yield from _strangers("families", family.id, "member", start, family.members)
    for entry in registry.pairs.values():
        named = {"strong": [entry.strong], "weak": [entry.weak], "template": [entry.template or entry.strong]}
        yield from _strangers("pairs", entry.id, "model", named, registry.models)
        if entry.strong == entry.weak:
            yield _Problem("pairs", entry.id, "weak", "is the strong model")
    yield from (problem for study in registry.studies.values() for problem in _study_problems(registry, study))
    yield from (problem for domain in registry.domains.values() for problem in _domain_problems(registry, domain))


def _base_problems(registry: Registry, model: ModelSpec, source: NoiseSource | AdapterSource) -> Iterator[_Problem]:
    yield from _strangers("models", model.id, "model", {"source.base": [source.base]}, registry.models)
    base = registry.models[source.base]
    kinds = {NoiseSource: "is a noise model itself", UrlSource: "is on a server", AdapterSource: "has an adapter"}
    if words := kinds.get(type(base.source)):
        yield _Problem("models", model.id, "source.base", f"{base.id!r} {words}")
    if model.format != base.format:
        yield _Problem("models", model.id, "format", f"its base, {base.id!r}, is {base.format!r}")


def _study_problems(registry: Registry, study: Study) -> Iterator[_Problem]:
    axes = {"performance": [study.performance], "second_performance": [study.second_performance or study.performance]}
    yield from _strangers("studies", study.id, "performance", axes, registry.performances)
    yield from _strangers("studies", study.id, "family", {"families": study.families}, registry.families)
    members = [name for family in study.families for name in registry.families[family].members]
    for name, count in Counter(members).items():
        if count > 1:
            yield _Problem("studies", study.id, "families", f"model {name!r} is named {count} times")
        if study.performance not in registry.models[name].scores:
            yield _Problem("studies", study.id, "performance", f"model {name!r} has no score {study.performance!r}")
    if study.id in registry.pairs:
        yield _Problem("studies", study.id, "study_id", "is also a pair's name, so their results would share a folder")


def _domain_problems(registry: Registry, domain: Domain) -> Iterator[_Problem]:
    if domain.parent is not None:
        yield from _strangers("domains", domain.id, "domain", {"parent": [domain.parent]}, registry.domains)
        if registry.domains[domain.parent].parent is not None or domain.parent == domain.id:
            yield _Problem("domains", domain.id, "parent", f"{domain.parent!r} has a parent itself")
    for other in itertools.takewhile(lambda each: each is not domain, registry.domains.values()):
        for subset in sorted({*domain.subsets} & {*other.subsets}):
            yield _Problem("domains", domain.id, "subsets", f"{subset!r} already belongs to {other.id!r}")


def _strangers(
    table: str, entry_id: str, kind: str, named: Mapping[str, Iterable[str]], known: Collection[str]
) -> Iterator[_Problem]:
    for field, names in named.items():
        for name in names:
            if name not in known:
                yield _Problem(table, entry_id, field, _unknown(kind, name, known))


def _known(kind: str, name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    raise UsageError(_unknown(kind, name, known))


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"unknown {kind} {name!r}" + (f", did you mean {close[0]!r}?" if close else "")
