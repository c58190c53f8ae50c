"""Stretches of a response between byte boundaries that both models' tokens share, each with its log-ratio."""

import numpy as np
import pandas as pd

STRETCHES = ("byte_start", "byte_end", "ratio_nats")
"""One row a stretch of one response; the last row, of no bytes, is the end of turn."""


def stretches(strong: pd.DataFrame, weak: pd.DataFrame) -> pd.DataFrame:
    """Log-ratio of the stretches of one response between byte boundaries that both tokenizers share.

    Args:
        strong: TOKENS of one response under the strong model.
        weak: The same under the weak model.

    Returns:
        byte_start, byte_end, ratio_nats; the last row, of no bytes, is the end of turn.
    """
    ends = [np.maximum.accumulate(frame["byte_end"].to_numpy()[:-1]) for frame in (strong, weak)]
    # A boundary is shared where each model's tokens up to it and after it do not reach across it.
    shared = np.intersect1d(*ends)
    sums = []
    for frame, own in zip((strong, weak), ends, strict=True):
        last = np.searchsorted(own, shared, side="right")
        sums.append(np.diff(np.concatenate([[0.0], frame["logp_nats"].to_numpy()[:-1].cumsum()[last - 1]])))
    rows = pd.DataFrame({"byte_start": [0, *shared[:-1]], "byte_end": shared, "ratio_nats": sums[0] - sums[1]})
    end = strong["logp_nats"].iloc[-1] - weak["logp_nats"].iloc[-1]
    size = int(shared[-1])
    return pd.concat([rows, pd.DataFrame([[size, size, end]], columns=list(STRETCHES))], ignore_index=True)


def pieces(given: str, rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Text and log-ratio of each stretch; the end of turn is the last one, of no text.

    Args:
        given: The response.
        rows: STRETCHES of it.
    """
    # Templates may write a space before a response and cut its outer whitespace: the bytes are the rendered ones.
    text = _rendered(given, int(rows["byte_end"].iloc[-1]))
    return [
        (text[low:high].decode(errors="replace"), ratio) for low, high, ratio in rows[list(STRETCHES)].to_numpy(object)
    ]


def _rendered(given: str, n_bytes: int) -> bytes:
    for text in (given, f" {given}", given.strip(), f" {given.strip()}", given.rstrip(), given.lstrip()):
        if len(text.encode()) == n_bytes:
            return text.encode()
    raise ValueError("the rendered response is of another length than its text")
