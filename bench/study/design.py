"""The records that the study's statistics share: models, families, pairs, rows, problems, and who judged what rightly.

Pairs and prompts are crossed: every pair judges every row, and pairs share models. A table of 221 accuracies no longer
shows this, so these records keep the models of each pair, the rows, and the problem of each row apart.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bench.schema import Example
from bench.study.benchmarks import BENCHMARKS, STUDIED, benchmark_of


class Study(NamedTuple):
    """Models in families, and the pairs of these models."""

    model_ids: np.ndarray
    """(models,), str."""
    family: np.ndarray
    """Family of each model, (models,), str."""
    strong: np.ndarray
    """Index into `model_ids`, (pairs,), int."""
    weak: np.ndarray
    """(pairs,), int."""


class Rows(NamedTuple):
    """The judged rows and their weights. Where a benchmark judges a row several times, each judgement is a row here."""

    levels: tuple[tuple[str, str], ...]
    """(level, name) as in ACCURACY: ("overall", "score"), ("section", "chat"), …"""
    weights: np.ndarray
    """Weight of each row on each level, (levels, rows). The weights of a level are equal inside a subset and sum to 1
    (those of RewardBench 2's Ties to 1.01)."""
    subset: np.ndarray
    """Stratum of each row, (rows,), int from 0. Resampling the prompts does not change its weight."""
    cluster: np.ndarray
    """Problem of each row, (rows,), int from 0. Rows of one problem are resampled together."""
    sections: tuple[str, ...] = ()
    """Names of all sections of the benchmark, also of those that these rows lack a part of."""
    example: np.ndarray | None = None
    """Number of the row's example, (rows,), int; None if examples are judged once."""

    def n_examples(self, inside: np.ndarray) -> int:
        """How many examples some rows are, given by a mask, (rows,), bool."""
        return int(inside.sum() if self.example is None else len(np.unique(self.example[inside])))


class Judged(NamedTuple):
    """Judgements: 1 right, 0 wrong or tie, NaN excluded."""

    forward: np.ndarray
    """(pairs, rows), with strong and weak as in the study."""
    turned: np.ndarray
    """(pairs, rows), with the two models of each pair swapped."""


def study_of(pairs: pd.DataFrame) -> Study:
    """Make the study from a table of pairs.

    Args:
        pairs: `strong`, `weak` (model_ids) and `family`; one row per pair, both models of one family.

    Raises:
        ValueError: A model is in two families, a pair is listed twice, or a model is paired with itself.
    """
    sides = pd.concat([pairs[[side, "family"]].set_axis(["model_id", "family"], axis=1) for side in ("strong", "weak")])
    models = sides.drop_duplicates()
    double = models["model_id"].duplicated()
    if double.any():
        raise ValueError(f"{models.loc[double, 'model_id'].iloc[0]}: this model is in pairs of more than one family")
    model_ids = pd.Index(models["model_id"])
    strong, weak = model_ids.get_indexer(pairs["strong"]), model_ids.get_indexer(pairs["weak"])
    unordered = pd.DataFrame({"low": np.minimum(strong, weak), "high": np.maximum(strong, weak)})
    wrong = unordered.duplicated().to_numpy() | (strong == weak)
    if wrong.any():
        first = pairs.iloc[int(np.flatnonzero(wrong)[0])]
        raise ValueError(f"{first['strong']}, {first['weak']}: a pair has two different models and is listed once")
    return Study(model_ids.to_numpy(), models["family"].to_numpy(), strong, weak)


def performance_of(study: Study, scores: Mapping[str, float]) -> np.ndarray:
    """Published score of each model, (models,), points; NaN where `scores` lacks its model_id."""
    return np.array([scores.get(model_id, np.nan) for model_id in study.model_ids], dtype=float)


class OnAxis(NamedTuple):
    """The models of a study that have a score on one performance axis, and their pairs."""

    study: Study
    performance: np.ndarray
    """Published score of each model, (models,), points."""
    gap: np.ndarray
    """Performance(strong) - performance(weak), (pairs,), points; negative where the axis reverses the order of a
    pair."""
    answers: Judged


def on_axis(study: Study, answers: Judged, performance: np.ndarray) -> OnAxis:
    """Leave out the models without a score, which have NaN in `performance` (models,), and their pairs."""
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

    Boards print at most two decimals. Rounding removes the error of binary subtraction, so that equal gaps compare
    equal.
    """
    return np.round(performance[..., study.strong] - performance[..., study.weak], 9)


def pair_families(study: Study) -> np.ndarray:
    """Number of each pair's family, (pairs,), int from 0, in the order of the family names."""
    return np.unique(study.family, return_inverse=True)[1][study.strong]


def rows_of(examples: Sequence[Example]) -> Rows:
    """Levels, weights, strata and problems of the judgements of a data set's examples, in the order of the benchmark.

    A level is the score, a section or a style, of which every part has a row.
    """
    benchmark = benchmark_of(examples)
    layout = benchmark.layout(examples)
    wanted = [part for part in layout.parts if part.level in STUDIED]
    weights = np.array([layout.weights(part) for part in wanted])
    whole = np.isfinite(weights).all(axis=1)
    levels = tuple(part.key for part, is_whole in zip(wanted, whole, strict=True) if is_whole)
    names = (*benchmark.sections, *benchmark.styles)
    return Rows(levels, weights[whole], layout.stratum, prompt_clusters(examples)[layout.row], names, layout.row)


def prompt_clusters(examples: Sequence[Example]) -> np.ndarray:
    """Number of the problem of each example. Examples of one problem are not independent evidence.

    Examples with equal prompts (all turns) are one problem. So are examples for which a benchmark's `problem` is equal,
    such as the HumanEvalPack rows of one problem in several languages. All rules together may link longer chains.

    Returns:
        (examples,), int, numbered from 0 in the order of first appearance.
    """
    seen: dict[tuple[str, object], int] = {}
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
    """Judgements from margins, (pairs, rows), NaN where a row is excluded.

    Swapping the two models of a pair negates its margins, so its accuracy becomes 1 - accuracy - tie rate. For the
    reward `mean` this assumes that both models count the same tokens, which holds for models of one family with one
    template.
    """
    scored = np.isfinite(margins)
    return Judged(np.where(scored, margins > 0, np.nan), np.where(scored, margins < 0, np.nan))


def oriented(axis: OnAxis) -> np.ndarray:
    """Judgements, (pairs, rows), with the better performing model as the strong one."""
    return np.where((axis.gap < 0)[:, None], axis.answers.turned, axis.answers.forward)


def accuracy(correct: np.ndarray, rows: Rows, times: np.ndarray) -> np.ndarray:
    """Weighted accuracy on each level when row r is counted `times[r]` times.

    The accuracy of a subset is the proportion of right rows among its counted rows. The weights of the subsets do not
    change.

    Args:
        correct: (pairs, rows); NaN is excluded.
        rows: Levels and weights of the rows.
        times: (draws, rows), not negative.

    Returns:
        (draws, levels, pairs), float64, rounded to ten decimals, so that pairs which differ only by rounding are ties.
        NaN where a subset of the level has no counted row.
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


def _problem_keys(example: Example) -> list[tuple[str, object]]:
    """What identifies the problem of an example. Examples that share any of these are one problem."""
    keys: list[tuple[str, object]] = [("prompt", example.messages)]
    found = {benchmark.name: benchmark.problem(example) for benchmark in BENCHMARKS}
    return keys + [(name, problem) for name, problem in found.items() if problem is not None]
