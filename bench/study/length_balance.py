"""Accuracy with the advantage of length taken out, and how right "the longer response" alone is.

Rows are weighted so that "the longer response is right" holds for half of the weight: the rows whose right response is
longer weigh as much as those whose right response is shorter. With two responses per row, a judge of length alone then
scores one half on the rows of different lengths, whichever length it prefers. Rows of equal length keep their weight.
Where the longer response is right in every row of different lengths, or in none, no weights do this, and the balanced
accuracy is missing. If length also decides every row, these rows cannot tell the reward from length.

The rows of a section or of the score are balanced together, not subset by subset, so that a subset whose right
responses are all longer still counts.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.study.benchmarks import Answers, Layout
from bench.study.interval import wilson

LENGTH_BALANCED = (
    "pair_id", "reward", "level", "name", "accuracy", "balanced", "low", "high", "longer", "shorter", "as_good",
    "n_longer", "n_shorter", "n_equal", "n_excluded",
)  # fmt: skip
"""One row per pair and part of the benchmark. `accuracy` is that of ACCURACY and `balanced` the length-balanced one,
with its 95% interval. `longer` and `shorter` are the accuracies of judges that always prefer the longer, or the shorter
response, weighted like `accuracy`; fractions, 0 to 1. `as_good` names the better of these two judges where it is at
least as accurate as the pair and ever right; else it is empty. `n_longer` counts the scored judgements whose longer
response is right; a benchmark makes one or several a row."""

LONGER, SHORTER = "longer", "shorter"


class Lengths(NamedTuple):
    """Judgements of two judges of length alone, (judgements,) each, with the scale of `Answers.values`."""

    longer: np.ndarray
    shorter: np.ndarray
    equal: np.ndarray
    """Whether the longest right and the longest wrong response are equally long, bool."""


class _Weighed(NamedTuple):
    """The rows of one part under one run."""

    weight: np.ndarray
    """Weight in the part, (judgements,); 0 where excluded."""
    side: np.ndarray
    """1 where the longer response is right, -1 where it is wrong, 0 where lengths are equal, (judgements,), int."""


def length_balanced(
    runs: pd.DataFrame, answers: Answers, lengths: Lengths, layout: Layout, problems: np.ndarray
) -> pd.DataFrame:
    """Balance every part of a benchmark by length, for several runs.

    Args:
        runs: pair_id and reward, one row per run.
        answers: The judgements of the runs, (runs, judgements).
        lengths: The judgements of length alone.
        layout: The judgements' parts.
        problems: Number of each example's problem, (examples,).

    Returns:
        LENGTH_BALANCED; for each run the parts in the order of the layout.
    """
    side = np.where(lengths.equal, 0, np.where(lengths.longer > 0.5, 1, -1))
    _, problem = np.unique(problems[layout.row], return_inverse=True)
    scored = np.isfinite(answers.values)
    found = []
    for part in layout.parts:
        weight, inside = layout.weights(part), layout.about(part)
        stratum = layout.stratum if part.inside is None else np.zeros(len(weight), dtype=int)
        for values, known in zip(answers.values, scored, strict=True):
            mine = _shared(weight, stratum, known)
            row = {"level": part.level, "name": part.name} | _balanced(values, _Weighed(mine, side), problem)
            found.append(row | _alone(values, lengths, mine) | _counts(values, side, inside))
    frame = pd.DataFrame(found)
    run = np.tile(np.arange(len(runs)), len(layout.parts))
    frame[["pair_id", "reward"]] = runs[["pair_id", "reward"]].to_numpy()[run]
    return frame.iloc[np.argsort(run, kind="stable")].reset_index(drop=True)[list(LENGTH_BALANCED)]


def _shared(weight: np.ndarray, stratum: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """The weight of each judgement, (judgements,), where those scored in a stratum share its weight, as in ACCURACY.

    All NaN where a stratum of the part has no scored judgement.
    """
    if scored.all() or np.isnan(weight).any():
        return weight
    whole, kept = np.bincount(stratum, weight), np.bincount(stratum, weight * scored)
    if ((whole > 0) & (kept == 0)).any():
        return np.full(len(weight), np.nan)
    return weight * scored * (whole / np.where(kept > 0, kept, 1))[stratum]


def _balanced(values: np.ndarray, weighed: _Weighed, problem: np.ndarray) -> dict[str, float]:
    """`accuracy`, and `balanced` with its limits."""
    weight, known = weighed.weight, np.nan_to_num(values)
    missing = dict.fromkeys(("balanced", "low", "high"), float("nan"))
    accuracy = {"accuracy": float(weight @ known)}
    longer, shorter = (float(weight[weighed.side == each].sum()) for each in (1, -1))
    if not (longer > 0 and shorter > 0):
        return accuracy | missing
    half = (longer + shorter) / 2
    even = weight * np.select([weighed.side == 1, weighed.side == -1], [half / longer, half / shorter], 1.0)
    share = float(even @ known)
    n = _effective(even, weighed.side, known, problem)
    low, high = (float(end) for end in wilson(np.array(share), np.array(n)))
    # a weighted sum of RewardBench 2's Ties can lie slightly outside 0 and 1
    return accuracy | {"balanced": share, "low": min(low, share), "high": max(high, share)}


def _effective(even: np.ndarray, side: np.ndarray, known: np.ndarray, problem: np.ndarray) -> float:
    """Number of independent judgements of equal weight that would leave the balanced accuracy equally uncertain.

    Each side has the variance of its own accuracy: of a rare side that is judged worse, most of the error comes. As in
    `interval`, one right and one wrong judgement are added to each. Judgements of one problem count as one: a subset
    often has too few of one side to estimate their correlation.
    """
    spread, total = np.zeros(len(even)), 0.0
    for each in np.unique(side[even > 0]):
        mine = (side == each) & (even > 0)
        weight = even[mine].sum()
        n = weight**2 / (np.bincount(problem[mine], even[mine]) ** 2).sum()
        safe = np.clip((n * (even[mine] @ known[mine]) / weight + 1) / (n + 2), 0, 1)
        spread[mine] = even[mine] * np.sqrt(safe * (1 - safe))
        total += weight * safe
    total = min(total, 1.0)
    return float(total * (1 - total) / (np.bincount(problem, spread) ** 2).sum())


def _alone(values: np.ndarray, lengths: Lengths, weight: np.ndarray) -> dict[str, object]:
    """`longer`, `shorter` and `as_good`."""
    accuracy = float(weight @ np.nan_to_num(values))
    shares = {name: float(weight @ each) for name, each in ((LONGER, lengths.longer), (SHORTER, lengths.shorter))}
    best = max(shares, key=lambda name: shares[name])
    # NaN compares as not as good
    return {**shares, "as_good": best if shares[best] > 0 and shares[best] >= accuracy - 1e-12 else ""}


def _counts(values: np.ndarray, side: np.ndarray, inside: np.ndarray) -> dict[str, int]:
    """Numbers of scored judgements by side, and of excluded ones."""
    scored = np.isfinite(values) & inside
    counts = {f"n_{name}": int((scored & (side == each)).sum()) for name, each in ((LONGER, 1), (SHORTER, -1))}
    return counts | {"n_equal": int((scored & (side == 0)).sum()), "n_excluded": int((inside & ~scored).sum())}


def length_note(table: pd.DataFrame, pair_id: str) -> str:
    """Sentences that warn where length alone judges as well as a pair; "" where it does not.

    Args:
        table: LENGTH_BALANCED of one reward.
        pair_id: The pair.
    """
    mine = table[table["pair_id"] == pair_id]
    (score,) = mine[mine["level"] == "overall"].to_dict("records")
    said = []
    if score["as_good"]:
        said.append(
            f"Warning: always preferring the {score['as_good']} response scores {score[score['as_good']]:.1%}, and "
            f"{pair_id} scores {score['accuracy']:.1%}."
        )
        if np.isnan(score["balanced"]):
            said.append(_unbalanced(score))
    parts = mine[mine["level"].isin(["section", "style"])]
    names = list(parts.loc[parts["as_good"].fillna("") != "", "name"])
    if names:
        said.append(f"Length alone does as well as {pair_id} on: {', '.join(names)}.")
    return " ".join(said)


def _unbalanced(score: dict) -> str:
    """Why a score has no length-balanced accuracy, in a sentence."""
    if score[score["as_good"]] > 1 - 1e-9:
        return "Length decides the label of every row, so these rows cannot tell the reward from length."
    rows = "every row" if score["n_longer"] else "no row"
    return f"The longer response is right in {rows} of different lengths, so there is nothing to balance with."
