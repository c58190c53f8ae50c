"""Scores the passes that subjects need and the store lacks, each pass once.

A model that cannot be fetched or scored becomes one line in a list of errors, so that all other models are scored. If
its files are not on this machine, but its scores are stored, these are used.
"""

from collections.abc import Iterable, Sequence

from bench.entries import UrlSource
from bench.faults import explained, told, warn
from bench.lookup import some
from bench.registry import Registry
from bench.schema import DTYPES, IMPORTED, Dataset, DrsowError, PreconditionError, ScoreKey
from bench.scoring import fetch, passes, run
from bench.scoring.asking import UnreachableError, check_answers
from bench.scoring.identity import ops_name
from bench.store.folder import ScoreSet, Store
from bench.subject import Side, Subject
from bench.verbs.session import Session
from bench.verbs.told import check_fits, lookup_of, rows_for

LOCAL = run.Spread()
"""This process does all of the work."""


def score_all(
    session: Session, subjects: Sequence[Subject], dataset: Dataset, spread: run.Spread = LOCAL
) -> tuple[dict[tuple[str, str], ScoreSet], list[str], int]:
    """Score what the store lacks of every pass, each once. A shard scores its share.

    Returns:
        The complete score sets by (model_id, owner of the chat template); one line for each failure; the last failure's
        exit code.
    """
    # Provenance needs the versions after a pass. A package that is not installed is an error now, before any pass.
    passes.versions()
    registry, store = session.registry, session.store
    sides = list(dict.fromkeys(side for subject in subjects for side in subject.passes()))
    pairs = [subject.sides(pair) for subject in subjects for pair in subject.pairs]
    works = {side: work_of(registry, side, dataset) for side in sides}
    ready, kept, errors, code = _all_ready(session, works, pairs, dataset)
    whole = {side for sides in pairs if all(s in ready or s in kept for s in sides) for side in sides}
    jobs = {side: job for side, job in ready.items() if side in whole}
    done, failures = _score_jobs(session, jobs, sides, spread)
    code = failures[-1][1] if failures else code
    # The store is asked after scoring, so that the last of several shards sees what the others scored meanwhile.
    found = {side: done.get(job.key) or store.score_set(job.key) for side, job in jobs.items()}
    errors += [line for line, _ in failures]
    if spread.n_tasks:
        found = {side: each if each.complete else _by_workers(store, each) for side, each in found.items()}
    found |= {side: each for side, each in kept.items() if side in whole}
    complete = {side: each for side, each in found.items() if each.complete}
    if session.options.budget_given:
        _tell_other_budgets(complete.values(), session.options.batch_tokens)
    return complete, list(dict.fromkeys(errors)), code


def _tell_other_budgets(sets: Iterable[ScoreSet], wanted: int) -> None:
    """Print a line if bfloat16 scores were made with another token budget than the user gave: they stay as they are."""
    low = [each for each in sets if each.key.dtype == DTYPES["bf16"]]
    budgets = [(each.key.model_id, (each.recorded_settings() or {}).get("batch_tokens", wanted)) for each in low]
    others = dict.fromkeys(f"{name} ({budget})" for name, budget in budgets if budget != wanted)
    if others:
        warn(
            f"warning: --batch-tokens {wanted}: bfloat16 scores with another number are stored and not scored again: "
            f"{', '.join(others)}; they differ by rounding; to score again, name another --results folder"
        )


def work_of(registry: Registry, side: Side, dataset: Dataset) -> passes.Work:
    """The pass of one side of a pair: the weights, the chat template, and the rows as that side reads them."""
    return passes.Work(registry.weights(side[0]), registry.model(side[1]), rows_for(registry, side[0], dataset))


def _by_workers(store: Store, score_set: ScoreSet) -> ScoreSet:
    """The set that a cluster's machines scored. Its key names their arithmetic, which may not be this machine's."""
    fields = score_set.key._asdict()
    del fields["ops"]
    return next(iter(store.find(**fields)), score_set)


def _score_jobs(
    session: Session, jobs: dict[tuple[str, str], passes.Ready], sides: Sequence[tuple], spread: run.Spread
) -> tuple[dict[ScoreKey, ScoreSet], list[tuple[str, int]]]:
    """Score what the store lacks of these passes.

    Returns:
        The score sets by the key that was asked for; a line and an exit code for each failure.
    """
    store, options = session.store, session.options
    # Owners with the same template text share one pass. Every shard takes the first of them.
    first = {job.key: side for side, job in reversed(jobs.items())}
    jobs = {side: job for side, job in jobs.items() if first[job.key] == side}
    if spread.n_tasks:
        from bench.scoring.cluster import score_on_ray

        works = [job.work for job in jobs.values() if not run.is_done(store.score_set(job.key), options)]
        return {}, score_on_ray(works, store.root, options, spread) if works else []
    # All passes are shared out, not only those whose files are here: every shard must cut them in the same way.
    shares = dict(zip(sides, run.shares(len(sides), shard=spread.shard, n_shards=spread.n_shards), strict=True))
    todo = [
        (side, run.Job(job, share))
        for side, job in jobs.items()
        if (share := shares[side]) and not run.is_done(store.score_set(job.key), options)
    ]
    return _score_groups(session, todo)


def _score_groups(
    session: Session, todo: Sequence[tuple[Side, run.Job]]
) -> tuple[dict[ScoreKey, ScoreSet], list[tuple[str, int]]]:
    """Score passes; those of the same weights come together, so that the weights are loaded once."""
    store = session.store
    groups: dict[tuple[str, str], list[tuple[Side, run.Job]]] = {}
    for side, job in todo:
        groups.setdefault(job.weights, []).append((side, job))
    after = [group[0][1].ready.model.folder for group in groups.values()][1:]
    done: dict[ScoreKey, ScoreSet] = {}
    failures: list[tuple[str, int]] = []
    for group in groups.values():
        following = after.pop(0) if after else None
        try:
            sets = run.score_together([job for _, job in group], store, session.options, following)
            done |= {job.ready.key: score_set for (_, job), score_set in zip(group, sets, strict=True)}
        except Exception as error:
            # Any error of one model is recorded, so that the pairs of the others are still scored.
            said, code = told(error)
            undone = [side for side, job in group if not run.is_done(store.score_set(job.ready.key), session.options)]
            left = dict.fromkeys(side[0] for side in undone)
            failures += [(f"{name}: {said}", code) for name in left]
    return done, failures


def _all_ready(
    session: Session, works: dict[tuple[str, str], passes.Work], pairs: Sequence[tuple], dataset: Dataset
) -> tuple[dict[tuple[str, str], passes.Ready], dict[Side, ScoreSet], list[str], int]:
    """Find or fetch every model before the first one is scored, so that a missing one shows at once.

    Returns:
        The passes whose files are here; the stored sets of those whose files are not; a line for each model that has
        neither; the last one's exit code.
    """
    ready: dict[tuple[str, str], passes.Ready] = {}
    kept: dict[Side, ScoreSet] = {}
    instead: dict[str, list[str]] = {}
    failed: set[tuple[str, str]] = set()
    errors, code = [], 1
    for side, work in works.items():
        # If the other model of each of its pairs has failed, the model is neither fetched nor scored.
        if all(failed & set(sides) for sides in pairs if side in sides):
            continue
        try:
            found = compared(session, work)
            _check_texts(session.registry, side[0], found, session.options)
            ready[side] = found
        except Exception as error:
            known = explained(error)
            if stored := _stored(session, side, dataset, known):
                kept[side] = stored
                instead.setdefault(str(known).partition(";")[0], []).append(side[0])
                continue
            failed.add(side)
            errors.append(str(known) if known is error else f"{side[0]}: {known}")
            code = known.code
    for words, names in instead.items():
        warn(f"{words}; the stored scores of {some(names)} are used")
    return ready, kept, errors, code


def _stored(session: Session, side: Side, dataset: Dataset, error: DrsowError) -> ScoreSet | None:
    """The set that stands in for a pass whose files are not on this machine; None if there is none, or several fit."""
    registry, options = session.registry, session.options
    spec, owner = registry.weights(side[0]), registry.model(side[1])
    if not isinstance(error, PreconditionError) or not (fetch.is_absent(spec) or fetch.is_absent(owner, weights=False)):
        return None
    dtype = DTYPES[spec.source.dtype] if isinstance(spec.source, UrlSource) else options.dtype
    lookup = lookup_of(registry)._replace(dtype=dtype)
    computed = [s for s in lookup.find(session.store, side[0], dataset, side[1]) if s.key.ops != IMPORTED]
    done = [score_set for score_set in computed if run.is_done(score_set, options)]
    mine = [score_set for score_set in done if score_set.key.ops == ops_name(options.device, options.dtype)]
    fitting = mine or done
    return fitting[0] if len(fitting) == 1 else None


def compared(session: Session, work: passes.Work) -> passes.Ready:
    """A pass with its files; a complete set of a model on a server is compared with the model that the server has now.

    If the server cannot be reached, a complete set is used as it is, and a line says so.

    Raises:
        PreconditionError: The model is not on this machine and cannot be fetched, or its server cannot be used.
        DrsowError: The server has another model than the one that scored the complete set.
    """
    options, store, source = session.options, session.store, work.spec.source
    if not isinstance(source, UrlSource):
        return passes.make_ready(work, options)
    # The server's version is part of the key, and only the server says it.
    unasked = passes.make_ready(work, options, ops="unknown")
    fields = unasked.key._asdict()
    del fields["ops"]
    kept = [each.key for each in store.find(**fields) if run.is_done(each, options)]
    try:
        if len(kept) == 1:
            # Scores that are there are not waited for.
            check_answers(source, "/v1/models")
        found = passes.make_ready(work, options)
        run.check_kept(found, store.score_set(found.key), options)
        return found
    except UnreachableError as error:
        if len(kept) != 1:
            raise
        words = f"{str(error).partition(';')[0]}; its stored scores are used, and its model is not checked"
        warn(f"{work.spec.model_id}: {words}")
        return unasked._replace(key=kept[0])


def completed(session: Session, ready: passes.Ready) -> ScoreSet:
    """The complete set of a pass that was `compared`, scored if the store lacks it."""
    score_set = session.store.score_set(ready.key)
    if run.is_done(score_set, session.options):
        return score_set
    return run.score_missing(ready, session.store, session.options)


def _check_texts(registry: Registry, name: str, ready: passes.Ready, options: passes.Options) -> None:
    """Check that the texts of a reader leave room for a prompt."""
    if name in registry.readers:
        from bench.scoring.served import scorer_of

        texts = [text for text, _ in registry.readers[name].texts(registry.domains).values()]
        check_fits(scorer_of(ready, options), {name: texts})


def checked_scores(session: Session, subject: Subject, dataset: Dataset) -> tuple[ScoreSet, ScoreSet]:
    """The complete score sets of a pair's strong and weak model, scored if the store lacks them.

    Raises:
        DrsowError: a model cannot be scored.
    """
    sets, errors, code = score_all(session, [subject], dataset)
    if errors:
        failed = DrsowError(errors[0])
        failed.code = code
        raise failed
    strong, weak = subject.sides(subject.pairs[0])
    return sets[strong], sets[weak]
