"""Sampling by URL, against a real process of ours that speaks the format and plants each fault."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chat_server import said
from commands import COMMAND, environment
from typer.testing import CliRunner

import bench.cli  # noqa: F401
from bench.cli.app import app
from bench.data.load import load_candidates, load_prompts
from bench.prefer.customise import row_number
from bench.prefer.resumed import Sampling
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring import asking
from bench.sources import Served
from bench.verbs.sample import sample_served

pytest.importorskip("openai")

WISH = Sampling(n=3, temperature=0.5, max_new_tokens=7)
WORDS = ("one", "two", "three", "four", "five")


class Running:
    """The server's process."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).parents[1] / "chat_server.py")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def plant(self, fault: str, after: int = 0) -> None:
        data = json.dumps({"fault": fault, "after": after}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/fault", data=data)).read()

    def heard(self) -> dict:
        return json.load(urllib.request.urlopen(f"{self.url}/seen"))


@pytest.fixture(scope="module")
def server():
    running = Running()
    yield running
    running.process.kill()
    running.process.stdout.close()
    running.process.wait()


@pytest.fixture
def sample(server, tmp_path, monkeypatch):
    """Samples with a fault, which begins after some questions; returns the lines."""
    monkeypatch.setattr(asking, "FIRST_WAIT_S", 0.01)
    rows = [{"id": word, "prompt": f"Say {word}"} for word in WORDS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load_prompts(str(tmp_path / "prompts.jsonl"))

    def call(fault: str = "", after: int = 0, *, wish: Sampling = WISH, **fields: object) -> list[dict]:
        server.plant(fault, after)
        source = Served(**({"url": server.url, "model": "tiny", "retries": 2} | fields))
        sample_served(dataset, source, wish, out=tmp_path / "out.jsonl")
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    return call


def seed(word: str, number: int = 0) -> int:
    return (row_number(word, seed=0) + number) % 2**31


EXPECTED = [
    {"id": word, "prompt": [{"role": "user", "content": f"Say {word}"}],
     "candidates": [said(word, seed(word), i) for i in range(3)], "finish_reasons": ["stop", "length", "stop"]}
    for word in WORDS
]  # fmt: skip


def test_each_prompt_is_asked_once_for_all_responses_and_cut_ones_are_marked(sample, server, tmp_path, capsys):
    assert sample() == EXPECTED
    assert len(server.heard()["seen"]) == 5
    assert "5 of 15 responses are cut at 7 tokens" in capsys.readouterr().err
    told = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    shown = {name: told[name] for name in ("server", "answering_model", "model_id", "url", "n_cut", "takes_n")}
    assert shown == {
        "server": "chat/1.2", "answering_model": "tiny", "model_id": "tiny", "url": server.url, "n_cut": 5,
        "takes_n": True,
    }  # fmt: skip


@pytest.mark.parametrize("fault", ["ignores n", "refuses n", "refuses n and seed"])
def test_a_server_that_gives_one_response_is_asked_for_each(sample, server, fault, capsys):
    found = sample(fault)
    seeds = [[seed(word, i) for i in range(3)] for word in WORDS]
    if fault == "refuses n and seed":
        seeds = [[None] * 3] * 5
        assert "takes no seed" in capsys.readouterr().err
    assert [line["candidates"] for line in found] == [
        [said(word, s, 0) for s in of] for word, of in zip(WORDS, seeds, strict=True)
    ]
    assert len(server.heard()["seen"]) == 15 + {"refuses n": 1, "refuses n and seed": 2}.get(fault, 0)


def test_half_of_a_surrogate_pair_is_a_replacement_character(sample):
    found = sample("half a pair")
    assert [line["candidates"][0] for line in found] == ["a\ufffd b\ufffd 😀"] * 5
    assert [line["candidates"][1:] for line in found] == [line["candidates"][1:] for line in EXPECTED]


@pytest.mark.parametrize(
    "fault", ["busy once", "broken once", "slow", "half once", "told busy once", "breaks off once"]
)
def test_a_server_that_fails_for_a_moment_is_asked_again(sample, fault):
    assert sample(fault, after=2) == EXPECTED


def test_several_questions_are_under_way_at_once_but_no_more_than_said(sample, server):
    sample("slow", concurrency=2)
    assert server.heard()["most"] == 2


@pytest.mark.parametrize(("fault", "kind", "words"), [
    ("busy", DrsowError, "the server answered 429 (planted 429) 3 times; run the command again"),
    ("broken", DrsowError, "the server answered 500 (planted 500) 3 times; run the command again"),
    ("half", PreconditionError, "cannot be reached"),
    ("token", PreconditionError, "the server answered 401 (wrong key Bearer ***); set DRSOW_SERVER_TOKEN"),
    # The words are cut inside of the key.
    ("token far", PreconditionError, "Bearer ***); set DRSOW_SERVER_TOKEN"),
    ("moved", DrsowError, "answered 307 (planted 307) and names another address; write that address into --url"),
    ("missing", DrsowError, "the server answered 404 (The model does not exist); check --url and --model"),
    ("long", DrsowError, "the server answered 400 (planted 400); check --url and --model"),
    ("told", DrsowError, "the server answered 200 (planted words); check --url and --model"),
    ("told busy", DrsowError, "the server answered 429 (planted 429) 3 times; run the command again"),
    ("breaks off", DrsowError, "the server answered 502 (planted 502) 3 times; run the command again"),
    ("other parts", DrsowError, "in another format than chat completions (TypeError: content is dict); check --url"),
    ("page", DrsowError, "the server answers in another format than chat completions"),
    ("nested", DrsowError, "the server answers in another format than chat completions (RecursionError"),
    ("other model", DrsowError, "another model than before answers: 'other', not 'tiny'"),
])  # fmt: skip
def test_what_stops_a_run_is_one_line_and_loses_nothing(sample, server, tmp_path, monkeypatch, fault, kind, words):
    monkeypatch.setenv("DRSOW_SERVER_TOKEN", "sekret")
    with pytest.raises(kind) as stopped:
        sample(fault, after=2, concurrency=1)
    assert words in str(stopped.value)
    assert "\n" not in str(stopped.value) and "sekret" not in str(stopped.value)
    assert str(stopped.value).partition(":")[0] in WORDS
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 2
    assert not any("sekret" in path.read_text() for path in tmp_path.iterdir())
    assert sample() == EXPECTED
    assert len(server.heard()["seen"]) == 3
    assert {each["authorization"] for each in server.heard()["seen"]} == {"Bearer sekret"}


@pytest.mark.parametrize("noted", [True, False])
def test_a_stopped_run_is_not_continued_with_another_model(sample, tmp_path, noted):
    with pytest.raises(DrsowError, match="planted 400"):
        sample("long", after=2, concurrency=1)
    note = tmp_path / "out.jsonl.settings.json"
    told = json.loads(note.read_text())
    assert told["answering_model"] == "tiny"
    if noted:
        with pytest.raises(DrsowError, match="another model than before answers: 'other', not 'tiny'; start"):
            sample("other model")
        assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 2
    else:
        # As an earlier version of drsow left it.
        note.write_text(json.dumps({name: told[name] for name in told if name != "answering_model"}))
    assert sample() == EXPECTED
    assert json.loads(note.read_text())["answering_model"] == "tiny"


def test_a_manifest_that_a_killed_run_did_not_write_is_written_by_the_next_one(sample, server, tmp_path):
    sample()
    record = tmp_path / "out.jsonl.manifest.json"
    first = record.read_bytes()
    assert sample() == EXPECTED and record.read_bytes() == first
    record.unlink()
    assert sample() == EXPECTED and server.heard()["seen"] == []
    told = json.loads(record.read_text())
    assert (told["answering_model"], told["n_responses"], told["n_cut"]) == ("tiny", 15, 5)


def test_without_a_token_no_header_is_sent(sample, server, monkeypatch):
    monkeypatch.delenv("DRSOW_SERVER_TOKEN", raising=False)
    sample()
    assert {each["authorization"] for each in server.heard()["seen"]} == {""}


def test_a_model_that_the_server_has_not_is_refused_with_those_that_it_has(sample, capsys):
    with pytest.raises(DrsowError, match=r"the server has no model 'big', but tiny, and 'loaded' answers in its place"):
        sample("own name", model="big")
    # A server may load a model that it does not list.
    assert len(sample(model="big")) == 5
    assert "does not list a model 'big', but tiny" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["no list", "nested list"])
def test_a_server_without_a_list_of_models_can_answer(sample, fault):
    assert sample(fault) == EXPECTED


def test_the_names_of_a_servers_models_reach_stderr_without_control_characters(sample, capsys):
    sample("rude list")
    said = capsys.readouterr().err
    assert "does not list a model 'tiny', but " in said and all(c.isprintable() or c == "\n" for c in said)


def test_empty_responses_and_their_reasons_are_left_out(sample):
    found = sample("empty")
    assert [line["candidates"] for line in found] == [line["candidates"][1:] for line in EXPECTED]
    assert {tuple(line["finish_reasons"]) for line in found} == {("length", "stop")}


def test_of_a_response_in_parts_the_text_is_taken_without_the_thinking(sample):
    assert sample("parts") == EXPECTED


def test_responses_that_are_cut_before_they_have_text_are_counted(sample, tmp_path, capsys):
    assert sample("only thinks") == []
    assert "tiny: 15 of 15 responses are cut at 7 tokens" in capsys.readouterr().err
    told = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert (told["n_responses"], told["n_cut"], told["finish_reasons"]) == (15, 15, {"length": 15})


def test_responses_that_end_for_another_reason_are_counted_by_it(sample, tmp_path, capsys):
    assert [line["finish_reasons"] for line in sample("filters")] == [["content_filter", "length", "stop"]] * 5
    assert "5 of 15 responses may not be whole: their finish_reason is 'content_filter'" in capsys.readouterr().err
    told = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["finish_reasons"]
    assert told == {"content_filter": 5, "length": 5, "stop": 5}


def test_an_address_that_ends_in_the_version_is_taken_as_it_is(sample, server):
    assert sample(url=f"{server.url}/v1/") == EXPECTED


def test_a_killed_command_goes_on_and_annotate_reads_its_file(server, tmp_path):
    rows = [{"id": i, "prompt": f"Say {i}"} for i in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["sample", "--url", server.url, "--model", "tiny", "--prompts", tmp_path / "prompts.jsonl", "--n", "3"]
    words += ["--temperature", "0.5", "--max-new-tokens", "7", "--concurrency", "1"]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    server.plant("")
    command = [COMMAND, *map(str, words), "--out"]
    done = subprocess.run([*command, whole], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (0, f"{whole}\n"), done.stderr
    server.plant("stuck", after=3)
    process = subprocess.Popen([*command, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    partial = tmp_path / "out.jsonl.partial"
    until = time.monotonic() + 300
    while time.monotonic() < until and not (partial.exists() and len(partial.read_bytes().splitlines()) == 3):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    server.plant("")
    assert subprocess.run([*command, out], capture_output=True, env=environment(), check=False).returncode == 0
    assert len(server.heard()["seen"]) == 3
    assert out.read_bytes() == whole.read_bytes()
    # What `drsow annotate --candidates` reads.
    found = load_candidates(str(out))
    assert [len(example.responses) for example in found.examples] == [3] * 6


def test_each_setting_is_that_of_the_option_of_its_name(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("bench.verbs.sample.sample_served", lambda _data, _server, wish, out: taken.append(wish))
    (tmp_path / "prompts.jsonl").write_text('{"id": 1, "prompt": "Say 1"}\n')
    words = ["--url", "http://127.0.0.1:1", "--model", "tiny", "--prompts", str(tmp_path / "prompts.jsonl")]
    words += ["--n", "2", "--temperature", "0.3", "--top-p", "0.4", "--max-new-tokens", "5", "--seed", "6"]
    assert CliRunner().invoke(app, ["sample", *words, "--out", str(tmp_path / "out.jsonl")]).exception is None
    assert taken == [Sampling(n=2, temperature=0.3, top_p=0.4, max_new_tokens=5, seed=6)]


@pytest.mark.parametrize(("words", "line"), [
    (["--concurrency", "2"], "--concurrency is for a model on a server"),
    (["--url", "http://127.0.0.1:1", "--dtype", "fp32"], "--url: a server computes, without --dtype"),
    (["--url", "http://me@127.0.0.1:1"], "is no http or https address without user"),
])  # fmt: skip
def test_options_that_do_nothing_and_wrong_addresses_are_one_line(words, line, tmp_path):
    result = CliRunner().invoke(app, ["sample", "--model", "tiny", "--prompts", "x", "--out", str(tmp_path), *words])
    assert isinstance(result.exception, UsageError) and line in str(result.exception)
