"""`transformers serve` as a chat server, for tests of sampling by URL: what it answers, and what it does not do."""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from servers import RealServer, chat_server

pytestmark = pytest.mark.slow  # pip fetches its packages, and a process starts


@pytest.fixture(scope="module")
def server(tiny_registry, tmp_path_factory) -> Iterator[RealServer]:
    """A server with tiny-strong."""
    started = chat_server(tiny_registry / "strong", tmp_path_factory.mktemp("serve"))
    yield started
    started.end()


def chat(server: RealServer, **more: object) -> dict:
    body = {"model": server.model, "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8, **more}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", data=json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def text(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


def test_equal_seeds_give_equal_texts_and_others_differ(server):
    sampled = {seed: text(chat(server, temperature=1.0, seed=seed)) for seed in range(4)}
    assert {seed: text(chat(server, temperature=1.0, seed=seed)) for seed in range(4)} == sampled
    assert len(set(sampled.values())) > 1


def test_it_gives_one_choice_though_three_are_asked_for(server):
    """So a sampler by URL cannot count on `n`: it asks once for each response."""
    assert len(chat(server, n=3)["choices"]) == 1


def test_it_says_why_a_text_ended(server):
    answer = chat(server, max_tokens=1)
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 1)
