"""One example's tokens with their place in the response's bytes."""

import itertools

import numpy as np
import pandas as pd

from bench.schema import TOKENS, Example
from bench.scoring.render import Sequence, render
from bench.scoring.scorer import Scorer


def tokens(scorer: Scorer, example: Example) -> pd.DataFrame:
    """TOKENS of an example under one model; the end of turn is a row of no bytes at the end.

    A token inside a character of several bytes spans that whole character, as its tokenizer says.
    """
    sequences = render([example], scorer.tokenizer, scorer.template).sequences
    rows = []
    for sequence, logps in zip(sequences, scorer.response_logps(example), strict=True):
        spans = byte_spans(scorer, sequence, scorer.template.text(example.messages, generation=True))
        for (low, high), logp in zip([*spans, (sequence.n_bytes, sequence.n_bytes)], logps, strict=True):
            rows.append((sequence.example_id, sequence.response_id, low, high, float(logp)))
    return pd.DataFrame(rows, columns=list(TOKENS))


def byte_spans(scorer: Scorer, sequence: Sequence, prompt: str) -> list[tuple[int, int]]:
    """Bytes of the rendered response that each of its tokens spans, the end of turn left out."""
    ids = sequence.ids[sequence.start : -1].tolist()
    starts = [0, *itertools.accumulate(len(c.encode()) for c in sequence.text)]
    for before in (prompt, "\n", ""):
        coded = scorer.tokenizer(before + sequence.text, add_special_tokens=False, return_offsets_mapping=True)
        if coded.input_ids[-len(ids) :] == ids:
            offsets = np.clip(np.array(coded.offset_mapping[-len(ids) :]) - len(before), 0, len(sequence.text))
            return [(starts[low], starts[high]) for low, high in offsets.tolist()]
    raise ValueError(
        f"{sequence.example_id}: response {sequence.response_id}: its tokens are found nowhere in its text"
    )
