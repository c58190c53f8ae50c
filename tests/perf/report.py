"""CSVs -> figures, README and the table of bars."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from bench.schema import UsageError
from bench.scoring.forward.onednn import CPUINFO
from bench.scoring.forward.ops import choose
from bench.study.figures.style import FORMATS, encode
from perf import figures, small
from perf.bars import Measured, bars, mean_times, own_ids_words, table
from perf.markdown import markdown

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "lm_eval", "rewardbench")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

TEMPLATE = Path(__file__).parent / "readme_template.md"


def read(folder: Path) -> Measured:
    """What the CSVs of a folder hold."""
    paths = [folder / f"{name}.csv" for name in Measured._fields]
    return Measured(*(pd.read_csv(path) if path.is_file() else pd.DataFrame() for path in paths))


def write(folder: Path) -> pd.DataFrame:
    """Write bars, figures and README from a folder's CSVs; gives the bars."""
    measured, ran = read(folder), json.loads((folder / MANIFEST).read_text())
    found = bars(measured, tiles="-amx" in ran.get("kernels", {}).get("bf16", ""))
    found.to_csv(folder / "bars.csv", index=False)
    drawn = {
        "perf": (figures.scorer_times, measured.perf),
        "scaling": (figures.growth, measured.scaling),
        "precision": (figures.dtype_shifts, measured.precision),
    }
    for name, (draw, frame) in drawn.items():
        if len(frame):
            figure = draw(frame)
            for file_format in FORMATS:
                (folder / f"{name}.{file_format}").write_bytes(encode(figure, file_format))
    (folder / "README.md").write_text(_readme(measured, found, ran), encoding="utf-8")
    return found


def begin(folder: Path, parts: Iterable[str]) -> None:
    """Write on what a folder's parts are measured and when the run of each began; other parts keep their times.

    Raises:
        UsageError: other parts in the folder were measured on another machine or other versions.
    """
    path, began_utc = folder / MANIFEST, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    now, before = _machine(), json.loads(path.read_text()) if path.is_file() else {}
    kept = {part: at for part, at in before.pop("began_utc", {}).items() if part not in parts}
    if kept and before != now:
        raise UsageError(f"{path}: {', '.join(kept)} ran on another machine or other versions: name another --out")
    path.write_text(json.dumps({"began_utc": kept | dict.fromkeys(parts, began_utc), **now}, indent=1) + "\n")


def _machine() -> dict:
    """What the measurements run on."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": {name: choose(torch.device("cpu"), dtype).name for name, dtype in DTYPES.items()},
        "bf16_in_hardware": torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _readme(measured: Measured, found: pd.DataFrame, ran: dict) -> str:
    missing = [f"`{name}.csv`" for name, frame in measured._asdict().items() if not len(frame)]
    times = mean_times(measured.perf)[["wall_s", "peak_bytes", "share_of_matmul_rate"]] if len(measured.perf) else None
    runs: dict[str, list[str]] = {}
    for part, at in ran["began_utc"].items():
        runs.setdefault(at, []).append(part)
    facts = {
        "versions": ", ".join(f"{name} {version}" for name, version in ran["versions"].items()),
        "began_utc": "; ".join(f"{', '.join(runs[at])}: {at}" for at in sorted(runs)),
    }
    return TEMPLATE.read_text(encoding="utf-8").format(
        **ran | facts,
        bars=f"```text\n{table(found)}\n```" if len(found) else "none measured",
        times="" if times is None else markdown(times.reset_index()),
        own_ids=f"\non these rows {own_ids_words(measured.own_ids)}" if len(measured.own_ids) else "",
        profile=markdown(measured.profile) if len(measured.profile) else "",
        precision=markdown(measured.precision) if len(measured.precision) else "",
        small=f"```text\n{small.table(measured.small)}\n```" if len(measured.small) else "",
        unmeasured=f"\nNot measured in this run: {', '.join(missing)}." if missing else "",
    )
