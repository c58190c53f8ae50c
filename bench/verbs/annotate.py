"""The verb `annotate`: labels candidates with a pair's rewards and writes preferences that a trainer reads."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.contrast import model_of
from bench.faults import warn
from bench.prefer import customise
from bench.prefer.annotate import Annotated, Confidence, Filters, annotate
from bench.prefer.export import ANNOTATION, check_folder, data_card, length_bias, records, write_preferences
from bench.schema import NONFINITE, OK, TOO_LONG, Dataset, PreconditionError, UsageError
from bench.store.folder import ScoreSet
from bench.store.places import Place, manifest
from bench.study.board import texts_of
from bench.study.confidence import MIN_PROBLEMS
from bench.study.measure import read_for
from bench.study.reward import rewards
from bench.subject import Subject
from bench.units import tally
from bench.verbs.ablate import check_room
from bench.verbs.calibration import calibration_of, on_own_labels, own_labels
from bench.verbs.ensemble import combined, fitted
from bench.verbs.route import routes
from bench.verbs.score import checked_scores
from bench.verbs.session import Session, for_reward
from bench.verbs.told import check_reads_no_text


class Annotation(NamedTuple):
    """How `annotate_candidates` labels."""

    filters: Filters
    variant: str
    """"plain" or one of `customise.VARIANTS`."""
    router: str
    seed: int
    """Seed of the choice of exemplars and of random rejected responses."""
    reward: str
    calibration: str | None = None
    """The labelled data that says how sure labels are; None: the candidates' own labels, or else a scored benchmark."""
    ensemble: "EnsembleWish | None" = None
    """How the subject's pairs label together; None for one pair."""


class EnsembleWish(NamedTuple):
    """How several pairs label together."""

    rule: str
    """One of `study.ensemble.RULES`."""
    data: str
    """The scored, labelled data set that gives scales and weights."""


def annotate_candidates(
    session: Session, subject: Subject, dataset: Dataset, wish: Annotation, *, out: Path
) -> pd.Series:
    """Score candidates under a pair, choose and reject one of each prompt, and write the preferences into a folder.

    Returns:
        The number of prompts kept, and the number skipped for each reason.

    Raises:
        UsageError: every prompt was skipped; names the reasons. Or the folder holds files of others.
        PreconditionError: the labelled data is not scored, or there is none and labels must be sure.
    """
    check_folder(out, dataset.data_id)
    if wish.variant != "plain":
        check_reads_no_text(subject, f"--customise {wish.variant}")
    if wish.ensemble and (wish.calibration or wish.filters.min_confidence is not None):
        raise UsageError("--calibration and --min-confidence belong to one pair; leave them out with --ensemble")
    labelled = own_labels(dataset) if wish.calibration is None and not wish.ensemble else None
    fit = None
    if labelled is None and not wish.ensemble:
        fit = calibration_of(session, subject, wish.calibration, reward=wish.reward)
    _check_sure(subject, wish, is_known=labelled is not None or fit is not None)
    scored = _scored(session, subject, dataset, wish)
    sets, table = scored.sets, scored.rewards
    if labelled is not None and (fit := on_own_labels(dataset, labelled, table)) is None:
        labelled, fit = None, calibration_of(session, subject, None, reward=wish.reward)
    _check_sure(subject, wish, is_known=fit is not None)
    found = _chosen(dataset, table, wish, None if fit is None else fit.of_labels(dataset))
    facts = _facts(subject, sets, dataset, wish) | scored.told | texts_of(session.registry, subject)
    if fit is not None:
        plain = wish.variant == "plain" or labelled is not None
        facts["calibration"] = fit.words() + ("" if plain else "; these were scored without instructions")
    left_out = {"rows_left_out": dict(dataset.left_out), "candidates_left_out": _statuses(table)}
    told: dict[str, object] = {name: counts for name, counts in left_out.items() if counts}
    shown = facts | {name.replace("_", " "): tally(left_out[name]) for name in told}
    card = data_card(found, length_bias(dataset.examples, found, table), shown)
    told |= {} if fit is None else {"calibration": fit.told}
    told = manifest(Place(subject.name, dataset, ANNOTATION), sets) | facts | told
    write_preferences(out, records(dataset.examples, found, table, scored.domains), found.skipped, card, told)
    return pd.concat([pd.Series({"kept": len(found.preferences)}), found.skipped["reason"].value_counts()])


def _statuses(scored: pd.DataFrame) -> dict[str, int]:
    """How many candidates are not scored, by status."""
    lost = scored.loc[scored["status"] != OK, "status"].value_counts()
    return {str(status): int(n) for status, n in lost.items()}


def _tell_left_out(scores: pd.DataFrame, *, model: str) -> None:
    """Says on stderr how many candidates a model has not scored, and why."""
    reasons = {TOO_LONG: "longer with their prompt than its context", NONFINITE: "their scores are not finite"}
    for status, n in _statuses(scores).items():
        warn(f"{model}: {n} of {len(scores)} candidates left out: {reasons[status]}")


def _chosen(dataset: Dataset, table: pd.DataFrame, wish: Annotation, sure: Confidence | None) -> Annotated:
    """The preferences; at least one.

    Raises:
        UsageError: every prompt was skipped.
    """
    rng = np.random.default_rng([wish.seed, zlib.crc32(dataset.digest.encode())])
    found = annotate(dataset.examples, table, wish.filters, rng=rng, confidence=sure)
    if found.preferences.empty:
        counts = ", ".join(f"{reason} {n}" for reason, n in found.skipped["reason"].value_counts().items())
        raise UsageError(f"{dataset.data_id}: no prompt is left to learn from ({counts})")
    return found


class _Scored(NamedTuple):
    """The candidates under a pair."""

    sets: tuple[ScoreSet, ...]
    rewards: pd.DataFrame
    """example_id, response_id, reward, status."""
    domains: dict[str, str]
    """domain_id by example_id."""
    told: dict[str, object]
    """The recipe of an ensemble, for the data card and the manifest."""


def _scored(session: Session, subject: Subject, dataset: Dataset, wish: Annotation) -> _Scored:
    """Find each prompt's domain, score what the store lacks, and compute the rewards."""
    strong = model_of(subject.pairs[0].strong)
    routed = routes(session, dataset, wish.router, model_id=strong)
    domains = routed.set_index("example_id")["domain"]
    chosen = {str(row): str(domain) for row, domain in domains.items()}
    told = dataset
    if wish.variant != "plain":
        check_room(session, subject, dataset, set(domains), variant=wish.variant)
        blocks = session.registry.domains
        told = customise.customised(dataset, blocks, chosen.items(), variant=wish.variant, seed=wish.seed)
    # The constants are found first, because a data set that is not scored must show before hours of scoring.
    fit = None
    if wish.ensemble is not None:
        fit = fitted(session, subject, wish.ensemble.rule, wish.ensemble.data, dataset, reward=wish.reward)
    sets: list[ScoreSet] = []
    tables = []
    for pair in subject.pairs:
        both = checked_scores(for_reward(session, wish.reward), subject._replace(pairs=(pair,)), told)
        frames = [read_for(each, wish.reward) for each in both]
        if wish.variant != "plain":
            frames = [customise.of_routes(frame, domains) for frame in frames]
        for name, frame in zip((pair.strong, pair.weak), frames, strict=True):
            _tell_left_out(frame, model=name)
        tables.append(rewards(*frames, reward=wish.reward))
        sets += both
    every = tuple({each.folder: each for each in sets}.values())
    if fit is None:
        return _Scored(every, tables[0], chosen, {})
    return _Scored(every, combined(tables, fit.recipe), chosen, {"ensemble": fit.told})


def _check_sure(subject: Subject, wish: Annotation, *, is_known: bool) -> None:
    """Fails if labels must be sure, but no labelled rows say how sure they are."""
    if wish.filters.min_confidence is None or is_known:
        return
    name = subject.pairs[0].pair_id
    raise PreconditionError(
        f"--min-confidence: no labelled rows say how sure a label of {name} is: fewer than {MIN_PROBLEMS} of the "
        "candidates' prompts have a label that counts, and no benchmark is scored. "
        f"`drsow run --pair {name} --data reward-bench` scores one, or --calibration DATA names labelled data that is "
        "scored"
    )


def _facts(subject: Subject, sets: tuple[ScoreSet, ...], dataset: Dataset, wish: Annotation) -> dict[str, object]:
    """How the rewards were computed, for the data card and the manifest."""
    asked = {name: value for name, value in wish.filters._asdict().items() if value is not None}
    return {
        **_judges(subject, sets),
        "dtype": f"{sets[0].key.dtype} by {sets[0].key.ops}",
        "reward": wish.reward,
        "customised": f"{wish.variant}, domains by {wish.router}",
        "seed": wish.seed,
        "filters": ", ".join(f"{name} {value}" for name, value in asked.items()),
        "candidates": f"{Path(dataset.data_id).name}, sha256 {dataset.digest}",
    }


def _judges(subject: Subject, sets: tuple[ScoreSet, ...]) -> dict[str, object]:
    """The pair, or the pairs of an ensemble, with revisions and chat templates."""
    pairs = subject.pairs
    if len(pairs) > 1:
        return {
            "pairs": "; ".join(f"{pair.pair_id}: {pair.strong} over {pair.weak}" for pair in pairs),
            "revisions": {each.key.model_id: each.key.revision for each in sets},
            "templates": ", ".join(dict.fromkeys(pair.template for pair in pairs)),
        }
    (pair,), (strong, weak) = pairs, sets
    return {
        "pair": f"{pair.pair_id}: {pair.strong} over {pair.weak}",
        "strong revision": strong.key.revision,
        "weak revision": weak.key.revision,
        "template": pair.template,
    }
