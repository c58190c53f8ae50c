"""Collects what one pair's evaluation says, from stored scores, for formats that other tools read.

An evaluation has parts, such as a benchmark's score, its sections and its subsets, and judgements, one or more for a
row. Each judgement belongs to one leaf: the smallest part that is the plain mean of its judgements. So the instance
rows of a leaf have the leaf's accuracy as their mean, for every benchmark.
"""

import datetime
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.data.load import REWARD_BENCH, REWARD_BENCH_VARIABLE
from bench.data.named import BENCHMARKS, local_files
from bench.data.sources import READERS
from bench.entries import AdapterSource, HubSource, ModelSpec
from bench.lookup import Lookup, stored_sets
from bench.registry import Pair, Registry
from bench.schema import Dataset, Example, ScoreKey, UsageError
from bench.sources import HubFileSource
from bench.store.folder import Store
from bench.study.benchmarks import Benchmark, Layout, benchmark_of
from bench.study.design import prompt_clusters
from bench.study.measure import accuracy_of, pair_table, read_for, with_reward
from bench.study.reward import reward_matrix
from bench.subject import Subject

Key = tuple[str, str]
"""(level, name) of a part."""

HUB_DATA = {REWARD_BENCH: "allenai/reward-bench"} | {name: each.repository for name, each in BENCHMARKS.items()}
"""The hub's data set of each benchmark that `--data` knows by name."""

REWARD_BENCH_ROWS = "b7a113f4991ed20123e0e0aeb848075e0e4666ebeda312280af3036d29a13e77"
"""Digest of RewardBench's 2,985 rows."""

LOCAL = "local"
"""The owner of a model that is not from the hub, in the names that other tools read."""

DIGITS = 6
"""Decimals of a reward and of a margin in an instance row. A sum in float32 has no more."""


class Judgement(NamedTuple):
    """One decision about a row."""

    place: int
    """Which example of `Evaluation.dataset` it is about."""
    leaf: Key
    value: float
    """From 0 (wrong) to 1 (right)."""
    rewards: np.ndarray
    """The rewards of the example's responses, in their order."""


class Evaluation(NamedTuple):
    """One pair on one data set under one reward."""

    pair: Pair
    models: tuple[ModelSpec, ModelSpec]
    """The strong and the weak model."""
    dataset: Dataset
    reward: str
    benchmark: Benchmark
    layout: Layout
    parts: pd.DataFrame
    """ACCURACY of the parts that the rows have."""
    inside: dict[Key, list[Key]]
    """The parts that each part contains; a leaf contains none."""
    judgements: list[Judgement]
    """In the order of the rows. Rows that are too long or not finite have none."""
    keys: tuple[ScoreKey, ScoreKey]
    infos: tuple[dict, dict]
    ended: datetime.datetime
    """When the last model was scored, or its scores imported; the time now, if neither is recorded."""

    @property
    def version(self) -> str:
        """The version of drsow that scored the strong model."""
        return str(self.infos[0].get("versions", {}).get("drsow", "unknown"))

    def example(self, judgement: Judgement) -> Example:
        """The row that a judgement is about."""
        return self.dataset.examples[judgement.place]


def evaluation_of(
    store: Store, registry: Registry, subject: Subject, dataset: Dataset, *, lookup: Lookup, reward: str
) -> Evaluation:
    """The evaluation of a subject's only pair.

    Raises:
        PreconditionError: A model of the pair is not scored on these rows.
        UsageError: Several score sets of a model fit, or no row is scored.
    """
    (pair,) = subject.pairs
    sets = stored_sets(store, subject, dataset, lookup)
    sides = subject.sides(pair)
    scores = {side: read_for(sets[side], reward) for side in sides}
    problems = pd.Series(prompt_clusters(dataset.examples), index=[e.example_id for e in dataset.examples])
    table = accuracy_of(subject, dataset, scores, problems, with_reward(reward))
    matrix = reward_matrix({side[0]: scores[side] for side in sides}, pair_table(subject), reward=reward)
    examples, rewards = matrix.by_example({example.example_id: example for example in dataset.examples})
    benchmark = benchmark_of(examples)
    layout = benchmark.layout(examples)
    table = table[(table["reward"] == reward) & table["accuracy"].notna() & (table["name"] != "")]
    if table.empty:
        raise UsageError(f"{pair.pair_id}: no row of {dataset.slug} is scored, so there is nothing to write")
    parts = [(str(level), str(name)) for level, name in table[["level", "name"]].itertuples(index=False)]
    leaves, inside = structure(layout, parts)
    (values,) = benchmark.judge(examples, rewards).values
    places = {example.example_id: place for place, example in enumerate(dataset.examples)}
    judgements = [
        Judgement(places[examples[row].example_id], leaf, float(value), rewards[row][0])
        for row, leaf, value in zip(layout.row, leaves, values, strict=True)
        if leaf is not None and np.isfinite(value)
    ]
    models = (registry.weights(pair.strong), registry.weights(pair.weak))
    strong, weak = (sets[side] for side in sides)
    keys, infos = (strong.key, weak.key), (strong.info(), weak.info())
    ended = _ended(infos)
    return Evaluation(pair, models, dataset, reward, benchmark, layout, table, inside, judgements, keys, infos, ended)


def _ended(infos: tuple[dict, dict]) -> datetime.datetime:
    """`Evaluation.ended` of two sets' provenance. Scores that an earlier drsow imported have no time."""
    texts = [info[name] for info in infos for name in ("finished_utc", "imported_utc") if name in info]
    return max(map(datetime.datetime.fromisoformat, texts), default=datetime.datetime.now(datetime.UTC))


def structure(layout: Layout, known: list[Key]) -> tuple[list[Key | None], dict[Key, list[Key]]]:
    """The leaf of each judgement, and the parts that each part contains.

    Args:
        layout: A benchmark's judgements and parts.
        known: The parts that count, in the order of the layout.
    """
    parts = {part.key: part for part in layout.parts if part.key in known}
    leaves: list[Key | None] = [None] * len(layout.row)
    for key, part in parts.items():
        # A larger part comes before those inside it.
        for judgement in np.flatnonzero(part.inside) if part.inside is not None else ():
            leaves[judgement] = key
    found: dict[Key, list[Key]] = {}
    for key, part in parts.items():
        if part.inside is None:
            found[key] = [each for each in part.of if each in parts]
        else:
            mine = dict.fromkeys(leaves[judgement] for judgement in np.flatnonzero(part.inside))
            found[key] = [each for each in mine if each is not None and each != key]
    return leaves, found


def hub_data(dataset: Dataset) -> str | None:
    """The hub's repository of a data set; None for a file, for the built-in rows, and for a file of a benchmark's name
    whose rows are not known to be the benchmark's."""
    name, _, _ = dataset.data_id.partition(":")
    if name in HUB_DATA:
        return HUB_DATA[name] if dataset.revision or dataset.digest == REWARD_BENCH_ROWS or _from_hub(name) else None
    is_file = Path(dataset.data_id).suffix.lower() in READERS or Path(dataset.data_id).is_file()
    return name if "/" in name and not is_file else None


def _from_hub(name: str) -> bool:
    """Whether no environment variable names a file that is read for a benchmark."""
    return not (os.environ.get(REWARD_BENCH_VARIABLE) if name == REWARD_BENCH else local_files(name))


def hub_name(spec: ModelSpec) -> str:
    """The hub's repository of a model; "local/MODEL_ID" for a model that is not from the hub."""
    source = spec.source
    if isinstance(source, HubSource | HubFileSource):
        return source.repo
    if isinstance(source, AdapterSource) and isinstance(source.files, HubSource):
        return source.files.repo
    return f"{LOCAL}/{spec.model_id}"


def prompt_text(example: Example) -> str:
    """The prompt's text; of several turns, each with its role."""
    if len(example.messages) == 1:
        return example.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in example.messages)


def known(row: pd.Series, name: str) -> float | None:
    """A number of a part; None if it is missing."""
    return float(row[name]) if row[name] == row[name] else None


def as_json(value: object, indent: int | None = None) -> str:
    """A value as JSON; a number that is not finite is an error, because JSON has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
