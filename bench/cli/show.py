"""One row for a terminal: both responses, each stretch of text coloured by its log-ratio."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bench.schema import Example
from bench.study.stretches import pieces, stretches

SHADES = ((2.0, "\x1b[42m"), (0.5, "\x1b[32m"), (-0.5, ""), (-2.0, "\x1b[31m"), (-np.inf, "\x1b[41m"))
"""Least log-ratio in nats -> how a terminal shows it: green speaks for the response, red against it."""

RESET = "\x1b[0m"


def row_lines(
    example: Example, strong: pd.DataFrame, weak: pd.DataFrame, texts: Mapping[str, str], *, colour: bool
) -> Iterator[str]:
    """The lines of `drsow show`; without colour each stretch carries its log-ratio in brackets.

    Args:
        example: The row.
        strong: TOKENS of its responses under the strong model.
        weak: The same under the weak model.
        texts: Its responses as rendered, which are shown.
        colour: Whether the terminal shows colours.
    """
    for message in example.messages:
        yield f"{message.role}: {visible(message.content)}"
    for response_id, text in texts.items():
        sides = [frame[frame["response_id"] == response_id] for frame in (strong, weak)]
        sums = [float(side["logp_nats"].sum()) for side in sides]
        table = stretches(*sides, text)
        yield ""
        yield (
            f"{response_id}: reward {sums[0] - sums[1]:+.2f} nats "
            f"(strong {sums[0]:.2f}, weak {sums[1]:.2f}; {len(sides[0])} and {len(sides[1])} tokens)"
        )
        yield "".join(_piece(piece, ratio, colour=colour) for piece, ratio in pieces(table))


def _piece(text: str, ratio: float, *, colour: bool) -> str:
    shown = visible(text) if text else "<end>"
    if not colour:
        return f"{shown}[{ratio:+.1f}]"
    code = next(code for least, code in SHADES if ratio >= least)
    return f"{code}{shown}{RESET}" if code else shown


def visible(text: str) -> str:
    """A text without the control characters that a terminal would obey; newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
