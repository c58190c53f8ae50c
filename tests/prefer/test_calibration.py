"""Which labelled rows say how sure a label is: named data, a scored benchmark, or the candidates' own labels."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_models import entry, pair_entry

from bench.data import load
from bench.data.load import load_candidates, load_data
from bench.files import read_csv
from bench.lookup import Lookup
from bench.registry import load_registry
from bench.schema import SCORES, Example, Message, PreconditionError, UsageError
from bench.scoring.passes import resolved
from bench.store.folder import Store
from bench.subject import Subject
from bench.verbs.calibration import calibration_of, on_own_labels, own_labels
from bench.verbs.exchange import import_scores
from bench.verbs.run import redo_subjects
from bench.verbs.session import Session

N = 60


def write(path, n: int = N, *, right: bool = False, same_prompt: bool = False):
    """Preferences, or candidates of which the first is right."""
    texts = [("yes, it is", "no") for _ in range(n)]
    rows = [
        {"id": i, "prompt": "Same?" if same_prompt else f"Is {i} prime?"}
        | ({"candidates": both, "right": 0} if right else dict(zip(("chosen", "rejected"), both, strict=True)))
        for i, both in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def margins(n: int = N) -> np.ndarray:
    """Small margins of which a third is wrong, and large ones that are right."""
    return np.array([8.0 if i % 2 else (-1.0 if i % 3 == 0 else 1.0) for i in range(n)])


@pytest.fixture
def session(tmp_path) -> Session:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "models.toml").write_text("\n".join(f"{entry(n, 'nowhere').rstrip()}\n" for n in ("s", "w")))
    (folder / "pairs.toml").write_text(pair_entry("two", "s", "w"))
    return Session(load_registry(folder), Store(tmp_path / "results"), resolved("fp32", "cpu", None))


@pytest.fixture
def two(session) -> Subject:
    return Subject("two", (session.registry.pair("two"),))


def score(session: Session, data: str, tmp_path, *, margin: np.ndarray | None = None) -> None:
    """Import scores under which the pair has the margins."""
    dataset = load_data(data)
    found = margins(len(dataset.examples)) if margin is None else margin
    for name, factor in (("s", 1.0), ("w", 0.0)):
        rows = [
            (e.example_id, side, -9.0 + factor * (side == "chosen") * value, -0.5, 4, 9, "ok")
            for e, value in zip(dataset.examples, found, strict=True)
            for side in ("chosen", "rejected")
        ]
        pd.DataFrame(rows, columns=list(SCORES)).to_csv(tmp_path / "s.csv", index=False)
        import_scores(session.store, tmp_path / "s.csv", name, "s", dataset, dtype="fp32")


def test_named_labelled_data_says_how_sure_a_margin_is(session, two, tmp_path):
    path = str(write(tmp_path / "mine.jsonl"))
    score(session, path, tmp_path)
    found = calibration_of(session, two, path, reward="sum")
    small, large = found.fit.whole.confidence(np.array([1.0, 8.0]))
    assert small == pytest.approx(2 / 3, abs=0.08) and large > 0.9
    assert (found.told["data"], found.told["n_examples"], found.told["accuracy"]) == ("mine.jsonl", 60, 50 / 60)
    assert "60 labels of mine.jsonl (sha256" in found.words() and "83.3% of them right" in found.words()


def test_the_error_is_that_of_the_pairs_table(session, two, tmp_path):
    path = str(write(tmp_path / "mine.jsonl"))
    score(session, path, tmp_path)
    (done,) = redo_subjects(session.registry, [two], load_data(path), session.store, lookup=Lookup(), reward="sum")
    row = read_csv(done.folder / "calibration.csv").iloc[0]
    told = calibration_of(session, two, path, reward="sum").told
    assert {name: told[name] for name in ("confidence", "error", "error_low", "error_high")} == pytest.approx(
        {name: row[name] for name in ("confidence", "error", "error_low", "error_high")}
    )


def test_data_that_is_not_scored_is_named_with_what_to_run(session, two, tmp_path):
    path = str(write(tmp_path / "mine.jsonl"))
    with pytest.raises(PreconditionError, match=r"s is not scored on mine .* `drsow run --pair two --data .*mine"):
        calibration_of(session, two, path, reward="sum")
    with pytest.raises(UsageError, match="no such file"):
        calibration_of(session, two, str(tmp_path / "none.jsonl"), reward="sum")


def test_labels_of_too_few_prompts_are_counted(session, two, tmp_path):
    path = str(write(tmp_path / "few.jsonl", 9))
    score(session, path, tmp_path)
    with pytest.raises(PreconditionError, match=r"few.jsonl: it has labels of 9 different prompts, .* at least 10"):
        calibration_of(session, two, path, reward="sum")


def test_without_a_name_a_scored_benchmark_is_taken_and_a_users_file_is_not(session, two, tmp_path, monkeypatch):
    score(session, str(write(tmp_path / "mine.jsonl")), tmp_path)
    assert calibration_of(session, two, None, reward="sum") is None
    monkeypatch.setenv(load.REWARD_BENCH_VARIABLE, str(write(tmp_path / "rb.jsonl", N + 1)))
    score(session, "sample", tmp_path)
    assert calibration_of(session, two, None, reward="sum").told["data"] == "sample"
    score(session, "reward-bench", tmp_path)
    assert calibration_of(session, two, None, reward="sum").told["data"] == "reward-bench"


def test_a_prompt_that_is_labelled_itself_gets_its_confidence_from_other_prompts(session, two, tmp_path):
    path = str(write(tmp_path / "mine.jsonl"))
    score(session, path, tmp_path)
    found = calibration_of(session, two, path, reward="sum")
    labelled = load_data(path).examples[7]
    other = Example("new", "", (Message("user", "What is new?"),), (("0", "a"), ("1", "b")), ())
    sure = found.of_labels(load_data(path)._replace(examples=(labelled, other)))
    rows = pd.DataFrame({"example_id": ["7", "new"], "margin": [3.0, 3.0]})
    fold = found.folds[labelled.messages]
    assert sure(rows).tolist() == [
        found.fit.without[fold].confidence(np.array([3.0]))[0],
        found.fit.whole.confidence(np.array([3.0]))[0],
    ]


@pytest.mark.parametrize("right", [True, False])
def test_candidates_with_labels_calibrate_themselves(tmp_path, right):
    dataset = load_candidates(str(write(tmp_path / "mine.jsonl", right=right)))
    labelled = own_labels(dataset)
    assert {example.right for example in labelled} == {("0",)}
    rewards = pd.DataFrame(
        [
            (e.example_id, name, value * (name == "0"), "ok")
            for e, value in zip(dataset.examples, margins(), strict=True)
            for name, _ in e.responses
        ],
        columns=["example_id", "response_id", "reward", "status"],
    )
    found = on_own_labels(dataset, labelled, rewards)
    assert (found.told["data"], found.told["n_examples"], found.told["accuracy"]) == ("mine.jsonl", 60, 50 / 60)
    assert len(found.folds) == 60


SCORED = {"first": 9.0, "second": 9.0, "middling": 5.0, "bad": 1.0}


def scored_rows(path, n: int = 12):
    """UltraFeedback's rows whose first two responses have the same score."""
    rows = [
        {
            "instruction": f"Is {i} prime?",
            "completions": [{"response": f"{text} {i}", "overall_score": score} for text, score in SCORED.items()],
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("best", "worst", "accuracy"),
    [
        ("first", "bad", 1.0),
        ("second", "bad", 1.0),
        ("middling", "bad", 1.0),
        ("middling", "second", 0.0),
        ("second", "first", None),
    ],
)
def test_a_label_of_candidates_with_scores_is_right_by_their_scores_and_equal_scores_are_no_label(
    tmp_path, best, worst, accuracy
):
    dataset = load_candidates(str(scored_rows(tmp_path / "scored.jsonl")))
    labelled = own_labels(dataset)
    rewards = pd.DataFrame(
        [
            (e.example_id, name, (text.startswith(best) - text.startswith(worst)) * (1.0 + int(e.example_id)), "ok")
            for e in dataset.examples
            for name, text in e.responses
        ],
        columns=["example_id", "response_id", "reward", "status"],
    )
    found = on_own_labels(dataset, labelled, rewards)
    assert (None if found is None else found.told["accuracy"]) == accuracy
    assert found is None or found.told["n_examples"] == 12


def test_scores_of_responses_are_no_part_of_the_digest(tmp_path):
    dataset = load_candidates(str(scored_rows(tmp_path / "scored.jsonl")))
    assert dataset.examples[0].scores == (9.0, 9.0, 5.0, 1.0)
    assert load.digest(e._replace(scores=()) for e in dataset.examples) == dataset.digest
    several = [e._replace(right=("0", "1")) for e in dataset.examples]
    assert load.digest(e._replace(scores=()) for e in several) == load.digest(several) != dataset.digest


def test_a_row_without_a_label_is_told_and_the_others_count(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", right=True)
    lines = path.read_text().splitlines()
    lines[5] = json.dumps(json.loads(lines[5]) | {"right": None})
    path.write_text("\n".join(lines))
    labelled = own_labels(load_candidates(str(path)))
    assert [e.example_id for e in labelled] == [str(i) for i in range(N) if i != 5]
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"rows without a readable label, not counted: 1; the first: {path}, line 6, field right: ")


def test_candidates_without_labels_or_with_few_have_none(tmp_path):
    rows = [{"id": i, "prompt": f"Is {i}?", "candidates": ["yes", "no"]} for i in range(20)]
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert own_labels(load_candidates(str(path))) is None
    assert own_labels(load_candidates(str(write(tmp_path / "few.jsonl", 9)))) is None
    # 60 rows of one prompt are labels of one problem
    assert own_labels(load_candidates(str(write(tmp_path / "same.jsonl", same_prompt=True)))) is None
