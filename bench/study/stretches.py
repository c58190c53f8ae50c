"""Stretches of a response between byte boundaries that both models' tokens share, each with its log-ratio."""

import numpy as np
import pandas as pd

from bench.schema import DrsowError

STRETCHES = ("byte_start", "byte_end", "text", "ratio_nats")
"""One row a stretch of one response as its chat template renders it; the last row, of no bytes, is the end of turn."""


def stretches(strong: pd.DataFrame, weak: pd.DataFrame, text: str) -> pd.DataFrame:
    """Log-ratio of the stretches of one response between byte boundaries that both tokenizers share.

    Args:
        strong: TOKENS of one response under the strong model.
        weak: The same under the weak model.
        text: The response as rendered: what the bytes are of.

    Returns:
        STRETCHES.

    Raises:
        DrsowError: the tokens of a model do not end where the text ends, or cut a character.
    """
    whole = text.encode()
    ends = [np.maximum.accumulate(frame["byte_end"].to_numpy()[:-1]) for frame in (strong, weak)]
    # A boundary is shared where each model's tokens up to it and after it do not reach across it.
    shared = np.intersect1d(*ends)
    if {int(end[-1]) for end in ends} != {len(whole)}:
        raise DrsowError(f"the tokens of a response end at bytes {ends[0][-1]} and {ends[1][-1]} of {len(whole)}")
    sums = []
    for frame, own in zip((strong, weak), ends, strict=True):
        last = np.searchsorted(own, shared, side="right")
        sums.append(np.diff(np.concatenate([[0.0], frame["logp_nats"].to_numpy()[:-1].cumsum()[last - 1]])))
    starts = [0, *shared[:-1].tolist()]
    try:
        texts = [whole[low:high].decode() for low, high in zip(starts, shared, strict=True)]
    except UnicodeDecodeError as error:
        raise DrsowError(f"a token of a response cuts a character in two at byte {error.start}") from error
    rows = pd.DataFrame({"byte_start": starts, "byte_end": shared, "text": texts, "ratio_nats": sums[0] - sums[1]})
    end = strong["logp_nats"].iloc[-1] - weak["logp_nats"].iloc[-1]
    last_row = pd.DataFrame([[len(whole), len(whole), "", end]], columns=list(STRETCHES))
    return pd.concat([rows, last_row], ignore_index=True)


def pieces(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Text and log-ratio of each stretch; the end of turn is the last one, of no text."""
    return list(zip(rows["text"], rows["ratio_nats"].tolist(), strict=True))
