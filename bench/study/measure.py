"""Computes the tables of a pair or a study from the scores of its models: accuracy, margins, lengths, precision."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bench.registry import Pair
from bench.schema import REWARDS, TOKEN_REWARDS, Dataset, PreconditionError
from bench.store.folder import ScoreSet
from bench.study.benchmarks import benchmark_of
from bench.study.metrics import accuracy_by_length, measured
from bench.study.reward import margins, reward_matrix
from bench.subject import Sets, Side, Subject

Table = tuple[pd.DataFrame, tuple[str, ...]]
"""The rows of a table and its columns."""

Scores = Mapping[Side, pd.DataFrame]
"""SCORES by model_id and by the model whose chat template the pass used."""


def pair_table(subject: Subject) -> pd.DataFrame:
    """pair_id, strong, weak, family, gap_points; one row per pair."""
    return pd.DataFrame(subject.pairs)[["pair_id", "strong", "weak", "family", "gap_points"]]


def precision(subject: Subject, sets: Sets, dataset: Dataset) -> dict:
    """Decisions that differ between the run's dtype and float32, by pair, on the rows that were scored in both.

    A pair is left out if its models were not measured on the same rows.

    A decision is whether the best right response has a higher reward than every wrong one.
    """
    found = {}
    for pair in subject.pairs:
        facts = [sets[side].info().get("precision", {}) for side in subject.sides(pair)]
        sums = [each.get("sums_nats") for each in facts]
        rows = [each.get("measured_earlier", {}).get("data_digest", dataset.digest) for each in facts]
        if None in sums or rows[0] != rows[1]:
            continue
        # A set of an earlier version does not name the right responses, and was measured on its own rows.
        ours = {f"{example.example_id} {name}" for example in dataset.examples for name in example.right}
        right = set(facts[0].get("right", ours))
        rewards: dict[str, dict[bool, list[np.ndarray]]] = {}
        for key in sums[0].keys() & sums[1].keys():
            row = key.rpartition(" ")[0]
            both = np.subtract(sums[0][key], sums[1][key])
            rewards.setdefault(row, {True: [], False: []})[key in right].append(both)
        leads = [
            np.max(each[True], axis=0) - np.max(each[False], axis=0) for each in rewards.values() if all(each.values())
        ]
        flips = sum(len(set((lead > 0).tolist())) > 1 for lead in leads)
        found[pair.pair_id] = {"n_examples": len(leads), "n_flipped": flips}
    return found


def scores_of(sets: Sets, reward: str) -> dict[Side, pd.DataFrame]:
    """The scores of each pass, with what a reward needs.

    Raises:
        PreconditionError: The reward needs the scores of tokens, which are not stored.
    """
    return {side: read_for(score_set, reward) for side, score_set in sets.items()}


def read_for(score_set: ScoreSet, reward: str) -> pd.DataFrame:
    """SCORES of a set; with TOKEN_SCORES' lists if a reward needs tokens.

    Raises:
        PreconditionError: They are not stored. The message names the reward and the command that stores them.
    """
    scores = score_set.read()
    if reward not in TOKEN_REWARDS:
        return scores
    try:
        return scores.merge(score_set.read_tokens(), on=["example_id", "response_id"], validate="one_to_one")
    except PreconditionError as error:
        raise PreconditionError(f"reward {reward}: {error}") from error


def with_reward(reward: str) -> tuple[str, ...]:
    """The rewards of a table: REWARDS, and the one that is asked for."""
    return REWARDS if reward in REWARDS else (*REWARDS, reward)


def accuracy_of(
    subject: Subject, dataset: Dataset, scores: Scores, problems: pd.Series, names: Sequence[str]
) -> pd.DataFrame:
    """ACCURACY of a subject's pairs under some rewards; the pairs in their order."""
    examples = {example.example_id: example for example in dataset.examples}
    pairs, frames = pair_table(subject), {model: frame for (model, _), frame in scores.items()}
    matrices = [reward_matrix(frames, pairs, reward=reward) for reward in names]
    ordered = matrices[0].by_example(examples)[0]
    together = [np.concatenate(each) for each in zip(*(m.by_example(examples)[1] for m in matrices), strict=True)]
    runs = pd.DataFrame({"pair_id": np.tile(pairs["pair_id"], len(names))})
    runs = runs.assign(reward=np.repeat(names, len(pairs)))
    # The rewards of a pair come together in the table.
    order = np.arange(len(runs)).reshape(len(names), -1).T.ravel()
    benchmark = benchmark_of(ordered)
    answers = benchmark.judge(ordered, [each[order] for each in together])
    numbers = problems.loc[[example.example_id for example in ordered]].to_numpy()
    return measured(runs.iloc[order].reset_index(drop=True), answers, benchmark.layout(ordered), numbers)


def margins_of(subject: Subject, pair: Pair, scores: Scores, dataset: Dataset, names: Sequence[str]) -> pd.DataFrame:
    """MARGINS of one pair under some rewards."""
    strong, weak = subject.sides(pair)
    subsets = pd.Series({e.example_id: e.subset for e in dataset.examples}, name="subset")
    right = {e.example_id: e.right for e in dataset.examples}
    every = all(example.is_preference for example in dataset.examples)
    answers = None if every else right
    return margins(scores[strong], scores[weak], subsets, pair_id=pair.pair_id, right=answers, names=names)


def by_length(subject: Subject, margins: pd.DataFrame, scores: Scores, dataset: Dataset, problems: pd.Series) -> Table:
    """Accuracy by the difference in length, and its columns. Each pair's own chat template decides the lengths."""
    sides = {pair.pair_id: subject.sides(pair)[0] for pair in subject.pairs}
    owners = margins["pair_id"].map({pair_id: owner for pair_id, (_, owner) in sides.items()})
    right = {(e.example_id, name) for e in dataset.examples for name in e.right}
    parts = []
    for _, rows in margins.groupby(owners, sort=False):
        frame = scores[sides[rows["pair_id"].iloc[0]]]
        is_right = pd.MultiIndex.from_frame(frame[["example_id", "response_id"]]).isin(right)
        sizes = frame["n_bytes"].groupby([is_right, frame["example_id"]]).mean()
        difference = sizes.loc[True] - sizes.loc[False]
        if (difference == difference.round()).all():
            difference = difference.astype("int64")
        parts.append(accuracy_by_length(rows, difference, problems=problems))
    table = pd.concat(parts).sort_values(["pair_id", "reward", "length_low_bytes"], ignore_index=True)
    return table, tuple(table.columns)


def details(
    subject: Subject, dataset: Dataset, scores: Scores, pair_ids: list[str], *, reward: str
) -> dict[str, Table]:
    """The further tables of the benchmark for some pairs: file name -> frame and columns."""
    benchmark = benchmark_of(dataset.examples)
    if not benchmark.details:
        return {}
    pairs = pair_table(subject).set_index("pair_id").loc[pair_ids].reset_index()
    matrix = reward_matrix({model: frame for (model, _), frame in scores.items()}, pairs, reward=reward)
    examples, rewards = matrix.by_example({example.example_id: example for example in dataset.examples})
    found = {}
    for name, function in benchmark.details.items():
        frame = function(examples, rewards)
        if frame.empty:
            continue
        run = frame.pop("run").astype(int)
        frame.insert(0, "pair_id", pairs["pair_id"].to_numpy()[run])
        frame.insert(1, "reward", reward)
        found[name] = (frame, tuple(frame.columns))
    return found
