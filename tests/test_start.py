"""What starting costs: which of the slow modules a verb imports before it needs them."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imports", "slow"),
    [
        ("bench.cli", ("numpy", "pandas", "rich", "pydantic", "torch")),
        # What a run imports before it knows whether anything has to be scored, and what it draws a pair with.
        (
            "bench.verbs.run, bench.study.draw, bench.scoring.forward.ops",
            ("scipy.stats", "scipy.optimize", "statsmodels", "seaborn", "transformers", "torch._dynamo"),
        ),
    ],
)
def test_slow_modules_are_imported_only_when_they_are_needed(imports, slow):
    code = f"import sys, {imports}; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
