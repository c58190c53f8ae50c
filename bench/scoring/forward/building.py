"""Compiles the sources in `cpp/`, drsow's kernels for a processor, once per machine."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import torch

from bench.faults import warn
from bench.scoring.cache import user_cache

SOURCES = Path(__file__).with_name("cpp")

FLAGS = (
    *("-O3", "-std=c++20", "-fPIC", "-shared", "-fopenmp"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma"),
)
"""-march=native is not used, because machines that share a home folder share the compiled kernels."""

COMPILE_S, COMPILE_LIMIT_S = 20, 600
"""Seconds that compiling takes on one idle core, and seconds after which drsow stops the compiler."""


def compiled() -> Path:
    """The file of the compiled kernels in the user's cache. Its name depends on the sources, the flags and torch.

    It is not in DRSOW_CACHE, which a team may share, because it is code that this user runs.

    Raises:
        OSError: There is no compiler, or the cache cannot be written.
        CalledProcessError: The kernels do not compile.
        TimeoutExpired: The compiler takes too long.
    """
    compiler, path = _compiler(), _file()
    if path.is_file():
        return path
    if shutil.which(compiler) is None:
        raise FileNotFoundError(f"{compiler} not found")
    path.parent.mkdir(parents=True, exist_ok=True)
    warn(f"Compiling drsow's kernels with {compiler} (once, about {COMPILE_S} s)")
    # Renamed into place atomically, because other processes may compile the kernels too.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder) / path.name
        _run(_command(compiler, out))
        out.replace(path)
    return path


def can_be_had() -> bool:
    """Whether the kernels are compiled, or there is a compiler. Compiles nothing."""
    return _file().is_file() or shutil.which(_compiler()) is not None


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _file() -> Path:
    """The file of the compiled kernels, which need not exist."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir())]
    said = "\0".join((*sources, *FLAGS, torch.__version__, _compiler()))
    return user_cache() / "kernels" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.so"


def _run(command: list[str]) -> None:
    """Runs a compiler. If it is stopped, its child processes are stopped too, because they would continue alone."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            _, said = process.communicate(timeout=COMPILE_LIMIT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)


def _command(compiler: str, out: Path) -> list[str]:
    # Imported here, because it imports setuptools, which only compiling needs.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # A CUDA compiler without a GPU is no fault.
    from torch.utils import cpp_extension

    includes = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    libraries = [f"-L{folder}" for folder in cpp_extension.library_paths()]
    source = str(SOURCES / "library.cpp")
    return [compiler, *FLAGS, *includes, source, "-o", str(out), *libraries, "-ltorch_cpu", "-lc10"]
