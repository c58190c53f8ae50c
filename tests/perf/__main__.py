"""`python -m perf`, with `tests` on the path: measure, write CSVs and figures, print the bars."""

import argparse
from pathlib import Path

import pandas as pd

from perf import workloads
from perf.timing import contest

OUT = Path("results/perf")
MAKERS = {"plain": workloads.plain, "customised": workloads.customised, "annotate": workloads.annotate}
PARTS = tuple(MAKERS)


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="perf", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help="of " + ", ".join(PARTS) + "; none means all")
    parser.add_argument("--per-subset", type=int, default=5, help="rows of each subset in plain and customised")
    parser.add_argument("--prompts", type=int, default=workloads.N_PROMPTS, help="prompts in annotate")
    parser.add_argument("--out", type=Path, default=OUT, help="where CSVs and figures go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    done = pd.DataFrame()
    for part in args.parts or PARTS:
        work = MAKERS[part](args.prompts if part == "annotate" else args.per_subset)
        for rows, _ in contest(work, workloads.folder(workloads.STRONG)):
            pd.concat([done, rows]).to_csv(args.out / "perf.csv", index=False)
        done = pd.concat([done, rows])


if __name__ == "__main__":
    main()
