"""Says in words whether the gap counts: which of four worlds a study looks like.

In the four worlds neither model's performance counts for accuracy, only the strong one's, only the weak one's, or their
difference. One test is declared in advance: whether either performance counts at all. If it rejects, three tests decide
between the other worlds: that the strong model's slope is 0, that the weak one's is, and that their sum is. Each of the
three is true in one world. Two of them are true only if all are, and the declared test has excluded that, so Holm's
method in Shaffer's form adjusts them by the declared p alone. A world is named if its own hypothesis is the only one
that is not rejected, and if the slopes have the signs that the claim says. The other rows of the table are checks: they
decide nothing.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.study.apart import SLOPES
from bench.study.correlate import MIN_MODELS

EITHER = "either"
"""`estimator` of the declared test."""

WITHIN, WITHOUT_STARTS, GIVEN_LENGTH = "within-strong", "spearman-without-starts", "spearman-given-length"
CHECKS = (WITHIN, WITHOUT_STARTS, GIVEN_LENGTH)
"""Estimates that a reader may want to see before believing the verdict."""

MIXED = tuple(f"mixed-{name}" for name in SLOPES)

TITLES = {
    EITHER: "Either model's performance counts (declared test)",
    "strong": "Strong model's slope, the weak one's performance held fixed",
    "weak": "Weak model's slope, the strong one's performance held fixed",
    "sum": "Sum of both slopes",
    WITHIN: "Gap's slope among the pairs of one strong model",
    WITHOUT_STARTS: "ρ without the models that tuning began with",
    GIVEN_LENGTH: "ρ given how often a pair prefers the longer response",
    "mixed-strong": "Strong model's slope, mixed model",
    "mixed-weak": "Weak model's slope, mixed model",
    "mixed-sum": "Sum of both slopes, mixed model",
}
"""Names of the estimators in tables. Slopes are in points of accuracy per unit of performance."""

WORLDS = {
    "nothing": "nothing",
    "only-strong": "only the strong model",
    "only-weak": "only the weak model",
    "difference": "the difference",
    "undecided": "undecided",
}
"""The verdicts: which of the two models' performance counts for accuracy."""

_HYPOTHESIS = {"only-strong": "weak", "only-weak": "strong", "difference": "sum"}
"""The slope that is 0 in each world."""

ALPHA = 0.05


class Verdict(NamedTuple):
    """What a decomposition looks like."""

    world: str
    """One of WORLDS."""
    words: str
    """One or two sentences."""


def verdict(table: pd.DataFrame) -> Verdict:
    """Say which world a DECOMPOSITION looks like; its `world` is not read."""
    if table.empty:
        return Verdict("undecided", "No pair has a gap and an overall score, so there is nothing to take apart.")
    rows = table.set_index("estimator")
    first = rows.loc[EITHER]
    n_models = int(first["n_models"])
    if n_models < MIN_MODELS:
        return Verdict("undecided", f"Undecided: {n_models} models are too few to tell ({MIN_MODELS} are needed).")
    if np.isnan(first["p_value"]) or rows.loc[list(SLOPES), "p_holm"].isna().any():
        return Verdict("undecided", "Undecided: performances or accuracies do not vary enough for these tests.")
    if first["p_value"] > ALPHA:
        words = f"Nothing shows: no sign that either model's performance counts ({_p(first['p_value'])}). "
        return Verdict("nothing", words + "An effect as large as the intervals allow is not ruled out.")
    stands = [world for world, name in _HYPOTHESIS.items() if rows.loc[name, "p_holm"] > ALPHA]
    signed = {"only-strong": _positive(rows, "strong"), "only-weak": not _positive(rows, "weak")}
    signed["difference"] = all(signed.values())
    slopes_said = (
        f"strong {rows.loc['strong', 'estimate']:+.2f}, weak {rows.loc['weak', 'estimate']:+.2f} points of accuracy "
        "per unit of performance"
    )
    left = [world for world in stands if signed[world]]
    if stands and not left:
        return Verdict("undecided", f"Undecided: an effect shows, but against the claim's direction ({slopes_said}).")
    if not stands:
        return Verdict("undecided", f"Undecided: both models count, but not as a difference ({slopes_said}).")
    if len(stands) == 1:
        return Verdict(stands[0], _NAMED[stands[0]].format(slopes_said))
    names = " or ".join(WORLDS[world] for world in left)
    return Verdict("undecided", f"Undecided: an effect shows, and it may be {names} ({slopes_said}).")


_NAMED = {
    "only-strong": "It looks like only the strong model counts: its slope is positive, the sum of both slopes is not "
    "0, and the weak model's slope may be 0 ({}).",
    "only-weak": "It looks like only the weak model counts: its slope is negative, the sum of both slopes is not 0, "
    "and the strong model's slope may be 0 ({}).",
    "difference": "It looks like the difference counts: the strong model's slope is positive, the weak model's is "
    "negative, and their sum may be 0 ({}).",
}


def _positive(rows: pd.DataFrame, name: str) -> bool:
    return bool(rows.loc[name, "estimate"] > 0)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
