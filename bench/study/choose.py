"""Choose an annotator pair, and say what it will be worth on prompts that did not choose it.

The best of many pairs on some rows owes part of its score to those rows. So the rows are halved, many times at
random, with the rows of one problem kept together: the pairs are ranked on one half and the score of whichever came
first (second, …) is read off the other. The mean of those is the held-out estimate of that place, and the score on
all rows less it is the optimism. Two rules that need no rows stand beside it: the largest gap, and a pair at random.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from bench.schema import SECTIONS, PreconditionError, UsageError
from bench.study.design import Rows, accuracy
from bench.study.metrics import is_rewardbench, subset_shares

CHOICE = (
    "rule", "place", "pair_id", "name", "score", "held_out", "held_out_low", "held_out_high", "optimism",
    "best_share", "gap_points", "n_params", "cost_flop", "licence", "n_candidates", "why",
)  # fmt: skip
"""One row a choice. `rule` is one of RULES; `name` "score" or a section; `score` its accuracy on all rows; `held_out`
what choosing by this rule is expected to reach on other prompts, with its 95% interval; `optimism` their difference;
`best_share` the share of the halves in which this pair came first. The random pair has no pair_id."""

RULES = ("best score", "largest gap", "random pair")


class Wish(NamedTuple):
    """What a pair has to be."""

    section: str | None = None
    """One of `schema.SECTIONS`, None for the overall score."""
    max_params: float | None = None
    """Most parameters, of both models together."""
    budget_flop: float | None = None
    """Most FLOP a row, of both models together."""
    licences: tuple[str, ...] = ()
    """Both models' licences are among these; empty for any."""


class Halves(NamedTuple):
    """Accuracies of every pair on the two halves of many random splits."""

    pair_ids: np.ndarray
    """(pairs,), str."""
    first: np.ndarray
    """(splits, pairs), 0 to 1."""
    second: np.ndarray
    """(splits, pairs)."""


def row_halves(
    correct: np.ndarray, pair_ids: np.ndarray, rows: Rows, name: str, *, rng: np.random.Generator, n_splits: int = 200
) -> Halves:
    """Random halves of the rows themselves, the same for every pair.

    Problems are halved inside the subset in which they first occur, so that each half is as mixed as the whole.

    Args:
        correct: 1 right, 0 wrong or tie, NaN left out, (pairs, rows).
        pair_ids: Names of its lines.
        rows: What counts how, and which rows go together.
        name: "score" or a section.
        rng: Source of the splits.
        n_splits: How many.

    Raises:
        PreconditionError: A half would lack a subset.
    """
    level = [found for _, found in rows.levels].index(name)
    only = rows._replace(levels=rows.levels[level : level + 1], weights=rows.weights[level : level + 1])
    inside = _coins(rows, n_splits, rng)[:, rows.cluster]
    first, second = (accuracy(correct, only, times.astype(float))[:, 0] for times in (inside, ~inside))
    known = np.isfinite(accuracy(correct, only, np.ones((1, len(rows.subset))))[0, 0])
    if np.isnan(first[:, known]).any() or np.isnan(second[:, known]).any():
        raise PreconditionError(f"{name}: a subset has too few prompts to be halved; score more rows")
    return Halves(np.asarray(pair_ids), first, second)


def count_halves(table: pd.DataFrame, name: str, *, rng: np.random.Generator, n_splits: int = 200) -> Halves:
    """The same from counts alone, where the rows' scores are not at hand.

    Each pair's right rows fall into a half of a subset as a random half would have them, but for each pair anew and
    for rows of one problem separately: pairs then differ more by luck than on common rows, so the optimism comes out
    too large rather than too small.

    Args:
        table: ACCURACY of one reward with all subsets.
        name: "score" or a section.
        rng: Source of the splits.
        n_splits: How many.

    Raises:
        PreconditionError: A half would lack a subset.
    """
    subsets = table[table["level"] == "subset"]
    rewardbench = is_rewardbench(subsets["name"])
    shares = subset_shares(name) if rewardbench else _row_shares(subsets)
    pair_ids = pd.unique(subsets["pair_id"])
    first, second = np.zeros((2, n_splits, len(pair_ids)))
    for subset, share in shares.items():
        part = subsets[subsets["name"] == subset].set_index("pair_id").reindex(pair_ids)
        n_rows = part["n_examples"].to_numpy(dtype=float)
        if (n_rows < 2).any():
            raise PreconditionError(f"{subset}: too few prompts to be halved; score more rows")
        n_right = np.rint(part["accuracy"].to_numpy() * n_rows)
        missing = np.isnan(n_right)
        n_rows, n_right = (np.where(missing, 2, n).astype(int) for n in (n_rows, n_right))
        # the odd row goes to either half
        n_first = (n_rows + rng.integers(2, size=(n_splits, len(pair_ids)))) // 2
        right = rng.hypergeometric(n_right, n_rows - n_right, n_first).astype(float)
        first += np.where(missing, np.nan, share * right / n_first)
        second += np.where(missing, np.nan, share * (n_right - right) / (n_rows - n_first))
    return Halves(np.asarray(pair_ids), first, second)


def choose(board: pd.DataFrame, halves: Halves, wish: Wish, *, top: int = 3) -> pd.DataFrame:
    """The pairs to choose, and what to expect of them.

    Args:
        board: LEADERBOARD; pairs that are not ranked are not chosen.
        halves: `row_halves` or `count_halves` on the wish's section, of all its ranked pairs.
        wish: What a pair has to be.
        top: How many of the best are listed.

    Returns:
        CHOICE: the best `top` pairs, then the pair of the largest gap, then the random pair.

    Raises:
        UsageError: A wish is not understood, or no pair fulfils it.
    """
    if top < 1:
        raise UsageError(f"--top {top}: at least 1")
    name, column = name_of(wish)
    candidates, filters = _filtered(board.dropna(subset=["rank", column]), wish)
    candidates = candidates.assign(name=name, score=candidates[column].astype(float))
    candidates = candidates.sort_values(["score", "pair_id"], ascending=[False, True], ignore_index=True)
    place = pd.Index(halves.pair_ids).get_indexer(candidates["pair_id"])
    if (place < 0).any():
        raise ValueError(f"{candidates.loc[int(np.argmin(place)), 'pair_id']}: on the leaderboard, not in the halves")
    halves = Halves(halves.pair_ids[place], halves.first[:, place], halves.second[:, place])
    frames = [_best(candidates, halves, min(top, len(candidates)), filters), _others(candidates, halves, filters)]
    frame = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    frame["optimism"] = frame["score"] - frame["held_out"]
    return frame.assign(n_candidates=len(candidates)).reindex(columns=list(CHOICE))


def name_of(wish: Wish) -> tuple[str, str]:
    """ "score" or the section that a wish is about, and its LEADERBOARD column."""
    if wish.section is None:
        return "score", "score"
    if wish.section not in SECTIONS:
        raise UsageError(f"unknown section {wish.section!r}{_meant(wish.section, list(SECTIONS))}")
    return wish.section, wish.section.replace("-", "_")


def _best(candidates: pd.DataFrame, halves: Halves, top: int, filters: str) -> pd.DataFrame:
    """The rows of the rule "best score"."""
    # each half chooses once and reports once
    chosen_on = np.concatenate([halves.first, halves.second])
    reported_on = np.concatenate([halves.second, halves.first])
    order = np.argsort(-chosen_on, axis=1, kind="stable")
    held_out = np.take_along_axis(reported_on, order, axis=1)
    stderr = _stderr(halves)
    best_share = np.bincount(order[:, 0], minlength=len(candidates)) / len(order)
    best = candidates.iloc[:top].assign(rule=RULES[0], place=range(1, top + 1), best_share=best_share[:top])
    best["held_out"] = held_out[:, :top].mean(axis=0)
    # what is known of the pairs that came to this place, each as often as it did
    spread = np.sqrt((stderr[order[:, :top]] ** 2).mean(axis=0))
    best = _with_interval(best, spread)
    best["why"] = [
        f"{_ordinal(place)} {name} of {_pairs(len(candidates))}{filters}; first in {share:.0%} of the halves"
        for place, name, share in zip(best["place"], best["name"], best["best_share"], strict=True)
    ]
    return best


def _others(candidates: pd.DataFrame, halves: Halves, filters: str) -> pd.DataFrame:
    """The rows of the rules that look at no rows, so that their score is its own held-out estimate."""
    lines = []
    known = candidates["gap_points"].dropna()
    if len(known):
        at = int(known.idxmax())
        why = f"largest gap, {known[at]:g} points, of {_pairs(len(candidates))}{filters}; chosen without these rows"
        line = candidates.loc[[at]].assign(rule=RULES[1], why=why)
        lines.append(_with_interval(line.assign(held_out=line["score"]), _stderr(halves)[[at]]))
    mean = pd.DataFrame({"name": candidates["name"].iloc[:1], "score": candidates["score"].mean()})
    why = f"mean of {_pairs(len(candidates))}{filters}: what to expect of one drawn at random"
    mean = mean.assign(rule=RULES[2], pair_id="", held_out=mean["score"], why=why)
    average = Halves(np.array([""]), halves.first.mean(axis=1)[:, None], halves.second.mean(axis=1)[:, None])
    lines.append(_with_interval(mean, _stderr(average)))
    return pd.concat(lines, ignore_index=True).assign(place=1)


def _with_interval(frame: pd.DataFrame, stderr: np.ndarray) -> pd.DataFrame:
    half = norm.ppf(0.975) * stderr
    return frame.assign(held_out_low=frame["held_out"] - half, held_out_high=frame["held_out"] + half)


def _stderr(halves: Halves) -> np.ndarray:
    """Standard error of each pair's score over prompts, (pairs,).

    The halves of a split are two samples of half the size: their difference has four times the variance of the score
    on all rows (repeated half-samples; McCarthy 1969).
    """
    return np.sqrt(((halves.first - halves.second) ** 2).mean(axis=0)) / 2


def _filtered(board: pd.DataFrame, wish: Wish) -> tuple[pd.DataFrame, str]:
    """The pairs that fulfil a wish, and the filters in words. A pair of which it is not known does not."""
    said = []
    for option, column, limit in (
        ("max-params", "n_params", wish.max_params),
        ("budget-flop", "cost_flop", wish.budget_flop),
    ):
        if limit is not None:
            values = board[column].astype(float)
            board = _keep(board, values <= limit, f"--{option} {limit:g}", f"the least is {values.min():g}")
            said.append(f"{column} up to {limit:g}")
    if wish.licences:
        known = sorted({part for licence in board["licence"].dropna() for part in licence.split(" + ")})
        strange = [licence for licence in wish.licences if licence not in known]
        if strange and len(strange) == len(wish.licences):
            raise UsageError(f"no pair has the licence {strange[0]!r}{_meant(strange[0], known)}")
        allowed = board["licence"].map(_within(wish.licences))
        board = _keep(board, allowed, f"--licence {','.join(wish.licences)}", f"licences are {', '.join(known)}")
        said.append(f"licence {' or '.join(wish.licences)}")
    if board.empty:
        raise UsageError("the leaderboard has no ranked pair with a score for this section")
    return board, f" with {', '.join(said)}" if said else ""


def _keep(board: pd.DataFrame, allowed: pd.Series, option: str, hint: str) -> pd.DataFrame:
    left = board[allowed.astype(bool)]
    if len(board) and left.empty:
        raise UsageError(f"{option} leaves none of {_pairs(len(board))}: {hint}")
    return left


def _within(licences: tuple[str, ...]) -> Callable[[object], bool]:
    """Whether a pair's licence, one for both models or "one + other", is known and among the allowed."""
    return lambda licence: isinstance(licence, str) and set(licence.split(" + ")) <= set(licences)


def _coins(rows: Rows, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Which problems are in the first half, (splits, problems), bool; half of each stratum, the odd one by chance."""
    _, first_row = np.unique(rows.cluster, return_index=True)
    stratum = rows.subset[first_row]
    inside = np.zeros((n_splits, len(stratum)), dtype=bool)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        order = rng.permuted(np.tile(np.arange(len(members)), (n_splits, 1)), axis=1)
        inside[:, members] = 2 * order + rng.integers(2, size=(n_splits, 1)) < len(members)
    return inside


def _row_shares(subsets: pd.DataFrame) -> dict[str, float]:
    """Share of each subset in the plain score of other data: its rows."""
    n_rows = subsets.groupby("name", sort=False)["n_examples"].max()
    return (n_rows / n_rows.sum()).to_dict()


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f", did you mean {close[0]!r}?" if close else f": one of {', '.join(known)}"


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


def _ordinal(place: int) -> str:
    return {1: "best", 2: "second best", 3: "third best"}.get(place, f"{place}th best")
