"""Keeps which models passed the engine's check on this machine, so that later processes need not repeat it.

The check compares the engine with the model's own forward pass, which takes seconds. A passed check is kept under
everything that its result depends on: if one of them changes, the model is checked again. A refusal is not kept.
"""

import contextlib
import functools
import hashlib
import json
import platform
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from bench import units
from bench.files import read_if_there, safe_name, write_whole
from bench.schema import CannotWrite, DrsowError
from bench.scoring import forward
from bench.scoring.cache import user_cache
from bench.scoring.forward.onednn import CPUINFO


class Check(NamedTuple):
    """What the result of a check depends on, besides this machine, the versions and drsow's own code."""

    revision: str
    """Commit or digest of the model's files."""
    dtype: str
    """"bfloat16" or "float32"."""
    ops: str


def passed_utc(check: Check) -> str | None:
    """When the check passed; None if it did not pass yet. A damaged file counts as none."""
    facts = _facts(check)
    with contextlib.suppress(DrsowError, ValueError, AttributeError):
        stored = json.loads(read_if_there(_path(facts)) or b"{}")
        if {name: stored.get(name) for name in facts} == facts and isinstance(stored.get("passed_utc"), str):
            return stored["passed_utc"]
    return None


def told(check: Check) -> dict[str, str]:
    """`engine_check_utc`, when the check passed, for the manifest; empty if that is not kept."""
    passed = passed_utc(check)
    return {} if passed is None else {"engine_check_utc": passed}


def keep(check: Check) -> None:
    """Keeps that the check passed now. If the cache cannot be written, the next process checks again."""
    facts = _facts(check)
    now = {"passed_utc": units.utc_now()}
    with contextlib.suppress(CannotWrite):
        write_whole(_path(facts), (json.dumps(facts | now, indent=1) + "\n").encode())


def _path(facts: dict) -> Path:
    # Not in DRSOW_CACHE, which a team may share: another machine's check says nothing about this one.
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache() / "checks" / f"{safe_name(facts['revision'])[:40]}-{name}.json"


def _facts(check: Check) -> dict:
    """All that the result depends on, as JSON values."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {**check._asdict(), "processor": _processor(), "versions": versions, "code": _code()}


@functools.cache
def _processor() -> str:
    """Name and properties of the processor, because the same kernels take other ways on another one."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "stepping"))})
    return hashlib.sha256("\n".join([platform.machine(), *told]).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """Digest of the code that the check runs."""
    whole = hashlib.sha256()
    for path in sorted(Path(forward.__path__[0]).rglob("*.[cph]*")):
        if path.suffix in {".py", ".cpp", ".h"}:
            whole.update(f"{path.name}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:16]
