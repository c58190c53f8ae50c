"""Made-up studies whose truth is known: models with a latent quality, rows with sections, subsets and problems.

A world has four families. Each model has a latent quality in points; a board publishes it with an error, to one
decimal. The part of a model's log-probability that families do not share leans towards the chosen response by

    effect x quality x load(row) + taste x length(row) + tilt(section) + tilt(subset) + habit(problem) + noise(row)

where `load` says how much quality shows on a row, `taste` is a model's liking for long responses and the tilts, habits
and noise are its own: pairs that share a model, and rows that share a problem, go together even when `effect` is 0.
In some worlds one family, that with the widest gaps, judges better than the others, whatever its gaps (`favour`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from bench.schema import OK, SCORES, SECTIONS, SUBSET_WEIGHTS, Dataset, Example, Message
from bench.study.design import Rows, Study, rows_of, study_of

SIZES = SUBSET_WEIGHTS | {"math-prm": 447}
"""RewardBench's rows per subset: 2,985."""

SCALE_NATS = 10.0

FAVOURED, ADVANTAGE_NATS = "beta", 6.0
"""The family that judges better, and what its pairs' margins are raised by: some 13 points of accuracy."""

_SHARED_PROMPTS = {"alpacaeval": 100, "mt-bench": 40, "hep": 164}
"""Problems under the subsets that ask the same ones, by the beginning of their names."""

_SECTION_OF = {subset: position for position, names in enumerate(SECTIONS.values()) for subset in names}


class Family(NamedTuple):
    """What a family's published scores look like: mean and spread of the latent quality on two boards."""

    name: str
    n_models: int
    mean: float
    spread: float
    second_mean: float


FAMILIES = (
    Family("alpha", 10, 13.9, 4.5, 12.4),
    Family("beta", 11, 35.8, 8.0, 29.0),
    Family("gamma", 12, 13.6, 3.5, 7.7),
    Family("delta", 11, 24.7, 3.8, 18.0),
)


class Models(NamedTuple):
    """44 models, or as many as asked for."""

    model_ids: np.ndarray
    family: np.ndarray
    """(models,), str."""
    performance: dict[str, np.ndarray]
    """Published points on two boards; the second lacks two models."""
    lean: np.ndarray
    """effect x quality, (models,)."""
    taste: np.ndarray
    """(models,)."""
    section_tilt: np.ndarray
    """(models, 4)."""
    subset_tilt: np.ndarray
    """(models, 23)."""


class Traits(NamedTuple):
    """Rows, and what models react to in them."""

    subset: np.ndarray
    """Position in SIZES, (rows,)."""
    cluster: np.ndarray
    """Problem, (rows,)."""
    load: np.ndarray
    length: np.ndarray


def draw_models(*, effect: float, rng: np.random.Generator, n_models: int = 44) -> Models:
    """Models in FAMILIES' proportions.

    Args:
        effect: How much a point of quality leans towards the chosen response, in units of the row noise; 0 for none.
        rng: Source of the models.
        n_models: How many.
    """
    share = n_models / sum(family.n_models for family in FAMILIES)
    sizes = [round(family.n_models * share) for family in FAMILIES]
    names, means, spreads, second = (np.repeat([family[field] for family in FAMILIES], sizes) for field in (0, 2, 3, 4))
    deviation = spreads * rng.standard_normal(len(names))
    first_board = np.round(means + deviation + rng.standard_normal(len(names)), 1)
    second_board = np.round(second + 0.8 * deviation + 1.5 * rng.standard_normal(len(names)), 1)
    second_board[np.flatnonzero(names == "gamma")[:2]] = np.nan
    return Models(
        np.array([f"{name}-{number:03d}" for number, name in enumerate(names)]),
        names,
        {"alpaca_eval_2_lc": first_board, "arena_hard": second_board},
        effect * deviation,
        0.6 * rng.standard_normal(len(names)),
        0.25 * rng.standard_normal((len(names), len(SECTIONS))),
        0.15 * rng.standard_normal((len(names), len(SIZES))),
    )


def draw_rows(*, rng: np.random.Generator, sizes: dict[str, int] = SIZES) -> Traits:
    """Rows of every subset; those that ask the same problems share them."""
    subset = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    cluster = row_clusters(sizes)
    n_clusters = cluster.max() + 1
    load = 0.6 + 0.4 * rng.standard_normal(n_clusters)[cluster] + 0.4 * rng.standard_normal(len(subset))
    return Traits(subset, cluster, load, -0.3 + rng.standard_normal(len(subset)))


def row_clusters(sizes: dict[str, int] = SIZES) -> np.ndarray:
    """Problem of each row, (rows,), int from 0."""
    begins, parts, n_clusters = {}, [], 0
    for name, size in sizes.items():
        group = next((prefix for prefix in _SHARED_PROMPTS if name.startswith(prefix)), name)
        if group not in begins:
            begins[group] = n_clusters
            n_clusters += _SHARED_PROMPTS.get(group, size)
        parts.append(begins[group] + np.arange(size) % _SHARED_PROMPTS.get(group, size))
    return np.concatenate(parts)


def model_margins(models: Models, rows: Traits, *, rng: np.random.Generator) -> np.ndarray:
    """log-probability of chosen less that of rejected, but for what a family shares, (models, rows), nats.

    In steps of 1/64 nat, which are exact in binary: differences of equal margins are exactly 0, and ties occur.
    """
    section = np.array([_SECTION_OF[name] for name in SIZES])[rows.subset]
    shape = (len(models.lean), rows.cluster.max() + 1)
    margins = models.lean[:, None] * rows.load + models.taste[:, None] * rows.length
    margins += models.section_tilt[:, section] + models.subset_tilt[:, rows.subset]
    margins += 0.5 * rng.standard_normal(shape)[:, rows.cluster]
    margins += rng.standard_normal(margins.shape)
    return np.round(margins * SCALE_NATS * 64) / 64


def difference(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """A pair's margins from its models', the density ratio's, (pairs, rows), nats."""
    return better - worse


def order_only(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """A pair's margins in a world in which the order of the models counts and the size of their gap does not.

    A pair judges as its better model does, as if that one's margins dwarfed the other's. All models judge alike well
    but for tastes of their own, and better than a coin.
    """
    return better + 0.4 * SCALE_NATS + 0 * worse


def favour(margins: np.ndarray, family: np.ndarray, nats: float) -> np.ndarray:
    """Margins, (pairs, rows), with those of the family FAVOURED raised, whatever the size of a gap.

    Args:
        margins: Of pairs whose strong model is the better one.
        family: Family of each pair, (pairs,), str.
        nats: In steps of 1/64, as the margins are.
    """
    return margins + np.where(family == FAVOURED, nats, 0.0)[:, None]


def all_pairs(models: Models) -> pd.DataFrame:
    """strong, weak and family of all pairs inside families; the strong one has the higher first score."""
    first, second = np.triu_indices(len(models.model_ids), 1)
    inside = models.family[first] == models.family[second]
    first, second = first[inside], second[inside]
    score = models.performance["alpaca_eval_2_lc"]
    turned = score[first] < score[second]
    strong, weak = np.where(turned, second, first), np.where(turned, first, second)
    frame = pd.DataFrame({"strong": models.model_ids[strong], "weak": models.model_ids[weak]})
    gap = np.round(score[strong] - score[weak], 9)
    pair_id = frame["strong"] + "--" + frame["weak"]
    return frame.assign(pair_id=pair_id, family=models.family[strong], gap_points=gap)


def limited(n_rows: int | None) -> dict[str, int]:
    """Rows a subset when at most so many of each are taken; None for all."""
    return {name: min(size, n_rows or size) for name, size in SIZES.items()}


def world_rows(sizes: dict[str, int]) -> Rows:
    """Score and sections over rows of every subset."""
    return rows_of(dataset(sizes).examples)


def draw_answers(
    truth: np.ndarray, rows: Rows, pairs_alike: float, rows_alike: float, *, rng: np.random.Generator
) -> np.ndarray:
    """Right (1) and wrong (0) of pairs whose true accuracy is known, (pairs, rows).

    A pair is right where a normal leaning is under its threshold. Leanings of two pairs on a row, and of one pair on
    two rows of a problem, correlate.

    Args:
        truth: True accuracy of each pair on each subset, (pairs, subsets).
        rows: The rows.
        pairs_alike: Correlation of the leanings of two pairs on one row.
        rows_alike: Of one pair on two rows of one problem.
        rng: Source of the leanings.
    """
    n_problems, n_rows = rows.cluster.max() + 1, len(rows.cluster)

    def leaning(n: int) -> np.ndarray:
        problem, own = rng.standard_normal((n, n_problems)), rng.standard_normal((n, n_rows))
        return np.sqrt(rows_alike) * problem[:, rows.cluster] + np.sqrt(1 - rows_alike) * own

    shared = leaning(1) if pairs_alike else 0.0
    both = np.sqrt(pairs_alike) * shared + np.sqrt(1 - pairs_alike) * leaning(len(truth))
    return (both < norm.ppf(truth)[:, rows.subset]).astype(float)


def study(models: Models) -> tuple[Study, np.ndarray]:
    """The study of all pairs, and the position in `models` of each of its models."""
    made = study_of(all_pairs(models))
    return made, pd.Index(models.model_ids).get_indexer(made.model_ids)


def dataset(sizes: dict[str, int] = SIZES) -> Dataset:
    """The rows as preferences: rows of one problem ask the same, but HumanEvalPack's each in their language."""
    examples = []
    cluster, position = row_clusters(sizes), 0
    for subset, size in sizes.items():
        for number in range(size):
            problem = cluster[position]
            asked = f"Problem {problem}" + (f" in {subset[4:]}" if subset.startswith("hep-") else "")
            texts = (("chosen", f"Right {position}"), ("rejected", f"Wrong {position}"))
            examples.append(Example(f"{subset}/{number}", subset, (Message("user", asked),), texts))
            position += 1
    return Dataset("world", "world", f"{len(examples)}", tuple(examples))


def scores(models: Models, margins: np.ndarray, data: Dataset, *, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """SCORES of every model: half of each margin on either response, over what the family's models share.

    What they share cancels in every reward; it keeps the sums below 0, as log-probabilities are.
    """
    n_tokens = rng.integers(20, 400, size=2 * len(data.examples))
    keys = [(e.example_id, response_id) for e in data.examples for response_id, _ in e.responses]
    frame = pd.DataFrame(keys, columns=["example_id", "response_id"]).assign(
        logp_end_nats=-0.5, n_tokens=n_tokens, n_bytes=4 * n_tokens, status=OK
    )
    halves = np.stack([margins, -margins], axis=2).reshape(len(margins), -1) / 2
    shared = {
        name: -200 - n_tokens + np.round(64 * SCALE_NATS * rng.standard_normal(len(keys))) / 64
        for name in np.unique(models.family)
    }
    return {
        model_id: frame.assign(logp_sum_nats=shared[family] + half)[list(SCORES)]
        for model_id, family, half in zip(models.model_ids, models.family, halves, strict=True)
    }


def draw(figure: Callable[[pd.DataFrame], Figure], table: Path) -> None:
    """Write the figure of a table of simulations beside it."""
    drawn = figure(pd.read_csv(table))
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
        drawn.savefig(table.with_suffix(f".{suffix}"), dpi=150, metadata=metadata)
