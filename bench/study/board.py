"""Stored scores of a pair or study -> the tables of its results folder."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.registry import Pair, Registry
from bench.schema import (
    ACCURACY,
    CHOSEN,
    CORRELATION,
    LEADERBOARD,
    MARGINS,
    REJECTED,
    Dataset,
    PreconditionError,
    UsageError,
)
from bench.store import ScoreSet, Store, read_csv, write_csv, write_json
from bench.study.analysis import GAP_NOISE_COLUMNS, LEFT_OUT_COLUMNS, analyse, correctness
from bench.study.bootstrap import Resampling
from bench.study.choose import Wish, choose, count_halves, name_of
from bench.study.compare import compare
from bench.study.leaderboard import bootstrap_scores, leaderboard
from bench.study.metrics import accuracy, accuracy_by_length
from bench.study.reward import margin_matrix, margins

DRAWS = 10_000
"""Bootstrap draws and relabellings of a study's statistics."""

SHOWN_PAIRS = 3
"""Pairs whose every margin is kept in margins.csv: the best."""

Sets = Mapping[tuple[str, str], ScoreSet]
"""(model_id, template) -> complete score set."""


class Subject(NamedTuple):
    """What a results folder is about."""

    name: str
    """The pair_id or study_id."""
    pairs: tuple[Pair, ...]
    native: bool = False
    """Whether each model reads its own chat template."""
    axes: tuple[str, ...] = ()
    """performance_ids that a study's gaps are measured in, its own first; none for a pair."""

    def passes(self) -> list[tuple[str, str]]:
        """(model_id, owner of the chat template) of every pass that it needs, each once."""
        both = [(model, model if self.native else pair.template) for pair in self.pairs for model in pair[1:3]]
        return list(dict.fromkeys(both))

    def sides(self, pair: Pair) -> tuple[tuple[str, str], tuple[str, str]]:
        """The passes of a pair's strong and weak model."""
        owners = (pair.strong, pair.weak) if self.native else (pair.template, pair.template)
        return (pair.strong, owners[0]), (pair.weak, owners[1])


def stored_sets(store: Store, subject: Subject, dataset: Dataset, *, dtype: str | None = None) -> dict:
    """The complete score sets that a subject needs, found by model, template and data.

    Raises:
        PreconditionError: one is missing; says what to run.
        UsageError: several fit and nothing says which.
    """
    found = {}
    for model_id, owner in subject.passes():
        fields = {"model_id": model_id, "data_digest": dataset.digest, "domain": ""}
        fields |= {} if dtype is None else {"dtype": dtype}
        sets = [s for s in store.find(**fields) if s.key.template in (owner, "plain")]
        if not sets:
            raise PreconditionError(
                f"{model_id} is not scored on {dataset.slug}: `drsow run` or `drsow import` for {subject.name} first"
            )
        if len(sets) > 1:
            names = ", ".join(f"{s.key.dtype} at {s.key.revision[:14]} ({s.folder.name})" for s in sets)
            raise UsageError(f"{model_id}: several score sets fit, choose with --dtype or delete one: {names}")
        found[model_id, owner] = sets[0]
    return found


def write_results(
    store: Store, registry: Registry, subject: Subject, dataset: Dataset, sets: Sets, *, reward: str = "sum"
) -> Path:
    """Write accuracy.csv, leaderboard.csv, margins.csv, length.csv and manifest.json of a subject, for a study what
    its statistics say too; returns their folder."""
    scores = {key: score_set.read() for key, score_set in sets.items()}
    subsets = pd.Series({e.example_id: e.subset for e in dataset.examples}, name="subset")
    pairs = pair_table(subject)
    rows = pd.concat([_margins(subject, pair, scores, subsets) for pair in subject.pairs], ignore_index=True)
    table = accuracy(rows)
    matrix = margin_matrix({model: frame for (model, _), frame in scores.items()}, pairs, reward=reward)
    # The same draws in every run and for every subject: seeded by the data alone.
    rng = np.random.default_rng(zlib.crc32(dataset.digest.encode()))
    draws = bootstrap_scores(matrix.values, subsets.loc[matrix.example_ids], rng=rng)
    board = leaderboard(table[table["reward"] == reward], draws, pairs, _models(registry, sets))
    folder = result_folder(store, subject, dataset, reward=reward)
    shown = rows[rows["reward"] == reward]
    best = board["pair_id"].head(SHOWN_PAIRS)
    write_csv(folder / "accuracy.csv", table, ACCURACY)
    write_csv(folder / "margins.csv", shown[shown["pair_id"].isin(best)], MARGINS)
    write_csv(folder / "length.csv", *_by_length(shown, next(iter(scores.values()))))
    write_csv(folder / "leaderboard.csv", board, LEADERBOARD)
    if subject.axes:
        _write_analysis(folder, registry, subject, dataset, scores)
    facts = manifest(subject.name, dataset, sets.values()) | {"precision": precision(subject, sets)}
    write_json(folder / "manifest.json", facts)
    return folder


def _write_analysis(folder: Path, registry: Registry, subject: Subject, dataset: Dataset, scores: Mapping) -> None:
    """Write what the statistics say of a study: correlation.csv, left_out.csv, gap_noise.csv."""
    frames = {model: frame for (model, _), frame in scores.items()}
    axes = {
        name: {m: registry.model(m).score(name) for m in frames if name in registry.model(m).scores}
        for name in subject.axes
    }
    found = analyse(
        frames,
        pair_table(subject),
        {example.example_id: example for example in dataset.examples},
        axes,
        resampling=Resampling(DRAWS, n_jobs=-1),
        rng=np.random.default_rng(zlib.crc32(dataset.digest.encode())),
    )
    write_csv(folder / "correlation.csv", found.correlation, CORRELATION)
    write_csv(folder / "left_out.csv", found.left_out, LEFT_OUT_COLUMNS)
    write_csv(folder / "gap_noise.csv", found.gap_noise, GAP_NOISE_COLUMNS)


def pair_table(subject: Subject) -> pd.DataFrame:
    """pair_id, strong, weak, family, gap_points; one row a pair."""
    return pd.DataFrame(subject.pairs)[["pair_id", "strong", "weak", "family", "gap_points"]]


def result_folder(store: Store, subject: Subject, dataset: Dataset, *, reward: str = "sum") -> Path:
    """Where a subject's tables on a data set lie; a variant other than the plain one is in the name."""
    parts = (["native"] if subject.native else []) + ([reward] if reward != "sum" else [])
    return store.result_dir(subject.name, dataset.slug, "-".join(parts))


def chosen_pairs(folder: Path, wish: Wish, *, top: int) -> pd.DataFrame:
    """CHOICE of a results folder's pairs, from its leaderboard.csv and accuracy.csv alone.

    Raises:
        PreconditionError: The folder has no tables, or no pair is what the user wishes.
    """
    board, table = read_csv(folder / "leaderboard.csv"), read_csv(folder / "accuracy.csv")
    table = table[table["reward"] == board["reward"].iloc[0]]
    rng = np.random.default_rng(zlib.crc32(str(folder.name).encode()))
    return choose(board, count_halves(table, name_of(wish)[1], rng=rng), wish, top=top)


def comparison(pairs: Sequence[Pair], sets: Sets, dataset: Dataset, *, reward: str, native: bool) -> pd.DataFrame:
    """COMPARISON of two pairs on the same rows."""
    subject = Subject("", tuple(pairs), native)
    frames = {model: sets[model, owner].read() for model, owner in subject.passes()}
    examples = {example.example_id: example for example in dataset.examples}
    correct, rows = correctness(frames, pair_table(subject), examples, reward=reward)
    names = [pair.pair_id for pair in pairs]
    rng = np.random.default_rng(zlib.crc32(dataset.digest.encode()))
    return compare(correct, names, rows, [(names[0], names[1])], rng=rng)


def manifest(name: str, dataset: Dataset, sets: Iterable[ScoreSet]) -> dict:
    """Provenance of a folder: every score set's key and what its run reported."""
    path = Path(dataset.data_id)
    return {
        "subject": name,
        # Where a file lies on this machine is nobody else's business.
        "data": path.name if path.is_absolute() else dataset.data_id,
        "data_digest": dataset.digest,
        "n_examples": len(dataset.examples),
        "score_sets": [{"key": s.key._asdict(), "info": _without_sums(s.info())} for s in sets],
    }


def precision(subject: Subject, sets: Sets) -> dict:
    """Per pair, how many decisions of the sample that was scored again in float32 the run's dtype flipped."""
    found = {}
    for pair in subject.pairs:
        sums = [sets[side].info().get("precision", {}).get("sums_nats") for side in subject.sides(pair)]
        if None in sums:
            continue
        rows = sorted({key.rpartition(" ")[0] for key in sums[0].keys() & sums[1].keys()})
        flips = sum(len({_decision(sums, row, which) for which in (0, 1)}) > 1 for row in rows)
        found[pair.pair_id] = {"n_examples": len(rows), "n_flipped": flips}
    return found


def _decision(sums: Sequence[Mapping], row: str, which: int) -> bool:
    margin = [side[f"{row} chosen"][which] - side[f"{row} rejected"][which] for side in sums]
    return margin[0] - margin[1] > 0


def _without_sums(info: dict) -> dict:
    if "precision" not in info:
        return info
    return info | {"precision": {name: value for name, value in info["precision"].items() if name != "sums_nats"}}


def _margins(subject: Subject, pair: Pair, scores: Mapping, subsets: pd.Series) -> pd.DataFrame:
    strong, weak = subject.sides(pair)
    return margins(scores[strong], scores[weak], subsets, pair_id=pair.pair_id)


def _by_length(margins: pd.DataFrame, scores: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Accuracy by the difference in length, and its columns."""
    sides = {side: rows.set_index("example_id")["n_bytes"] for side, rows in scores.groupby("response_id")}
    table = accuracy_by_length(margins, sides[CHOSEN] - sides[REJECTED])
    return table, tuple(table.columns)


def _models(registry: Registry, sets: Sets) -> pd.DataFrame:
    rows = []
    for (model_id, _), score_set in sets.items():
        spec, info = registry.model(model_id), score_set.info()
        rows.append(
            {
                "model_id": model_id,
                "revision": score_set.key.revision,
                "dtype": score_set.key.dtype,
                "n_params": spec.n_params,
                "n_params_active": spec.n_params_active or spec.n_params,
                "licence": spec.licence,
                "n_tokens_row": info.get("mean_tokens_a_row", np.nan),
            }
        )
    return pd.DataFrame(rows).astype({"n_params": "Int64", "n_params_active": "Float64"})
