"""Compares stored or imported scores with a simple loop: transformers scores each response alone in float32."""

import hashlib

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from bench.schema import NONFINITE, OK, TOO_LONG
from bench.scoring import models
from bench.scoring.passes import Options, Ready
from bench.scoring.scorer import Scorer
from bench.store.folder import ScoreSet

VERIFIED = (
    *("example_id", "response_id", "status", "n_tokens", "n_tokens_plain", "n_bytes", "n_bytes_plain"),
    *("nats", "nats_plain", "shift_a_token"),
)
"""One row per response of the sample. `nats` is the stored sum with the end of turn, `nats_plain` the loop's sum.
`shift_a_token` is their difference divided by the loop's number of tokens. If the two numbers of tokens differ, the
stored scores are those of another text or template, or another rule decided where the response begins. `n_bytes_plain`
is the length of the response in UTF-8. The shift is empty where a sum is: then nothing was compared."""

_CHUNK = 256
"""Number of positions whose logits over the vocabulary are converted to float64 at once; it bounds the memory."""


def verify(score_set: ScoreSet, ready: Ready, options: Options, *, n_rows: int) -> pd.DataFrame:
    """Scores a sample of the examples again and compares the results.

    Args:
        score_set: The stored scores, of any engine.
        ready: The same model, template and data, on this machine.
        options: Options of the run; the device counts, the dtype is float32.
        n_rows: Number of examples in the sample; every run takes the same ones.

    Returns:
        VERIFIED.
    """
    scorer = Scorer(ready, options._replace(dtype="float32"))
    examples = sorted(ready.work.dataset.examples, key=lambda e: hashlib.sha256(e.example_id.encode()).digest())
    sequences = scorer.rendered(examples[:n_rows]).sequences
    model = models.located_policy(ready.model, dtype=torch.float32, device=scorer.device)
    stored = score_set.read().set_index(["example_id", "response_id"])
    rows = []
    for sequence in sequences:
        kept = stored.loc[(sequence.example_id, sequence.response_id)]
        n_tokens, plain = len(sequence.ids) - sequence.start, float("nan")
        if len(sequence.ids) <= scorer.limit:
            plain = _plain_sum(model, sequence.ids, sequence.start)
        nats = kept["logp_sum_nats"] + kept["logp_end_nats"]
        counts = (int(kept["n_tokens"]), n_tokens, int(kept["n_bytes"]), sequence.n_bytes)
        numbers = (nats, plain, (nats - plain) / n_tokens)
        rows.append((sequence.example_id, sequence.response_id, kept["status"], *counts, *numbers))
    return pd.DataFrame(rows, columns=list(VERIFIED))


def summary(table: pd.DataFrame) -> str:
    """What the comparison found, in one line: of how many responses, the shifts, and other counts.

    Args:
        table: VERIFIED.
    """
    shift = table["shift_a_token"].abs()
    words = [f"{shift.count()} of {len(table)} responses compared"]
    if n_empty := int((table["status"] != OK).sum()):
        words.append(f"{n_empty} are {TOO_LONG} or {NONFINITE} in the store")
    if n_here := int((table["status"].eq(OK) & shift.isna()).sum()):
        words.append(f"{n_here} are scored in the store, but have no finite score here")
    if shift.count():
        off = f"the stored scores are off by {shift.mean():.1e} nats per token on average, {shift.max():.1e} at most"
        words.append(off)
    for name, noun in (("n_tokens", "tokens"), ("n_bytes", "bytes")):
        words.append(f"{(table[name] != table[f'{name}_plain']).sum()} with another number of {noun}")
    return "; ".join(words)


@torch.inference_mode()
def _plain_sum(model: PreTrainedModel, ids: np.ndarray, start: int) -> float:
    """Summed log-probability of ids[start:], each token given all tokens before it, in nats, normalised in float64."""
    row = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
    logits = model(input_ids=row, use_cache=False, logits_to_keep=len(ids) - start + 1).logits[0, :-1]
    pairs = zip(logits.split(_CHUNK), row[0, start:, None].split(_CHUNK), strict=True)
    return sum(float(x.double().log_softmax(-1).gather(1, target).sum()) for x, target in pairs)
