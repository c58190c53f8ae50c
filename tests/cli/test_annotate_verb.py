"""`drsow annotate` on the tiny pair: its files, its numbers, what it refuses."""

import json
import shutil
import warnings

import datasets
import pandas as pd
import pytest
from commands import leftovers, write_rows
from tiny_models import CONTEXT
from typer.testing import CliRunner

import bench.cli  # noqa: F401
from bench import reward
from bench.cli.app import app
from bench.data.load import load_candidates, load_data
from bench.files import read_csv
from bench.prefer.annotate import Filters
from bench.registry import load_registry
from bench.schema import PreconditionError
from bench.subject import Subject
from bench.verbs.annotate import Annotation, annotate_candidates
from bench.verbs.score import checked_scores
from bench.verbs.session import open_session

CANDIDATES = ["yes", "no, never", "it is two\nand three", "7"]


@pytest.fixture
def words(tiny_registry, tmp_path) -> list:
    path = write_rows(
        tmp_path / "c.jsonl",
        [{"id": i, "prompt": f"Is {i} prime?", "candidates": CANDIDATES[: 2 + i % 3]} for i in range(6)],
    )
    options = ["--dtype", "fp32", "--device", "cpu", "--results", tmp_path / "results"]
    return ["annotate", "--registry", tiny_registry, "--pair", "tiny", "--candidates", path, *options]


@pytest.mark.slow
def test_the_preference_set_is_the_best_over_the_worst_by_the_pairs_reward(drsow, words, tiny_registry, tmp_path):
    out = tmp_path / "out"
    done = drsow(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "preferences.jsonl").read_text().splitlines()]
    assert len(rows) + len(read_csv(out / "skipped.csv")) == 6
    for row in rows:
        texts = CANDIDATES[: len(row["rewards"])]
        exact = reward("tiny", row["prompt"][0]["content"], texts, dtype="fp32", registry=tiny_registry)
        assert row["rewards"] == pytest.approx(exact, abs=1e-3)
        assert row["prompt"][0]["role"] == "user" and row["n_candidates"] == len(texts)
        for side, pick in (("chosen", max), ("rejected", min)):
            assert row[side] == [{"role": "assistant", "content": texts[exact.index(pick(exact))]}]
        assert row["margin"] == pytest.approx(max(exact) - min(exact), abs=2e-3)
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=tmp_path / "cache")
    assert loaded.to_list() == rows
    ready = prepared_by_trl(loaded, tiny_registry / "strong", tmp_path / "trl")
    assert len(ready) == len(rows) and all(row["chosen_ids"] != row["rejected_ids"] for row in ready)
    card = (out / "README.md").read_text()
    assert f"preferences: {len(rows)}" in card and "tiny-strong over tiny-weak" in card


def prepared_by_trl(dataset, model, scratch) -> datasets.Dataset:
    """What TRL's DPO trainer makes of a preference set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(output_dir=str(scratch), use_cpu=True, bf16=False, report_to="none", max_length=None)
        return DPOTrainer(model=str(model), args=config, train_dataset=dataset).train_dataset


@pytest.mark.slow
def test_a_customised_label_reads_the_block_and_keeps_the_prompt_as_it_was(drsow, words, tmp_path):
    plain, told = tmp_path / "plain", tmp_path / "told"
    assert drsow(*words, "--out", plain).returncode == 0
    done = drsow(*words, "--out", told, "--customise", "both")
    assert done.returncode == 0, done.stderr
    rows = [
        {row["example_id"]: row for row in map(json.loads, (folder / "preferences.jsonl").read_text().splitlines())}
        for folder in (plain, told)
    ]
    shared = rows[0].keys() & rows[1].keys()
    assert shared and all(rows[0][i]["prompt"] == rows[1][i]["prompt"] for i in shared)
    assert all(rows[0][i]["rewards"] != rows[1][i]["rewards"] for i in shared)


def test_the_block_that_both_models_read_is_that_of_the_named_variant_and_seed(tiny_registry, tmp_path):
    session = open_session(load_registry(tiny_registry), dtype="fp32", device="cpu", results=tmp_path / "results")
    made = [{"id": i, "prompt": f"Is {i} prime?", "candidates": ["yes", "no, never"]} for i in range(3)]
    candidates = load_candidates(str(write_rows(tmp_path / "c.jsonl", made)))
    wish = Annotation(Filters(), "exemplars", "classifier", 7, "sum")
    pair = Subject("tiny", (session.registry.pair("tiny"),))
    annotate_candidates(session, pair, candidates, wish, out=tmp_path / "out")
    keys = [each.key for each in session.store.find()]
    assert sorted(key.model_id for key in keys) == ["tiny-strong", "tiny-weak"]
    assert {key.domain for key in keys} == {"exemplars, seed 7"}


def test_candidates_that_are_too_long_are_told_with_the_model_and_counted(tiny_registry, tmp_path, capsys):
    session = open_session(load_registry(tiny_registry), dtype="fp32", device="cpu", results=tmp_path / "results")
    made = [{"id": i, "prompt": "7?", "candidates": ["yes", "no", "x" * (CONTEXT + i)]} for i in range(3)]
    candidates = load_candidates(str(write_rows(tmp_path / "c.jsonl", made)))
    pair = Subject("tiny", (session.registry.pair("tiny"),))
    counts = annotate_candidates(
        session, pair, candidates, Annotation(Filters(), "plain", "classifier", 0, "sum"), out=tmp_path / "out"
    )
    assert counts["kept"] == 3
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    words = "3 of 9 candidates left out: longer with their prompt than its context"
    assert said == [f"tiny-strong: {words}", f"tiny-weak: {words}"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["candidates_left_out"] == {"too_long": 3}
    assert "\n- candidates left out: too_long 3\n" in (tmp_path / "out" / "README.md").read_text()


def test_each_filter_is_that_of_the_option_of_its_name(words, tmp_path, monkeypatch):
    taken = []

    def keep(_session, _subject, _candidates, wish: Annotation, *, out) -> pd.Series:
        taken.append(wish.filters)
        return pd.Series(dtype=int)

    monkeypatch.setattr("bench.verbs.annotate.annotate_candidates", keep)
    more = "--rejected random --min-margin 1 --min-confidence 0.2 --max-length-ratio 3 --drop-poorest 0.4"
    called = [*map(str, words), *more.split(), "--drop-widest", "0.5", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, called).exception is None
    assert taken == [
        Filters(
            rejected="random", min_margin=1, min_confidence=0.2, max_length_ratio=3, poorest_share=0.4,
            widest_share=0.5,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "candidates": ["b"]}, "line 1, field candidates: must be a list of two or more texts"),
        ({"prompt": "a", "candidates": ["b", ""]}, "line 1, field candidates[1]: empty"),
        ({"prompt": "a"}, "line 1, field candidates: missing"),
    ],
)
def test_bad_candidates_are_one_line_and_nothing_is_written(drsow, words, tmp_path, row, said):
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n")
    done = drsow(*words, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert leftovers(tmp_path / "out") == leftovers(tmp_path / "results") == []


@pytest.mark.slow
def test_a_set_that_no_prompt_reaches_is_refused_with_the_reasons(drsow, words, tmp_path):
    done = drsow(*words, "--out", tmp_path / "out", "--min-margin", 1e9)
    assert done.returncode == 2
    assert "no prompt is left to learn from (margin 6)" in done.stderr
    assert leftovers(tmp_path / "out") == []


def test_who_annotates_is_one_of_a_pair_or_a_studys_best(drsow, words, tmp_path):
    done = drsow(*words, "--best", "paper-221", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (2, "drsow: name who annotates: --pair PAIR or --best STUDY\n")


def test_the_rows_of_an_ensemble_are_refused_for_one_pair(drsow, words, tmp_path):
    done = drsow(*words, "--ensemble-on", "no-such-data", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    said = "--ensemble-on names the data of an ensemble's scales and weights; name --ensemble too, or leave it out"
    assert done.stderr == f"drsow: {said}\n"


def test_the_best_pair_is_that_of_the_reward_that_labels(drsow, words, tmp_path):
    named = [word for word in words if word not in ("--pair", "tiny")]
    done = drsow(*named, "--best", "paper-221", "--reward", "per-byte", "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "paper-221/reward-bench-per-byte/leaderboard.csv: not found" in done.stderr


def test_sure_labels_without_labelled_rows_are_one_line_and_no_model_is_loaded(drsow, words, tmp_path):
    done = drsow(*words, "--out", tmp_path / "out", "--min-confidence", 0.8)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "no labelled rows say how sure a label of tiny is" in done.stderr
    assert "--calibration DATA names labelled data that is scored" in done.stderr
    assert leftovers(tmp_path / "out") == leftovers(tmp_path / "results") == []


@pytest.mark.slow
def test_the_set_names_the_labelled_data_that_says_how_sure_it_is(drsow, words, finished, data, tmp_path):
    shutil.copytree(finished[0], tmp_path / "results")
    done = drsow(*words, "--out", tmp_path / "out", "--calibration", data, "--min-confidence", 0.01)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "preferences.jsonl").read_text().splitlines()]
    assert rows and all(0 < row["confidence"] < 1 for row in rows)
    assert "- calibration: 24 labels of rows.jsonl (sha256 " in (tmp_path / "out" / "README.md").read_text()
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())["calibration"]
    assert (told["data"], told["n_examples"], told["n_problems"]) == ("rows.jsonl", 24, 24)
    assert told["error_low"] <= told["error"] <= told["error_high"]


@pytest.mark.parametrize("is_scored", [True, False])
def test_candidates_whose_labels_do_not_count_take_those_of_a_scored_benchmark(tiny_registry, tmp_path, is_scored):
    session = open_session(load_registry(tiny_registry), dtype="fp32", device="cpu", results=tmp_path / "results")
    pair = Subject("tiny", (session.registry.pair("tiny"),))
    if is_scored:
        checked_scores(session, pair, load_data("sample", limit_per_subset=2))
    # Both responses have the same score, so no label is right or wrong.
    made = [
        {"instruction": f"Is {i} prime?", "completions": [{"response": t, "overall_score": 1.0} for t in CANDIDATES]}
        for i in range(12)
    ]
    candidates = load_candidates(str(write_rows(tmp_path / "c.jsonl", made)))
    wish = Annotation(Filters(min_confidence=0.01), "plain", "classifier", 0, "sum")
    if not is_scored:
        with pytest.raises(PreconditionError, match="fewer than 10 of the candidates' prompts have a label that count"):
            annotate_candidates(session, pair, candidates, wish, out=tmp_path / "out")
        return
    annotate_candidates(session, pair, candidates, wish, out=tmp_path / "out")
    assert "- calibration: 46 labels of sample-2-per-subset (sha256 " in (tmp_path / "out" / "README.md").read_text()
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())["calibration"]
    assert (told["data"], told["n_examples"]) == ("sample-2-per-subset", 46)


@pytest.mark.slow
def test_the_card_and_the_manifest_count_the_rows_that_the_reader_left_out(drsow, words, tmp_path):
    def vote(*texts: str) -> list[dict]:
        roles = ["user", "assistant"] * len(texts)
        return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]

    same = [
        {"winner": "model_a", **{f"conversation_{s}": vote("Why?", t) for s, t in zip("ab", CANDIDATES, strict=False)}}
    ]
    other = {f"conversation_{side}": vote("Why?", text, "Then?", "7") for side, text in (("a", "yes"), ("b", "no"))}
    words[words.index("--candidates") + 1] = write_rows(tmp_path / "votes.jsonl", [*same, {"winner": "tie", **other}])
    done = drsow(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    reason = "conversations whose earlier answers differ"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows_left_out"] == {reason: 1}
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- rows left out: {reason} 1\n" in card and "- prompts: 1, preferences: 1\n" in card


@pytest.fixture
def labelled(drsow, words, tmp_path):
    """A finished folder of preferences."""
    out = tmp_path / "out"
    done = drsow(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after-rename:manifest", "before-rename:README"])
def test_a_kill_leaves_no_folder_of_two_runs_and_tune_takes_none(drsow, words, labelled, tiny_registry, moment):
    def said() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in labelled.iterdir() if path.suffix != ".tmp"}

    old = said()
    other = [*words, "--reward", "per-byte"]
    assert drsow(*other, "--out", labelled, DRSOW_CRASH_AT=moment).returncode == 137
    # Both runs skip the same prompts.
    told = {name: data for name, data in said().items() if name not in ("manifest.json", "skipped.csv")}
    assert len({old[name] == data for name, data in told.items()}) == 1
    tuned = drsow(
        "tune",
        "--registry",
        tiny_registry,
        "--policy",
        "tiny-strong",
        "--preferences",
        labelled,
        "--out",
        labelled.parent / "x",
    )
    assert (tuned.returncode, tuned.stdout, tuned.stderr) == (
        4,
        "",
        f"drsow: {labelled}: drsow annotate was stopped while it wrote this folder, so it is not complete; "
        "run it again\n",
    )
    assert drsow(*other, "--out", labelled).returncode == 0
    assert drsow(*other, "--out", labelled.parent / "fresh").returncode == 0
    whole = said()
    assert whole.keys() == old.keys()
    fresh = labelled.parent / "fresh"
    assert all((fresh / name).read_bytes() == data for name, data in whole.items() if name != "manifest.json")


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "notes.txt"])
def test_a_folder_of_other_files_is_refused_and_they_stay(drsow, words, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"variant": "mine"}')
    done = drsow(*words, "--out", tmp_path / "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"drsow: {tmp_path}/mine: the folder has files that drsow annotate did not write; name another folder\n"
    )
    assert leftovers(tmp_path / "mine") == [name]
    assert (tmp_path / "mine" / name).read_text() == '{"variant": "mine"}'
    file = drsow(*words, "--out", tmp_path / "mine" / name)
    assert (file.returncode, file.stderr) == (2, f"drsow: {tmp_path}/mine/{name}: is a file; name a folder\n")


@pytest.mark.slow
def test_preferences_are_not_labelled_again_over_themselves(drsow, words, labelled):
    before = (labelled / "preferences.jsonl").read_bytes()
    words[words.index("--candidates") + 1] = labelled / "preferences.jsonl"
    done = drsow(*words, "--out", labelled)
    assert done.returncode == 2 and "is the file that --candidates reads; name another file" in done.stderr
    assert (labelled / "preferences.jsonl").read_bytes() == before
