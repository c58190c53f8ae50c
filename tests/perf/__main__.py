"""`python -m perf`, with `tests` on the path: measure, write CSVs, figures and README, print the bars."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import DrsowError
from perf import checks, kinds, report, small, workloads
from perf.precision import precision
from perf.profiling import profiled
from perf.scaling import scaling
from perf.timing import apart, contest
from perf.workloads import Workload

PARTS = ("plain", "tokens", "customised", "annotate", "packings", "profile", "scaling", "precision", "small")


class Size(NamedTuple):
    """How much is measured."""

    per_subset: int
    """Rows of each subset in plain and customised."""
    prompts: int
    """Prompts in annotate."""
    precision_per_subset: int
    """Rows of each subset in precision."""
    row_factors: tuple[int, ...]
    """Rows of each subset in scaling."""


DEFAULT = Size(per_subset=2, prompts=20, precision_per_subset=4, row_factors=(1, 4))
"""About 40 minutes on two cores."""
FULL = Size(per_subset=5, prompts=workloads.N_PROMPTS, precision_per_subset=20, row_factors=(1, 4, 16))
"""Two hours."""


def main() -> None:
    """Run all parts, or those asked for; what another part wrote before stays."""
    parser = argparse.ArgumentParser(prog="perf", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part (may be repeated)")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--full", action="store_true", help="more rows: two hours instead of 40 minutes")
    for name, value in DEFAULT._asdict().items():
        if isinstance(value, int):
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default: {value}, with --full more")
    parser.add_argument("--against", help="with --only small: measure this commit beside, and write nothing")
    parser.add_argument("--rounds", type=int, default=small.ROUNDS, help="rounds of small (default: %(default)s)")
    parser.add_argument("--out", type=Path, help=f"where everything goes; default: {kinds.ROOT}/KIND OF PROCESSOR")
    args = parser.parse_args()
    if args.against is not None:
        if args.only != ["small"]:
            parser.error("--against compares small work alone: add --only small")
        for frame in small.small(args.against, rounds=args.rounds):
            print(f"\nafter {frame['round'].max()} rounds\n{small.table(frame)}", flush=True)
        return
    listed, args.out = args.out is None, args.out or kinds.ROOT / kinds.kind()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report and not args.only:
        for old in (*args.out.glob("*.csv"), *args.out.glob(report.MANIFEST)):
            old.unlink()
    if not args.report:
        report.begin(args.out, args.only or PARTS)
        for part in args.only or PARTS:
            _measure(part, args.out, _size(args), args.rounds)
    print(report.table(report.write(args.out)))
    if listed:
        kinds.write_index(kinds.ROOT)


def _size(args: argparse.Namespace) -> Size:
    """The default size or the full one, with what the user chose."""
    chosen = {name: value for name, value in vars(args).items() if name in Size._fields and value is not None}
    return (FULL if args.full else DEFAULT)._replace(**chosen)


def _measure(part: str, out: Path, size: Size, rounds: int) -> None:
    match part:
        case "plain":
            work = workloads.plain(size.per_subset)
            sums = _contest(work, out)
            exact = apart(checks.float64_sums, work.take(checks.exact_sequences(work)))
            checks.compare_scorers(work, sums, exact).to_csv(out / "equality.csv", index=False)
            own = apart(checks.compare_own_ids, workloads.examples(size.per_subset), work)
            own.to_csv(out / "own_ids.csv", index=False)
        case "tokens":
            _contest(workloads.plain(size.per_subset)._replace(name="tokens"), out)
        case "customised":
            _contest(workloads.customised(size.per_subset), out)
        case "annotate":
            _contest(workloads.annotate(size.prompts), out)
        case "packings":
            apart(checks.compare_packings, workloads.plain(1)).to_csv(out / "packings.csv", index=False)
        case "profile":
            found = [(workloads.plain(1), "fp32"), (workloads.plain(1), "bf16"), (workloads.customised(1), "bf16")]
            pd.concat([apart(profiled, work, dtype) for work, dtype in found]).to_csv(out / "profile.csv", index=False)
        case "scaling":
            _keep(scaling(1, size.row_factors), out / "scaling.csv")
        case "precision":
            _keep(precision(size.precision_per_subset), out / "precision.csv")
        case "small":
            _keep(small.small(rounds=rounds), out / "small.csv")


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
