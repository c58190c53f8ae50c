"""The real command in a process of its own: what it is called with, what it leaves behind."""

import json
import os
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("drsow"))

PROMPTS = ("Is 7 prime?", "Name a colour.", "What is water?", "Say no.", "Two and two?", "é or e? 🎉")


def rows(n: int = 24) -> list[dict]:
    """Preferences of our own in two subsets, all different."""
    return [
        {
            "id": i,
            "subset": ("numbers", "words")[i % 2],
            "prompt": f"{PROMPTS[i % len(PROMPTS)]} ({i})",
            "chosen": f"yes, the answer is {i}",
            "rejected": "no\n" * (1 + i % 3) + f"{i} {i}",
        }
        for i in range(n)
    ]


def write_rows(path: Path, content: list[dict]) -> Path:
    """A jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def environment(**more: str) -> dict[str, str]:
    """No network, no cache of the user's, no width that pytest-xdist sets, a fixed number of threads."""
    left_out = ("DRSOW_", "PIP_", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more


def lasting(folder: Path) -> dict[str, bytes]:
    """Every table and part below a results folder: what two equal runs share to the byte."""
    files = [path for path in folder.rglob("*") if path.suffix in {".csv", ".parquet"}]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def leftovers(folder: Path) -> list[str]:
    """Files below a folder, locks and empty folders apart."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
