"""`python -m perf`, with `tests` on the path: measure, write CSVs, figures and README, print the bars."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from bench.schema import DrsowError
from perf import checks, report, workloads
from perf.precision import precision
from perf.profiling import profiled
from perf.scaling import scaling
from perf.timing import apart, contest
from perf.workloads import Workload

PARTS = ("plain", "customised", "annotate", "packings", "profile", "scaling", "precision")


def main() -> None:
    """Run all parts, or those asked for; what another part wrote before stays."""
    parser = argparse.ArgumentParser(prog="perf", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part (may be repeated)")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--per-subset", type=int, default=5, help="rows of each subset in plain and customised")
    parser.add_argument("--prompts", type=int, default=workloads.N_PROMPTS, help="prompts in annotate")
    parser.add_argument("--precision-per-subset", type=int, default=20, help="rows of each subset in precision")
    parser.add_argument("--out", type=Path, default=Path("results/perf"), help="where everything goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report and not args.only:
        for old in (*args.out.glob("*.csv"), *args.out.glob(report.MANIFEST)):
            old.unlink()
    if not args.report:
        report.begin(args.out, args.only or PARTS)
        for part in args.only or PARTS:
            _measure(part, args)
    print(report.table(report.write(args.out)))


def _measure(part: str, args: argparse.Namespace) -> None:
    match part:
        case "plain":
            work = workloads.plain(args.per_subset)
            sums = _contest(work, args.out)
            exact = apart(checks.float64_sums, work.take(checks.exact_sequences(work)))
            checks.compare_scorers(work, sums, exact).to_csv(args.out / "equality.csv", index=False)
            own = apart(checks.compare_own_ids, workloads.examples(args.per_subset), work)
            own.to_csv(args.out / "own_ids.csv", index=False)
        case "customised":
            _contest(workloads.customised(args.per_subset), args.out)
        case "annotate":
            _contest(workloads.annotate(args.prompts), args.out)
        case "packings":
            apart(checks.compare_packings, workloads.plain(1)).to_csv(args.out / "packings.csv", index=False)
        case "profile":
            found = [(workloads.plain(1), "fp32"), (workloads.plain(1), "bf16"), (workloads.customised(1), "bf16")]
            pd.concat([apart(profiled, work, dtype) for work, dtype in found]).to_csv(
                args.out / "profile.csv", index=False
            )
        case "scaling":
            _keep(scaling(1), args.out / "scaling.csv")
        case "precision":
            _keep(precision(args.precision_per_subset), args.out / "precision.csv")


def _contest(work: Workload, out: Path) -> dict[tuple[str, str], np.ndarray]:
    """Time the scorers of a workload, write PERF after each run; gives (scorer, dtype) -> nats of each response."""
    path = out / "perf.csv"
    others = pd.read_csv(path).query("workload != @work.name") if path.is_file() else pd.DataFrame()
    sums: dict[tuple[str, str], np.ndarray] = {}
    for frame, sums in contest(work, workloads.folder(workloads.STRONG)):  # noqa: B007 - the last ones are complete
        pd.concat([others, frame]).to_csv(path, index=False)
    return sums


def _keep(frames: Iterator[pd.DataFrame], path: Path) -> None:
    """Write each frame over the one before: a run that is broken off leaves what it measured."""
    for frame in frames:
        frame.to_csv(path, index=False)
        print(frame.tail(1).to_string(header=False, index=False), file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except DrsowError as error:
        print(f"perf: {error}", file=sys.stderr)
        sys.exit(error.code)
