"""Splits a response at the byte boundaries that both models' tokens share, and computes the log-ratio of each
stretch."""

import numpy as np
import pandas as pd

from bench.schema import DrsowError

STRETCHES = ("byte_start", "byte_end", "text", "ratio_nats")
"""One row per stretch of a response, as its chat template renders it. The last row has no bytes: it is the end of
turn."""


def stretches(strong: pd.DataFrame, weak: pd.DataFrame, text: str) -> pd.DataFrame:
    """Compute the log-ratio of each stretch of a response between byte boundaries that both tokenizers share.

    Args:
        strong: TOKENS of one response under the strong model.
        weak: TOKENS of that response under the weak model.
        text: The response as rendered; the byte positions refer to it.

    Returns:
        STRETCHES.

    Raises:
        DrsowError: The tokens of a model do not end where the text ends, or they cut a character.
    """
    whole = text.encode()
    ends, weak_ends = (np.maximum.accumulate(frame["byte_end"].to_numpy()[:-1]) for frame in (strong, weak))
    # Both models share a boundary where no token of either model reaches across it.
    shared = np.intersect1d(ends, weak_ends)
    if {int(ends[-1]), int(weak_ends[-1])} != {len(whole)}:
        raise DrsowError(
            f"the response has {len(whole)} bytes, but its tokens end at byte {ends[-1]} in the strong model and at "
            f"byte {weak_ends[-1]} in the weak model, so drsow cannot locate stretches"
        )
    sums = []
    for frame, own in ((strong, ends), (weak, weak_ends)):
        last = np.searchsorted(own, shared, side="right")
        sums.append(np.diff(np.concatenate([[0.0], frame["logp_nats"].to_numpy()[:-1].cumsum()[last - 1]])))
    starts = [0, *shared[:-1].tolist()]
    try:
        texts = [whole[low:high].decode() for low, high in zip(starts, shared, strict=True)]
    except UnicodeDecodeError as error:
        raise DrsowError(
            f"a token cuts a character of the response in two at byte {error.start}, so drsow cannot locate stretches"
        ) from error
    ratios = np.subtract(*sums)
    rows = pd.DataFrame({"byte_start": starts, "byte_end": shared, "text": texts, "ratio_nats": ratios})
    end = strong["logp_nats"].iloc[-1] - weak["logp_nats"].iloc[-1]
    last_row = pd.DataFrame([[len(whole), len(whole), "", end]], columns=list(STRETCHES))
    return pd.concat([rows, last_row], ignore_index=True)


def pieces(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Text and log-ratio of each stretch. The last one is the end of turn and has no text."""
    return list(zip(rows["text"], rows["ratio_nats"].tolist(), strict=True))
