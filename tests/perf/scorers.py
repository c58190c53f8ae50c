"""Five ways from token ids to each response's summed log-probability, loaded the way their users load them.

Loading is never timed. All get the same ids; each batches them as it does by itself.
"""

import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from bench.schema import PreconditionError
from bench.scoring import models
from bench.scoring.forward import engine, trie
from bench.scoring.passes import BATCH_TOKENS, PART_BUDGETS, cut_parts
from perf.workloads import Workload

BATCH = 8
"""Sequences a batch of lm-eval and of plain transformers."""
DPO_ROWS = 6
"""Rows a batch of DPOInference, two sequences each: the default of its own script."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


class Loaded(NamedTuple):
    """A scorer with its model in memory."""

    model: PreTrainedModel
    score: Callable[[Workload], np.ndarray]
    """Nats summed over each response, (sequences,), float64."""


def load_drsow(folder: Path, dtype: str, *, tokens: bool = False) -> Loaded:
    """This engine: parts, plans and budget as a run has them; with `tokens` what `run --tokens` stores is computed."""
    prepared = models.load_model(folder, dtype=DTYPES[dtype], device="cpu")

    def score(work: Workload) -> np.ndarray:
        sums = np.empty(len(work.ids))
        for chosen in parts(work):
            part = work.take(chosen)
            plan = trie.pack(part.ids, part.starts, budget=BATCH_TOKENS["cpu"])
            details = np.empty((2, int(plan.offsets[-1]))) if tokens else None
            out = engine.score(prepared, plan, details=details)
            sums[chosen] = np.add.reduceat(out, plan.offsets[:-1])
        return sums

    return Loaded(prepared.model, score)


def parts(work: Workload) -> list[list[int]]:
    """The sequences of each part, cut as a run cuts them."""
    members: list[list[int]] = [[] for _ in range(max(work.rows) + 1)]
    for index, row in enumerate(work.rows):
        members[row].append(index)
    rows = [[SimpleNamespace(ids=work.ids[i], start=work.starts[i]) for i in row] for row in members]
    cut = cut_parts(rows, part_tokens=PART_BUDGETS * BATCH_TOKENS["cpu"])
    return [[i for row in part for i in members[row]] for part in cut]


def load_transformers(folder: Path, dtype: str) -> Loaded:
    """Batches of BATCH, sorted by length, padded on the right; log-softmax of at least
    float32 at the response's positions."""
    model = _plain_model(folder, dtype)

    @torch.inference_mode()
    def score(work: Workload) -> np.ndarray:
        sums = np.empty(len(work.ids))
        order = sorted(range(len(work.ids)), key=lambda i: -len(work.ids[i]))
        for chosen in batches(order, BATCH):
            ids, mask = padded([work.ids[i] for i in chosen], value=0)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, i in enumerate(chosen):
                low, high = work.starts[i], len(work.ids[i])
                wide = torch.promote_types(logits.dtype, torch.float32)
                logps = logits[row, low - 1 : high - 1].to(wide).log_softmax(dim=-1)
                sums[i] = logps.gather(1, ids[row, low:high, None]).sum().item()
        return sums

    return Loaded(model, score)


def load_lm_eval(folder: Path, dtype: str) -> Loaded:
    """lm-evaluation-harness' HFLM, with its own sorting."""
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = _plain_model(folder, dtype)
    harness = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH, device="cpu")

    def score(work: Workload) -> np.ndarray:
        requests = [
            (("", ""), ids[:start].tolist(), ids[start:].tolist())
            for ids, start in zip(work.ids, work.starts, strict=True)
        ]
        return np.array([total for total, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)])

    return Loaded(model, score)


def load_dpo(folder: Path, dtype: str) -> Loaded:
    """rewardbench's DPOInference without a reference model, summed; it reads rows of two responses, in their order."""
    model = _plain_model(folder, dtype)
    judge = dpo_inference(model, folder)

    @torch.no_grad()
    def score(work: Workload) -> np.ndarray:
        sums = np.empty(len(work.ids))
        for rows in batches(range(len(work.ids)), 2 * DPO_ROWS):
            batch = _side(judge, work.take(rows[::2]), "chosen") | _side(judge, work.take(rows[1::2]), "rejected")
            chosen, rejected = judge.inference_step(batch, ref_free=True)
            sums[rows[::2]], sums[rows[1::2]] = chosen.double().numpy(), rejected.double().numpy()
        return sums

    return Loaded(model, score)


def dpo_inference(model: PreTrainedModel, folder: Path):
    """DPOInference around a model."""
    device = SimpleNamespace(device=torch.device("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return _dpo_module().DPOInference(model, None, tokenizer, device, ref_free_norm="sum")


def _side(judge, work: Workload, side: str) -> dict[str, torch.Tensor]:
    """One response of each row as DPOInference's own collation pads it."""
    labels = [
        np.where(np.arange(len(i)) < start, judge.label_pad_token_id, i) for i, start in zip(*work[1:3], strict=True)
    ]
    ids, mask = padded(work.ids, value=judge.padding_value)
    return {
        f"{side}_input_ids": ids,
        f"{side}_attention_mask": mask,
        f"{side}_labels": padded(labels, value=judge.label_pad_token_id)[0],
    }


def _dpo_module() -> ModuleType:
    """rewardbench's dpo.py alone: the package's own import needs far more than is installed."""
    try:
        files = importlib.metadata.files("rewardbench")
    except importlib.metadata.PackageNotFoundError:
        raise PreconditionError("rewardbench is not installed: pip install --no-deps rewardbench==0.1.4") from None
    (path,) = (file.locate() for file in files if str(file) == "rewardbench/dpo.py")
    spec = importlib.util.spec_from_file_location("rewardbench_dpo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batches(items: Sequence[int], size: int) -> list[Sequence[int]]:
    """Neighbouring items, `size` at a time."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def padded(rows: Sequence[np.ndarray], *, value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded on the right, (rows, longest), int64, and the mask of what is no padding, of that shape."""
    longest = max(len(row) for row in rows)
    out = torch.full((len(rows), longest), value)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for at, row in enumerate(rows):
        out[at, : len(row)] = torch.from_numpy(row)
        mask[at, : len(row)] = 1
    return out, mask


def _plain_model(folder: Path, dtype: str) -> PreTrainedModel:
    with models.quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="sdpa")
    return model.eval()


OURS, TOKENS, LM_EVAL, DPO, TRANSFORMERS = "drsow", "drsow --tokens", "lm-eval", "rewardbench-dpo", "transformers"
SCORERS = {
    OURS: load_drsow,
    TOKENS: partial(load_drsow, tokens=True),
    LM_EVAL: load_lm_eval,
    DPO: load_dpo,
    TRANSFORMERS: load_transformers,
}
"""Name -> (folder, dtype) -> Loaded."""
