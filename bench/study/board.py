"""Stored scores of a pair or study -> accuracy.csv, leaderboard.csv and figures in its results folder."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.registry import Pair, Registry
from bench.schema import ACCURACY, LEADERBOARD, Dataset, PreconditionError, UsageError
from bench.store import ScoreSet, Store, read_csv, write_csv, write_json, write_whole
from bench.study import figures
from bench.study.leaderboard import bootstrap_scores, leaderboard
from bench.study.metrics import accuracy, intervals
from bench.study.reward import margin_matrix, margins

Sets = Mapping[tuple[str, str], ScoreSet]
"""(model_id, template) -> complete score set."""


class Subject(NamedTuple):
    """What a results folder is about."""

    name: str
    """The pair_id or study_id."""
    pairs: tuple[Pair, ...]
    native: bool = False
    """Whether each model reads its own chat template."""

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
    """Write accuracy.csv, leaderboard.csv and manifest.json of a subject; returns their folder."""
    scores = {key: score_set.read() for key, score_set in sets.items()}
    subsets = pd.Series({e.example_id: e.subset for e in dataset.examples}, name="subset")
    pairs = pd.DataFrame(subject.pairs)[["pair_id", "strong", "weak", "family", "gap_points"]]
    rows = pd.concat([_margins(subject, pair, scores, subsets) for pair in subject.pairs], ignore_index=True)
    table = accuracy(rows)
    matrix = margin_matrix({model: frame for (model, _), frame in scores.items()}, pairs, reward=reward)
    # The same draws in every run and for every subject: seeded by the data alone.
    rng = np.random.default_rng(zlib.crc32(dataset.digest.encode()))
    draws = bootstrap_scores(matrix.values, subsets.loc[matrix.example_ids], rng=rng)
    board = leaderboard(table[table["reward"] == reward], draws, pairs, _models(registry, sets))
    folder = result_folder(store, subject, dataset, reward=reward)
    write_csv(folder / "accuracy.csv", table, ACCURACY)
    write_csv(folder / "leaderboard.csv", board, LEADERBOARD)
    write_json(folder / "manifest.json", manifest(subject, dataset, sets))
    return folder


def result_folder(store: Store, subject: Subject, dataset: Dataset, *, reward: str = "sum") -> Path:
    """Where a subject's tables on a data set lie; a variant other than the plain one is in the name."""
    parts = (["native"] if subject.native else []) + ([reward] if reward != "sum" else [])
    return store.result_dir(subject.name, dataset.slug, "-".join(parts))


def write_figures(folder: Path, *, reward: str = "sum") -> list[Path]:
    """Draw what a results folder's tables hold; each figure stands beside the CSV that it was drawn from."""
    board = read_csv(folder / "leaderboard.csv")
    rows = intervals(read_csv(folder / "accuracy.csv").query("reward == @reward"))
    written = []
    for index, pair in board.iterrows() if len(board) <= 1 else ():
        figure = figures.pair_accuracy(rows[rows["pair_id"] == pair["pair_id"]], board.loc[index])
        written += save(folder / "figures", "accuracy", figure, rows)
    if len(board) > 1:
        written += save(folder / "figures", "gap_accuracy", figures.gap_accuracy(board, _no_correlation()), board)
    return written


def save(folder: Path, name: str, figure: object, drawn: pd.DataFrame) -> list[Path]:
    """Write a figure in every format, and the frame that it shows."""
    paths = []
    for suffix in figures.FORMATS:
        path = folder / f"{name}.{suffix}"
        write_whole(path, figures.encode(figure, suffix))
        paths.append(path)
    write_csv(folder / f"{name}.csv", drawn, tuple(drawn.columns))
    return paths


def manifest(subject: Subject, dataset: Dataset, sets: Sets) -> dict:
    """Provenance of a results folder: every score set's key and what its run reported."""
    return {
        "subject": subject.name,
        "data": dataset.data_id,
        "data_digest": dataset.digest,
        "n_examples": len(dataset.examples),
        "score_sets": [{"key": s.key._asdict(), "info": _without_sums(s.info())} for s in sets.values()],
        "precision": precision(subject, sets),
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


def _no_correlation() -> pd.DataFrame:
    return pd.DataFrame(columns=["reward", "level", "name", "family", "performance", "estimator", "estimate"])
