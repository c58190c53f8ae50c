"""Writes the tables of a results folder from the stored scores of a pair or a study."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.contrast import with_text
from bench.files import csv_bytes, parse_csv, rounded, write_csv, write_json
from bench.lookup import some
from bench.measured import typical_stderr
from bench.registry import Pair, Registry
from bench.schema import ACCURACY, CORRELATION, MARGINS, CannotWrite, Dataset, PreconditionError
from bench.store.folder import Store, read_table
from bench.store.places import fuller, locked_folder, manifest
from bench.study.alone import ALONE_FILE, alone_note
from bench.study.analysis import DECOMPOSITION_COLUMNS, GAP_NOISE_COLUMNS, LEFT_OUT_COLUMNS, analyse, correctness
from bench.study.baselines import Noise
from bench.study.benchmarks import benchmark_of
from bench.study.bootstrap import Resampling
from bench.study.checks import BALANCE_FILE, checks
from bench.study.choose import Choice, Wish, choose
from bench.study.compare import compare
from bench.study.design import Rows, prompt_clusters
from bench.study.ensemble_held_out import combine_of
from bench.study.held_out import held_out_scores
from bench.study.interval import Sample
from bench.study.leaderboard import bootstrap_scores, described, leaderboard
from bench.study.length_balance import length_note
from bench.study.measure import (
    Scores,
    Table,
    accuracy_of,
    by_length,
    details,
    margins_of,
    pair_table,
    precision,
    read_for,
    scores_of,
    with_reward,
)
from bench.study.verdict import verdict
from bench.subject import Sets, Subject, by_model, place_of

DRAWS = 10_000
"""Number of bootstrap draws, and of relabellings, in a study's statistics."""

SHOWN_PAIRS = 3
"""Number of best pairs whose every margin margins.csv keeps."""


class Written(NamedTuple):
    """The tables of a subject, as they are in its results folder or would be if the folder could be written."""

    folder: Path
    board: pd.DataFrame
    """The leaderboard, as leaderboard.csv holds it."""
    accuracy: pd.DataFrame
    """ACCURACY of every reward."""
    gap: str
    """Name of the performance that the gaps are measured in."""
    problem: str = ""
    """Why the folder could not be written; "" if it was written."""
    warning: str = ""
    """Says that length alone judges as well as the first pair; "" where it does not."""
    alone: str = ""
    """The first pair beside its strong model alone, in a sentence; "" where there is no score."""
    verdict: str = ""
    """Whether the gap counts, in a sentence or two; "" for a pair."""
    left_out: str = ""
    """Names the pairs that are not in the tables because a model failed; "" if there are none."""


def write_results(
    store: Store,
    registry: Registry,
    subject: Subject,
    dataset: Dataset,
    sets: Sets,
    *,
    reward: str,
    seed: int | None,
) -> Written:
    """Compute and write a subject's tables and manifest.json (docs/reference/files.md); a study has further tables.

    Raises:
        UsageError: A model of the subject is scored under two chat templates.
    """
    by_model(sets)
    scores, names = scores_of(sets, reward), with_reward(reward)
    rows = pd.concat([margins_of(subject, pair, scores, dataset, names) for pair in subject.pairs], ignore_index=True)
    problems = pd.Series(prompt_clusters(dataset.examples), index=[e.example_id for e in dataset.examples])
    table = accuracy_of(subject, dataset, scores, problems, names)
    board = _board(registry, subject, dataset, sets, scores, table[table["reward"] == reward], seed)
    shown = rows[rows["reward"] == reward]
    best = list(board["pair_id"].head(SHOWN_PAIRS))
    tables = {
        "accuracy.csv": (table, ACCURACY),
        "margins.csv": (shown[shown["pair_id"].isin(best)], MARGINS),
        "length.csv": by_length(subject, shown, scores, dataset, problems),
        "leaderboard.csv": (board, tuple(board.columns)),
    }
    tables |= details(subject, dataset, scores, best, reward=reward)
    tables |= checks(subject, scores, dataset, best, reward=reward, rng=seeded(dataset, seed))
    if subject.axes:
        tables |= _analysis(registry, subject, dataset, scores, rng=seeded(dataset, seed))
    place, gap = place_of(subject, dataset, reward=reward), registry.performances[subject.performance].name
    told = {"benchmark": benchmark_of(dataset.examples).name, "precision": precision(subject, sets, dataset)}
    facts = manifest(place, sets.values(), subject.left_out) | told | texts_of(registry, subject) | {"seed": seed}
    with locked_folder(store, place) as folder:
        problem = fuller(folder, subject.left_out) or _write(folder, tables, facts)
    board = parse_csv(csv_bytes(rounded(board)), folder / "leaderboard.csv")
    return Written(folder, board, table, gap, problem, **_notes(tables, best[0], subject))


def _notes(tables: Mapping[str, Table], first: str, subject: Subject) -> dict[str, str]:
    """The sentences of `Written` on the first pair, on a study's gap, and on pairs that are left out."""
    n_pairs, lost = len(subject.pairs), subject.left_out
    apart = tables.get("decomposition.csv")
    return {
        "alone": alone_note(tables[ALONE_FILE][0], first),
        "warning": length_note(tables[BALANCE_FILE][0], first),
        "verdict": "" if apart is None else verdict(apart[0]).words,
        "left_out": f"{n_pairs} of {n_pairs + len(lost)} pairs; left out: {some(lost)}" if lost else "",
    }


def _board(
    registry: Registry,
    subject: Subject,
    dataset: Dataset,
    sets: Sets,
    scores: Scores,
    table: pd.DataFrame,
    seed: int | None,
) -> pd.DataFrame:
    """The leaderboard of a subject, from its ACCURACY under one reward."""
    pairs, reward = pair_table(subject), str(table["reward"].iloc[0])
    examples = {example.example_id: example for example in dataset.examples}
    correct, rows = correctness({m: f for (m, _), f in scores.items()}, pairs, examples, reward=reward)
    return leaderboard(
        table,
        bootstrap_scores(correct, rows, rng=seeded(dataset, seed)),
        pairs,
        _models(registry, sets),
        held_out=_held_out(correct, rows, rng=seeded(dataset, seed)),
    )


def _write(folder: Path, tables: Mapping[str, Table], facts: dict[str, object]) -> str:
    """Write the tables and the manifest; return why that failed, or "" if it succeeded."""
    try:
        if not (folder / "manifest.json").exists():
            # A new folder gets its manifest first: if this process is killed, no run on other rows can use the folder.
            write_json(folder / "manifest.json", facts)
        for name, (frame, columns) in tables.items():
            write_csv(folder / name, frame, columns)
        write_json(folder / "manifest.json", facts)
    except CannotWrite as error:
        return str(error)
    return ""


def seeded(dataset: Dataset, seed: int | None) -> np.random.Generator:
    """Random generator of a subject's draws. By default it depends on the data alone, so that all runs draw alike."""
    return np.random.default_rng(zlib.crc32(dataset.digest.encode()) if seed is None else seed)


def _analysis(
    registry: Registry, subject: Subject, dataset: Dataset, scores: Scores, *, rng: np.random.Generator
) -> dict[str, Table]:
    """The tables of a study's statistics: file name -> frame and columns."""
    frames = {model: frame for (model, _), frame in scores.items()}
    axes = {
        name: {m: registry.model(m).score(name) for m in frames if name in registry.model(m).scores}
        for name in subject.axes
    }
    own = registry.performances[subject.axes[0]]
    stderr = typical_stderr([registry.model(m).scores.get(own.id) for m in frames], own.stderr)
    starts = {family: entry.start or "" for family, entry in registry.families.items()}
    found = analyse(
        frames,
        pair_table(subject).assign(start=[starts.get(pair.family, "") for pair in subject.pairs]),
        {example.example_id: example for example in dataset.examples},
        axes,
        noise=Noise(stderr, own.unit),
        resampling=Resampling(DRAWS, n_jobs=-1),
        rng=rng,
    )
    return {
        "correlation.csv": (found.correlation, CORRELATION),
        "decomposition.csv": (found.decomposition, DECOMPOSITION_COLUMNS),
        "left_out.csv": (found.left_out, LEFT_OUT_COLUMNS),
        "gap_noise.csv": (found.gap_noise, GAP_NOISE_COLUMNS),
    }


def stored_accuracy(folder: Path) -> pd.DataFrame:
    """Read the ACCURACY table of a results folder.

    Raises:
        PreconditionError: The folder has no such table, or an earlier version wrote it.
    """
    path = folder / "accuracy.csv"
    table = read_table(path)
    if "low" not in table:
        words = "an earlier version of drsow wrote this table, without intervals. Run `drsow leaderboard` to write"
        raise PreconditionError(f"{path}: {words} it again")
    return table


def stored_decomposition(folder: Path) -> pd.DataFrame:
    """The decomposition of a results folder; empty if it has none: a pair's, or one that an earlier version wrote."""
    path = folder / "decomposition.csv"
    return read_table(path) if path.is_file() else pd.DataFrame(columns=list(DECOMPOSITION_COLUMNS))


def chosen_pairs(
    registry: Registry,
    subject: Subject,
    dataset: Dataset,
    sets: Sets,
    wish: Wish,
    *,
    reward: str,
    top: int,
    n_best: int = 0,
    seed: int | None = None,
) -> Choice:
    """Choose among the pairs of a subject, from the scores of its models; estimate ensembles of the `n_best` best.

    Raises:
        PreconditionError: A subset has too few prompts.
        UsageError: No pair satisfies the user's wishes.
    """
    frames = {model: read_for(score_set, reward) for model, score_set in by_model(sets).items()}
    examples = {example.example_id: example for example in dataset.examples}
    pairs = pair_table(subject)
    correct, rows = correctness(frames, pairs, examples, reward=reward)
    models = _models(registry, sets)
    board = pd.concat([pairs, described(pairs, models)], axis=1)
    combine = combine_of(frames, pairs, examples, models, reward=reward, n_best=n_best) if n_best else None
    return choose(board, correct, rows, wish, rng=seeded(dataset, seed), top=top, combine=combine)


def comparison(
    pairs: Sequence[Pair], sets: Sets, dataset: Dataset, *, reward: str, native: bool, seed: int | None
) -> pd.DataFrame:
    """COMPARISON of two pairs on the same rows."""
    subject = Subject("", tuple(pairs), native)
    frames = {model: read_for(score_set, reward) for model, score_set in by_model(sets).items()}
    examples = {example.example_id: example for example in dataset.examples}
    correct, rows = correctness(frames, pair_table(subject), examples, reward=reward)
    names = [pair.pair_id for pair in pairs]
    return compare(correct, names, rows, [(names[0], names[1])], rng=seeded(dataset, seed))


def _held_out(correct: np.ndarray, rows: Rows, *, rng: np.random.Generator) -> np.ndarray | None:
    """Held-out estimates by rank, for the pairs that are ranked."""
    if not rows.levels or rows.levels[0][1] != "score":
        return None
    whole = correct[np.isfinite(correct).all(axis=1)]
    return held_out_scores(whole, Sample(rows.weights[0], rows.subset, rows.cluster), rng=rng)


def texts_of(registry: Registry, subject: Subject) -> dict[str, dict[str, object]]:
    """The texts that the sides of pairs of one model read, for a manifest; empty if there is no such pair."""
    known = registry.readers
    read = {name: known[name] for pair in subject.pairs for name in (pair.strong, pair.weak) if name in known}
    texts = {name: reader.texts(registry.domains) for name, reader in read.items()}
    found: dict[str, object] = {
        name: read[name].text or {domain: text for domain, (text, _) in each.items()} for name, each in texts.items()
    }
    return {"texts": found} if found else {}


def _models(registry: Registry, sets: Sets) -> pd.DataFrame:
    """The table of models that `leaderboard` takes."""
    rows = []
    for (model_id, _), score_set in sets.items():
        spec, info = registry.weights(model_id), score_set.info()
        rows.append(
            {
                "model_id": model_id,
                "pass": score_set.folder.name,
                "revision": with_text(score_set.key.revision, score_set.key.domain_digest),
                "dtype": score_set.key.dtype,
                "n_params": spec.n_params,
                "n_params_active": spec.n_params_active or spec.n_params,
                "licence": spec.licence,
                "n_tokens_row": info.get("mean_tokens_a_row", np.nan),
            }
        )
    return pd.DataFrame(rows).astype({"n_params": "Int64", "n_params_active": "Float64"})
