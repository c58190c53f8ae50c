"""Finished runs of the real command on tiny models."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import COMMAND, environment, rows, write_rows
from warm import ALL_FORMATS, Warm


@pytest.fixture(scope="session")
def drsow() -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Run the command to its end."""
    warm = Warm(environment())

    def call(*words: object, **variables: str) -> subprocess.CompletedProcess:
        command, environ = [COMMAND, *map(str, words)], environment(**variables)
        if warm.suits(environ):
            return warm.run(command, environ)
        return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

    yield call
    warm.end()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", rows())


@pytest.fixture(scope="session")
def tiny_run(tiny_registry, data) -> list:
    """The words of a run of the pair tiny that is cut into several parts; --results is missing."""
    options = ["--dtype", "fp32", "--device", "cpu", "--batch-tokens", 32]
    return ["run", "--registry", tiny_registry, "--pair", "tiny", "--data", data, *options]


@pytest.fixture(scope="session")
def finished(drsow, tiny_run, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The results folder of an undisturbed run, and what the command said. Not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    return folder, drsow(*tiny_run, "--results", folder, **{ALL_FORMATS: "1"})


@pytest.fixture
def results(finished, tmp_path) -> Path:
    """A copy of a finished run's results folder."""
    return shutil.copytree(finished[0], tmp_path / "results")
