"""Selects which two responses of each prompt, and which prompts, to label (REAL, arXiv 2409.17169).

Each response is embedded without its prompt; similarity is the cosine of two embeddings. From a prompt's candidates the
selection takes the two least similar ones, the two most similar ones, the two nearest to the centres of k-means with
k = 2, or two at random. The same rule then decides which fraction of the prompts to keep. REAL claims that labels of
dissimilar responses are less often wrong.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed

_CHUNK = 2_000
"""Number of prompts in one task of a worker process."""


class Picked(NamedTuple):
    """The two selected candidates of a prompt."""

    first: int
    """Number of a candidate, from 0; lower than `second`."""
    second: int
    similarity: float
    """Cosine, -1 to 1."""


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Cosine of every two rows: (n, hidden) embeddings give (n, n), float64."""
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def pick(embeddings: np.ndarray, strategy: str, *, rng: np.random.Generator) -> Picked | None:
    """Selects two of one prompt's candidates.

    Args:
        embeddings: (candidates, hidden), two or more candidates, no row of zeros.
        strategy: "dissimilar", "similar", "centroid" or "random".
        rng: Draws the random candidates, and the start of k-means.

    Returns:
        Two candidates with different embeddings, or None if all embeddings are equal.
    """
    table = cosines(embeddings)
    left, right = np.triu_indices(len(table), 1)
    # Candidates with equal embeddings have the same text, or nearly so: a label of them would say nothing.
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
    """The candidates nearest to the centres of two clusters; None if k-means finds only one distinct point."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(rng.integers(2**31))
    with warnings.catch_warnings():
        # k-means may treat candidates that differ only in their last bits as one point, and warns.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(2, n_init=10, random_state=seed).fit(embeddings)
    if len(set(found.labels_)) < 2:
        return None
    # Search each cluster's members only: a candidate of one cluster can be the nearest of all to the other's centre.
    distances = np.linalg.norm(embeddings[None] - found.cluster_centers_[:, None], axis=2)
    own = np.where(found.labels_[None] == [[0], [1]], distances, np.inf)
    first, second = sorted(int(place) for place in own.argmin(axis=1))
    return Picked(first, second, float(table[first, second]))


def pick_all(
    embeddings: np.ndarray, sizes: Sequence[int], strategy: str, *, seed: int, n_jobs: int = 1
) -> list[Picked | None]:
    """Applies `pick` to every prompt.

    It compares only responses of the same prompt, so memory grows linearly with the number of responses.

    Args:
        embeddings: (responses, hidden); the responses of a prompt are neighbouring rows.
        sizes: Number of responses of each prompt.
        strategy: "dissimilar", "similar", "centroid" or "random".
        seed: Seed of the random choices; the result does not depend on `n_jobs`.
        n_jobs: Number of worker processes.
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
    """Selects the prompts to label.

    Args:
        picked: The two selected candidates of each prompt.
        strategy: "dissimilar" keeps the lowest similarities, "similar" the highest; other strategies keep prompts at
            random.
        fraction: Fraction of the prompts to keep. The number is rounded to the nearest and is at least one.
        seed: Seed of the random choice.

    Returns:
        Numbers of the kept prompts, from 0, ascending.
    """
    n_kept = max(1, round(fraction * len(picked)))
    values = np.array([each.similarity for each in picked])
    if strategy in ("dissimilar", "similar"):
        order = np.argsort(values if strategy == "dissimilar" else -values, kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(picked))
    return np.sort(order[:n_kept])
