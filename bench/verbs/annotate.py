"""The verb `annotate`: labels candidates with a pair's rewards and writes preferences that a trainer reads."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.prefer import customise
from bench.prefer.annotate import Filters, annotate
from bench.prefer.export import data_card, length_bias, records, write_preferences
from bench.schema import Dataset, UsageError
from bench.store.folder import ScoreSet, write_json
from bench.store.places import Place, manifest
from bench.study.reward import rewards
from bench.subject import Subject
from bench.verbs.ablate import check_room
from bench.verbs.route import routes
from bench.verbs.score import checked_scores
from bench.verbs.session import Session


class Annotation(NamedTuple):
    """How `annotate_candidates` labels."""

    filters: Filters
    variant: str
    """"plain" or one of `customise.VARIANTS`."""
    router: str
    seed: int
    """Seed of the choice of exemplars and of random rejected responses."""
    reward: str


def annotate_candidates(
    session: Session, subject: Subject, dataset: Dataset, wish: Annotation, *, out: Path
) -> pd.Series:
    """Score candidates under a pair, choose and reject one of each prompt, and write the preferences into a folder.

    Returns:
        The number of prompts kept, and the number skipped for each reason.

    Raises:
        UsageError: every prompt was skipped; names the reasons.
    """
    strong = subject.pairs[0].strong
    routed = routes(session, dataset, wish.router, model_id=strong)
    domains = routed.set_index("example_id")["domain"]
    chosen = {str(row): str(domain) for row, domain in domains.items()}
    told = dataset
    if wish.variant != "plain":
        check_room(session, subject, dataset, set(domains), variant=wish.variant)
        blocks = session.registry.domains
        told = customise.customised(dataset, blocks, chosen.items(), variant=wish.variant, seed=wish.seed)
    sets = checked_scores(session, subject, told)
    frames = [each.read() for each in sets]
    if wish.variant != "plain":
        frames = [customise.of_routes(frame, domains) for frame in frames]
    table = rewards(*frames, reward=wish.reward)
    rng = np.random.default_rng([wish.seed, zlib.crc32(dataset.digest.encode())])
    found = annotate(dataset.examples, table, wish.filters, rng=rng)
    if found.preferences.empty:
        counts = ", ".join(f"{reason} {n}" for reason, n in found.skipped["reason"].value_counts().items())
        raise UsageError(f"{dataset.data_id}: no prompt is left to learn from ({counts})")
    facts = _facts(subject, sets, dataset, wish)
    card = data_card(found, length_bias(dataset.examples, found, table), facts)
    write_preferences(out, records(dataset.examples, found, table, chosen), found.skipped, card)
    write_json(out / "manifest.json", manifest(Place(subject.name, dataset, "annotation"), sets) | facts)
    return pd.concat([pd.Series({"kept": len(found.preferences)}), found.skipped["reason"].value_counts()])


def _facts(subject: Subject, sets: tuple[ScoreSet, ScoreSet], dataset: Dataset, wish: Annotation) -> dict[str, object]:
    """How the rewards were computed, for the data card and the manifest."""
    pair, (strong, weak) = subject.pairs[0], sets
    asked = {name: value for name, value in wish.filters._asdict().items() if value is not None}
    return {
        "pair": f"{pair.pair_id}: {pair.strong} over {pair.weak}",
        "strong revision": strong.key.revision,
        "weak revision": weak.key.revision,
        "template": pair.template,
        "dtype": f"{strong.key.dtype} by {strong.key.ops}",
        "reward": wish.reward,
        "customised": f"{wish.variant}, domains by {wish.router}",
        "seed": wish.seed,
        "filters": ", ".join(f"{name} {value}" for name, value in asked.items()),
        "candidates": f"{Path(dataset.data_id).name}, sha256 {dataset.digest}",
    }
