"""`drsow select`: what it keeps is read by the verbs that follow."""

import json
import os
import subprocess

import pandas as pd
import pytest
from commands import COMMAND, environment, rows, write_rows

from bench.data.load import load_candidates, load_data


@pytest.mark.slow
def test_kept_preferences_are_the_least_similar_and_are_data_again(drsow, tiny_registry, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", rows(8))
    words = ["select", "--registry", tiny_registry, "--model", "tiny-strong", "--dtype", "fp32", "--data", data]
    files = {name: tmp_path / f"{name}.jsonl" for name in ("dissimilar", "similar", "random")}
    for name, path in files.items():
        done = drsow(*words, "--strategy", name, "--out", path)
        assert done.returncode == 0, done.stderr
    lines = {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in files.items()}
    assert {len(rows) for rows in lines.values()} == {4}
    least, most = ([row["similarity"] for row in lines[name]] for name in ("dissimilar", "similar"))
    assert max(least) <= min(most)
    plain = {example.example_id: example for example in load_data(str(data)).examples}
    for path in files.values():
        assert all(plain[example.example_id] == example for example in load_data(str(path)).examples)


@pytest.mark.slow
def test_of_several_candidates_two_are_kept(drsow, tiny_registry, tmp_path):
    texts = ["yes", "no, never", "it is two", "7"]
    data = write_rows(tmp_path / "c.jsonl", [{"prompt": f"Is {i} prime?", "candidates": texts} for i in range(5)])
    out = tmp_path / "kept.jsonl"
    words = ["select", "--registry", tiny_registry, "--model", "tiny-strong", "--candidates", data, "--fraction", 1]
    done = drsow(*words, "--strategy", "centroid", "--out", out)
    assert done.returncode == 0, done.stderr
    kept = load_candidates(str(out)).examples
    assert len(kept) == 5
    # The texts are the same in each prompt, and so is the pair that k-means finds, but for its start.
    assert all(len(example.responses) == 2 and {t for _, t in example.responses} < set(texts) for example in kept)


@pytest.mark.parametrize("more", [[], ["--data", "sample", "--candidates", "x.jsonl"]])
def test_what_is_selected_from_is_named_once(drsow, tmp_path, more):
    done = drsow("select", "--out", tmp_path / "x.jsonl", *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "drsow: name what to select from: --candidates FILE or --data DATA\n"


SPELLED = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
HOSTILE = [
    (SPELLED, "plain"),
    ("plain", SPELLED),
    ('[{"role": "assistant", "content": "b"}]', "[{'from': 'gpt', 'value': 'c'}]"),
    ('["a", "b"]', '{"role": "assistant", "content": "b"}'),
    ("a\u2028b\x85c", '"chosen"'),
]
"""Responses that spell messages, lists or lines."""


@pytest.mark.slow
def test_responses_that_spell_messages_come_back_as_the_texts_that_they_are(drsow, tiny_registry, tmp_path):
    def said(text):
        return [{"role": "assistant", "content": text}]

    lines = [
        {"id": i, "prompt": [{"role": "user", "content": SPELLED}], "chosen": said(one), "rejected": said(other)}
        for i, (one, other) in enumerate(HOSTILE)
    ]
    data, out = write_rows(tmp_path / "rows.jsonl", lines), tmp_path / "kept.jsonl"
    options = ["--registry", tiny_registry, "--model", "tiny-strong", "--dtype", "fp32", "--fraction", 1]
    done = drsow("select", *options, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert load_data(str(out)).examples == load_data(str(data)).examples
    assert load_candidates(str(out)).examples == load_candidates(str(data)).examples
    assert [dict(example.responses)["chosen"] for example in load_data(str(out)).examples] == [a for a, _ in HOSTILE]
    again = drsow("select", *options, "--candidates", out, "--out", tmp_path / "candidates.jsonl")
    assert again.returncode == 0, again.stderr
    assert load_candidates(str(tmp_path / "candidates.jsonl")).examples == load_candidates(str(out)).examples


def test_labelled_candidates_are_no_preferences_to_select_from(drsow, tiny_registry, tmp_path):
    data = write_rows(tmp_path / "c.jsonl", [{"prompt": "a", "candidates": ["b", "c", "d"], "right": 1}])
    done = drsow("select", "--registry", tiny_registry, "--data", data, "--out", tmp_path / "x.jsonl")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "0: this verb takes preferences, one chosen and one rejected" in done.stderr
    assert not (tmp_path / "x.jsonl").exists()


def test_a_limit_that_candidates_do_not_read_is_refused(drsow, tmp_path):
    data = write_rows(tmp_path / "c.jsonl", [{"prompt": "a", "candidates": ["b", "c"]}])
    done = drsow("select", "--candidates", data, "--limit-per-subset", 1, "--out", tmp_path / "x.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "drsow: --limit-per-subset draws from --data; --candidates takes every prompt of its file\n"


@pytest.mark.parametrize("option", ["--candidates", "--data"])
def test_what_is_selected_from_is_not_written_over(drsow, tmp_path, option):
    data = write_rows(tmp_path / "rows.jsonl", rows(4))
    before = data.read_bytes()
    (tmp_path / "link.jsonl").symlink_to("rows.jsonl")
    done = drsow("select", option, data, "--out", tmp_path / "link.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"drsow: --out {tmp_path}/link.jsonl is the file that {option} reads; name another file\n"
    assert data.read_bytes() == before


def test_a_selection_replaces_a_selection_and_no_other_file(drsow, tiny_registry, tmp_path):
    data, out = write_rows(tmp_path / "rows.jsonl", rows(4)), tmp_path / "s.jsonl"
    words = ["select", "--registry", tiny_registry, "--model", "tiny-strong", "--data", data, "--out", out]
    assert [drsow(*words).returncode for _ in range(2)] == [0, 0]
    out.write_text('{"mine": 1}\n')
    done = drsow(*words)
    assert (done.returncode, out.read_text()) == (2, '{"mine": 1}\n')
    assert done.stderr == f"drsow: {out} exists already, and drsow select did not write it; name another --out\n"


def test_a_refused_row_of_a_parquet_file_ends_a_process_on_one_core_with_its_line(tiny_registry, tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"prompt": ["a", None], "candidates": [["x", "y"], ["q", "r"]]}).to_parquet(path)
    words = ["annotate", "--registry", tiny_registry, "--pair", "tiny", "--candidates", path, "--out", tmp_path / "out"]
    # The process itself, because the abort comes when it ends; twice, because it does not always come.
    core = {min(os.sched_getaffinity(0))}
    for _ in range(2):
        done = subprocess.run(
            [COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
        assert (done.returncode, done.stderr) == (2, f"drsow: {path}, row 2, field prompt: missing\n")
