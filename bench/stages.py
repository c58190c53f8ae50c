"""The verbs' straight runs: registry and data -> scores -> tables and figures. What is scored is never scored again."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.faults import explained
from bench.registry import Pair, Registry
from bench.schema import DTYPES, Dataset, Example, Message, ScoreKey, UsageError
from bench.scoring import run
from bench.scoring.identity import owner_digest
from bench.store import ScoreSet, Store
from bench.study.board import Written, comparison, write_results
from bench.subject import Lookup, Subject, stored_sets

LOCAL = run.Spread()
"""All work in this process."""


class Outcome(NamedTuple):
    """What a run left behind."""

    written: list[Written]
    """Leaderboards that were made, each with its results folder."""
    errors: list[str]
    """One line a model that failed, or a folder that could not be written."""
    code: int
    """Exit code if nothing at all was done."""


def run_subjects(
    registry: Registry,
    subjects: Sequence[Subject],
    dataset: Dataset,
    store: Store,
    *,
    options: run.Options,
    reward: str,
    spread: run.Spread = LOCAL,
    seed: int | None = None,
) -> Outcome:
    """Score what is missing, each model once, and write every subject's tables and figures.

    A model that fails stops its own pairs only: a study without it is written with the pairs that are left. Of several
    shards the one that ends last writes; the others write nothing.

    Args:
        registry: Knows the models.
        subjects: Pairs and studies.
        dataset: The preferences.
        store: Where scores and results lie.
        options: Device, dtype, budget.
        reward: The headline reward.
        spread: Over which processes.
        seed: Of the statistics' draws; None: derived from the data.
    """
    sets, errors, code = score_all(registry, subjects, dataset, store, options, spread)
    if spread.n_shards > 1 and not all(sets.get(side) for subject in subjects for side in subject.passes()):
        return Outcome([], errors, code)
    done = []
    for subject in subjects:
        left = subject._replace(pairs=tuple(p for p in subject.pairs if all(s in sets for s in subject.sides(p))))
        if left.pairs:
            mine = {side: sets[side] for side in left.passes()}
            done.append(write_results(store, registry, left, dataset, mine, reward=reward, seed=seed))
            if not done[-1].problem:
                draw(registry, subject, done[-1].folder)
    return Outcome(done, errors + [each.problem for each in done if each.problem], code)


def redo_subjects(
    registry: Registry,
    subjects: Sequence[Subject],
    dataset: Dataset,
    store: Store,
    *,
    lookup: Lookup,
    reward: str,
    seed: int | None = None,
) -> list[Written]:
    """Write every subject's tables again from stored scores; loads no model.

    Raises:
        PreconditionError: a model of a subject is not scored on the data.
    """
    every = [(subject, stored_sets(store, subject, dataset, lookup)) for subject in subjects]
    return [write_results(store, registry, subject, dataset, sets, reward=reward, seed=seed) for subject, sets in every]


def lookup_of(registry: Registry, *, dtype: str = "auto", ops: str | None = None) -> Lookup:
    """What a user means by stored scores: a dtype ("auto" for any), an arithmetic, and templates as they are here."""

    @functools.cache
    def template_of(owner: str) -> str | None:
        return owner_digest(registry.models[owner]) if owner in registry.models else None

    return Lookup(DTYPES.get(dtype), ops, template_of)


def compared_pairs(
    subjects: Sequence[Subject], dataset: Dataset, store: Store, *, lookup: Lookup, reward: str, seed: int | None = None
) -> pd.DataFrame:
    """COMPARISON of two pairs from stored scores.

    Raises:
        UsageError: they are one pair, or do not share a chat template for a model of both.
        PreconditionError: a model is not scored on the data.
    """
    if len(subjects) != 2:
        raise UsageError("compare takes two different pairs")
    pairs = [subject.pairs[0] for subject in subjects]
    # One look-up for both, so that one dtype and arithmetic is found for all of their models.
    sets = stored_sets(store, subjects[0]._replace(pairs=tuple(pairs)), dataset, lookup)
    found = comparison(pairs, sets, dataset, reward=reward, native=subjects[0].native, seed=seed)
    if found.empty:
        raise UsageError(f"{dataset.data_id}: holds some of RewardBench's subsets but no whole section to compare on")
    return found


def draw(registry: Registry, subject: Subject, folder: Path) -> list[Path]:
    """Draw a results folder's figures and write its printable tables, from its CSVs alone."""
    from bench.study.draw import write_figures, write_tables

    axis = subject.axes[0] if subject.axes else None
    words = f"Data and versions: manifest.json of {folder.parent.name}/{folder.name}."
    return write_figures(folder, registry, axis=axis) + write_tables(folder, registry, axis=axis, provenance=words)


def score_all(
    registry: Registry,
    subjects: Sequence[Subject],
    dataset: Dataset,
    store: Store,
    options: run.Options,
    spread: run.Spread = LOCAL,
) -> tuple[dict[tuple[str, str], ScoreSet], list[str], int]:
    """Score what is missing of every pass, each once; a shard its share of them.

    Returns:
        The complete sets by (model_id, owner of the chat template), one line a failure, the last failure's exit code.
    """
    # A device that is not there shows before anything is fetched.
    run.device_name(options)
    passes = list(dict.fromkeys(side for subject in subjects for side in subject.passes()))
    pairs = [subject.sides(pair) for subject in subjects for pair in subject.pairs]
    works = {side: run.Work(registry.model(side[0]), registry.model(side[1]), dataset) for side in passes}
    ready, errors, code = _all_ready(works, pairs, options)
    whole = {side for sides in pairs if all(s in ready for s in sides) for side in sides}
    jobs = {side: job for side, job in ready.items() if side in whole}
    done, failures = _score_jobs(jobs, passes, store, options, spread)
    code = failures[-1][1] if failures else code
    # Asked at the end, so that of several shards the last one sees what the others did meanwhile.
    found = {side: done.get(job.key) or store.score_set(job.key) for side, job in jobs.items()}
    errors += [line for line, _ in failures]
    if spread.n_tasks:
        found = {side: each if each.complete else _by_workers(store, each) for side, each in found.items()}
    return {side: each for side, each in found.items() if each.complete}, list(dict.fromkeys(errors)), code


def _by_workers(store: Store, score_set: ScoreSet) -> ScoreSet:
    """The set that the machines of a cluster made, which may compute in another way than this one."""
    fields = score_set.key._asdict()
    del fields["ops"]
    return next(iter(store.find(**fields)), score_set)


def _score_jobs(
    jobs: dict[tuple[str, str], run.Ready],
    passes: Sequence[tuple],
    store: Store,
    options: run.Options,
    spread: run.Spread,
) -> tuple[dict[ScoreKey, ScoreSet], list[tuple[str, int]]]:
    """Score what is missing of some passes.

    Returns:
        Their sets by the key that was asked for; a line and an exit code for each failure.
    """
    # Owners of one template text make one pass: the first of them stands for all, in every shard alike.
    first = {job.key: side for side, job in reversed(jobs.items())}
    jobs = {side: job for side, job in jobs.items() if first[job.key] == side}
    if spread.n_tasks:
        from bench.scoring.cluster import score_on_ray

        works = [job.work for job in jobs.values() if not store.score_set(job.key).complete]
        return {}, score_on_ray(works, store.root, options, spread) if works else []
    # Cut over all passes, whichever of them are ready here: every shard cuts alike.
    shares = dict(zip(passes, run.shares(len(passes), shard=spread.shard, n_shards=spread.n_shards), strict=True))
    todo = {side: job for side, job in jobs.items() if shares[side] and not store.score_set(job.key).complete}
    after = [job.model.folder for job in todo.values()][1:]
    done, failures = {}, []
    for side, job in todo.items():
        following = after.pop(0) if after else None
        try:
            done[job.key] = run.score_missing(job, store, options, shares[side], following)
        except Exception as error:
            # Whatever is wrong with one model, the others' pairs are not to pay for it.
            known = explained(error)
            failures.append((f"{side[0]}: {known}", known.code))
    return done, failures


def _all_ready(
    works: dict[tuple[str, str], run.Work], pairs: Sequence[tuple], options: run.Options
) -> tuple[dict[tuple[str, str], run.Ready], list[str], int]:
    """Find or fetch every model before the first one is scored: a missing one shows at once, asked for once."""
    ready, failed, errors, code = {}, set(), [], 1
    for side, work in works.items():
        # A model whose every pair lacks the other one is not fetched, nor scored, for nothing.
        if all(failed & set(sides) for sides in pairs if side in sides):
            continue
        try:
            ready[side] = run.make_ready(work, options)
        except Exception as error:
            known = explained(error)
            failed.add(side)
            errors.append(str(known) if known is error else f"{side[0]}: {known}")
            code = known.code
    return ready, errors, code


def reward(
    registry: Registry,
    pair: Pair,
    messages: Sequence[Message],
    responses: Sequence[str],
    *,
    options: run.Options,
) -> list[float]:
    """Reward of each response to one conversation: log p_strong - log p_weak, nats (arXiv 2411.02481)."""
    example = Example("messages", "", tuple(messages), tuple((str(i), text) for i, text in enumerate(responses)))
    if not responses or not messages or messages[-1].role == "assistant":
        raise UsageError("a reward needs messages that end on a user turn, and at least one response")
    dataset = Dataset("", "", "", (example,))
    logps = [scorer.response_logps(example) for scorer in scorers(registry, pair, dataset, options)]
    return [float(a.sum() - b.sum()) for a, b in zip(*logps, strict=True)]


def scorers(registry: Registry, pair: Pair, dataset: Dataset, options: run.Options) -> list:
    """Both models of a pair, ready to score texts under the pair's chat template."""
    from bench.scoring.scorer import Scorer

    owner = registry.model(pair.template)
    works = [run.Work(registry.model(model_id), owner, dataset) for model_id in (pair.strong, pair.weak)]
    return [Scorer(run.make_ready(work, options), options) for work in works]


class TokenTable(NamedTuple):
    """One example's tokens."""

    strong: pd.DataFrame
    """TOKENS under the strong model."""
    weak: pd.DataFrame
    texts: dict[str, str]
    """response_id -> the response as both models' chat template renders it."""


def token_table(registry: Registry, pair: Pair, dataset: Dataset, example: Example, options: run.Options) -> TokenTable:
    """The tokens of one example under a pair's strong and weak model."""
    from bench.scoring.tokens import rendered_texts, tokens

    both = scorers(registry, pair, dataset, options)
    return TokenTable(*(tokens(scorer, example) for scorer in both), rendered_texts(both[0], example))
