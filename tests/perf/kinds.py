"""Kinds of processor: the name of the folder that holds what was measured on one, and the page that lists all."""

import json
from pathlib import Path

import pandas as pd
import torch

from bench.scoring.forward.onednn import CPUINFO
from bench.scoring.forward.ops import processor
from perf.scorers import DPO, LM_EVAL

ROOT = Path("results/perf")

SHOWN = {
    f"plain, fp32: times faster than {LM_EVAL}": "fp32, over lm-eval",
    f"plain, bf16: times faster than {LM_EVAL}": "bf16, over lm-eval",
    f"plain, fp32: times faster than {DPO}": "fp32, over DPOInference",
    f"plain, bf16: times faster than {DPO}": "bf16, over DPOInference",
    "plain, bf16: share of the matmul rate": "bf16, share of the product rate",
}
"""A bar on the plain workload -> its heading."""

HEAD = """# What scoring costs, by kind of processor

Written by `make perf`. Each kind of processor has a folder, named after its maker and the instructions that multiply
bfloat16 on it. A figure holds for the kind of its row alone. "Over" says how many times as fast as the peer drsow is.
[gpu](gpu/README.md) and [gpu-h200](gpu-h200/README.md) have what was measured on GPUs.

"""


def kind() -> str:
    """The kind of this machine's processor, such as "amd-avx512bf16" or "intel-amx"."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    said = next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    makers = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
    isa = processor(torch.bfloat16).isa.replace(" ", "-")
    return f"{makers.get(said, 'other')}-{isa}"


def write_index(root: Path) -> None:
    """Write the page that names every kind's processor, date and bars on the plain workload."""
    heads = ["folder", "processor", "measured", *SHOWN.values()]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for path in sorted(root.glob("*/manifest.json")):
        ran, bars = json.loads(path.read_text(encoding="utf-8")), path.with_name("bars.csv")
        found = pd.read_csv(bars).set_index("bar")["measured"] if bars.is_file() else pd.Series(dtype=float)
        folder = path.parent.name
        cells = [f"[{folder}]({folder}/README.md)", f"{ran['processor']}, {ran['cores']} cores"]
        cells.append(max(ran["began_utc"].values())[:10])
        lines.append(" | ".join([*cells, *(f"{found[bar]:.2f}" if bar in found else "" for bar in SHOWN)]))
    (root / "README.md").write_text(HEAD + "".join(f"| {line} |\n" for line in lines), encoding="utf-8")
