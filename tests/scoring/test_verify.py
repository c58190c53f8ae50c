"""What `drsow verify` says of a comparison."""

import pandas as pd
import pytest

from bench.scoring.verify import VERIFIED, summary

GONE = float("nan")
ROWS = [
    ("a", "chosen", "ok", 4, 4, 9, 9, -8.0, -9.0, 0.25),
    ("a", "rejected", "ok", 4, 5, 9, 9, -9.0, -8.0, -0.5),
    ("b", "chosen", "too_long", 4, 4, 27, 9, GONE, -9.0, GONE),
    ("b", "rejected", "nonfinite", 4, 4, 27, 9, GONE, -9.0, GONE),
    ("c", "chosen", "ok", 4, 4, 27, 9, -9.0, GONE, GONE),
]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ROWS,
            "2 of 5 responses compared; 2 are too_long or nonfinite in the store; 1 are scored in the store, but have "
            "no finite score here; the stored scores are off by 3.8e-01 nats per token on average, 5.0e-01 at most; "
            "1 with another number of tokens; 3 with another number of bytes",
        ),
        (
            ROWS[2:4],
            "0 of 2 responses compared; 2 are too_long or nonfinite in the store; 0 with another number of tokens; "
            "2 with another number of bytes",
        ),
    ],
)
def test_only_responses_with_two_finite_sums_count_as_compared(rows, words):
    assert summary(pd.DataFrame(rows, columns=list(VERIFIED))) == words
