"""One row for a terminal: both responses, each stretch of text coloured by its log-ratio."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.schema import Example

SHADES = ((2.0, "\x1b[42m"), (0.5, "\x1b[32m"), (-0.5, ""), (-2.0, "\x1b[31m"), (-np.inf, "\x1b[41m"))
"""Least log-ratio in nats -> how a terminal shows it: green speaks for the response, red against it."""

RESET = "\x1b[0m"


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
    return pd.concat([rows, pd.DataFrame([[size, size, end]], columns=rows.columns)], ignore_index=True)


def row_lines(example: Example, strong: pd.DataFrame, weak: pd.DataFrame, *, colour: bool) -> Iterator[str]:
    """The lines of `drsow show`; without colour each stretch carries its log-ratio in brackets."""
    for message in example.messages:
        yield f"{message.role}: {visible(message.content)}"
    for response_id, given in example.responses:
        sides = [frame[frame["response_id"] == response_id] for frame in (strong, weak)]
        sums = [float(side["logp_nats"].sum()) for side in sides]
        table = stretches(*sides)
        # Templates may write a space before a response and cut its outer whitespace: the bytes are the rendered ones.
        text = _rendered(given, int(table["byte_end"].iloc[-1]))
        yield ""
        yield (
            f"{response_id}: reward {sums[0] - sums[1]:+.2f} nats "
            f"(strong {sums[0]:.2f}, weak {sums[1]:.2f}; {len(sides[0])} and {len(sides[1])} tokens)"
        )
        yield "".join(
            _piece(text[low:high].decode(errors="replace"), ratio, colour=colour)
            for low, high, ratio in table.itertuples(index=False)
        )


def _rendered(given: str, n_bytes: int) -> bytes:
    for text in (given, f" {given}", given.strip(), f" {given.strip()}", given.rstrip(), given.lstrip()):
        if len(text.encode()) == n_bytes:
            return text.encode()
    raise ValueError("the rendered response is of another length than its text")


def _piece(text: str, ratio: float, *, colour: bool) -> str:
    shown = visible(text) if text else "<end>"
    if not colour:
        return f"{shown}[{ratio:+.1f}]"
    code = next(code for least, code in SHADES if ratio >= least)
    return f"{code}{shown}{RESET}" if code else shown


def visible(text: str) -> str:
    """A text without the control characters that a terminal would obey; newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
