"""REAL (arXiv 2409.17169): which two responses of a prompt, and which prompts, are worth a label.

Responses are embedded alone. With several candidates a prompt's pair is the least similar one, the most similar one,
the two nearest to the centres of k-means with k = 2, or a random one; then a share of the prompts is kept by the
same rule. The claim: labels of dissimilar pairs are less often wrong. Similarity is the cosine.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

STRATEGIES = ("dissimilar", "similar", "centroid", "random")

_CHUNK = 2_000
"""Prompts that one worker takes at once."""


class Picked(NamedTuple):
    """One prompt's pair."""

    first: int
    """Number of a candidate, lower than `second`."""
    second: int
    similarity: float
    """Cosine, -1 to 1."""


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Cosine of every two embeddings of one prompt, (n, n), float64, from (n, hidden)."""
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def pick(embeddings: np.ndarray, strategy: str, *, rng: np.random.Generator) -> Picked | None:
    """The pair of one prompt's candidates, two of different embeddings; None where all have the same one.

    Args:
        embeddings: (candidates, hidden), two or more, none of them 0.
        strategy: One of STRATEGIES.
        rng: Draws the random pair, and where k-means starts.
    """
    table = cosines(embeddings)
    left, right = np.triu_indices(len(table), 1)
    # Two of one embedding are one text, or as good as one: a label of them would say nothing.
    different = (embeddings[left] != embeddings[right]).any(axis=1)
    if not different.any():
        return None
    left, right = left[different], right[different]
    values = table[left, right]
    if strategy == "random":
        place = int(rng.integers(len(values)))
    elif strategy == "centroid" and (found := _nearest_to_centres(embeddings, table, rng)):
        return found
    else:
        place = int(np.argmax(values) if strategy == "similar" else np.argmin(values))
    return Picked(int(left[place]), int(right[place]), float(values[place]))


def _nearest_to_centres(embeddings: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> Picked | None:
    """The candidates nearest to the centres of two clusters; None where k-means sees one point."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(rng.integers(2**31))
    with warnings.catch_warnings():
        # Candidates that differ in their last bits alone may be one point to k-means.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(2, n_init=10, random_state=seed).fit(embeddings)
    if len(set(found.labels_)) < 2:
        return None
    # Each from its own cluster: a candidate of one can be nearer to the other's centre than all that are in it.
    distances = np.linalg.norm(embeddings[None] - found.cluster_centers_[:, None], axis=2)
    own = np.where(found.labels_[None] == [[0], [1]], distances, np.inf)
    first, second = sorted(int(place) for place in own.argmin(axis=1))
    return Picked(first, second, float(table[first, second]))


def pick_all(
    embeddings: np.ndarray, sizes: Sequence[int], strategy: str, *, seed: int, n_jobs: int = 1
) -> list[Picked | None]:
    """The pair of every prompt, as `pick` has it.

    Only responses of one prompt are ever compared, so memory grows with the responses.

    Args:
        embeddings: (responses, hidden), those of one prompt beside each other.
        sizes: How many responses each prompt has.
        strategy: One of STRATEGIES.
        seed: Source of what is random; the result does not hang on `n_jobs`.
        n_jobs: Processes.
    """
    ends = np.cumsum(sizes)
    starts = range(0, len(sizes), _CHUNK)
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_pick_some)(
            embeddings[(ends[start] - sizes[start]) : ends[min(start + _CHUNK, len(sizes)) - 1]],
            list(sizes[start : start + _CHUNK]),
            strategy,
            [seed, start],
        )
        for start in starts
    )
    return [picked for part in parts for picked in part]


def _pick_some(embeddings: np.ndarray, sizes: list[int], strategy: str, seed: list[int]) -> list[Picked | None]:
    rng = np.random.default_rng(seed)
    rows = np.split(embeddings, np.cumsum(sizes)[:-1])
    return [pick(row, strategy, rng=rng) for row in rows]


def keep(picked: Sequence[Picked], strategy: str, *, fraction: float, seed: int) -> np.ndarray:
    """Which prompts are worth a label, in their order.

    Args:
        picked: Each prompt's pair.
        strategy: "dissimilar" keeps the lowest similarities, "similar" the highest, the others a random share.
        fraction: The share that is kept, rounded to the nearest number of prompts, at least one.
        seed: Draws the random share.

    Returns:
        Numbers of the prompts, ascending.
    """
    n_kept = max(1, round(fraction * len(picked)))
    values = np.array([each.similarity for each in picked])
    if strategy in ("dissimilar", "similar"):
        order = np.argsort(values if strategy == "dissimilar" else -values, kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(picked))
    return np.sort(order[:n_kept])
