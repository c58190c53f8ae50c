"""The verb `ablate`: measures how domain instructions and exemplars change a pair's accuracy.

The pair scores the same rows plainly and with every variant of the instructions, under every router.
"""

import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.files import write_csv, write_json
from bench.prefer import customise, route
from bench.schema import ABLATION, Dataset
from bench.scoring import passes
from bench.store.places import Place, locked_folder, manifest
from bench.study.ablation import PLAIN, Run, ablation
from bench.study.measure import read_for
from bench.subject import Subject
from bench.verbs.route import CONFUSION, confusion_counts, routes
from bench.verbs.score import checked_scores
from bench.verbs.session import Session, for_reward
from bench.verbs.told import check_fits, check_reads_no_text

RELEASED = "released"
"""The variant in the code that the paper's authors released: chat prompts stay plain, all others get an exemplar."""


class Ablation(NamedTuple):
    """What `ablate_pair` varies."""

    routers: Sequence[str]
    """Names of routers: KNOWN of `study.ablation`, CLASSIFIER or MODEL of `verbs.route`."""
    seed: int
    """Seed of the choice of exemplars."""
    reward: str


def ablate_pair(session: Session, subject: Subject, dataset: Dataset, wish: Ablation) -> Path:
    """Score a pair plainly and with every variant under every router; write ablation.csv and confusion.csv.

    Each row is scored once for each domain that any router gives it, even if several routers agree.

    Returns:
        The folder of the tables.

    Raises:
        UsageError: a domain's text fills a model's whole context and leaves no room for a prompt.
        DrsowError: a model of the pair cannot be scored.
    """
    check_reads_no_text(subject, "an ablation")
    registry, strong = session.registry, subject.pairs[0].strong
    routed = {name: routes(session, dataset, name, model_id=strong).set_index("example_id") for name in wish.routers}
    wanted = {(str(row), str(domain)) for table in routed.values() for row, domain in table["domain"].items()}
    variants = {
        name: customise.customised(dataset, registry.domains, wanted, variant=name, seed=wish.seed)
        for name in customise.VARIANTS
    }
    used = {domain for _, domain in wanted}
    check_room(session, subject, dataset, used, variant=customise.BOTH)
    scoring = for_reward(session, wish.reward)
    sets = {PLAIN: checked_scores(scoring, subject, dataset)}
    sets |= {name: checked_scores(scoring, subject, rows) for name, rows in variants.items()}
    runs = _runs({name: [read_for(each, wish.reward) for each in both] for name, both in sets.items()}, routed)
    rng = np.random.default_rng(zlib.crc32(dataset.digest.encode()))
    place = ablation_place(subject, dataset, wish)
    found = ablation(runs, dataset, reward=wish.reward, rng=rng)
    counts = [confusion_counts(name, table.reset_index(), dataset, registry) for name, table in routed.items()]
    with locked_folder(session.store, place) as folder:
        # The manifest is written first. It names the rows and routers, so another ablation never writes into it.
        write_json(folder / "manifest.json", manifest(place, chain(*sets.values())))
        write_csv(folder / "ablation.csv", found, ABLATION)
        write_csv(folder / "confusion.csv", pd.concat(counts, ignore_index=True), CONFUSION)
    return folder


def ablation_place(subject: Subject, dataset: Dataset, wish: Ablation) -> Place:
    """Where a pair's ablation is stored. Other rows, another reward, seed or list of routers has its own folder."""
    told = {"routers": list(wish.routers), "seed": wish.seed, "reward": wish.reward}
    named = [] if wish.reward == "sum" else [wish.reward]
    named += [] if wish.seed == 0 else [f"seed-{wish.seed}"]
    return Place(subject.name, dataset, "-".join(["ablation", *named]), told)


def _runs(scores: Mapping[str, Sequence[pd.DataFrame]], routed: Mapping[str, pd.DataFrame]) -> dict[Run, tuple]:
    """SCORES of both models for each variant -> for each variant and router, with the example_ids of the plain rows."""
    runs = {Run(PLAIN): tuple(scores[PLAIN])}
    for name in customise.VARIANTS:
        for router, table in routed.items():
            runs[Run(name, router)] = tuple(customise.of_routes(frame, table["domain"]) for frame in scores[name])
    for router, table in routed.items():
        sides = zip(runs[Run(PLAIN)], runs[Run(customise.EXEMPLARS, router)], strict=True)
        runs[Run(RELEASED, router)] = tuple(_released(plain, told, table["domain"]) for plain, told in sides)
    return runs


def _released(plain: pd.DataFrame, told: pd.DataFrame, domains: pd.Series) -> pd.DataFrame:
    """The plain SCORES of rows that the router sent to chat, and the customised SCORES of all others."""
    chat = domains.index[domains == route.FALLBACK]
    parts = plain[plain["example_id"].isin(chat)], told[~told["example_id"].isin(chat)]
    return pd.concat(parts, ignore_index=True)


def check_room(session: Session, subject: Subject, dataset: Dataset, domains: set[str], *, variant: str) -> None:
    """Check that each domain's longest text leaves room for a prompt in both models' contexts.

    Raises:
        UsageError: a domain's text is too long; names the domain and the model.
    """
    from bench.scoring.served import scorer_of

    registry, options = session.registry, session.options
    texts = {f"domain {name}": customise.blocks(registry.domains, name, variant=variant) for name in sorted(domains)}
    for model_id, owner in subject.passes():
        work = passes.Work(registry.model(model_id), registry.model(owner), dataset)
        scorer = scorer_of(passes.make_ready(work, options), options)
        check_fits(scorer, texts)
