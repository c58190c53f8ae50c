"""Estimates by cross-fitting how well an ensemble of the best pairs does on prompts that did not make it.

Each fold of `held_out` is put aside in turn. The other folds rank the pairs, and give the scales and weights of the
best ones; the ensemble is scored on the fold. The folds are those of the best single pair, so that the two are compared
row by row. All rows of a problem are in one fold, so no problem is both fitted and scored.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.contrast import model_of
from bench.schema import Example
from bench.study import ensemble
from bench.study.benchmarks import benchmark_of
from bench.study.benchmarks.layout import leads
from bench.study.held_out import N_FOLDS, Deals, HeldOut, Place, lead_limits, place_limits, row_shares
from bench.study.interval import Sample
from bench.study.reward import reward_matrix


class Combine(NamedTuple):
    """What combining the rewards of pairs needs, beside their judgements."""

    margins: np.ndarray
    """The best reward of a right response minus the best of a wrong one, (pairs, rows)."""
    judge: Callable[[np.ndarray], np.ndarray]
    """Coefficients of the pairs' rewards, (runs, pairs) -> judgements from 0 to 1, (runs, rows)."""
    flop: Mapping[str, float]
    """FLOP per row of each pass, by the name of the side."""
    params: Mapping[str, float]
    """Parameters of each model, by model_id."""
    pass_of: Mapping[str, str]
    """What identifies the pass of each side; two readers of one text share a pass."""
    n_best: int
    """How many of the best pairs an ensemble combines."""

    def of(self, pairs: np.ndarray, rows: np.ndarray) -> "Combine":
        """The same for some of the pairs and rows, given as indices."""

        def judge(coefficients: np.ndarray) -> np.ndarray:
            every = np.zeros((len(coefficients), len(self.margins)))
            every[:, pairs] = coefficients
            return self.judge(every)[:, rows]

        return self._replace(margins=self.margins[np.ix_(pairs, rows)], judge=judge)


def combine_of(
    scores: Mapping[str, pd.DataFrame],
    pairs: pd.DataFrame,
    examples: Mapping[str, Example],
    models: pd.DataFrame,
    *,
    reward: str,
    n_best: int,
) -> Combine:
    """What ensembles of some pairs need.

    Args:
        scores: SCORES by the name of the side.
        pairs: One row per pair; `strong` and `weak` are names of sides.
        examples: The data set by example_id.
        models: The table that `leaderboard.leaderboard` takes, with `pass`, what identifies the pass of a side.
        reward: A name of `rewards.known.KNOWN`.
        n_best: How many of the best pairs an ensemble combines.
    """
    matrix = reward_matrix(scores, pairs, reward=reward)
    ordered, of_example = matrix.by_example(examples)
    benchmark = benchmark_of(ordered)
    margins = leads(ordered, of_example)
    # A pair with an excluded row is in no ensemble; a coefficient of 0 must not make its NaN count.
    known = matrix._replace(values=np.nan_to_num(matrix.values))

    def judge(coefficients: np.ndarray) -> np.ndarray:
        combined = known._replace(values=coefficients @ known.values)
        return benchmark.judge(ordered, combined.by_example(examples)[1]).values

    active = models["n_params_active"].fillna(models["n_params"]).astype(float)
    flop = dict(zip(models["model_id"], 2.0 * active * models["n_tokens_row"], strict=True))
    params = {model_of(name): float(n) for name, n in models.set_index("model_id")["n_params"].astype(float).items()}
    pass_of = dict(zip(models["model_id"], models["pass"], strict=True))
    return Combine(margins[:, benchmark.layout(ordered).row], judge, flop, params, pass_of, n_best)


def held_out_ensemble(
    rule: str, correct: np.ndarray, rewards: Combine, sample: Sample, found: HeldOut
) -> tuple[float, Place]:
    """The held-out score of an ensemble of the best pairs, and what its interval needs.

    Args:
        rule: One of `ensemble.RULES`.
        correct: Judgements of the pairs, (pairs, rows); only rows that count.
        rewards: The rewards of the same pairs and rows.
        sample: Weights, subsets and problems of the rows.
        found: The held-out estimates of the pairs, whose folds are used.
    """
    values = [_cross_fitted(rule, correct, rewards, sample, deals) for deals in found.deals]
    scores = [
        (row_shares(sample, deals.inside) * np.where(deals.inside, each, 0)).sum(axis=1)
        for deals, each in zip(found.deals, values, strict=True)
    ]
    return float(scores[0].mean()), Place(values[0].mean(axis=0), np.stack(scores[1:]))


def ensemble_rows(
    candidates: pd.DataFrame, correct: np.ndarray, rewards: Combine, sample: Sample, found: HeldOut
) -> list[dict[str, object]]:
    """Rows of `choose.CHOICE` for the ensembles of the best pairs.

    Args:
        candidates: pair_id, strong, weak, name and licence of the pairs, best first.
        correct: Judgements of the pairs, (pairs, rows); only rows that count.
        rewards: The rewards of the same pairs and rows.
        sample: Weights, subsets and problems of the rows.
        found: The held-out estimates of the pairs.
    """
    n_best = min(rewards.n_best, len(candidates))
    every, same = np.arange(correct.shape[1]), _cost(candidates.head(n_best), rewards)
    lines = []
    for rule in ensemble.RULES:
        judged = _judgements(rule, correct[:n_best], rewards.of(np.arange(n_best), every), sample)
        estimate, place = held_out_ensemble(rule, correct, rewards, sample, found)
        limits = place_limits(place, estimate, sample)
        over, ends = lead_limits(place, found.places[0].values, found.places[0].halves, sample)
        line = {
            "rule": f"{rule} of {n_best}",
            "score": float(judged @ sample.weight),
            "held_out": estimate,
            "held_out_low": float(limits.low),
            "held_out_high": float(limits.high),
            "over_best": over,
            "over_best_low": float(ends.low),
            "over_best_high": float(ends.high),
            "why": _why(rule, n_best, correct[:n_best]),
        }
        lines.append(same | line)
    return lines


def _cost(best: pd.DataFrame, rewards: Combine) -> dict[str, object]:
    """What the ensembles of the best pairs have in common: the pairs, and what their passes cost."""
    passes = ensemble.distinct(zip(best["strong"], best["weak"], strict=True), rewards.pass_of)
    models = dict.fromkeys(model_of(name) for name in passes)
    licences = best["licence"].dropna().str.split(" + ", regex=False)
    return {
        "place": 1,
        "pair_id": " + ".join(best["pair_id"]),
        "name": best["name"].iloc[0],
        "n_passes": len(passes),
        "cost_flop": sum(rewards.flop[name] for name in passes),
        "n_params": sum(rewards.params[name] for name in models),
        "licence": " + ".join(dict.fromkeys(part for parts in licences for part in parts)) or None,
    }


def ensemble_words(table: pd.DataFrame) -> str:
    """What the ensembles of a table of CHOICE bring and cost, a line each; "" if there is none."""
    lines = []
    for row in table[table["over_best"].notna()].to_dict("records"):
        limits = f"[{100 * row['over_best_low']:+.1f}, {100 * row['over_best_high']:+.1f}]"
        verdict = "beats the best pair" if row["over_best_low"] > 0 else "is not shown to beat the best pair"
        verdict = "is worse than the best pair" if row["over_best_high"] < 0 else verdict
        lines.append(
            f"\nThe {row['rule']} best pairs {verdict}: {100 * row['over_best']:+.1f} {limits} points on held-out "
            f"problems, for {int(row['n_passes'])} passes instead of 2."
        )
    return "".join(lines)


def _why(rule: str, n_best: int, correct: np.ndarray) -> str:
    """What an ensemble is, and for MINIMUM how often its pairs agree."""
    if rule != ensemble.MINIMUM:
        words = {ensemble.MEAN: "mean", ensemble.FITTED: "weighted sum, fitted on the other folds,"}[rule]
        return f"{words} of the standardised rewards of the {n_best} best pairs"
    agree = (correct == correct[0]).all(axis=0)
    right = f", and are right on {correct[0, agree].mean():.0%} of those" if agree.any() else ""
    return f"right where the {n_best} best pairs all are; they agree on {agree.mean():.0%} of the rows{right}"


def _judgements(rule: str, correct: np.ndarray, rewards: Combine, sample: Sample) -> np.ndarray:
    """Judgements of an ensemble of all these pairs, with scales and weights from all rows, (rows,)."""
    if rule == ensemble.MINIMUM:
        return correct.min(axis=0)
    return rewards.judge(_coefficients(rule, rewards.margins, sample.weight)[None])[0]


def _cross_fitted(rule: str, correct: np.ndarray, rewards: Combine, sample: Sample, deals: Deals) -> np.ndarray:
    """Judgement of each row by the ensemble that was made without the row's fold, (deals, rows)."""
    n_deals = len(deals.folds)
    chosen = deals.order[:, :, : rewards.n_best]
    if rule == ensemble.MINIMUM:
        return np.stack([correct[chosen[d], :].min(axis=1)[f, np.arange(len(f))] for d, f in enumerate(deals.folds)])
    runs = np.zeros((n_deals, N_FOLDS, len(correct)))
    for deal, fold in np.ndindex(n_deals, N_FOLDS):
        fitted_on = deals.inside[deal] & (deals.folds[deal] != fold)
        best = chosen[deal, fold]
        margins = rewards.margins[np.ix_(best, fitted_on)]
        runs[deal, fold, best] = _coefficients(rule, margins, sample.weight[fitted_on])
    judged = rewards.judge(runs.reshape(n_deals * N_FOLDS, -1)).reshape(n_deals, N_FOLDS, -1)
    return np.stack([judged[d][f, np.arange(len(f))] for d, f in enumerate(deals.folds)])


def _coefficients(rule: str, margins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of the pairs' rewards, (pairs,); a pair whose margins are all 0 adds nothing and gets 0."""
    known = margins.any(axis=1)
    found = np.zeros(len(margins))
    if known.any():
        found[known] = ensemble.recipe(rule, margins[known], weights).coefficients
    return found
