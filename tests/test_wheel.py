"""drsow from its wheel: built, installed into an empty environment, used from an empty folder without a network."""

import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import environment

pytestmark = pytest.mark.slow  # builds a wheel and runs two packaged models

ROOT = Path(__file__).parents[1]


def said(command: list[object], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    names = {name: value for name, value in environment(**variables).items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=names, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of an environment that has drsow from its wheel, and the packages of this one."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; the extra dev has it")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    done = subprocess.run([*pip, *map(str, build)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("drsow-*.whl")
    place = folder / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    done = said([*pip, "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel], folder)
    assert done.returncode == 0, done.stderr
    # Packages that drsow needs come from this environment. Its own .pth files are not read, so neither is the checkout.
    (site,) = (place / "lib").glob("python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    return place / "bin"


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_the_command_of_a_wheel_is_the_wheels_and_brings_its_registry(installed, empty):
    done = said([installed / "python", "-c", "import bench; print(bench.__file__)"], empty)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent), done.stderr
    done = said([installed / "drsow", "pairs", "--format", "csv"], empty)
    assert done.returncode == 0, done.stderr
    assert "embedded," in done.stdout
    kernels = said([installed / "python", "-c", "import bench.scoring.forward.building as b; print(b.SOURCES)"], empty)
    assert (Path(kernels.stdout.strip()) / "library.cpp").is_file()


def test_a_packaged_pair_runs_on_the_built_in_rows_from_a_wheel(installed, empty, small_models):
    caches = {name: os.environ[name] for name in ("DRSOW_CACHE",) if name in os.environ}
    run = ["run", "--pair", "smollm2-over-gemma", "--data", "sample", "--limit-per-subset", "1", "--json"]
    done = said([installed / "drsow", *run], empty, **caches)
    assert done.returncode == 0, done.stderr
    assert '"pair_id": "smollm2-over-gemma"' in done.stdout
    assert [path.name for path in empty.iterdir()] == ["results"]
    assert (empty / "results/smollm2-over-gemma/sample-1-per-subset/leaderboard.csv").is_file()
