"""Models on a server: three formats of a process of ours, planted faults, and a run that stops and goes on.

The process (recorded_server.py) answers in the formats of vLLM, SGLang and llama-cpp-python; it is none of them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from chat_templates import CHATML
from commands import COMMAND, environment, rows, write_rows
from recorded_server import nats
from tiny_tokenizers import byte_level, sentence_piece

import bench
from bench.data.load import load_data
from bench.registry import load_registry
from bench.schema import Dataset, DrsowError, Example, Message, PreconditionError, UsageError
from bench.scoring import asking, passes, run, wire
from bench.scoring.asking import ask, complaint
from bench.scoring.served import ServedScorer, scorer_of
from bench.sources import FolderSource, HubSource, UrlSource
from bench.store.folder import Store
from bench.subject import Subject
from bench.verbs.perform import Speech, measure_preferences
from bench.verbs.score import compared, completed, score_all
from bench.verbs.session import open_session

OPTIONS = passes.resolved("fp32", "cpu", 2)  # several parts
ROWS = tuple(
    Example(f"s/{i}", "s", (Message("user", f"{i}?"),), (("chosen", f"yes {i}"), ("rejected", "no"))) for i in range(12)
)


class Process:
    """A server process and how to plant a fault in it."""

    def __init__(self, kind: str, tokenizer: Path, port: int = 0) -> None:
        script = Path(__file__).parents[1] / "recorded_server.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), kind, str(tokenizer), str(port)], stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def plant(self, fault: str, after: int = 0) -> None:
        body = json.dumps({"fault": fault, "after": after}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/fault", data=body)).read()

    def seen(self) -> dict:
        return json.loads(urllib.request.urlopen(f"{self.url}/seen").read())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    made = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    made.chat_template = CHATML
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["vllm", "sglang", "openai-echo"])
def any_server(request, tokenizer) -> Iterator[tuple[str, Process]]:
    process = Process(request.param, tokenizer)
    yield request.param, process
    process.end()


@pytest.fixture(scope="module")
def shared(tokenizer) -> Iterator[Process]:
    process = Process("vllm", tokenizer)
    yield process
    process.end()


@pytest.fixture
def vllm(shared) -> Process:
    shared.plant("")
    return shared


def ready(folder: Path, kind: str, url: str, *, context: int = 512, **more: object) -> passes.Ready:
    """The pass of a model on a server over ROWS."""
    fields = {"url": url, "model": "tiny", "kind": kind, "tokenizer": "tokenizer", "retries": 1, **more}
    source = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    entry = f'[[models]]\nmodel_id = "served"\nsource = {{ {source} }}\nformat = "server"\nmethod = "sft"\n'
    (folder / "models.toml").write_text(entry + f"context_tokens = {context}\n")
    spec = load_registry(folder).model("served")
    return passes.make_ready(passes.Work(spec, spec, Dataset("d", "d", "d", ROWS)), OPTIONS)


@pytest.fixture
def place(tmp_path, tokenizer) -> Path:
    """A registry's folder, with the tokenizer beside the file."""
    (tmp_path / "tokenizer").symlink_to(tokenizer)
    return tmp_path


def test_each_formats_numbers_are_those_of_the_ids_that_drsow_sent(any_server, place):
    kind, process = any_server
    process.plant("")
    job = ready(place, kind, process.url)
    scores = run.score_missing(job, Store(place / "results"), OPTIONS).read().set_index(["example_id", "response_id"])
    scorer = scorer_of(job, OPTIONS)
    assert isinstance(scorer, ServedScorer)
    for s in scorer.rendered(ROWS).sequences:
        ids = s.ids.tolist()
        expected = [nats(ids[i - 1], ids[i]) for i in range(s.start, len(ids))]
        row = scores.loc[(s.example_id, s.response_id)]
        assert row["logp_sum_nats"] == pytest.approx(sum(expected[:-1]))
        assert row["logp_end_nats"] == pytest.approx(expected[-1])
        assert (row["n_tokens"], row["status"]) == (len(expected), "ok")
    version = {"vllm": "vllm-0.12.0", "sglang": "sglang-0.5.6", "openai-echo": "openai-echo-0.3.36"}[kind]
    assert (job.key.ops, job.key.attention, job.key.dtype) == (version, kind, "bfloat16")


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_adapter_of_a_server_has_its_own_numbers_and_the_limit_of_its_base(kind, tokenizer, place):
    process = Process(kind, tokenizer)
    process.plant("adapter")
    for model, shift in (("tiny", 0.0), ("ad", 0.5)):
        scorer = scorer_of(ready(place, kind, process.url, model=model, context=4096), OPTIONS)
        found = scorer.examples_logps(ROWS[:1])[0]
        for s, logps in zip(scorer.rendered(ROWS[:1]).sequences, found, strict=True):
            ids = s.ids.tolist()
            assert logps.tolist() == pytest.approx([nats(ids[i - 1], ids[i], shift) for i in range(s.start, len(ids))])
        assert scorer.limit == 2048
    process.end()


def test_another_context_is_another_score_set(shared, place):
    shared.plant("")
    assert ready(place, "vllm", shared.url).key != ready(place, "vllm", shared.url, context=1024).key


FAULTS = {
    "cuts": "cuts a text|read .* tokens",
    "adds BOS": "adds a BOS token",
    "other ids": "reads other tokens than drsow sent",
    "clamps": "clamps log-probabilities at -9999",
    "chance": "computes chance values: -20.* nats per token",
    "no number": "returns log-probabilities that are no numbers",
    "no numbers": "it does not compute a prompt's log-probabilities",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_preflight_refuses_a_server_that(any_server, place, fault):
    kind, process = any_server
    process.plant(fault)
    job = ready(place, kind, process.url)
    with pytest.raises(PreconditionError, match=FAULTS[fault]) as error:
        scorer_of(job, OPTIONS).load()
    assert str(error.value).startswith(f"served: the server at {process.url} ")
    assert "\n" not in str(error.value)


def test_the_preflight_refuses_a_server_that_changes_its_model(any_server, place):
    kind, process = any_server
    process.plant("other model", after=1)  # between the preflight's two questions
    job = ready(place, kind, process.url)
    with pytest.raises(PreconditionError, match="gives other numbers when it is asked again"):
        scorer_of(job, OPTIONS).load()


def test_llama_cpps_own_server_is_refused(vllm, place):
    vllm.plant("llama.cpp")
    with pytest.raises(PreconditionError, match="own server cannot return prompt log-probabilities"):
        ready(place, "vllm", vllm.url)


def test_a_model_that_the_server_does_not_have_is_refused_with_those_that_it_has(vllm, place):
    with pytest.raises(PreconditionError, match="the server has no model 'other', but tiny"):
        ready(place, "vllm", vllm.url, model="other")


@pytest.mark.parametrize("fault", ["odd list", "endless context"])
def test_a_list_of_models_in_another_form_is_one_line(vllm, place, fault):
    vllm.plant(fault)
    with pytest.raises(DrsowError, match=r"^http\S+: the server answers in another format than vllm \(.*models.toml$"):
        ready(place, "vllm", vllm.url)


def test_an_answer_that_nests_too_deeply_is_one_line(vllm, place):
    vllm.plant("nested")
    source = UrlSource(url=vllm.url, model="tiny", kind="vllm", tokenizer="a/b")
    with pytest.raises(DrsowError, match=r"^http\S+/v1/models: the server answered no JSON: '\[\[\[\[[^\n]*$"):
        ready(place, "vllm", vllm.url)
    assert complaint(source, "[" * 100_000 + "]" * 100_000) == "[" * 200


def test_a_servers_words_reach_stderr_without_control_characters(vllm, place, capsys):
    vllm.plant("odd version")
    job = ready(place, "vllm", vllm.url)
    run.score_missing(job, Store(place / "out"), OPTIONS)
    said = capsys.readouterr().err
    assert "0.12" in said and all(c.isprintable() or c == "\n" for c in said)


@pytest.mark.parametrize("kind", ["bytes", "legacy"])
def test_spaces_and_characters_of_several_tokens_reach_a_server_that_takes_text(kind, tmp_path):
    special = ["<|im_start|>", "<|im_end|>"]
    made = (
        byte_level(eos="<|im_end|>", special=special) if kind == "bytes" else sentence_piece(kind=kind, special=special)
    )
    made.chat_template = CHATML
    made.save_pretrained(tmp_path / "tokenizer")
    process = Process("openai-echo", tmp_path / "tokenizer")
    job = ready(tmp_path, "openai-echo", process.url)
    row = Example("s/0", "s", (Message("user", "the two 😀?"),), (("chosen", "日本 😀"), ("rejected", "no")))
    scorer = scorer_of(job, OPTIONS)
    found = scorer.examples_logps([row])[0]
    process.end()
    for s, logps in zip(scorer.rendered([row]).sequences, found, strict=True):
        ids = s.ids.tolist()
        assert logps.tolist() == pytest.approx([nats(ids[i - 1], ids[i]) for i in range(s.start, len(ids))])


def test_a_server_that_gives_a_token_the_number_of_the_next_one_is_refused(tokenizer, place):
    process = Process("openai-echo", tokenizer)
    process.plant("no BOS")
    with pytest.raises(PreconditionError, match="gives every token the number of the next one"):
        scorer_of(ready(place, "openai-echo", process.url), OPTIONS).load()
    process.end()


ECHOED = wire.Text([7, 3, 7, 4, 5, 6], 4, "<s>a<s> bc<e>", ["<s>", "a", "<s>", " b", "c", "<e>"], frozenset({6, 7}))
"""The response is "c" and the end of turn; the BOS is there twice."""


@pytest.mark.parametrize(
    ("tokens", "values"),
    [
        # OpenAI's format: every token, then the generated one, with or without the names of special tokens.
        (["<s>", "a", "<s>", " b", "c", "<e>", "x"], [None, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]),
        (["", "a", "", " b", "c", "", "x"], [None, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]),
        # llama-cpp-python's: no BOS at all, and an end that is generated is not listed.
        (["a", " b", "c", "", "x"], [None, -3.0, -4.0, -5.0, -6.0]),
        (["a", " b", "c", ""], [None, -3.0, -4.0, -5.0]),
    ],
)
def test_an_echo_lists_every_token_or_all_but_the_bos(tokens, values):
    choice = {"logprobs": {"tokens": tokens, "token_logprobs": values}, "finish_reason": "length"}
    answer = {"choices": [choice], "usage": {"prompt_tokens": 6}}
    assert wire.FORMATS["openai-echo"].logps(answer, ECHOED).tolist() == [-4.0, -5.0]


def test_an_echo_without_the_first_tokens_placeholder_is_refused():
    # Each number would be taken for that of the token before it.
    tokens, values = ["<s>", "a", "<s>", " b", "c", "<e>", "x"], [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    choice = {"logprobs": {"tokens": tokens, "token_logprobs": values}, "finish_reason": "length"}
    with pytest.raises(wire.WireError, match="returns 6 log-probabilities for the 7 tokens that it lists"):
        wire.FORMATS["openai-echo"].logps({"choices": [choice], "usage": {"prompt_tokens": 6}}, ECHOED)


def test_two_models_in_turn_have_one_preflight_each(vllm, place):
    job = ready(place, "vllm", vllm.url)
    first, second = (scorer_of(job, OPTIONS) for _ in range(2))
    for scorer in (first, second):
        scorer.load()
    before = len(vllm.seen()["authorization"])
    for scorer in (first, second, first):
        scorer.examples_logps(ROWS[:1])
    # Two responses each, and the preflight's text once behind them.
    assert len(vllm.seen()["authorization"]) - before == 3 * 3


def test_a_wrong_kind_is_refused(vllm, place):
    with pytest.raises(DrsowError, match=r"answered 404 \(no such path\); check `url`, `model` and `kind`"):
        ready(place, "sglang", vllm.url)


@pytest.mark.parametrize("fault", ["busy once", "broken once"])
def test_a_server_that_is_busy_or_broken_once_is_asked_again(vllm, place, fault):
    job = ready(place, "vllm", vllm.url)
    vllm.plant(fault, after=5)
    assert run.score_missing(job, Store(place / "results"), OPTIONS).complete


@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
def test_a_busy_server_is_asked_again_no_sooner_than_it_says(name):
    asked_s = []

    class Busy(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked_s.append(time.monotonic())
            self.send_response(429 if len(asked_s) == 1 else 200)
            self.send_header(name, "1.2")
            self.end_headers()
            self.wfile.write(b"{}")

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        ask(UrlSource(url=url, model="m", kind="vllm", tokenizer="a/b", retries=1), "/v1/models")
        server.shutdown()
    assert asked_s[1] - asked_s[0] >= 1.2


@contextlib.contextmanager
def answering(status: int, answer: Callable[[str], Iterable[bytes]]) -> Iterator[UrlSource]:
    """A server whose answer to each question is made of the header Authorization."""

    class Fixed(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(OSError):  # drsow hangs up.
                for piece in answer(self.headers.get("Authorization", "")):
                    self.wfile.write(piece)

    with HTTPServer(("127.0.0.1", 0), Fixed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield UrlSource(url=url, model="m", kind="vllm", tokenizer="a/b", retries=0, timeout_s=1)
        server.shutdown()


@pytest.mark.parametrize(("status", "form"), [
    (401, "wrong key {}"), (500, "{}"), (200, "a page for {}"),
    # The places where the words are cut.
    (401, "x" * 190 + "{}"), (200, "x" * 60 + "{}"),
])  # fmt: skip
def test_a_token_that_the_server_repeats_is_not_told(status, form, monkeypatch):
    monkeypatch.setenv("DRSOW_SERVER_TOKEN", "very-secret-token\n")

    def words(header: str) -> list[bytes]:
        assert header == "Bearer very-secret-token"
        return [form.format(header).encode()]

    with answering(status, words) as source, pytest.raises(DrsowError, match=r"Bearer|x{60}") as told:
        ask(source, "/v1/models")
    assert "very" not in str(told.value)


@pytest.mark.parametrize(
    ("status", "words"), [(200, r"cannot be reached \(no whole answer in 1 s\)"), (400, "400; check")]
)
def test_a_server_that_answers_a_byte_at_a_time_is_given_up_after_the_timeout(status, words):
    def drip(_: str) -> Iterator[bytes]:
        for _ in range(40):
            yield b" "
            time.sleep(0.1)

    began = time.monotonic()
    with answering(status, drip) as source, pytest.raises(DrsowError, match=words):
        ask(source, "/v1/models")
    assert time.monotonic() - began < 3


def test_an_answer_without_an_end_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(asking, "LONGEST_ANSWER_BYTES", 1000)
    long = answering(200, lambda _: [b"x" * 1001])
    with long as source, pytest.raises(DrsowError, match=r"the server's answer is longer than 1 kB; check `url`"):
        ask(source, "/v1/models")


def test_a_token_that_no_header_can_hold_is_not_told(monkeypatch):
    monkeypatch.setenv("DRSOW_SERVER_TOKEN", "very\nsecret")
    source = UrlSource(url="http://127.0.0.1:1", model="m", kind="vllm", tokenizer="a/b")
    with pytest.raises(PreconditionError, match=r"^DRSOW_SERVER_TOKEN: has a character .* set it to") as told:
        ask(source, "/v1/models")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("busy", r"answered 429 \(planted 429\) 2 times; run the command again"),
        ("broken", r"answered 500 \(planted 500\) 2 times"),
        ("bad", r"^served \(s/\d+, response \w+\): http\S+: the server answered 400 \(planted 400\); check `url`"),
        ("long", r"^served \(s/\d+, response \w+\): .* length is 41 tokens.\); lower `context_tokens` of the model in"),
        ("half", "the answer broke off"),
        ("no http", "the answer broke off"),
        ("other model", "has another model than before"),
        ("other ids", r"reads other tokens than drsow sent.*\(s/\d+, response"),
    ],
)
def test_a_server_that_fails_in_the_middle_loses_no_part_and_the_run_goes_on(vllm, place, fault, words):
    job, store = ready(place, "vllm", vllm.url, concurrency=1), Store(place / "results")
    vllm.plant(fault, after=14)
    with pytest.raises(DrsowError, match=words):
        run.score_missing(job, store, OPTIONS)
    score_set = store.score_set(job.key)
    kept = {path.name: path.stat().st_mtime_ns for path in score_set.folder.glob("part-*")}
    assert kept and not score_set.complete
    vllm.plant("")
    assert run.score_missing(job, store, OPTIONS).complete
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in score_set.folder.glob("part-*")}.items()
    whole = run.score_missing(job, Store(place / "whole"), OPTIONS).read()
    assert score_set.read().equals(whole)


def test_a_server_that_dies_in_the_middle_is_one_line_and_its_successor_goes_on(tokenizer, place):
    first, store = Process("vllm", tokenizer), Store(place / "results")
    job = ready(place, "vllm", first.url, concurrency=1)
    first.plant("dies", after=14)
    with pytest.raises(PreconditionError, match=r"cannot be reached .*start the server and run the command again") as e:
        run.score_missing(job, store, OPTIONS)
    assert "\n" not in str(e.value)
    first.end()
    kept = stored_parts(store, job)
    assert kept
    successor = Process("vllm", tokenizer, int(first.url.rpartition(":")[2]))
    assert run.score_missing(job, store, OPTIONS).complete
    assert kept.items() <= stored_parts(store, job).items()
    whole = run.score_missing(job, Store(place / "whole"), OPTIONS).read()
    successor.end()
    assert store.score_set(job.key).read().equals(whole)


def stored_parts(store: Store, job: passes.Ready) -> dict[str, int]:
    """The parts of a score set, each with the time when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in store.score_set(job.key).folder.glob("part-*")}


def test_a_server_that_is_stuck_in_the_middle_loses_no_part_and_the_run_goes_on(vllm, place):
    job, store = ready(place, "vllm", vllm.url, concurrency=1, timeout_s=1, retries=0), Store(place / "results")
    vllm.plant("stuck", after=14)
    with pytest.raises(PreconditionError, match=r"cannot be reached \(timed out\); start the server and run the comm"):
        run.score_missing(job, store, OPTIONS)
    kept = stored_parts(store, job)
    vllm.plant("")
    assert kept and run.score_missing(job, store, OPTIONS).complete
    assert kept.items() <= stored_parts(store, job).items()


def test_a_killed_run_by_url_goes_on(vllm, place):
    data = write_rows(place / "rows.jsonl", rows(12))
    job = ready(place, "vllm", vllm.url)
    entry = (place / "models.toml").read_text()
    (place / "models.toml").write_text(entry + entry.replace('"served"', '"twin"'))
    (place / "pairs.toml").write_text('[[pairs]]\npair_id = "both"\nstrong = "served"\nweak = "twin"\n')
    store = Store(place / "results")
    words = ["run", "--registry", place, "--pair", "both", "--data", data, "--results", store.root, "--device", "cpu"]
    command = [COMMAND, *map(str, words), "--batch-tokens", "2"]
    variables = environment(DRSOW_CRASH_AT="after-rename:part-0001")
    killed = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert killed.returncode == 137, killed.stderr
    job = passes.make_ready(passes.Work(job.work.spec, job.work.spec, load_data(str(data))), OPTIONS)
    kept = stored_parts(store, job)
    assert kept and not store.score_set(job.key).complete
    found = run.score_missing(job, store, OPTIONS).read()
    assert kept.items() <= stored_parts(store, job).items()
    assert found.equals(run.score_missing(job, Store(place / "whole"), OPTIONS).read())


def test_a_run_does_not_go_on_with_another_model_under_the_same_name(vllm, place):
    job, store = ready(place, "vllm", vllm.url, concurrency=1), Store(place / "results")
    vllm.plant("broken", after=14)
    with pytest.raises(DrsowError, match="500"):
        run.score_missing(job, store, OPTIONS)
    vllm.plant("other model")
    with pytest.raises(DrsowError, match="has another model than before"):
        run.score_missing(job, store, OPTIONS)


def test_a_run_does_not_go_on_under_another_limit_of_the_server(vllm, place):
    # Under the smaller limit some responses are too long, and under the larger one none is.
    job, store = ready(place, "vllm", vllm.url, concurrency=1, context=4096), Store(place / "results")
    vllm.plant("broken", after=14)
    with pytest.raises(DrsowError, match="500"):
        run.score_missing(job, store, OPTIONS)
    vllm.plant("short context")
    with pytest.raises(DrsowError, match=r"now allows 40 tokens per text, but 2,048 when this set was begun\. Start"):
        run.score_missing(job, store, OPTIONS)
    vllm.plant("")
    assert run.score_missing(job, store, OPTIONS).complete


def test_a_complete_set_is_not_taken_for_another_model_under_the_same_name(vllm, place):
    job, store = ready(place, "vllm", vllm.url), Store(place / "results")
    stored = run.score_missing(job, store, OPTIONS).read()
    assert run.score_missing(job, store, OPTIONS).read().equals(stored)
    vllm.plant("other model")
    with pytest.raises(DrsowError, match=r"^served: the server at \S+ has another model than before"):
        run.score_missing(job, store, OPTIONS)
    vllm.plant("")
    assert run.score_missing(job, store, OPTIONS).read().equals(stored)


def test_a_pair_whose_server_has_another_model_now_is_an_error_and_has_no_score(vllm, place):
    job = ready(place, "vllm", vllm.url)
    entry = (place / "models.toml").read_text()
    (place / "models.toml").write_text(entry + entry.replace('"served"', '"twin"'))
    (place / "pairs.toml").write_text('[[pairs]]\npair_id = "both"\nstrong = "served"\nweak = "twin"\n')
    known = load_registry(place)
    session = open_session(known, dtype="fp32", device="cpu", results=place / "results")
    pair = [Subject("both", (known.pair("both"),))]
    assert len(score_all(session, pair, job.work.dataset)[0]) == 2
    vllm.plant("other model")
    found, (error,), code = score_all(session, pair, job.work.dataset)
    assert (found, code) == ({}, 1)
    assert error.startswith(f"served: the server at {vllm.url} has another model than before")


def test_stored_scores_are_used_if_the_server_cannot_be_reached(vllm, tokenizer, place, capsys, monkeypatch):
    process = Process("vllm", tokenizer)
    job = ready(place, "vllm", process.url, retries=2)
    entry = (place / "models.toml").read_text()
    (place / "models.toml").write_text(entry + entry.replace('"served"', '"twin"').replace(process.url, vllm.url))
    (place / "pairs.toml").write_text('[[pairs]]\npair_id = "both"\nstrong = "served"\nweak = "twin"\n')
    known = load_registry(place)
    session = open_session(known, dtype="fp32", device="cpu", results=place / "results")
    pair, data = [Subject("both", (known.pair("both"),))], job.work.dataset
    stored = score_all(session, pair, data)[0]["served", "served"].read()
    process.end()
    capsys.readouterr()
    waits = []
    monkeypatch.setattr(asking.time, "sleep", waits.append)
    found, errors, _ = score_all(session, pair, data)
    assert waits == []
    assert found["served", "served"].read().equals(stored) and not errors
    said = [line for line in capsys.readouterr().err.splitlines() if "not checked" in line]
    assert len(said) == 1 and said[0].startswith(f"served: {process.url} cannot be reached (")
    # perform and route ask for the same scores.
    assert len(measure_preferences(session, Speech("served"), data, out=None).table)
    assert completed(session, compared(session, job.work)).key == found["served", "served"].key
    # Rows that are not stored need the server.
    _, (error,), code = score_all(session, pair, data._replace(digest="other"))
    assert "cannot be reached" in error and code == PreconditionError.code
    assert len(waits) == 2


def test_a_slow_server_is_asked_several_questions_at_once(vllm, place):
    job = ready(place, "vllm", vllm.url, concurrency=4)
    scorer = scorer_of(job, OPTIONS)
    scorer.load()
    vllm.plant("slow")
    scorer.examples_logps(ROWS[:4])
    assert vllm.seen()["most"] > 1


def test_ctrl_c_does_not_wait_for_a_slow_server(vllm, place):
    scorer = scorer_of(ready(place, "vllm", vllm.url), OPTIONS)
    scorer.load()
    vllm.plant("stuck")  # for six seconds
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            scorer.examples_logps(ROWS[:4])
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 4


def test_a_server_that_never_answers_is_given_up_after_the_timeout(vllm, place):
    job = ready(place, "vllm", vllm.url, timeout_s=3, retries=0)
    vllm.plant("stuck")
    with pytest.raises(PreconditionError, match=r"cannot be reached .*timed out"):
        scorer_of(job, OPTIONS).load()


def test_the_token_comes_from_the_environment_and_is_in_no_file(vllm, place, monkeypatch):
    monkeypatch.setenv("MY_SERVER", "very-secret")
    job = ready(place, "vllm", vllm.url, token_env="MY_SERVER")
    run.score_missing(job, Store(place / "results"), OPTIONS)
    assert vllm.seen()["authorization"][-1] == "Bearer very-secret"
    assert not any(b"very-secret" in p.read_bytes() for p in (place / "results").rglob("*") if p.is_file())


def test_a_row_longer_than_the_servers_context_is_too_long(vllm, place):
    job = ready(place, "vllm", vllm.url)
    long = Example("s/long", "s", (Message("user", "x" * 600),), (("chosen", "a"), ("rejected", "b")))
    work = job.work._replace(dataset=Dataset("d", "d", "other", (*ROWS, long)))
    job = job._replace(work=work, key=job.key._replace(data_digest="other"))
    scores = run.score_missing(job, Store(place / "results"), OPTIONS).read().set_index("example_id")
    assert scores.loc["s/long", "status"].tolist() == ["too_long", "too_long"]
    assert scores["status"].eq("ok").sum() == 2 * len(ROWS)


def test_a_clamped_number_in_a_row_is_not_finite():
    logps = wire._checked([-1.0, -9999.0])
    assert logps.tolist() == [-1.0, -float("inf")]


def test_a_pair_on_a_server_gives_rewards_in_python(vllm, place):
    ready(place, "vllm", vllm.url)
    (place / "pairs.toml").write_text('[[pairs]]\npair_id = "both"\nstrong = "served"\nweak = "served"\n')
    with pytest.raises(UsageError, match="is the strong model"):
        bench.reward("both", "7?", ["yes"], registry=place)
    entry = (place / "models.toml").read_text()
    (place / "models.toml").write_text(entry + entry.replace('"served"', '"twin"'))
    (place / "pairs.toml").write_text('[[pairs]]\npair_id = "both"\nstrong = "served"\nweak = "twin"\n')
    assert bench.reward("both", "7?", ["yes", "no"], registry=place) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("url", "ftp://x", "http or https address"),
        ("url", "http://me:secret@host", "http or https address"),
        ("url", "http://host:port", "http or https address"),
        ("kind", "llama.cpp", "kind"),
        ("tokenizer", "nowhere", "hub repository"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_field(place, field, value, words):
    with pytest.raises(UsageError, match=words):
        ready(place, **({"kind": "vllm", "url": "http://127.0.0.1:9"} | {field: value}))


def test_a_tokenizer_on_the_hub_is_no_folder_of_the_same_name_where_drsow_runs(tmp_path, monkeypatch):
    fields = {"url": "http://host", "model": "m", "kind": "vllm"}
    (tmp_path / "me" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "registry"
    assert UrlSource.model_validate(fields | {"tokenizer": "me/mine"}, context=other).files == HubSource(repo="me/mine")
    here = UrlSource.model_validate(fields | {"tokenizer": "me/mine"}, context=tmp_path)
    assert here.files == FolderSource(folder=tmp_path / "me" / "mine")


def test_a_model_on_a_server_is_not_sampled_or_tuned(place, vllm):
    ready(place, "vllm", vllm.url)
    with pytest.raises(UsageError, match="a model on a server can be scored, not sampled or tuned"):
        load_registry(place).policy("served")
