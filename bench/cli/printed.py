"""Prints a frame in the format that the user chose: a table, CSV or JSON."""

import json
import sys
from typing import TYPE_CHECKING

from bench.cli.options import Format
from bench.cli.views import VIEWS, View

if TYPE_CHECKING:
    import pandas as pd


def emit(frame: "pd.DataFrame", output: Format, view: View = VIEWS[""], *, title: str = "") -> None:
    """Print a frame: a rounded table for people, or all digits as CSV or JSON."""
    if output is Format.csv:
        from bench.files import csv_bytes

        sys.stdout.write(csv_bytes(frame).decode())
    elif output is Format.json:
        # pandas' to_json rounds to ten places.
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        from bench.cli.tables import print_frame

        print_frame(frame, view, title=title)
