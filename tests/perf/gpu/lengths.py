"""`python -m perf.gpu.lengths`: token counts of a RewardBench file, for a machine without data and tokenizer."""

import argparse
import csv
import json
from pathlib import Path

from transformers import AutoTokenizer

from bench.scoring.forward.trie import common_prefix


def main() -> None:
    """Writes a row per example: tokens of prompt, chosen and rejected, and those with which both responses begin."""
    parser = argparse.ArgumentParser(prog="perf.gpu.lengths", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="RewardBench as JSON lines")
    parser.add_argument("--tokenizer", required=True, help="folder or hub id")
    parser.add_argument("--out", type=Path, required=True, help="CSV: prompt,chosen,rejected,shared")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "chosen", "rejected", "shared"])
        for line in args.data.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            prompt, chosen, rejected = (
                tokenizer(row[name], add_special_tokens=False, return_tensors="np")["input_ids"][0]
                for name in ("prompt", "chosen", "rejected")
            )
            writer.writerow([len(prompt), len(chosen), len(rejected), common_prefix(chosen, rejected)])


if __name__ == "__main__":
    main()
