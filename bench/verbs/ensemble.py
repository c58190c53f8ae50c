"""Rewards of candidates by an ensemble of pairs, with scales and weights from a scored, labelled data set."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.data.load import load_data
from bench.lookup import stored_sets
from bench.schema import OK, Dataset, UsageError
from bench.study import ensemble
from bench.study.benchmarks.layout import leads
from bench.study.design import rows_of
from bench.study.measure import pair_table, read_for
from bench.study.reward import reward_matrix
from bench.subject import Sets, Subject
from bench.verbs.session import Session
from bench.verbs.told import lookup_of

_IDS = ["example_id", "response_id"]


class Fitted(NamedTuple):
    """A recipe, and where its constants come from."""

    recipe: ensemble.Recipe
    told: dict[str, object]
    """The same for the manifest and the data card."""


def fitted(session: Session, subject: Subject, rule: str, data: str, candidates: Dataset, *, reward: str) -> Fitted:
    """The scales and weights of an ensemble, from the stored scores of its pairs on labelled rows.

    Rows whose prompt is among the candidates are left out, so that no problem is both fitted and labelled.

    Args:
        session: The registry and the stored scores.
        subject: The pairs.
        rule: One of `ensemble.RULES`.
        data: The labelled data set, as `--data` takes it.
        candidates: The rows that the ensemble labels.
        reward: The reward that is combined.

    Raises:
        PreconditionError: A pair is not scored on the data set.
        UsageError: No row is left, or a pair's margins are all 0.
    """
    dataset = load_data(data, offline=True)
    sets = stored_sets(session.store, subject, dataset, lookup_of(session.registry))
    labelled = {example.messages for example in candidates.examples}
    margins, weights = _margins(subject, sets, dataset, reward), row_weights(dataset)
    kept = [e.messages not in labelled for e in dataset.examples] & np.isfinite(margins).all(axis=0) & (weights > 0)
    margins = margins[:, kept]
    if not margins.shape[1]:
        raise UsageError(f"{data}: no row is left to fit the ensemble on; name other labelled data with --ensemble-on")
    names = [pair.pair_id for pair in subject.pairs]
    for name, values in zip(names, margins, strict=True):
        if not values.any():
            raise UsageError(f"{name}: its margin is 0 on every row of {data}, so it has no scale; leave this pair out")
    made = ensemble.recipe(rule, margins, weights[kept])
    rows = f"{dataset.slug}, sha256 {dataset.digest}, {margins.shape[1]} rows"
    n_passes = len({score_set.folder.name for score_set in sets.values()})
    return Fitted(made, _told(made, names) | {"from": rows, "passes": n_passes})


def _margins(subject: Subject, sets: Sets, dataset: Dataset, reward: str) -> np.ndarray:
    """The margin of each row under each pair, (pairs, rows in the order of the data set); nan where one is not scored.

    Pair by pair, because the pairs may read a model they share under different chat templates.
    """
    examples = {example.example_id: example for example in dataset.examples}
    rows = []
    for pair in subject.pairs:
        alone = subject._replace(pairs=(pair,))
        frames = {side[0]: read_for(sets[side], reward) for side in alone.passes()}
        scored, found = reward_matrix(frames, pair_table(alone), reward=reward).by_example(examples)
        margins = pd.Series(leads(scored, found)[0], index=[example.example_id for example in scored])
        rows.append(margins.reindex(list(examples)).to_numpy())
    return np.stack(rows)


def row_weights(dataset: Dataset) -> np.ndarray:
    """Weight of each row in the benchmark's score, (rows,), as in `choose`; equal where there is no score."""
    rows = rows_of(dataset.examples)
    if ("overall", "score") not in rows.levels or rows.example is None:
        return np.ones(len(dataset.examples))
    weights = rows.weights[rows.levels.index(("overall", "score"))]
    return np.bincount(rows.example, weights, minlength=len(dataset.examples))


def _told(recipe: ensemble.Recipe, names: list[str]) -> dict[str, object]:
    """Rule, scales and weights, by pair."""
    constants = {"scales": recipe.scales, "weights": recipe.weights}
    return {"rule": recipe.rule} | {
        name: dict(zip(names, values.tolist(), strict=True)) for name, values in constants.items()
    }


def combined(tables: list[pd.DataFrame], recipe: ensemble.Recipe) -> pd.DataFrame:
    """One table of rewards from those of the pairs.

    Args:
        tables: example_id, response_id, reward, status of each pair, over the same responses.
        recipe: Scales and weights, in the order of the tables.

    Returns:
        The same columns; for MINIMUM also `standard`, each pair's standardised reward of the response, (pairs,).
        `reward` is the weighted sum of the standardised rewards.
    """
    first = tables[0][_IDS]
    same = [first.merge(table, on=_IDS, how="left", validate="one_to_one") for table in tables]
    values = np.stack([table["reward"].to_numpy(float) for table in same]) / recipe.scales[:, None]
    status = same[0]["status"]
    for table in same[1:]:
        status = status.where(status != OK, table["status"])
    made = first.assign(reward=recipe.weights @ values, status=status)
    return made.assign(standard=list(values.T)) if recipe.rule == ensemble.MINIMUM else made
