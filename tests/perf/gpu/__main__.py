"""`python -m perf.gpu`, with `tests` on the path: correctness and speed on this machine's GPU, as CSV."""

import argparse
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from bench.scoring.forward import engine, ops, preparing, trie
from perf.gpu import report, work

SIDE = 8192
"""Of the square matrices that the card's rate is measured on."""
LEAST_S = {"rates": 20, "timing": 100, "padded": 60, "architecture": 35, "loading": 45}
"""Seconds that a part needs at least; with less left it is not begun."""

Row = tuple[str, str, float, str]
"""Part, what was measured, its value, its unit."""


class Run:
    """The parts of a run: each one's rows are written when it ends, and a failure is a row too."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Begins the clock."""
        self.args, self.rows, self.began = args, [], time.perf_counter()
        self.rates: dict[str, float] = {}

    def left(self) -> float:
        """Seconds left."""
        return self.args.seconds - (time.perf_counter() - self.began)

    def part(self, name: str, kind: str, measure: Callable[[], Iterator[Row]]) -> None:
        """Measure a part if there is time for it."""
        if self.left() < LEAST_S[kind]:
            print(f"{name}: no time left", flush=True)
            return
        try:
            for row in measure():
                self.rows.append((torch.cuda.get_device_name(), *row))
                print(
                    f"{time.perf_counter() - self.began:6.1f} s  {row[0]}: {row[1]} {row[2]:.4g} {row[3]}", flush=True
                )
                self._write()
        except Exception as error:
            traceback.print_exc()
            self.rows.append((torch.cuda.get_device_name(), name, f"failed: {str(error)[:200]}", np.nan, ""))
            self._write()
        torch.cuda.empty_cache()

    def _write(self) -> None:
        frame = pd.DataFrame(self.rows, columns=["card", "part", "what", "value", "unit"])
        frame.to_csv(self.args.out / report.ROWS, index=False)


def seconds(call: Callable[[], object], *, least_s: float = 0.5) -> float:
    """Median seconds of a piece of work on the device."""
    call()
    torch.cuda.synchronize()
    taken: list[float] = []
    while sum(taken) < least_s or len(taken) < 3:
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def rates(run: Run) -> Iterator[Row]:
    """What the card multiplies: one square product, and an 8B layer's products for seconds on end."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    run.rates["square"] = 2 * SIDE**3 / seconds(lambda: a @ b) / 1e12
    yield "rates", f"bf16 product of {SIDE} x {SIDE}", run.rates["square"], "TFLOP/s"
    d, f, kv, n = 4096, 14336, 1024, 32768
    shapes = [(d, d), (d, kv), (d, kv), (d, d), (d, f), (d, f), (f, d)]
    inputs = {k: torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for k in (d, f)}
    weights = [torch.randn(o, i, device="cuda", dtype=torch.bfloat16) * 0.02 for i, o in shapes]

    def layer() -> None:
        for w in weights:
            torch.nn.functional.linear(inputs[w.shape[1]], w)

    run.rates["layers"] = sum(2.0 * n * i * o for i, o in shapes) / seconds(layer, least_s=4.0) / 1e12
    yield "rates", "bf16 products of an 8B layer, sustained", run.rates["layers"], "TFLOP/s"
    asked = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw,temperature.gpu", "--format=csv,noheader,nounits"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().split(", ")
    for what, value, unit in zip(("clock", "power", "temperature"), found, ("MHz", "W", "C"), strict=False):
        yield "rates", f"card under load: {what}", float(value), unit


def flop(packed: trie.Packed) -> float:
    """Floating-point operations of the matrix products that an 8B shape needs for a packing."""
    d, f, kv, layers = 4096, 14336, 1024, 32
    body = 2.0 * layers * (2 * d * d + 2 * d * kv + 3 * d * f)
    return packed.n_computed * body + sum(len(s.targets) for s in packed.steps) * 2.0 * d * 128256


def timed(run: Run, prepared: engine.Prepared, texts: work.Texts, budget: int, name: str) -> Iterator[Row]:
    """A packed run with its packing, as a pass has it."""
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    began = time.perf_counter()
    packed = trie.pack(*texts, budget=budget)
    packed_s = time.perf_counter() - began
    engine.score(prepared, packed)
    taken = time.perf_counter() - began
    yield "timing", name, taken, "s"
    yield "timing", f"{name}: packing", packed_s, "s"
    yield "timing", f"{name}: tokens", packed.n_computed, "tokens"
    yield "timing", f"{name}: rate", flop(packed) / taken / 1e12, "TFLOP/s"
    yield "timing", f"{name}: share of the sustained rate", flop(packed) / taken / 1e12 / run.rates["layers"], ""
    yield "timing", f"{name}: memory", torch.cuda.max_memory_allocated() / 2**30, "GiB"


def timing(run: Run) -> Iterator[Row]:
    """An 8B shape on a data set's lengths: what compiling its layers gains, step sizes, and the whole set."""
    model = work.made(transformers.LlamaConfig(**work.SHAPE_8B), torch.bfloat16, "cuda", scale=1.0)
    few = work.of_lengths(run.args.lengths, 128256, 8)
    first = (few[0][:8], few[1][:8])
    own = work.plain(model, first)
    chosen = ops.choose(model.device, model.dtype)
    sums: dict[str, list[np.ndarray]] = {}
    variants = {"own layers": chosen.without["The model's layer"](), "compiled layers": chosen}
    for name, each in variants.items():
        began = time.perf_counter()
        prepared = preparing.prepare(model, ops=each)
        yield "timing", f"{name}: prepare, with compiling", time.perf_counter() - began, "s"
        if prepared.ops.name != each.name:
            print(f"fell back to {prepared.ops.name}", flush=True)
        sums[name] = work.scored(prepared, few, run.args.budget)
        yield from timed(run, prepared, few, run.args.budget, f"every 8th row, {prepared.ops.name}")
        for what, value in work.apart(sums[name][:8], own).items():
            yield "timing", f"{name} against plain passes: {what}", value, "nats"
    yield from timed(run, prepared, work.of_lengths(run.args.lengths, 128256, 1), run.args.budget, "all rows")
    for budget in (16384, 65536):
        work.scored(prepared, few, budget)
        yield from timed(run, prepared, few, budget, f"every 8th row, steps of {budget}")
    if run.args.profile:
        profile(prepared, trie.pack(*few, budget=run.args.budget), run.args.out)
    if run.left() > LEAST_S["padded"]:
        yield from padded(run, prepared, few)


def padded(run: Run, prepared: engine.Prepared, texts: work.Texts) -> Iterator[Row]:
    """The same rows as padded batches of transformers."""
    ours = seconds(lambda: work.scored(prepared, texts, run.args.budget), least_s=0.1)
    prepared.model.set_attn_implementation("sdpa")
    for size, by_length in ((6, False), (16, True)):
        few = (texts[0][:12], texts[1][:12])
        how = {"size": size, "by_length": by_length, "most_tokens": 16384}
        work.padded(prepared.model, few, **how)
        taken = work.padded(prepared.model, texts, **how)
        name = f"padded batches of {size}{', by length' if by_length else ''}"
        yield "timing", name, taken, "s"
        yield "timing", f"times faster than {name}", taken / ours, ""


def profile(prepared: engine.Prepared, packed: trie.Packed, out: Path) -> None:
    """Where a step's time goes on the device."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    step = max(packed.steps, key=lambda s: len(s.ids) if s.parent < 0 else 0)
    with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _, _hidden in engine.hidden_steps(prepared, [step]):
            pass
        torch.cuda.synchronize()
    rows = [(e.key[:100], e.self_device_time_total / 1e3, e.count) for e in seen.key_averages()]
    frame = pd.DataFrame([r for r in rows if r[1]], columns=["kernel", "ms", "count"]).sort_values(
        "ms", ascending=False
    )
    frame.to_csv(out / "profile.csv", index=False)
    print(frame.head(16).to_string(), flush=True)


def architecture(name: str, every_budget: tuple[int, ...] = (8192, 700)) -> Iterator[Row]:
    """One small model: float32 against plain passes, bfloat16 beside what plain bfloat16 is off by."""
    kind, more = work.ARCHITECTURES[name]
    config = work.configured(kind, more)
    exact, low = (work.made(config, dtype, "cuda", scale=3.0) for dtype in (torch.float32, torch.bfloat16))
    # Both have the weights that bfloat16 holds: what is apart is arithmetic.
    exact.load_state_dict({k: v.float() for k, v in low.state_dict().items()})
    texts = work.forked(config.vocab_size)
    true, own = work.plain(exact, texts), work.plain(low, texts)
    for what, value in work.apart(own, true).items():
        yield name, f"plain bf16: {what}", value, "nats"
    for model in (exact, low):
        prepared = preparing.prepare(model)
        for budget in every_budget:
            for what, value in work.apart(work.scored(prepared, texts, budget), true).items():
                yield name, f"{prepared.ops.name}, steps of {budget}: {what}", value, "nats"


def loading(run: Run) -> Iterator[Row]:
    """How fast weights come from memory to the card, as drsow loads them, and what float32 takes in place."""
    from bench.scoring import models

    folder = Path("/dev/shm/drsow_perf_gpu")
    config = transformers.LlamaConfig(**work.SHAPE_8B | {"num_hidden_layers": 8})
    work.made(config, torch.bfloat16, "cuda", scale=1.0).save_pretrained(folder, max_shard_size="2GB")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for name, device_map in (("by way of the processor's memory", None), ("straight to the card", "cuda")):
        began = time.perf_counter()
        model = models._read(folder, dtype=torch.bfloat16, device_map=device_map, trust_remote_code=False).to("cuda")
        torch.cuda.synchronize()
        yield "loading", name, size / (time.perf_counter() - began) / 1e9, "GB/s"
    began = time.perf_counter()
    model.float()
    torch.cuda.synchronize()
    yield "loading", "bf16 to float32 in place", time.perf_counter() - began, "s"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def main() -> None:
    """Measure, part by part, within the time; the card's rate first, then speed, then correctness."""
    parser = argparse.ArgumentParser(prog="perf.gpu", description=__doc__)
    parser.add_argument("--lengths", type=Path, help="CSV from perf.gpu.lengths")
    parser.add_argument("--out", type=Path, default=Path("results/perf/gpu"))
    parser.add_argument("--seconds", type=float, default=460.0, help="nothing is begun that does not fit")
    parser.add_argument("--budget", type=int, default=32768, help="tokens of a step")
    parser.add_argument("--only", action="append", help="timing, loading, correctness, or how an architecture begins")
    parser.add_argument("--profile", action="store_true", help="write where a step's time goes")
    parser.add_argument("--report", action="store_true", help="measure nothing: write figure and README of the rows")
    args = parser.parse_args()
    if args.report:
        print(report.write(args.out))
        return
    if args.lengths is None:
        parser.error("--lengths FILE: PYTHONPATH=tests python -m perf.gpu.lengths writes it")
    if not torch.cuda.is_available():
        sys.exit("perf.gpu: torch finds no GPU on this machine")
    args.out.mkdir(parents=True, exist_ok=True)
    run, only = Run(args), args.only or ["timing", "correctness", "loading"]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}
    pd.Series({"card": torch.cuda.get_device_name(), "date": time.strftime("%Y-%m-%d"), **versions}).to_csv(
        args.out / report.ABOUT, header=False
    )
    run.part("rates", "rates", lambda: rates(run))
    if "timing" in only:
        run.part("timing", "timing", lambda: timing(run))
    for name in work.ARCHITECTURES:
        if any(name.startswith(part) or part == "correctness" for part in only):
            run.part(name, "architecture", lambda name=name: architecture(name))
    if "loading" in only:
        run.part("loading", "loading", lambda: loading(run))
    print(report.write(args.out))


if __name__ == "__main__":
    main()
