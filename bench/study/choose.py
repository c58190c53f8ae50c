"""Chooses an annotator pair and estimates its score on prompts that did not choose it.

The score of the best of many pairs on some rows is too high, because part of it is luck on those rows. So the table
compares three rules: the best score, the largest gap, and a pair drawn at random. For each rule it gives the expected
score, on other prompts, of the pair that the rule takes. The estimate for the best score is cross-fitted (`held_out`);
the other two rules do not look at the rows. The table also says how far the first rule is above the others. The model
confidence set lists the pairs that these rows cannot distinguish from the best.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.schema import UsageError
from bench.study.benchmarks import column
from bench.study.compare import confidence_set
from bench.study.design import Rows, plain_accuracy
from bench.study.ensemble_held_out import Combine, ensemble_rows, ensemble_words
from bench.study.held_out import HeldOut, held_out, lead_limits, place_limits
from bench.study.interval import Sample, counted, share_limits
from bench.study.leaderboard import bootstrap_scores
from bench.study.wish import Wish, filtered, meant, n_pairs, within

RULES = ("best score", "largest gap", "random pair")
OVER = {"over_gap": RULES[1], "over_random": RULES[2]}

CHOICE = (
    "rule", "place", "pair_id", "name", "score", "held_out", "held_out_low", "held_out_high", "optimism",
    *(f"{name}{end}" for name in OVER for end in ("", "_low", "_high")),
    *(f"over_best{end}" for end in ("", "_low", "_high")),
    "best_share", "p_not_worse", "gap_points", "n_params", "cost_flop", "licence", "n_passes",
    "n_rows", "n_candidates", "n_not_worse", "why",
)  # fmt: skip
"""One row per rule and place. `rule` is one of RULES and `name` is "score" or a section. `pair_id` is the pair that the
rule takes on all rows, and `score` is its accuracy on them. `held_out`, with its 95% interval, belongs to the rule and
place, not to that pair: it is the expected score, on other prompts, of the pair that the rule puts in this place.
`optimism` is `score` minus `held_out`. `over_gap` and `over_random` are `held_out` minus that of the other two rules.
Rows after those of RULES are ensembles of the best pairs: their `pair_id` names all pairs, and `over_best` is
`held_out` minus that of the best pair. `n_passes` counts the passes of all distinct models.
`best_share` is the proportion of rankings, each on nine tenths of the rows, in which this pair came first.
`p_not_worse` is its p in the model confidence set, which contains the `n_not_worse` pairs with a p above 0.05. `n_rows`
and `n_candidates` count the rows of the data set and the ranked pairs."""

IN_SET = 0.05
"""A pair with a larger p is in the 95% model confidence set."""


class Choice(NamedTuple):
    """The result of `choose`."""

    table: pd.DataFrame
    """CHOICE."""
    not_worse: tuple[str, ...]
    """pair_ids of the model confidence set, best first. The set contains the best pair in 95 of 100 samples of
    prompts."""
    notes: tuple[str, ...] = ()
    """What was left out, and why, a sentence each."""

    def words(self) -> str:
        """What the table does not say, in a few sentences."""
        first = self.table.iloc[0]
        return (
            f"Ranked {n_pairs(int(first['n_candidates']))} on {int(first['n_rows']):,} rows. held_out belongs to the "
            "rule and place, not to the pair: it is the expected score, on other prompts, of the pair that the rule "
            "puts in that place.\n"
            "Pairs that the rows cannot distinguish from the best at the 95% level (model confidence set): "
            f"{n_pairs(len(self.not_worse))}: {', '.join(self.not_worse)}"
            + ensemble_words(self.table)
            + "".join(f"\n{note}" for note in self.notes)
        )


class _Weighed(NamedTuple):
    """The candidate pairs in the order of their score, and the estimates for them."""

    frame: pd.DataFrame
    """One row per pair."""
    n_rows: int
    """How many rows of the data set count."""
    correct: np.ndarray
    """(pairs, rows)."""
    sample: Sample
    found: HeldOut
    said: str
    """The applied filters, in words."""


def choose(
    board: pd.DataFrame,
    correct: np.ndarray,
    rows: Rows,
    wish: Wish,
    *,
    rng: np.random.Generator,
    top: int = 3,
    combine: Combine | None = None,
) -> Choice:
    """Choose pairs and estimate their scores on other prompts.

    Args:
        board: pair_id, gap_points, n_params, cost_flop and licence; one row per pair.
        correct: 1 right, 0 wrong or tie, NaN excluded, (pairs, rows). A pair of which a row that counts is excluded
            is not chosen.
        rows: Levels and weights of the rows, and their problems.
        wish: The user's conditions.
        rng: Source of folds, halves and draws; the leaderboard's folds are the same under the same seed.
        top: How many of the best pairs the table lists.
        combine: What ensembles of the best pairs need; None for no ensembles.

    Raises:
        UsageError: A condition is not understood, or no pair satisfies it.
        PreconditionError: A subset has too few prompts.
    """
    if top < 1:
        raise UsageError(f"--top is {top}: choose at least 1 pair")
    if combine is not None and combine.n_best < 2:
        raise UsageError(f"--ensemble is {combine.n_best}: an ensemble has at least 2 pairs; 0 makes none")
    name = name_of(wish, rows)
    only = _on_section(rows, name)
    every = board.reset_index(drop=True).assign(n_passes=2, name=name, score=plain_accuracy(correct, only)[0])
    candidates, said = filtered(every[np.isfinite(correct[:, only.weights[0] > 0]).all(axis=1)], wish)
    notes = _left_out(every, candidates, wish)
    candidates = _ranked(candidates, rng)
    top = min(top, len(candidates))
    weighed = _weighed(candidates, correct, only, said, top=top, rng=rng)
    extra, more = _ensembles(weighed, candidates.index.to_numpy(), only, combine, wish)
    return _choice(weighed, top, wish.gap_unit, extra)._replace(notes=notes + more)


def _ranked(candidates: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The candidates, best first. A second generator orders equal scores, so `rng` draws the leaderboard's folds."""
    ties = rng.spawn(1)[0].random(len(candidates))
    return candidates.assign(tie=ties).sort_values(["score", "tie"], ascending=False)


def _ensembles(
    weighed: _Weighed, pairs: np.ndarray, only: Rows, combine: Combine | None, wish: Wish
) -> tuple[list[dict[str, object]], tuple[str, ...]]:
    """The rows of the ensembles of some pairs, given as indices, and a sentence if the wish allows none."""
    if combine is None or len(pairs) < 2:
        return [], ()
    mine = combine.of(pairs, np.flatnonzero(only.weights[0] > 0))
    return within(ensemble_rows(weighed.frame, weighed.correct, mine, weighed.sample, weighed.found), wish)


def _left_out(every: pd.DataFrame, candidates: pd.DataFrame, wish: Wish) -> tuple[str, ...]:
    """A sentence on the pairs that the wish allows and that are no candidates, if there are any."""
    left = filtered(every, wish)[0].drop(index=candidates.index)
    if left.empty:
        return ()
    largest = candidates["gap_points"].astype(float).max()
    names = [
        f"{name} (gap {gap:.3g}, larger than any ranked pair's)" if gap > largest else name
        for name, gap in zip(left["pair_id"], left["gap_points"].astype(float), strict=True)
    ]
    why = "as a row is too long for one of their models or its score is not finite"
    return (f"Not ranked, {why}: {', '.join(names)}.",)


def _weighed(
    candidates: pd.DataFrame, correct: np.ndarray, only: Rows, said: str, *, top: int, rng: np.random.Generator
) -> _Weighed:
    """The candidates, best first, with their held-out estimates. `correct` has a row for every index of theirs."""
    mine = np.nan_to_num(correct[candidates.index])  # what is excluded does not count
    sample = Sample(only.weights[0], only.subset, only.cluster)
    # The pairs are in the leaderboard's order, so that both verbs estimate the same number.
    order = np.argsort(np.argsort(candidates.index))
    found = held_out(mine[np.argsort(candidates.index)], sample, rng=rng, top=top).reordered(order)
    draws = bootstrap_scores(mine, only, rng=rng)
    n_problems = len(np.unique(only.cluster[only.weights[0] > 0]))
    p_values = confidence_set(candidates["score"].to_numpy(), draws, n_problems=n_problems)
    frame = candidates.assign(p_not_worse=p_values, best_share=found.first_share).reset_index(drop=True)
    return _Weighed(frame, only.n_examples(sample.weight > 0), *counted(mine, sample), found, said)


def name_of(wish: Wish, rows: Rows) -> str:
    """ "score", or the section that a wish names.

    Raises:
        UsageError: The benchmark of the rows has no such section.
    """
    if wish.section is None:
        return "score"
    if not rows.sections:
        raise UsageError(
            f"--section {wish.section}: these rows are of no benchmark with sections; leave the option out"
        )
    known = {column(name): name for name in rows.sections}
    if column(wish.section) not in known:
        raise UsageError(f"unknown section {wish.section!r}{meant(wish.section, list(rows.sections))}")
    return known[column(wish.section)]


def _on_section(rows: Rows, name: str) -> Rows:
    """The rows with the weights of the score or of one section alone."""
    level = next((number for number, (_, found) in enumerate(rows.levels) if found == name), None)
    if level is None:
        raise UsageError(
            f"these rows have no {name}: at least one of its subsets is missing. Score all of its subsets, or choose "
            "another --section"
        )
    return rows._replace(levels=rows.levels[level : level + 1], weights=rows.weights[level : level + 1])


def _choice(weighed: _Weighed, top: int, gap_unit: str, extra: list[dict[str, object]]) -> Choice:
    """The rows of all three rules and of the ensembles, and the model confidence set."""
    candidates = weighed.frame
    gap = _largest_gap(candidates)
    frames = [_best(weighed, top, gap), *([] if gap is None else [_gap_rule(weighed, gap, gap_unit)]), _random(weighed)]
    table = pd.concat([*frames, *([pd.DataFrame(extra)] if extra else [])], ignore_index=True)
    inside = candidates["p_not_worse"] > IN_SET
    counts = {"n_rows": weighed.n_rows, "n_candidates": len(candidates), "n_not_worse": int(inside.sum())}
    table = table.assign(optimism=table["score"] - table["held_out"], **counts)
    return Choice(table.reindex(columns=list(CHOICE)), tuple(candidates.loc[inside, "pair_id"]))


def _best(weighed: _Weighed, top: int, gap: int | None) -> pd.DataFrame:
    """The rows of the rule "best score"."""
    candidates, _, correct, sample, found, said = weighed
    others = {"over_random": (correct.mean(axis=0), found.fixed.mean(axis=2))}
    if gap is not None:
        others["over_gap"] = (correct[gap], found.fixed[:, :, gap])
    lines: list[dict[str, object]] = []
    for number, place in enumerate(found.places):
        limits = place_limits(place, found.estimate[number], sample)
        line: dict[str, object] = {
            "held_out": found.estimate[number],
            "held_out_low": limits.low,
            "held_out_high": limits.high,
        }
        for name, (values, halves) in others.items():
            line[name], ends = lead_limits(place, values, halves, sample)
            # a single pair is what all rules take, so its lead is exactly 0
            low, high = (0.0, 0.0) if len(candidates) == 1 else (ends.low, ends.high)
            line |= {f"{name}_low": low, f"{name}_high": high}
        lines.append(line)
    best = candidates.iloc[:top].assign(rule=RULES[0], place=range(1, top + 1), **pd.DataFrame(lines))
    return best.assign(
        why=[
            f"{_ordinal(row.place)} {row.name_} of {n_pairs(len(candidates))}{said}; this pair came first in "
            f"{row.best_share:.0%} of the rankings on nine tenths of the rows"
            for row in best.rename(columns={"name": "name_"}).itertuples()
        ]
    )


def _gap_rule(weighed: _Weighed, gap: int, unit: str) -> pd.DataFrame:
    """The row of the pair with the largest gap. The rule looks at no rows, so its held-out estimate is the score."""
    limits = share_limits(weighed.correct[[gap]], weighed.sample)
    line = weighed.frame.iloc[[gap]]
    why = f"largest gap, {line['gap_points'].iloc[0]:.3g} {unit}, of {n_pairs(len(weighed.frame))}{weighed.said}"
    ends = {"held_out_low": limits.low, "held_out_high": limits.high}
    return line.assign(
        rule=RULES[1], place=1, held_out=line["score"], why=f"{why}; the rule does not look at the rows", **ends
    )


def _random(weighed: _Weighed) -> pd.DataFrame:
    """The row of a pair drawn at random."""
    candidates = weighed.frame
    limits = share_limits(weighed.correct.mean(axis=0, keepdims=True), weighed.sample)
    mean = candidates["score"].mean()
    why = f"mean of {n_pairs(len(candidates))}{weighed.said}: the expected score of a pair drawn at random"
    line = {"rule": RULES[2], "place": 1, "pair_id": "", "name": candidates["name"].iloc[0], "score": mean}
    line |= {"held_out": mean, "held_out_low": limits.low[0], "held_out_high": limits.high[0], "why": why}
    return pd.DataFrame([line])


def _largest_gap(candidates: pd.DataFrame) -> int | None:
    """Position of the candidate with the largest gap. Among equal gaps, the one with the largest random number."""
    known = candidates["gap_points"].astype(float).dropna()
    return None if known.empty else int(candidates.loc[known[known == known.max()].index, "tie"].idxmax())


def _ordinal(place: int) -> str:
    return {1: "best", 2: "second best", 3: "third best"}.get(place, f"{place}th best")
