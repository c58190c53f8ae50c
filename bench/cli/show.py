"""The verb `show`: prints one row's responses and colours each stretch of text by its log-ratio."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import SCORE, app
from bench.cli.options import Data, Device, DeviceOption, Dtype, DtypeOption, OnePair, RegistryDir, TemplateMode
from bench.cli.session import load, one_example, select
from bench.cli.terminal import coloured

if TYPE_CHECKING:
    import pandas as pd

    from bench.schema import Example

SHADES = ((2.0, "\x1b[42m"), (0.5, "\x1b[32m"), (-0.5, ""), (-2.0, "\x1b[31m"), (float("-inf"), "\x1b[41m"))
"""Least log-ratio in nats -> terminal code. Green: the strong model finds the stretch more likely; red: less likely."""

RESET = "\x1b[0m"


def row_lines(
    example: "Example", strong: "pd.DataFrame", weak: "pd.DataFrame", texts: Mapping[str, str], *, colour: bool
) -> Iterator[str]:
    """The lines that `drsow show` prints. Without colour, each stretch is followed by its log-ratio in brackets.

    Args:
        example: The row.
        strong: TOKENS of its responses under the strong model.
        weak: TOKENS of its responses under the weak model.
        texts: response_id -> the response as the chat template renders it.
        colour: Whether the terminal shows colours.
    """
    from bench.study.stretches import pieces, stretches

    for message in example.messages:
        yield f"{message.role}: {visible(message.content)}"
    for response_id, text in texts.items():
        by_strong, by_weak = (frame[frame["response_id"] == response_id] for frame in (strong, weak))
        sums = [float(side["logp_nats"].sum()) for side in (by_strong, by_weak)]
        table = stretches(by_strong, by_weak, text)
        yield ""
        yield (
            f"{response_id}: reward {sums[0] - sums[1]:+.2f} nats "
            f"(strong {sums[0]:.2f}, weak {sums[1]:.2f}; {len(by_strong)} and {len(by_weak)} tokens)"
        )
        yield "".join(_piece(piece, ratio, colour=colour) for piece, ratio in pieces(table))


def _piece(text: str, ratio: float, *, colour: bool) -> str:
    shown = visible(text) if text else "<end>"
    if not colour:
        return f"{shown}[{ratio:+.1f}]"
    code = next(code for least, code in SHADES if ratio >= least)
    return f"{code}{shown}{RESET}" if code else shown


def visible(text: str) -> str:
    """A text without the control characters that a terminal would act on; newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


@app.command(rich_help_panel=SCORE)
def show(
    pair: OnePair,
    example_id: Annotated[str, typer.Option("--id", help="A row's example_id, subset/id.")],
    data: Data = "reward-bench",
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Print one row's responses, coloured by log-ratio."""
    known, (subject,) = select(registry, [pair], None, TemplateMode.shared)

    from bench.scoring.garbage import import_frozen
    from bench.verbs.session import open_session
    from bench.verbs.texts import scorers, token_table

    dataset = load(data, None)
    example = one_example(dataset, example_id)
    session = open_session(known, dtype=dtype.value, device=device.value)
    import_frozen("bench.scoring.served")
    tokens = token_table(scorers(session, subject.pairs[0]), example)
    for line in row_lines(example, *tokens, colour=coloured()):
        print(line)
