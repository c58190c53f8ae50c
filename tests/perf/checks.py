"""Do the sums agree: the scorers with each other and with float64, and this engine with itself however it packs."""

from collections.abc import Sequence as Seq

import numpy as np
import pandas as pd
import torch

from bench.schema import Example, Message
from bench.scoring import models
from bench.scoring.forward import engine, trie
from bench.scoring.forward.engine import Prepared
from bench.scoring.render import Template
from perf.scorers import DPO, OURS, SCORERS, TRANSFORMERS, dpo_inference
from perf.workloads import STRONG, Workload, folder, tokenizer

EQUALITY = (
    "check", "dtype", "against", "n_responses", "mean_nats", "max_nats", "max_nats_a_token", "flipped_share",
)  # fmt: skip
"""Absolute differences of a response's summed log-probability. `flipped_share` is of the rows of two responses:
how many of them come out in another order."""

OWN_IDS = ("example_id", "response_id", "n_prompt", "n_response", "n_prompt_dpo", "n_response_dpo", "nats", "nats_dpo")
"""A response as this engine reads it and as DPOInference's own tokenising reads it: tokens of its prompt, tokens
counted as its response, their summed log-probability (both by this engine, in float32)."""

BUDGETS = (256, 1024, 8192)
BUDGET = 4096
"""What the other budgets and orders are compared with."""


def compare_scorers(work: Workload, sums: dict[tuple[str, str], np.ndarray], exact: np.ndarray) -> pd.DataFrame:
    """EQUALITY of every scorer and dtype against this engine in float32, and against float64.

    Args:
        work: What was scored, two responses per row.
        sums: (scorer, dtype) -> nats, (sequences,).
        exact: float64 nats of the sequences of `exact_sequences`.
    """
    some = exact_sequences(work)
    rows = []
    for (scorer, dtype), values in sums.items():
        rows.append((scorer, dtype, "float64", *_differences(work.take(some), values[some], exact)))
        if (scorer, dtype) != (OURS, "fp32"):
            rows.append((scorer, dtype, f"{OURS} fp32", *_differences(work, values, sums[OURS, "fp32"])))
    return pd.DataFrame(rows, columns=list(EQUALITY))


def exact_sequences(work: Workload) -> np.ndarray:
    """Indices of the sequences of every fifth row, which are scored in float64 too."""
    return np.flatnonzero(np.array(work.rows) % 5 == 0)


def float64_sums(work: Workload) -> np.ndarray:
    """Nats of each response by plain transformers in float64, (sequences,)."""
    return SCORERS[TRANSFORMERS](folder(STRONG), "fp64").score(work)


def compare_packings(work: Workload) -> pd.DataFrame:
    """EQUALITY of this engine in float32 under other budgets and orders, against budget BUDGET in the given order."""
    model = models.load_model(folder(STRONG), dtype=torch.float32, device="cpu")
    every = list(range(len(work.ids)))
    pairs = [every[at : at + 2] for at in every[::2]]
    packings = {f"budget {budget}": (budget, [every]) for budget in BUDGETS}
    packings |= {"reversed order": (BUDGET, [every[::-1]]), "one row at a time": (BUDGET, pairs)}
    base = _packed(model, work, BUDGET, [every])
    rows = [
        (name, "fp32", f"budget {BUDGET}", *_differences(work, _packed(model, work, budget, groups), base))
        for name, (budget, groups) in packings.items()
    ]
    return pd.DataFrame(rows, columns=list(EQUALITY))


def compare_own_ids(examples: Seq[Example], work: Workload) -> pd.DataFrame:
    """OWN_IDS: what DPOInference would score if it tokenised the same rows itself."""
    model = models.load_model(folder(STRONG), dtype=torch.float32, device="cpu")
    judge = dpo_inference(model.model, folder(STRONG))
    template = Template(tokenizer(STRONG))
    ids, starts, names = [], [], []
    for example in examples:
        features = {"prompt": template.text(example.messages, generation=False)}
        for side, text in example.responses:
            features[f"text_{side}"] = template.text([*example.messages, Message("assistant", text)], generation=False)
        row = judge.tokenize_row(features)
        for side, _ in example.responses:
            ids.append(np.array(row[f"{side}_input_ids"], dtype=np.int32))
            starts.append(row[f"{side}_labels"].count(judge.label_pad_token_id))
            names.append((example.example_id, side))
    theirs = Workload(DPO, ids, starts, work.rows)
    every = [list(range(len(ids)))]
    counted = [[s, len(i) - s] for w in (work, theirs) for i, s in zip(w.ids, w.starts, strict=True)]
    lengths = np.hstack(np.split(np.array(counted), 2))
    frame = pd.DataFrame(names, columns=list(OWN_IDS[:2]))
    frame[list(OWN_IDS[2:6])] = lengths
    return frame.assign(nats=_packed(model, work, BUDGET, every), nats_dpo=_packed(model, theirs, BUDGET, every))


def _packed(model: Prepared, work: Workload, budget: int, groups: Seq[Seq[int]]) -> np.ndarray:
    """Nats of each response when the sequences are planned in these groups."""
    sums = np.empty(len(work.ids))
    for chosen in groups:
        part = work.take(chosen)
        plan = trie.pack(part.ids, part.starts, budget=budget)
        sums[chosen] = np.add.reduceat(engine.score(model, plan), plan.offsets[:-1])
    return sums


def _differences(work: Workload, values: np.ndarray, base: np.ndarray) -> tuple[int, float, float, float, float]:
    """The last five columns of EQUALITY."""
    n_tokens = np.array([len(ids) - start for ids, start in zip(work.ids, work.starts, strict=True)])
    apart = np.abs(values - base)
    flipped = np.sign(values[::2] - values[1::2]) != np.sign(base[::2] - base[1::2])
    return len(apart), apart.mean(), apart.max(), (apart / n_tokens).max(), flipped.mean()
