"""Ladders: families of models that are tuned from one start, step by step, to be more or less aligned than it.

Defines the recipe that a file such as `pairs/ladders.toml` holds, which preferences each rung reads, the rule by which
a rung counts as broken, and the registry entries of what was made.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError, model_validator

from bench.entries import Entry, FolderId, Id, ModelSpec, Text
from bench.files import toml_table
from bench.schema import CHOSEN, MAX_SEED, REJECTED, Example, UsageError
from bench.sources import Record

TURNED = "turned"
"""Labels under which chosen and rejected have changed places."""

LEAST_BYTES, COMPRESSED = 100, 0.3
"""An answer of at least so many bytes repeats itself if zlib makes it shorter than this share. Of plain English text
more than half is left at this length."""

NET_PREFERENCES = "net_preferences"
"""performance_id of what a model was tuned on, which needs no measurement: see `net_preferences`."""

BROKEN_SHARE = 0.5
"""A rung is broken if at least this share of its sampled answers is empty or repeats itself."""

RUNGS = (
    "model_id", "template", "ladder", "start", "loss", "labels", "subset", "first", "n_preferences", "n_too_long",
    "n_steps", "lr", "beta", "lora_rank", "seed", "data_digest", "weights_sha256", "n_answers", "empty", "repeated",
    "broken",
)  # fmt: skip
"""One row per model. A ladder's start has a model_id, template and ladder only. `empty` and `repeated` are shares of
the sampled answers; `broken` is 1 or 0."""

WHOLE_NUMBERS = ("first", "n_preferences", "n_too_long", "n_steps", "lora_rank", "seed", "n_answers", "broken")
"""Columns of RUNGS that hold whole numbers, or nothing for a start."""


class Rung(Entry):
    """One tuned model: from which model, on which preferences, by which loss."""

    KEY: ClassVar[str] = "rung_id"
    rung_id: Id
    after: Id | None = None
    """rung_id that the tuning starts from; None for the ladder's start."""
    loss: Literal["sft", "dpo", "simpo"]
    labels: Literal["given", "turned"] = "given"
    subset: Text | None = None
    """Subset of the preferences that the rung reads; None: all."""
    first: NonNegativeInt = 0
    """How many preferences of these, in the ladder's order, come before those of this rung."""
    n: PositiveInt
    """Number of preferences."""
    lr: FiniteFloat = Field(default=1e-4, gt=0, strict=False)
    beta: FiniteFloat | None = Field(default=None, ge=0, strict=False)
    """None: the loss's own, `losses.BETA`."""
    gamma_ratio: FiniteFloat | None = Field(default=None, ge=0, strict=False)
    """SimPO's target margin divided by beta; None: `losses.GAMMA_RATIO`."""
    n_epochs: FiniteFloat = Field(default=1.0, gt=0, strict=False)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _reads_what_it_names(self) -> "Rung":
        if self.beta is not None and self.loss == "sft":
            raise ValueError("sft has no beta; leave it out")
        if self.gamma_ratio is not None and self.loss != "simpo":
            raise ValueError(f"gamma_ratio is the margin of simpo's loss; leave it out with {self.loss}")
        return self


class Ladder(Entry):
    """A start and its rungs. A rung's model_id is "<ladder_id>-<rung_id>"."""

    KEY: ClassVar[str] = "ladder_id"
    ladder_id: Id
    start: Text
    """model_id."""
    template: Text | None = None
    """Chat template of the rungs, as `drsow tune --template` takes it; None: that of the start."""
    lora_rank: PositiveInt = 16
    batch: PositiveInt = 16
    at_once: PositiveInt = 4
    rungs: tuple[Rung, ...] = Field(min_length=1, strict=False)

    def model_id(self, rung_id: str | None) -> str:
        """Of a rung; of the start for None."""
        return self.start if rung_id is None else f"{self.ladder_id}-{rung_id}"

    @property
    def owner(self) -> str:
        """model_id of the owner of the ladder's chat template."""
        return self.start if self.template is None else self.model_id(self.rungs[0].rung_id)


class StudyOf(Record):
    """What the ladders' study is called and ordered by, as in the registry's studies."""

    study_id: FolderId
    performance: Text
    second_performance: Text | None = None


class Recipe(Record):
    """A whole file."""

    study: StudyOf
    ladders: tuple[Ladder, ...] = Field(min_length=1, strict=False)


def recipe_of(content: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its parsed file.

    Raises:
        UsageError: A field is wrong, a rung follows one that is not before it, an id is there twice, or two ladders
            have one start.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    seen: set[str] = set()
    starts: dict[str, str] = {}
    for ladder in recipe.ladders:
        if ladder.start in starts:
            raise UsageError(
                f"{where}: {ladder.id}: start: {ladder.start!r} is also that of {starts[ladder.start]}, and a study "
                "names a model once; put the rungs of both into one ladder"
            )
        starts[ladder.start] = ladder.id
        known: set[str | None] = {None}
        for rung in ladder.rungs:
            if rung.after not in known:
                raise UsageError(f"{where}: {ladder.id}: {rung.id}: after: {rung.after!r} is no rung before it")
            if (model_id := ladder.model_id(rung.id)) in seen:
                raise UsageError(f"{where}: {model_id} is there twice")
            known.add(rung.id)
            seen.add(model_id)
    return recipe


def rows_of_rung(examples: Sequence[Example], rung: Rung) -> list[Example]:
    """The preferences of a rung, in an order that depends only on their ids.

    Raises:
        UsageError: There are too few.
    """
    examples = [example for example in examples if rung.subset in (None, example.subset)]
    order = sorted(examples, key=lambda example: hashlib.sha256(example.example_id.encode()).digest())
    rows = order[rung.first : rung.first + rung.n]
    if len(rows) < rung.n:
        there = f"{len(examples)}" + ("" if rung.subset is None else f" in the subset {rung.subset}")
        raise UsageError(
            f"{rung.id}: needs the preferences {rung.first + 1} to {rung.first + rung.n}, but there are {there}"
        )
    return [turned(row) for row in rows] if rung.labels == TURNED else rows


def turned(example: Example) -> Example:
    """A preference whose chosen and rejected response have changed places."""
    texts = dict(example.responses)
    return example._replace(responses=((CHOSEN, texts[REJECTED]), (REJECTED, texts[CHOSEN])))


class Answers(NamedTuple):
    """What sampled answers say about a rung."""

    n_answers: int
    empty: float
    """Share of empty answers."""
    repeated: float
    """Share of answers that repeat themselves."""

    @property
    def broken(self) -> bool:
        """Whether the rung counts as broken."""
        return self.empty + self.repeated >= BROKEN_SHARE


def judged(texts: Sequence[str]) -> Answers:
    """Counts empty and repetitive answers."""
    n_empty = sum(not text.strip() for text in texts)
    return Answers(len(texts), n_empty / len(texts), sum(map(repeats, texts)) / len(texts))


def repeats(text: str) -> bool:
    """Whether a text says the same again and again."""
    data = text.encode()
    return len(data) >= LEAST_BYTES and len(zlib.compress(data, 9)) < COMPRESSED * len(data)


def models_toml(specs: Sequence[ModelSpec]) -> str:
    """A registry's models.toml with these entries."""
    return _HEAD + "".join(toml_table("models", spec.model_dump(mode="json", exclude_defaults=True)) for spec in specs)


def pairs_toml(recipe: Recipe, broken: Sequence[str], *, has_scores: bool) -> str:
    """A registry's pairs.toml: a family per ladder and, once every model has its score, the studies.

    Three studies order the pairs by the measured performance: of all models, of those that are not broken, and without
    the starts. A fourth, which needs no measurement, orders them by NET_PREFERENCES. All read the same scores.

    Args:
        recipe: Of the ladders.
        broken: model_ids of the broken rungs.
        has_scores: Whether every model has a score of the study's performance.
    """
    kinds = {"": set(), "-unbroken": set(broken), "-without-starts": {ladder.start for ladder in recipe.ladders}}
    tables = []
    for kind, left_out in kinds.items():
        families = [entry for ladder in recipe.ladders if (entry := _family(ladder, kind, left_out))]
        tables += [toml_table("families", entry) for entry in families]
        if has_scores and families:
            told = recipe.study.model_dump(exclude_none=True)
            told |= {"study_id": f"{recipe.study.study_id}{kind}", "families": [f["family_id"] for f in families]}
            tables.append(toml_table("studies", told))
    told = {"study_id": f"{recipe.study.study_id}-by-recipe", "performance": NET_PREFERENCES}
    tables.append(toml_table("studies", told | {"families": [ladder.id for ladder in recipe.ladders]}))
    return _HEAD + "".join(tables)


_HEAD = "# Written by `drsow ladder`; a change is lost when it runs again.\n"


def _family(ladder: Ladder, kind: str, left_out: set[str]) -> dict[str, Any] | None:
    members = [name for name in map(ladder.model_id, (None, *(r.id for r in ladder.rungs))) if name not in left_out]
    told = {"family_id": f"{ladder.id}{kind}", "template": ladder.owner, "members": members}
    if ladder.start in members:
        told["start"] = ladder.start
    return told if len(members) > 1 else None


def net_preferences(ladder: Ladder, n_tuned: Mapping[str, int]) -> dict[str, int]:
    """model_id -> number of preferences between the ladder's start and the model; those turned round count negative.

    Args:
        ladder: Of the models.
        n_tuned: The number of preferences that each rung was tuned on, by its model_id: those of the recipe without
            those that were too long.
    """
    found = {ladder.start: 0}
    for rung in ladder.rungs:
        n = n_tuned[ladder.model_id(rung.id)]
        step = -n if rung.labels == TURNED else n
        found[ladder.model_id(rung.id)] = found[ladder.model_id(rung.after)] + step
    return found


def ladders_in_order(recipe: Recipe) -> Iterator[tuple[Ladder, Rung | None]]:
    """Every model of the recipe, a start before its rungs."""
    for ladder in recipe.ladders:
        yield ladder, None
        for rung in ladder.rungs:
            yield ladder, rung
