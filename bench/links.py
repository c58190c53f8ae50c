"""Checks what the entries of a registry refer to: each name has an entry, and the entries fit each other."""

import difflib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bench.contrast import text_problems
from bench.entries import AdapterSource, Domain, ModelSpec, NoiseSource, Study, UrlSource

if TYPE_CHECKING:
    from bench.registry import Registry


class Problem(NamedTuple):
    """A wrong entry."""

    table: str
    entry_id: str
    field: str
    words: str


def problems(registry: "Registry") -> Iterator[Problem]:
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
        for field, words in text_problems(entry, registry.domains):
            yield Problem("pairs", entry.id, field, words)
    yield from (problem for study in registry.studies.values() for problem in _study_problems(registry, study))
    yield from (problem for domain in registry.domains.values() for problem in _domain_problems(registry, domain))


def _base_problems(registry: "Registry", model: ModelSpec, source: NoiseSource | AdapterSource) -> Iterator[Problem]:
    yield from _strangers("models", model.id, "model", {"source.base": [source.base]}, registry.models)
    base = registry.models[source.base]
    kinds = {NoiseSource: "is a noise model itself", UrlSource: "is on a server", AdapterSource: "has an adapter"}
    if words := kinds.get(type(base.source)):
        yield Problem("models", model.id, "source.base", f"{base.id!r} {words}")
    if model.format != base.format:
        yield Problem("models", model.id, "format", f"its base, {base.id!r}, is {base.format!r}")


def _study_problems(registry: "Registry", study: Study) -> Iterator[Problem]:
    axes = {"performance": [study.performance], "second_performance": [study.second_performance or study.performance]}
    yield from _strangers("studies", study.id, "performance", axes, registry.performances)
    yield from _strangers("studies", study.id, "family", {"families": study.families}, registry.families)
    members = [name for family in study.families for name in registry.families[family].members]
    for name, count in Counter(members).items():
        if count > 1:
            yield Problem("studies", study.id, "families", f"model {name!r} is named {count} times")
        if study.performance not in registry.models[name].scores:
            yield Problem("studies", study.id, "performance", f"model {name!r} has no score {study.performance!r}")
    if study.id in registry.pairs:
        yield Problem("studies", study.id, "study_id", "is also a pair's name, so their results would share a folder")


def _domain_problems(registry: "Registry", domain: Domain) -> Iterator[Problem]:
    if domain.opposite is not None and domain.opposite.strip() == domain.instruction.strip():
        yield Problem("domains", domain.id, "opposite", "is the same as instruction")
    if domain.parent is not None:
        yield from _strangers("domains", domain.id, "domain", {"parent": [domain.parent]}, registry.domains)
        if registry.domains[domain.parent].parent is not None or domain.parent == domain.id:
            yield Problem("domains", domain.id, "parent", f"{domain.parent!r} has a parent itself")
    for other in itertools.takewhile(lambda each: each is not domain, registry.domains.values()):
        for subset in sorted({*domain.subsets} & {*other.subsets}):
            yield Problem("domains", domain.id, "subsets", f"{subset!r} already belongs to {other.id!r}")


def _strangers(
    table: str, entry_id: str, kind: str, named: Mapping[str, Iterable[str]], known: Collection[str]
) -> Iterator[Problem]:
    for field, names in named.items():
        for name in names:
            if name not in known:
                yield Problem(table, entry_id, field, unknown(kind, name, known))


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """The message for a name that nothing has, with the name that is most like it."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"unknown {kind} {name!r}" + (f", did you mean {close[0]!r}?" if close else "")
