"""The plan: what it counts beside what a run computes, and what it finds in the way."""

import json
import os
import shutil
from pathlib import Path

import pytest
from perf import workloads
from tiny_models import as_of_another_machine

from bench.cli.plan import Gpu
from bench.data.load import load_data
from bench.lookup import Lookup
from bench.registry import load_registry
from bench.schema import Dataset, Example, Message
from bench.scoring import passes, plan, run
from bench.scoring.forward import trie
from bench.scoring.render import Sequence
from bench.store.folder import Store
from bench.study.board import Subject
from bench.verbs.exchange import import_scores
from bench.verbs.plan import GATED, MISSING, NO_SPACE, READY, SCORED, Planner, plan_passes, summary
from bench.verbs.session import Session
from bench.verbs.told import lookup_of

OPTIONS = passes.resolved("bf16", "cpu")
MEASURED = Path(__file__).parents[2] / "results" / "smollm2-over-gemma" / "sample" / "manifest.json"


def planned(known, name: str, dataset: Dataset, folder: Path, options=OPTIONS, lookup: Lookup | None = None):
    planner = Planner(Session(known, Store(folder), options), dataset, lookup or Lookup(options.dtype))
    return plan_passes(planner, [Subject(name, (known.pair(name),))], gpu="h100", cpu_rate=1e12)


def test_unique_bytes_by_hand():
    def row(name: str, prompt: str, *texts: str) -> Example:
        responses = tuple((str(i), text) for i, text in enumerate(texts))
        return Example(name, "", (Message("user", prompt),), responses)

    # "abc" 3, then "abd" adds 1; responses "xy" and "xz" 3, "é" 2 and "é!" one more.
    assert plan.unique_bytes([row("1", "abd", "é!", "é"), row("2", "abc", "xz", "xy")]) == 3 + 1 + 3 + 3


def test_the_count_is_that_of_the_run(tiny_registry, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "default_device", lambda: "cpu")
    known, dataset = load_registry(tiny_registry), load_data("sample", limit_per_subset=1)
    options = passes.Options("float32", "cpu", 256)
    before = planned(known, "tiny", dataset, tmp_path, options).set_index("model_id")
    assert set(before["status"]) == {READY} and set(before["counted"]) == {"tokenizer"}
    for model_id in before.index:
        work = passes.Work(known.model(model_id), known.model("tiny-strong"), dataset)
        score_set = run.score_missing(passes.make_ready(work, options), Store(tmp_path), options)
        assert score_set.info()["n_computed_tokens"] == before.loc[model_id, "tokens"]
    after = planned(known, "tiny", dataset, tmp_path, options)
    assert set(after["status"]) == {SCORED} and after["flop"].sum() == 0


@pytest.mark.parametrize(("auto", "strong"), [("bf16", READY), ("fp32", SCORED)])
def test_only_computed_sets_in_the_dtype_of_the_run_are_scored(tiny_registry, tmp_path, monkeypatch, auto, strong):
    known, dataset = load_registry(tiny_registry), load_data("sample", limit_per_subset=1)
    options = passes.Options("float32", "cpu", 256)
    work = passes.Work(known.model("tiny-strong"), known.model("tiny-strong"), dataset)
    computed = run.score_missing(passes.make_ready(work, options), Store(tmp_path), options)
    file = tmp_path / "scores.csv"
    computed.read().to_csv(file, index=False)
    for dtype in ("bf16", "fp32"):
        import_scores(Store(tmp_path), file, "tiny-weak", "tiny-strong", dataset, dtype=dtype)
    # What "auto" is on this machine.
    monkeypatch.setattr(passes, "default_device", lambda: "cpu")
    monkeypatch.setattr(passes, "default_dtype", lambda _device: auto)
    table = planned(known, "tiny", dataset, tmp_path, options, Lookup()).set_index("model_id")
    assert table["status"].to_dict() == {"tiny-strong": strong, "tiny-weak": READY}


def test_a_set_of_another_arithmetic_is_to_do_here_unless_the_files_are_missing(tiny_registry, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "default_device", lambda: "cpu")
    made = shutil.copytree(tiny_registry, tmp_path / "r")
    known, dataset = load_registry(made), load_data("sample", limit_per_subset=1)
    options, store = passes.Options("float32", "cpu", 256), Store(tmp_path)
    for name in ("tiny-strong", "tiny-weak"):
        work = passes.Work(known.model(name), known.model("tiny-strong"), dataset)
        ready = passes.make_ready(work, options)
        run.score_missing(ready, store, options)
    for each in store.find():
        as_of_another_machine(store, each)
    shutil.rmtree(made / "weak")
    planner = Planner(Session(known, store, options), dataset, lookup_of(known, dtype="fp32"))
    table = plan_passes(planner, [Subject("tiny", (known.pair("tiny"),))], gpu="h100", cpu_rate=None)
    assert table.set_index("model_id")["status"].to_dict() == {"tiny-strong": READY, "tiny-weak": SCORED}
    ((words, names),) = planner.others.items()
    assert words == f"scored by cpu-other, but this machine computes with {ready.key.ops}" and names == ["tiny-strong"]
    assert planner.notes["tiny-weak"].startswith("is missing: ")
    # Without scores it is missing, and its tokens are not known.
    planner = Planner(Session(known, Store(tmp_path / "none"), options), dataset, lookup_of(known, dtype="fp32"))
    table = plan_passes(planner, [Subject("tiny", (known.pair("tiny"),))], gpu="h100", cpu_rate=None)
    weak = table.set_index("model_id").loc["tiny-weak"]
    assert (weak["status"], weak["counted"], weak["download_bytes"]) == (MISSING, "unknown", 0)


def test_the_built_in_rows_are_counted_within_a_hundredth_of_their_run(small_models, tmp_path):
    sets = json.loads(MEASURED.read_text())["score_sets"]
    ran = {each["key"]["model_id"]: each["info"]["n_computed_tokens"] for each in sets}
    table = planned(load_registry(), "smollm2-over-gemma", load_data("sample"), tmp_path).set_index("model_id")
    assert set(table["counted"]) == {"tokenizer"}
    for model_id, n_tokens in ran.items():
        assert table.loc[model_id, "tokens"] == pytest.approx(n_tokens, rel=0.01)


@pytest.mark.slow
def test_bytes_tell_the_tokens_of_rewardbench_within_a_tenth(reward_bench, small_models, tmp_path):
    known, dataset = load_registry(), load_data("reward-bench")
    table = planned(known, "smollm2-over-gemma", dataset, tmp_path).set_index("model_id")
    n_bytes = plan.unique_bytes(dataset.examples)
    for model_id, n_tokens in table["tokens"].items():
        guess = plan.tokens_by_bytes(n_bytes, len(dataset.examples), known.model(model_id).tokens_per_byte)
        print(model_id, guess, n_tokens)
        assert guess == pytest.approx(n_tokens, rel=0.1)


def test_every_gpu_of_the_command_has_a_rate():
    assert set(Gpu) == set(plan.GPUS)


MODELS = """
[[models]]
model_id = "big"
source = { repo = "nobody/big" }
format = "safetensors"
method = "sft"
n_params = 4_000_000_000_000_000
tokens_per_byte = 0.25

[[models]]
model_id = "closed"
source = { repo = "nobody/closed", gated = true }
format = "safetensors"
method = "sft"
n_params = 10
"""


def test_what_is_in_the_way_is_said_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", os.fspath(tmp_path))
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "pairs.toml").write_text('[[pairs]]\npair_id = "mine"\nstrong = "big"\nweak = "closed"\n')
    table = planned(load_registry(tmp_path), "mine", load_data("sample"), tmp_path).set_index("model_id")
    assert table["status"].to_dict() == {"big": NO_SPACE, "closed": GATED}
    assert table["counted"].to_dict() == {"big": "bytes", "closed": "unknown"}
    lines = summary(table.reset_index(), load_data("sample"), gpu="h100", n_pairs=1)
    assert lines[0] == "1 pair, 2 model passes, 2 of them to do (1 no space, 1 gated)"
    assert lines[-1] == "not counted: closed; the registry has no tokens_per_byte for it"


def test_operations_and_hours_by_hand(tmp_path):
    known = load_registry()
    row = planned(known, "mistral-7b", load_data("sample"), tmp_path).iloc[0]
    assert row["status"] in (MISSING, NO_SPACE)
    assert row["flop"] == 2 * known.model(row["model_id"]).n_params * row["tokens"]
    assert row["gpu_h"] == pytest.approx(row["flop"] / (989e12 * 0.4) / 3600)
    assert row["cpu_s"] == pytest.approx(row["flop"] / (1e12 * 0.81))


def test_sixteen_candidates_a_prompt_cost_at_most_a_twentieth_over_their_unique_tokens(small_models, reward_bench):
    work = workloads.annotate()
    rows: list[list[Sequence]] = [[] for _ in range(max(work.rows) + 1)]
    for number, ids, start in zip(work.rows, work.ids, work.starts, strict=True):
        rows[number].append(Sequence(str(number), str(len(rows[number])), ids, start, 0, ""))
    assert len(rows) == 64 and {len(row) for row in rows} == {16}
    computed = 0
    for part in passes.cut_parts(rows, part_tokens=passes.PART_BUDGETS * passes.BATCH_TOKENS["cpu"]):
        some = [s for i in part for s in rows[i]]
        cut = trie.pack([s.ids for s in some], [s.start for s in some], budget=passes.BATCH_TOKENS["cpu"])
        computed += cut.n_computed
    # one step holds every token of the trie once
    unique = trie.pack(work.ids, work.starts, budget=sum(map(len, work.ids))).n_computed
    print(f"computed over unique: {computed / unique:.3f} ({computed:,} of {unique:,} tokens)")
    assert computed <= 1.05 * unique
