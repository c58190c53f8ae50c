"""The records that the study's statistics share: who is compared with whom, on which rows, who was right.

Pairs and prompts are crossed: every pair judges every row, and pairs share models. So three things are kept
apart that a table of 221 accuracies has lost: the models of each pair, the rows, and the problem under each row.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bench.data.rows import own_id
from bench.schema import SECTIONS, Example
from bench.study.metrics import is_rewardbench, weights_vector

_HUMANEVAL_PROBLEMS = 164
"""RewardBench numbers HumanEvalPack's 164 problems on, language after language, so id modulo 164 is the problem."""


class Study(NamedTuple):
    """Models in families, and the pairs that are formed of them."""

    model_ids: np.ndarray
    """(models,), str."""
    family: np.ndarray
    """Family of each model, (models,), str."""
    strong: np.ndarray
    """Index into `model_ids`, (pairs,), int."""
    weak: np.ndarray
    """(pairs,), int."""


class Rows(NamedTuple):
    """What is judged, and how it counts."""

    levels: tuple[tuple[str, str], ...]
    """(level, name) as in ACCURACY: ("overall", "score"), ("section", "chat"), …"""
    weights: np.ndarray
    """What each row counts on each level, (levels, rows), each line summing to 1; equal inside a subset."""
    subset: np.ndarray
    """Subset of each row, (rows,), int from 0; the prompts are drawn again with its weight kept."""
    cluster: np.ndarray
    """The problem under each row, (rows,), int from 0: rows with one number are drawn together."""


class Judged(NamedTuple):
    """Who was right: 1 right, 0 wrong or tie, NaN left out."""

    forward: np.ndarray
    """(pairs, rows), with strong and weak as the study has them."""
    turned: np.ndarray
    """(pairs, rows), with the two models of each pair swapped."""


def study_of(pairs: pd.DataFrame) -> Study:
    """The study that a table of pairs describes.

    Args:
        pairs: `strong`, `weak` (model_ids) and `family`; one row a pair, both models of one family.

    Raises:
        ValueError: A model stands in two families, a pair twice, or a model beside itself.
    """
    sides = pd.concat([pairs[[side, "family"]].set_axis(["model_id", "family"], axis=1) for side in ("strong", "weak")])
    models = sides.drop_duplicates()
    double = models["model_id"].duplicated()
    if double.any():
        raise ValueError(f"{models.loc[double, 'model_id'].iloc[0]}: in pairs of more than one family")
    model_ids = pd.Index(models["model_id"])
    strong, weak = model_ids.get_indexer(pairs["strong"]), model_ids.get_indexer(pairs["weak"])
    unordered = pd.DataFrame({"low": np.minimum(strong, weak), "high": np.maximum(strong, weak)})
    wrong = unordered.duplicated().to_numpy() | (strong == weak)
    if wrong.any():
        first = pairs.iloc[int(np.flatnonzero(wrong)[0])]
        raise ValueError(f"{first['strong']}, {first['weak']}: a pair is two models, and stands once")
    return Study(model_ids.to_numpy(), models["family"].to_numpy(), strong, weak)


def performance_of(study: Study, scores: Mapping[str, float]) -> np.ndarray:
    """Published score of each model, (models,), points; NaN where `scores` has none for its model_id."""
    return np.array([scores.get(model_id, np.nan) for model_id in study.model_ids], dtype=float)


class OnAxis(NamedTuple):
    """A study's models that have a score on one performance axis, and their pairs."""

    study: Study
    performance: np.ndarray
    """Published score of each of its models, (models,), points."""
    gap: np.ndarray
    """Performance(strong) - performance(weak), (pairs,), points; negative where the axis turns a pair round."""
    answers: Judged


def on_axis(study: Study, answers: Judged, performance: np.ndarray) -> OnAxis:
    """Leaves out the models without a score, NaN in `performance` (models,), and their pairs."""
    known = np.isfinite(performance)
    kept = known[study.strong] & known[study.weak]
    position = np.cumsum(known) - 1
    scored = Study(
        study.model_ids[known], study.family[known], position[study.strong[kept]], position[study.weak[kept]]
    )
    left = Judged(answers.forward[kept], answers.turned[kept])
    return OnAxis(scored, performance[known], gaps(scored, performance[known]), left)


def gaps(study: Study, performance: np.ndarray) -> np.ndarray:
    """Performance(strong) - performance(weak), (..., pairs), points, from (..., models).

    Boards print two decimals at most: rounding takes away the dust of binary subtraction, so that equal is equal.
    """
    return np.round(performance[..., study.strong] - performance[..., study.weak], 9)


def pair_families(study: Study) -> np.ndarray:
    """Number of each pair's family, (pairs,), int from 0, in the order of the families' names."""
    return np.unique(study.family, return_inverse=True)[1][study.strong]


def rows_of(examples: Sequence[Example]) -> Rows:
    """Levels, weights, subsets and clusters of a data set's examples, in their order.

    RewardBench's subsets get the score and every section that has all its subsets; other data the score alone.
    """
    names = pd.Series([example.subset for example in examples])
    if is_rewardbench(names):
        wanted = [("overall", "score"), *(("section", section) for section in SECTIONS)]
        subset = names.factorize()[0]
    else:
        wanted = [("overall", "score")]
        subset = np.zeros(len(names), dtype=int)
    weights = np.array([weights_vector(names, name=name) for _, name in wanted])
    whole = np.isfinite(weights).all(axis=1)
    levels = tuple(level for level, is_whole in zip(wanted, whole, strict=True) if is_whole)
    return Rows(levels, weights[whole], subset, prompt_clusters(examples))


def prompt_clusters(examples: Sequence[Example]) -> np.ndarray:
    """Number of the problem under each example: rows that are not independent evidence share one.

    Equal prompts (all turns) are one problem, and so are the HumanEvalPack rows of one problem in several languages:
    subsets `hep-…` with a number for an id, which RewardBench counts on in blocks of 164. Both may chain.

    Returns:
        (examples,), int, numbered from 0 in the order of first appearance.
    """
    seen: dict[tuple, int] = {}
    links = [
        (position, len(examples) + seen.setdefault(key, len(seen)))
        for position, example in enumerate(examples)
        for key in _problem_keys(example)
    ]
    n_nodes = len(examples) + len(seen)
    graph = coo_array((np.ones(len(links)), tuple(np.array(links).T)), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1]
    return pd.factorize(component[: len(examples)])[0]


def judged(margins: np.ndarray) -> Judged:
    """Right and wrong from margins, (pairs, rows), NaN where a row is left out.

    Turning a pair round negates its margins, so accuracy becomes 1 - accuracy - tie rate. For the reward `mean` this
    takes the two models to count the same tokens, as models of one family that share a template do.
    """
    scored = np.isfinite(margins)
    return Judged(np.where(scored, margins > 0, np.nan), np.where(scored, margins < 0, np.nan))


def oriented(axis: OnAxis) -> np.ndarray:
    """Right and wrong, (pairs, rows), with the better performing model as the strong one."""
    return np.where((axis.gap < 0)[:, None], axis.answers.turned, axis.answers.forward)


def accuracy(correct: np.ndarray, rows: Rows, times: np.ndarray) -> np.ndarray:
    """Weighted accuracy on each level when row r is counted `times[r]` times.

    A subset's accuracy is the share of right rows among its counted ones; the subsets' weights stay what they are.

    Args:
        correct: (pairs, rows); NaN is left out.
        rows: What counts how.
        times: (draws, rows), not negative.

    Returns:
        (draws, levels, pairs), float64, to ten decimals: pairs that are equal but for rounding are ties. NaN where a
        subset that the level needs has no counted row.
    """
    result = np.zeros((len(times), len(rows.levels), len(correct)))
    right, scored = np.nan_to_num(correct), np.isfinite(correct)
    for subset in np.unique(rows.subset):
        columns = np.flatnonzero(rows.subset == subset)
        weight = rows.weights[:, columns].sum(axis=1)
        if not weight.any():
            continue
        counted = times[:, columns]
        if scored[:, columns].all():
            total = counted.sum(axis=1, keepdims=True)
        else:
            total = counted @ scored[:, columns].T.astype(float)
        share = counted @ right[:, columns].T / np.where(total > 0, total, np.nan)
        for level in np.flatnonzero(weight):
            result[:, level] += weight[level] * share
    return np.round(result, 10)


def plain_accuracy(correct: np.ndarray, rows: Rows) -> np.ndarray:
    """Weighted accuracy with every row counted once, (levels, pairs)."""
    return accuracy(correct, rows, np.ones((1, len(rows.subset))))[0]


def _problem_keys(example: Example) -> list[tuple]:
    """What marks an example's problem; examples that share any are one problem."""
    keys: list[tuple] = [("prompt", example.messages)]
    number = own_id(example)
    if example.subset.startswith("hep-") and number.isascii() and number.isdigit():
        keys.append(("humaneval", int(number) % _HUMANEVAL_PROBLEMS))
    return keys
