"""Checks each entry of `pairs/*.toml` alone; `registry.py` checks what it refers to."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Discriminator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.schema import PARTS
from bench.sources import (
    Commit,
    FileSource,
    FolderSource,
    HubFileSource,
    HubSource,
    PackageSource,
    Place,
    Record,
    Text,
    UrlSource,
    files_at,
    form,
)

# An id becomes a folder's name and half of a pair_id, "<strong>--<weak>".
Id = Annotated[str, form(r"(?!.*--)[a-z0-9][a-z0-9._-]{0,79}", "id (a-z 0-9 . _ -, no '--', at most 80)")]
# The name of a pair or study is the folder of its results, beside the folder of the score sets.
FolderId = Annotated[Id, form(r"(?!scores$).*", "name of a pair or study: results/scores has the score sets")]
Benchmark = Annotated[str, form("|".join(PARTS), f"benchmark ({', '.join(PARTS)})")]


class Entry(Record):
    """One entry of a registry file. KEY names the field whose value is unique among entries of this kind."""

    KEY: ClassVar[str]

    @property
    def id(self) -> str:
        """The value of KEY."""
        return getattr(self, self.KEY)


class NoiseSource(Record):
    """Another model's files with seeded Gaussian noise added to the weights (`scoring.noise`)."""

    base: Text
    """model_id of the model without noise."""
    noise: FiniteFloat = Field(ge=0, lt=10)
    """Standard deviation of the noise on a weight matrix, in standard deviations of that matrix; 0 gives the base."""
    seed: NonNegativeInt
    model: "ModelSpec | None" = None
    """The base's entry. The registry fills it in; the TOML file does not contain it."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return f"{self.base} + noise {self.noise:g} (seed {self.seed})"


class AdapterSource(Record):
    """A LoRA adapter on another model's files. peft merges it into the weights when they are loaded."""

    adapter: Place
    base: Text
    """model_id of the model without the adapter, whose tokenizer and chat template count."""
    revision: Commit | None = None
    """Commit of the adapter's repository; None for the newest commit at the time of fetching."""
    other_base: bool = False
    """Whether the adapter may name another base than this one, for example a copy of it under another name."""
    model: "ModelSpec | None" = None
    """The base's entry. The registry fills it in; the TOML file does not contain it."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return f"{self.base} + adapter {self.adapter}"

    @property
    def files(self) -> HubSource | FolderSource:
        """Where the adapter is."""
        return files_at(self.adapter, self.revision)

    @model_validator(mode="after")
    def _folders_have_no_commit(self) -> "AdapterSource":
        if self.revision is not None and isinstance(self.files, FolderSource):
            raise ValueError("revision is the commit of a hub repository, and the adapter is a folder")
        return self


SOURCE_TAGS = {
    ("adapter",): "adapter source",
    ("url",): "server source",
    ("repo", "file"): "hub file source",
    ("repo",): "hub source",
    ("packages",): "package source",
    ("folder",): "folder source",
    ("base",): "noise source",
    ("file",): "file source",
}
"""The keys that identify each kind of source, and pydantic's name of that kind in place of an error."""


def _source_kind(source: Any) -> str | None:
    known = set(dict(source)) if isinstance(source, dict | Record) else set()
    return next((tag for keys, tag in SOURCE_TAGS.items() if known.issuperset(keys)), None)


class Score(Record):
    """A published or measured performance."""

    value: FiniteFloat
    source: Text
    stderr: FiniteFloat | None = Field(default=None, ge=0)
    """Standard error of the value, in its unit."""


class ModelSpec(Entry):
    """One model: the source of its files, its properties, its published scores. Unknown values are None."""

    KEY = "model_id"
    model_id: Id
    source: Annotated[
        Annotated[HubSource, Tag("hub source")]
        | Annotated[PackageSource, Tag("package source")]
        | Annotated[FolderSource, Tag("folder source")]
        | Annotated[NoiseSource, Tag("noise source")]
        | Annotated[AdapterSource, Tag("adapter source")]
        | Annotated[HubFileSource, Tag("hub file source")]
        | Annotated[UrlSource, Tag("server source")]
        | Annotated[FileSource, Tag("file source")],
        Discriminator(
            _source_kind,
            custom_error_type="source",
            custom_error_message="needs one of repo, packages, folder, base, url, file, adapter",
        ),
    ]
    format: Literal["safetensors", "gguf", "server"]
    method: Text
    """Last training method: "base", "sft", "dpo" and so on."""
    n_params: PositiveInt | None = None
    n_params_active: PositiveInt | None = None
    """Parameters that one token uses, if fewer than `n_params`."""
    licence: Text | None = None
    licence_notice: Text | None = None
    """Text that drsow shows before the first download."""
    context_tokens: PositiveInt | None = None
    tokens_per_byte: FiniteFloat | None = Field(default=None, gt=0, le=2)
    """Tokens per byte of RewardBench's texts. `drsow plan` uses it if the tokenizer is not on this machine."""
    scores: dict[str, Score] = Field(default={})
    """Published performances by performance_id, each in the unit of that performance."""
    note: str = ""

    @field_validator("format")
    @classmethod
    def _format_of_the_source(cls, name: str, info: ValidationInfo) -> str:
        source = info.data.get("source")
        # A model on a base has the format of its base, which the registry checks.
        known = source is not None and not isinstance(source, NoiseSource | AdapterSource)
        if known and (name == "server") != isinstance(source, UrlSource):
            raise ValueError("a model on a server has the format 'server', and no other has")
        if known and (name == "gguf") != isinstance(source, PackageSource | FileSource | HubFileSource):
            raise ValueError("a package's file is 'gguf', a repository or folder 'safetensors'")
        return name

    @property
    def files(self) -> "ModelSpec":
        """The model that owns the files: the base of a noise model or of an adapter, otherwise this model."""
        base = self.source.model if isinstance(self.source, NoiseSource | AdapterSource) else None
        return base or self

    @property
    def tokenizer(self) -> "ModelSpec":
        """The entry of the tokenizer's files, which a model on a server has elsewhere; otherwise this model."""
        if not isinstance(self.source, UrlSource):
            return self
        source = self.source.files
        return ModelSpec(model_id=self.model_id, source=source, format="safetensors", method=self.method)

    def score(self, performance: str) -> float:
        """Published performance in its unit, NaN if there is none."""
        return self.scores[performance].value if performance in self.scores else math.nan


class Performance(Entry):
    """A published measure of how good a model is; higher is better."""

    KEY = "performance_id"
    performance_id: Id
    name: Text
    """Name with unit; it labels the gaps in every figure."""
    unit: Text = "points"
    """Unit of its scores."""
    stderr: FiniteFloat = Field(default=1.0, gt=0)
    """Plausible standard error of a score that says none itself; gap_noise.csv shows its effect on a study."""


class Family(Entry):
    """Models that are compared with each other, all with the chat template of the model `template`."""

    KEY = "family_id"
    family_id: Id
    template: str
    members: tuple[str, ...] = Field(min_length=2, strict=False)
    start: str | None = None
    """The member that the tuning of the others began with; absent if it is unknown or no member."""


class Study(Entry):
    """All unordered pairs inside each of its families."""

    KEY = "study_id"
    study_id: FolderId
    families: tuple[str, ...] = Field(min_length=1, strict=False)
    performance: str  # performance_id of the scores that order each pair; every member must have such a score
    second_performance: str | None = None
    note: str = ""


class Reference(Record):
    """Published accuracies of a pair, to print beside drsow's."""

    source: Text
    benchmark: Benchmark = "reward-bench"
    percent: dict[str, FiniteFloat]
    """Accuracy in percent of "score" or a part of the benchmark."""
    customised: bool = False
    differs_because: str = ""  # why drsow's row is another number, in a few words

    @model_validator(mode="after")
    def _of_the_benchmark(self) -> "Reference":
        if strange := set(self.percent) - {"score", *PARTS[self.benchmark]}:
            raise ValueError(f"percent: {min(strange)!r} is no part of {self.benchmark}")
        return self


class PairEntry(Entry):
    """A named pair in pairs.toml."""

    KEY = "pair_id"
    pair_id: FolderId
    strong: str
    weak: str
    template: str | None = None
    """model_id of the chat template's owner; None for the strong model."""
    strong_text: str | None = None
    """In a pair of one model, the text that the strong side reads before every prompt; "" for no text."""
    weak_text: str | None = None
    """The same for the weak side. A pair of one model has both fields, or `texts`; `bench.contrast` checks them."""
    texts: Literal["domains"] | None = None
    """"domains": the strong side reads the instruction of each prompt's domain, the weak side its opposite."""
    references: tuple[Reference, ...] = Field(default=(), strict=False)
    note: str = ""


Prose = Annotated[str, form(r"(?s).*\S.*", "text: it is blank")]


class Exemplar(Record):
    """A worked example with a good and a bad answer in a domain."""

    principle: Prose
    user: Prose
    good: Prose
    bad: Prose
    explanation: Prose


class Domain(Entry):
    """A kind of prompt, with the instruction and exemplars that both models of a pair read for it."""

    KEY = "domain_id"
    domain_id: Id
    parent: str | None = None
    """domain_id of the domain that contains this one, or None."""
    description: Prose
    turn: Literal["system", "user"]
    """The turn that gets the block: "system" for a system turn, "user" for the start of the first user turn."""
    instruction: Prose
    opposite: Prose | None = None
    """The opposite of the instruction, for pairs of one model; None if the domain is not used in such pairs."""
    exemplars: tuple[Exemplar, ...] = Field(min_length=1, strict=False)
    queries: tuple[Prose, ...] = Field(default=(), strict=False)
    """Training texts of the classifier, in addition to the user turns of the exemplars."""
    subsets: tuple[Text, ...] = Field(default=(), strict=False)
    """Subsets of data sets whose rows are known to belong to this domain."""
