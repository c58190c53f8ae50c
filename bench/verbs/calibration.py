"""Finds labelled rows that say how sure a pair's labels are: of the candidates themselves, of named or scored data."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.contrast import model_of
from bench.data.load import REWARD_BENCH, SAMPLE, load_data, load_readable
from bench.data.named import BENCHMARKS
from bench.faults import warn
from bench.lookup import stored_sets
from bench.prefer.annotate import Confidence
from bench.schema import Dataset, Example, Message, PreconditionError, UsageError
from bench.study.board import seeded
from bench.study.checks import label_margins_of
from bench.study.confidence import MIN_PROBLEMS, CrossFit, cross_fit, label_margins, n_problems
from bench.study.design import prompt_clusters
from bench.study.measure import read_for
from bench.study.reliability import sureness, too_few
from bench.subject import Subject
from bench.verbs.session import Session
from bench.verbs.told import lookup_of

_LIMITED = re.compile(r"(.+)-([0-9]+)-per-subset")


class Calibrated(NamedTuple):
    """How sure the labels of a pair are, by their margins."""

    fit: CrossFit
    folds: Mapping[tuple[Message, ...], int]
    """Fold of each prompt of the labelled rows."""
    data: str
    """Name of the labelled data; of rows drawn from it, their slug, such as "sample-2-per-subset"."""
    data_digest: str
    found: dict[str, float]
    """CALIBRATION without the names: how well the confidences fit the labels."""

    @property
    def told(self) -> dict[str, object]:
        """What the labels were and how well their confidences fit them, for the manifest."""
        return {"data": self.data, "data_digest": self.data_digest, **self.found}

    def of_labels(self, dataset: Dataset) -> Confidence:
        """The confidence of labels of some prompts. A prompt that is itself labelled gets that of other prompts."""
        fold = {example.example_id: self.folds.get(example.messages, -1) for example in dataset.examples}

        def confidence(frame: pd.DataFrame) -> np.ndarray:
            numbers = frame["example_id"].map(fold).to_numpy(dtype=int)
            return self.fit.confidence(frame["margin"].to_numpy(dtype=float), numbers)

        return confidence

    def words(self) -> str:
        """A sentence for the data card."""
        found = self.found
        return (
            f"{found['n_examples']:,.0f} labels of {self.data} (sha256 {self.data_digest}) under this pair and reward, "
            f"{found['accuracy']:.1%} of them right; cross-fitted by prompt, the calibration error is "
            f"{found['error']:.1%} [{found['error_low']:.1%}, {found['error_high']:.1%}]"
        )


def calibration_of(session: Session, subject: Subject, data: str | None, *, reward: str) -> Calibrated | None:
    """The calibration on stored scores of named labelled data, or on the first benchmark that is scored.

    Args:
        session: The registry, and where scores are.
        subject: The pair.
        data: The labelled data; None for a benchmark.
        reward: The reward whose margins are calibrated.

    Returns:
        None if no data is named and no benchmark with enough labels is scored.

    Raises:
        PreconditionError: The named data is not scored, or has labels of too few prompts.
        UsageError: There is no such data.
    """
    if data is not None:
        return _on_scores(session, subject, load_data(data, offline=True), reward=reward)
    for name, limit in _scored(session, subject):
        try:
            return _on_scores(session, subject, load_data(name, limit_per_subset=limit, offline=True), reward=reward)
        except (PreconditionError, UsageError):
            # A benchmark whose rows are not here, or that only one of the models is scored on, is no default.
            continue
    return None


def own_labels(dataset: Dataset) -> list[Example] | None:
    """The candidates that their file labels, with the right ones named; None for too few labelled prompts.

    A file labels them if it has preferences, or candidates with a column `right`. Candidates with scores have an order
    instead of right ones, and keep their scores.
    """
    try:
        known_rows, wrong = load_readable(dataset.data_id)
    except UsageError:
        return None
    if wrong:
        warn(f"rows without a readable label, not counted: {len(wrong)}; the first: {wrong[0]}")
    labelled = {example.example_id: example for example in known_rows.examples}
    found = []
    for example in dataset.examples:
        if example.example_id not in labelled:
            continue
        if example.scores:
            found.append(example)
        else:
            known = labelled[example.example_id]
            texts = {text for name, text in known.responses if name in known.right}
            found.append(example._replace(right=tuple(name for name, text in example.responses if text in texts)))
    return found if len(set(prompt_clusters(found))) >= MIN_PROBLEMS else None


def on_own_labels(dataset: Dataset, labelled: Sequence[Example], rewards: pd.DataFrame) -> Calibrated | None:
    """The calibration on the candidates' own labels; None if too few prompts have one.

    Args:
        dataset: The candidates.
        labelled: The result of `own_labels`.
        rewards: example_id, response_id, reward, status.
    """
    values = rewards.set_index(["example_id", "response_id"])["reward"]
    arrays = [np.array([[values.loc[e.example_id, name] for name, _ in e.responses]]) for e in labelled]
    return _calibrated(dataset, label_margins(labelled, arrays)[0], labelled)


def _on_scores(session: Session, subject: Subject, dataset: Dataset, *, reward: str) -> Calibrated:
    """The calibration on the stored scores of labelled data."""
    plain = lookup_of(session.registry)
    try:
        # Scores in the same dtype are preferred; those in another one differ by rounding.
        sets = stored_sets(session.store, subject, dataset, plain._replace(dtype=session.options.dtype))
    except PreconditionError:
        sets = stored_sets(session.store, subject, dataset, plain)
    scores = {side: read_for(each, reward) for side, each in sets.items()}
    margins, ids = label_margins_of(subject, scores, dataset, reward=reward)
    examples = {example.example_id: example for example in dataset.examples}
    ordered = [examples[each] for each in ids]
    found = _calibrated(dataset, margins[0], ordered)
    if found is None:
        n = n_problems(margins[0], prompt_clusters(ordered))
        raise PreconditionError(f"{dataset.data_id}: {too_few(n)}; name other labelled data with --calibration")
    return found


def _calibrated(dataset: Dataset, margin: np.ndarray, examples: Sequence[Example]) -> Calibrated | None:
    """The calibration on labels of these examples; None if too few prompts have one."""
    clusters = prompt_clusters(dataset.examples)
    problems = pd.Series(clusters, index=[example.example_id for example in dataset.examples])
    problem = problems.loc[[example.example_id for example in examples]].to_numpy()
    if n_problems(margin, problem) < MIN_PROBLEMS:
        return None
    # both draw the same folds, which are those of calibration.csv
    fit = cross_fit(margin, problem, rng=seeded(dataset, None))
    found = sureness(margin, problem, rng=seeded(dataset, None))
    path = Path(dataset.data_id)
    whole = path.name if path.is_absolute() else dataset.data_id
    name = whole if dataset.limit is None else dataset.slug
    folds = {example.messages: int(fold) for example, fold in zip(examples, fit.fold, strict=True) if fold >= 0}
    return Calibrated(fit, folds, name, dataset.digest, found.calibration)


def _scored(session: Session, subject: Subject) -> Iterator[tuple[str, int | None]]:
    """Names and limits of the built-in data that the strong model is scored on; whole benchmarks first."""
    sets = session.store.find(model_id=model_of(subject.pairs[0].strong))
    slugs = {str(each.info().get("data", "")) for each in sets}
    names = {REWARD_BENCH: REWARD_BENCH}
    for name, source in BENCHMARKS.items():
        names |= {name: name} | {f"{name}-{split}": f"{name}:{split}" for split in source.files if split}
    names |= {SAMPLE: SAMPLE}
    limited = [found for slug in slugs if (found := _LIMITED.fullmatch(slug))]
    for slug, name in names.items():
        if slug in slugs:
            yield name, None
        yield from ((name, n) for n in sorted((int(m[2]) for m in limited if m[1] == slug), reverse=True))
