"""The verbs `models` and `pairs`: the registry as tables."""

import math
from collections.abc import Iterable

import pandas as pd

from bench.registry import PERFORMANCE, SECOND_PERFORMANCE, Pair, Registry, gap_points

PAIRS = ("pair_id", "strong", "weak", "family", "gap_points", "gap_arena_hard_points", "template")
"""One row for each pair. `gap_points` is performance(strong) - performance(weak) in the study's performance
(AlpacaEval 2 length-controlled win rate for a named pair), `gap_arena_hard_points` the same in Arena-Hard v0.1; NaN if
a score is not published. `family` is "" for a named pair; `template` is the model whose chat template both models
read."""

MODELS = (
    "model_id", "location", "format", "n_params", "licence", "context_tokens", "alpaca_eval_2_lc", "arena_hard",
    "source",
)  # fmt: skip
"""One row for each model. `location` is its hub repository, packages, folder or base; `n_params` counts all parameters;
the two scores are points, 0 to 100, and `source` says where they were published. Unknown values are missing."""


def pairs_frame(registry: Registry, pairs: Iterable[Pair]) -> pd.DataFrame:
    """A table of PAIRS."""
    models = registry.models
    rows = [
        (
            pair.pair_id, pair.strong, pair.weak, pair.family, pair.gap_points,
            math.nan if pair.of_one_model else gap_points(models[pair.strong], models[pair.weak], SECOND_PERFORMANCE),
            pair.template,
        )
        for pair in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(PAIRS))


def models_frame(registry: Registry) -> pd.DataFrame:
    """A table of MODELS."""
    rows = [
        (
            model.id, model.source.location, model.format, model.n_params, model.licence, model.context_tokens,
            model.score(PERFORMANCE), model.score(SECOND_PERFORMANCE),
            "; ".join(dict.fromkeys(score.source for score in model.scores.values())),
        )
        for model in registry.models.values()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(MODELS)).astype({"n_params": "Int64", "context_tokens": "Int64"})
