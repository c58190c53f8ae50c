"""A study's exported scores: restored, they give the tables of the run that computed them, to the byte."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from commands import write_rows
from numpy._core._multiarray_umath import __cpu_features__
from tiny_models import entry

ROOT = Path(__file__).parents[2]

NOISE = """
[[models]]
model_id = "tiny-noise"
source = { base = "tiny-strong", noise = 0.3, seed = 1 }
format = "safetensors"
method = "noise"
n_params = 30_000
licence = "apache-2.0"
scores.arena_hard = { value = 20.0, source = "made up" }
"""

STUDY = """
[[families]]
family_id = "tiny-family"
template = "tiny-strong"
members = ["tiny-strong", "tiny-weak", "tiny-noise"]

[[studies]]
study_id = "tiny-study"
families = ["tiny-family"]
performance = "arena_hard"
"""


@pytest.fixture(scope="module")
def study(drsow, tiny_registry, data, tmp_path_factory):
    """The words that name a study of three tiny models, its results, and its exported scores."""
    home = tmp_path_factory.mktemp("study")
    models = "".join(
        entry(name, f"{tiny_registry}/{folder}").rstrip()
        + f'\nscores.arena_hard = {{ value = {value}, source = "x" }}\n\n'
        for name, folder, value in (("tiny-strong", "strong", 40.0), ("tiny-weak", "weak", 30.0))
    )
    (home / "models.toml").write_text(models + NOISE)
    (home / "pairs.toml").write_text(STUDY)
    words = ["--registry", home, "--study", "tiny-study", "--data", data]
    done = drsow("run", *words, "--dtype", "fp32", "--device", "cpu", "--results", home / "results")
    assert done.returncode == 0, done.stderr
    done = drsow("scores", *words, "--results", home / "results", "--out", home / "scores")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (home / "scores").iterdir()) == [
        "sets.json", "tiny-noise.parquet", "tiny-strong.parquet", "tiny-weak.parquet",
    ]  # fmt: skip
    return words, home


def has(feature: str) -> bool:
    """Whether this processor has a group of instructions that NumPy knows; it warns of others."""
    return bool(__cpu_features__.get(feature))


def made(folder: Path) -> dict[str, bytes]:
    """Every table and figure of a results folder."""
    files = [path for path in folder.rglob("*") if path.suffix in {".csv", ".md", ".tex", ".svg"}]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "scores" not in path.parts}


def test_restored_scores_give_the_tables_of_the_run_to_the_byte(drsow, study, tmp_path):
    words, home = study
    done = drsow("import", home / "scores", *words, "--results", tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
    for verb in ("leaderboard", "figures"):
        done = drsow(verb, *words, "--results", tmp_path)
        assert done.returncode == 0, done.stderr
    before, after = made(home / "results" / "tiny-study"), made(tmp_path / "tiny-study")
    assert "rows/leaderboard.csv" in before and "rows/figures/gap_accuracy.svg" in before
    assert after == before
    # The same again stores nothing anew.
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.parquet")}
    assert drsow("import", home / "scores", *words, "--results", tmp_path).returncode == 0
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.parquet")}


def test_a_restored_study_is_gone_on_with_its_sums_stay_and_a_damaged_part_is_scored_again(drsow, study, tmp_path):
    words, home = study
    assert drsow("import", home / "scores", *words, "--results", tmp_path).returncode == 0
    sums = {path: path.read_bytes() for path in tmp_path.glob("scores/*/part-*")}
    run = ["run", *words, "--dtype", "fp32", "--device", "cpu", "--results", tmp_path]
    # 32 tokens per step cut these rows into several parts, and the exported ones are one.
    done = drsow(*run, "--tokens", "--batch-tokens", 32)
    assert done.returncode == 0 and "the sums stay as they are" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("scores/*/part-*")} == sums
    assert len(list(tmp_path.glob("scores/*/tokens-0000-*"))) == 3
    damaged = min(sums)
    damaged.write_bytes(sums[damaged][:200])
    done = drsow(*run)
    assert done.returncode == 0 and damaged.with_name(f"{damaged.name}.damaged").exists(), done.stderr
    assert made(tmp_path / "tiny-study") == made(home / "results" / "tiny-study")


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_file_that_was_changed_is_named_and_nothing_is_stored(drsow, study, tmp_path):
    words, home = study
    folder = copied(home / "scores", tmp_path / "scores")
    (folder / "tiny-weak.parquet").write_bytes((folder / "tiny-noise.parquet").read_bytes())
    done = drsow("import", folder, *words, "--results", tmp_path / "results")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{folder / 'tiny-weak.parquet'}: was changed after it was exported" in done.stderr
    assert not (tmp_path / "results").exists()


CHANGES = {
    "a row is missing": (lambda frame: frame.iloc[1:], "no row (1 are missing)"),
    "a positive sum": (lambda frame: frame.assign(logp_sum_nats=-frame["logp_sum_nats"]), "is above 0"),
    "a column is missing": (lambda frame: frame.drop(columns="example_id"), "the scores of tiny-weak cannot be used"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_scores_that_cannot_be_those_of_the_rows_are_refused_before_one_is_stored(drsow, study, tmp_path, change):
    words, home = study
    folder = copied(home / "scores", tmp_path / "scores")
    file = folder / "tiny-weak.parquet"
    changed, told = CHANGES[change]
    changed(pd.read_parquet(file)).to_parquet(file, index=False)
    index = json.loads((folder / "sets.json").read_text())
    for each in index["sets"]:
        each["sha256"] = hashlib.sha256((folder / each["file"]).read_bytes()).hexdigest()
    (folder / "sets.json").write_text(json.dumps(index))
    done = drsow("import", folder, *words, "--results", tmp_path / "results")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the scores of tiny-weak cannot be used" in done.stderr and told in done.stderr
    assert not (tmp_path / "results").exists()


def without_ids(folder: Path, row: dict) -> None:
    frame = pd.read_parquet(folder / row["file"]).drop(columns="example_id")
    frame.to_parquet(folder / row["file"], index=False)
    row["sha256"] = hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest()


@pytest.mark.parametrize(("change", "words"), [
    (lambda folder, row: row["key"].update(model_id=["x"]), "model_id of a key is ['x'], which is no str"),
    (lambda folder, row: row["info"].update(precision=5), "precision of an info is 5, which is no object"),
    (lambda folder, row: row["info"].update(mean_tokens_a_row="x"), "mean_tokens_a_row of an info is 'x'"),
    (without_ids, "cannot be used: "),
])  # fmt: skip
def test_a_malformed_set_is_one_line_that_names_the_field(drsow, study, tmp_path, change, words):
    options, home = study
    folder = copied(home / "scores", tmp_path / "scores")
    index = json.loads((folder / "sets.json").read_text())
    change(folder, index["sets"][0])
    (folder / "sets.json").write_text(json.dumps(index))
    done = drsow("import", folder, *options, "--results", tmp_path / "results")
    assert done.returncode in (1, 2) and words in done.stderr.splitlines()[-1]
    assert "fault in drsow" not in done.stderr and not list(tmp_path.glob("results/scores/*/part-*"))


def test_a_pass_without_scores_and_other_rows_are_named(drsow, study, tmp_path):
    words, home = study
    folder = copied(home / "scores", tmp_path / "scores")
    index = json.loads((folder / "sets.json").read_text())
    index["sets"] = [each for each in index["sets"] if each["key"]["model_id"] != "tiny-weak"]
    (folder / "sets.json").write_text(json.dumps(index))
    done = drsow("import", folder, *words, "--results", tmp_path / "results")
    assert done.returncode == 2
    assert "it has no scores of tiny-weak under the chat template of tiny-strong, so nothing is stored" in done.stderr
    other = write_rows(tmp_path / "other.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    done = drsow("import", home / "scores", *words[:-1], other, "--results", tmp_path / "results")
    assert done.returncode == 2 and "are of other rows than" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_file_for_one_model_and_a_folder_for_a_study_are_told_apart(drsow, study, tmp_path):
    words, _ = study
    done = drsow("scores", *words, "--model", "tiny-weak", "--out", tmp_path / "x.csv")
    assert done.returncode == 2 and "--model MODEL to a file, or --study STUDY to a folder" in done.stderr


COMMITTED = sorted(ROOT.glob("results/*/*/scores/sets.json"))

PROCESSORS = {
    "this processor": {},
    # What NumPy and OpenBLAS take from an x86-64 processor of 2006: no AVX, other orders of summation.
    "an old processor": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": " ".join(f for f in ("X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR") if has(f)),
    },
    # Kernels for 512 bits, which OpenBLAS does not take on every processor that has them.
    **({"a processor with AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX"}} if has("X86_V4") else {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("index", COMMITTED, ids=[str(path.parent.parent.relative_to(ROOT)) for path in COMMITTED])
def test_a_committed_study_is_rebuilt_from_its_scores_to_the_byte(drsow, index, processor, tmp_path):
    told, folder = json.loads(index.read_text()), index.parents[1]
    slug, _, rest = told["data"].partition("-per-subset")[0].rpartition("-")
    data, limit = (slug, ["--limit-per-subset", rest]) if rest.isdigit() else (told["data"], [])
    if data == "reward-bench" and "DRSOW_REWARDBENCH" not in os.environ:
        pytest.skip("DRSOW_REWARDBENCH names no file")
    variables = {"DRSOW_REWARDBENCH": os.environ.get("DRSOW_REWARDBENCH", "")} | PROCESSORS[processor]
    registry = ["--registry", folder.parent / "registry"] if (folder.parent / "registry").is_dir() else []
    # Other studies of the same scores: of fewer models, or by another performance.
    others = sorted(ROOT.glob(f"results/{told['study']}-*/{folder.name}"))
    for study in (folder, *others):
        words = ["--study", study.parent.name, "--data", data, *limit, *registry, "--results", tmp_path]
        for verb in (["import", index.parent], ["leaderboard"], ["figures"]):
            done = drsow(*verb, *words, **variables)
            assert done.returncode == 0, done.stderr
        kept = {name: content for name, content in made(study).items() if name != "README.md"}
        assert made(tmp_path / study.parent.name / study.name) == kept
