"""`drsow ladder` on the tiny models: a kill costs no finished rung, and the registry names what was made."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import COMMAND, environment, rows, write_rows
from tiny_models import entry, save_lora

from bench.data.load import load_prompts
from bench.files import read_csv
from bench.measured import MeasuredScore, add_score
from bench.prefer.ladder import recipe_of
from bench.registry import Registry, load_registry
from bench.schema import UsageError
from bench.scoring.located import file_digest
from bench.verbs import ladder
from bench.verbs.session import open_session
from bench.verbs.tune import preferences

RECIPE = """
[study]
study_id = "mine"
performance = "ifeval"

[[ladders]]
ladder_id = "up"
start = "tiny-weak"
template = "plain"
lora_rank = 2
batch = 2
at_once = 2
rungs = [
  { rung_id = "sft", loss = "sft", n = 4, lr = 1e-2 },
  { rung_id = "turned", after = "sft", loss = "dpo", labels = "turned", first = 4, n = 4, lr = 1e-2 },
]
"""


@pytest.mark.slow
def test_a_killed_ladder_goes_on_and_its_registry_has_each_rung_with_its_recipe(drsow, tiny_registry, tmp_path):
    (tmp_path / "ladders.toml").write_text(RECIPE)
    # A row that cannot be judged is left out, with a word about it.
    data = write_rows(tmp_path / "train.jsonl", [*rows(8), rows(1)[0] | {"id": "blank", "rejected": " "}])
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"id": f"p{i}", "prompt": f"Is {i} prime?"} for i in range(2)])
    out = tmp_path / "out"
    words = ["ladder", tmp_path / "ladders.toml", "--preferences", data, "--prompts", prompts, "--out", out]
    words += ["--registry", tiny_registry, "--dtype", "fp32", "--device", "cpu"]
    first = out / "run" / "up-sft" / "model"
    run = subprocess.Popen(
        [COMMAND, *map(str, words)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not first.exists() and run.poll() is None:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert first.exists() and not (out / "rungs.csv").exists()
    written = (first / "model.safetensors").stat().st_mtime_ns
    done = drsow(*words)
    assert done.returncode == 0, done.stderr
    assert "1 rows left out; the first: " in done.stderr and "line 9, field rejected: only whitespace" in done.stderr
    assert (first / "model.safetensors").stat().st_mtime_ns == written

    table = read_csv(out / "rungs.csv").set_index("model_id")
    assert list(table.index) == ["tiny-weak", "up-sft", "up-turned"]
    assert list(table["start"]) == ["", "tiny-weak", "up-sft"] and list(table["template"]) == ["up-sft"] * 3
    assert table.loc["up-turned", ["loss", "labels", "n_preferences", "n_steps"]].tolist() == ["dpo", "turned", 4, 2]
    digest = file_digest(out / "run" / "up-turned" / "model" / "model.safetensors")
    assert table.loc["up-turned", "weights_sha256"] == digest
    answers = [json.loads(line) for line in (out / "run" / "up-turned" / "answers.jsonl").read_text().splitlines()]
    assert [len(line["candidates"]) for line in answers] == [8, 8] and table.loc["up-turned", "n_answers"] == 16

    known = load_registry(out / "registry")
    assert known.model("up-turned").method == "dpo-turned" and digest in known.model("up-turned").note
    assert known.model("tiny-weak").source.folder.resolve() == (tiny_registry / "weak").resolve()
    assert known.families["up"].members == ("tiny-weak", "up-sft", "up-turned")
    assert "mine" not in known.studies and known.studies["mine-by-recipe"].families == ("up",)
    recipe = {name: known.model(name).scores["net_preferences"].value for name in table.index}
    assert recipe == {"tiny-weak": 0, "up-sft": 4, "up-turned": 0}
    assert drsow("sample", "--model", "up-turned", "--registry", out / "registry", "--prompts", prompts, "--n", 1,
                 "--max-new-tokens", 2, "--device", "cpu", "--out", tmp_path / "x.jsonl").returncode == 0  # fmt: skip
    digests = {p: hashlib.sha256(p.read_bytes()).digest() for p in out.rglob("*") if p.is_file()}
    assert drsow(*words).returncode == 0
    assert {p: hashlib.sha256(p.read_bytes()).digest() for p in out.rglob("*") if p.is_file()} == digests


def test_an_answer_may_hold_a_line_separator(tiny_registry, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "ANSWER_TOKENS", 2)
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "up" / "model").parent
    prompts = load_prompts(str(write_rows(tmp_path / "prompts.jsonl", [{"id": "p", "prompt": "Is 7 prime?"}])))
    session = open_session(load_registry(tiny_registry), dtype="fp32", device="cpu")
    ladder._answered(session, prompts, folder)
    (line,) = map(json.loads, (folder / "answers.jsonl").read_text().split("\n")[:-1])
    line["candidates"] = ["Seven\u2028is", "", "", "", "", "no", "no", "no"]
    (folder / "answers.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n")
    assert ladder._answered(session, prompts, folder) == {"n_answers": 8, "empty": 0.5, "repeated": 0.0, "broken": 1}


def test_a_rung_is_tuned_with_its_losss_own_beta_and_margin_or_with_those_of_the_recipe():
    # What `drsow tune` takes for the loss; SFT reads neither, and its 0.1 is that of folders tuned before.
    told = [("simpo", {}), ("dpo", {}), ("sft", {}), ("simpo", {"beta": 2, "gamma_ratio": 0.5}), ("dpo", {"beta": 0})]
    rungs = [{"rung_id": str(i), "loss": loss, "n": 1, **more} for i, (loss, more) in enumerate(told)]
    steps = {"ladder_id": "up", "start": "tiny-weak", "rungs": rungs}
    (found,) = recipe_of({"study": {"study_id": "mine", "performance": "ifeval"}, "ladders": [steps]}, "r").ladders
    tunings = [ladder._tuning(found, rung) for rung in found.rungs]
    assert [(each.beta, each.gamma_ratio) for each in tunings] == [
        (10, 0.3), (0.1, 0.3), (0.1, 0.3), (2, 0.5), (0, 0.3)
    ]  # fmt: skip


def test_a_ladder_reads_the_rows_that_a_tuning_reads(tmp_path, capsys):
    tie = {"id": "tie", "score_chosen": 4.0, "score_rejected": 4.0}
    scored = [rows(1)[0] | {"score_chosen": 5.0, "score_rejected": 1.0}, rows(1)[0] | tie]
    (row,) = ladder.judgeable(str(write_rows(tmp_path / "scored.jsonl", scored)))
    assert row.example_id == "numbers/0"
    assert "preferences: 1; left out: ties 1" in capsys.readouterr().err
    texts = [("yes", 5), ("no", 1)]
    rated = [{"response": text, "overall_score": score} for text, score in texts]
    published = write_rows(tmp_path / "rated.jsonl", [{"instruction": "Is 7 prime?", "completions": rated}])
    (row,) = ladder.judgeable(str(published))
    assert dict(row.responses) == {"chosen": "yes", "rejected": "no"}
    shutil.copy(write_rows(tmp_path / "plain.jsonl", rows(3)), tmp_path / "preferences.jsonl")
    assert ladder.judgeable(str(tmp_path)) == list(preferences(str(tmp_path)).examples)


def test_rows_that_cannot_be_judged_are_left_out_and_a_second_id_is_refused(tmp_path, capsys):
    several = {"id": "several", "prompt": "Name a colour.", "candidates": ["red", "blue", "seven"], "right": [0, 1]}
    blank = rows(1)[0] | {"id": "blank", "rejected": " "}
    tie = rows(1)[0] | {"id": "tie", "score_chosen": 4, "score_rejected": 4}
    file = write_rows(tmp_path / "mixed.jsonl", [*rows(4), blank, several, tie])
    assert len(ladder.judgeable(str(file))) == 4
    said = capsys.readouterr().err
    assert "1 rows left out; the first: " in said and "line 5, field rejected: only whitespace" in said
    assert "1 rows left out: they have several responses" in said and "left out: ties 1" in said
    with pytest.raises(UsageError, match=r"line 2, field id: 'numbers/0' is also the id of line 1"):
        ladder.judgeable(str(write_rows(tmp_path / "twice.jsonl", [rows(1)[0], rows(1)[0] | {"chosen": "maybe"}])))
    with pytest.raises(UsageError, match=r"no row can be read; the first: .*line 1, field rejected: only whitespace"):
        ladder.judgeable(str(write_rows(tmp_path / "blank.jsonl", [blank])))
    with pytest.raises(UsageError, match=r"several: this verb takes preferences"):
        ladder.judgeable(str(write_rows(tmp_path / "several.jsonl", [several])))


def written(recipe: str, registry: Path, out: Path) -> Registry:
    """The registry of a recipe's models, as it is written once they are tuned; nothing is."""
    (out.parent / "ladders.toml").write_text(recipe)
    read, known = ladder.read_recipe(out.parent / "ladders.toml"), load_registry(registry)
    ladder.check_registry(known, read, out=out)
    assert not out.exists()
    return load_registry(ladder.write_registry(known, read, ladder._planned(read), out=out))


def test_a_rung_counts_the_preferences_that_it_was_tuned_on_without_those_that_were_too_long(tiny_registry, tmp_path):
    (tmp_path / "ladders.toml").write_text(RECIPE)
    read = ladder.read_recipe(tmp_path / "ladders.toml")
    table = ladder._planned(read).astype({"n_preferences": "Int64"}).set_index("model_id")
    table.loc["up-sft", "n_preferences"] = 3
    known = load_registry(tiny_registry)
    found = load_registry(ladder.write_registry(known, read, table.reset_index(), out=tmp_path / "out"))
    values = {name: found.model(name).scores["net_preferences"].value for name in ("tiny-weak", "up-sft", "up-turned")}
    assert values == {"tiny-weak": 0, "up-sft": 3, "up-turned": -1}


def test_an_adapter_is_written_with_its_base(tiny_registry, tmp_path):
    shutil.copytree(tiny_registry, tmp_path / "mine")
    save_lora(tmp_path / "mine" / "lora", tiny_registry / "weak", base_name="weak")
    source = 'source = { adapter = "lora", base = "tiny-weak" }'
    with (tmp_path / "mine" / "models.toml").open("a") as file:
        file.write(entry("tiny-lora", "x").replace('source = { folder = "x" }', source))
    found = written(RECIPE.replace('"tiny-weak"', '"tiny-lora"'), tmp_path / "mine", tmp_path / "out")
    assert found.model("tiny-lora").source.files.folder == tmp_path / "mine" / "lora"
    assert found.model("tiny-lora").files.source.folder.resolve() == tmp_path / "mine" / "weak"
    assert found.families["up"].members == ("tiny-lora", "up-sft", "up-turned")


def test_a_gguf_file_of_a_relative_registry_is_found_from_the_ladders_registry(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.gguf").write_bytes(b"GGUF")
    source = f'source = {{ file = "tiny.gguf", sha256 = "{"0" * 64}" }}'
    text = entry("tiny-weak", "x").replace('source = { folder = "x" }', source).replace("safetensors", "gguf")
    (tmp_path / "mine" / "models.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = written(RECIPE, Path("mine"), Path("out"))
    assert found.model("tiny-weak").source.file.resolve() == tmp_path / "mine" / "tiny.gguf"
    assert found.model("up-sft").format == "safetensors"


def test_scores_that_the_new_registry_has_or_does_not_know_are_not_copied(tiny_registry, tmp_path):
    first = written(RECIPE, tiny_registry, tmp_path / "out")
    assert first.model("up-sft").scores["net_preferences"].value == 4
    mine = tmp_path / "out" / "registry"
    with (mine / "pairs.toml").open("a") as file:
        file.write('\n[[performances]]\nperformance_id = "ours"\nname = "Ours (points)"\n')
    for name in ("ours", "ifeval"):
        add_score(mine / "scores.toml", MeasuredScore(model_id="up-sft", performance_id=name, value=5.0, source="us"))
    again = RECIPE.replace('"tiny-weak"', '"up-sft"').replace('"up"', '"next"')
    found = written(again, mine, tmp_path / "second")
    assert {name: score.value for name, score in found.model("up-sft").scores.items()} == {
        "ifeval": 5, "net_preferences": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("", ""), "registry/scores.toml: gone ifeval: model_id: unknown model 'gone'"),
        (('"ifeval"', '"ifevil"'), "study: unknown performance 'ifevil', did you mean 'ifeval'?"),
        (('"mine"', '"paper-221"'), "registry/pairs.toml: paper-221: study_id is taken by an entry of "),
        (('"tiny-weak"', '"FOLDER"'), "unknown model "),
        (("batch = 2", "batch = 3"), "up: --batch 3 is not a multiple of --at-once 2 on 1 device(s)"),
    ],
)
def test_what_no_rung_or_registry_could_use_is_one_line_before_any_tuning(drsow, tiny_registry, tmp_path, change, said):
    out = tmp_path / "out"
    if not change[0]:
        add_score(out / "registry" / "scores.toml",
                  MeasuredScore(model_id="gone", performance_id="ifeval", value=5.0, source="us"))  # fmt: skip
    text = RECIPE.replace(*change) if change[0] else RECIPE
    (tmp_path / "ladders.toml").write_text(text.replace("FOLDER", str(tiny_registry / "weak")))
    data = write_rows(tmp_path / "train.jsonl", rows(8))
    words = ["--preferences", data, "--prompts", data, "--out", out, "--registry", tiny_registry, "--device", "cpu"]
    done = drsow("ladder", tmp_path / "ladders.toml", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr
    assert not (out / "run").exists() and not (out / "registry" / "models.toml").exists()


def test_a_registry_that_no_ladder_wrote_stays(drsow, tiny_registry, tmp_path):
    (tmp_path / "ladders.toml").write_text(RECIPE)
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "models.toml").write_text("# mine\n")
    data = write_rows(tmp_path / "train.jsonl", rows(8))
    words = ["--preferences", data, "--prompts", data, "--out", tmp_path, "--registry", tiny_registry]
    done = drsow("ladder", tmp_path / "ladders.toml", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "registry: drsow ladder did not write this registry; name another folder" in done.stderr
    assert (tmp_path / "registry" / "models.toml").read_text() == "# mine\n" and not (tmp_path / "run").exists()


def test_a_wrong_recipe_writes_nothing(drsow, tiny_registry, tmp_path):
    (tmp_path / "ladders.toml").write_text(RECIPE.replace('after = "sft"', 'after = "stf"'))
    words = ["--preferences", tmp_path / "none.jsonl", "--prompts", tmp_path / "none.jsonl", "--out", tmp_path / "out"]
    done = drsow("ladder", tmp_path / "ladders.toml", *words, "--registry", tiny_registry)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "up: turned: after: 'stf' is no rung before it" in done.stderr
    assert not (tmp_path / "out").exists()
