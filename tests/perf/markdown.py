"""A table as the pages of results have it."""

import pandas as pd


def markdown(frame: pd.DataFrame) -> str:
    """A table of a frame, numbers to four digits."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * frame.shape[1]]
    for row in frame.itertuples(index=False):
        cells = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
