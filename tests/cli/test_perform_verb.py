"""`drsow perform`: a model's score by IFEval's rules and on preferences, and where the registry finds it."""

import json
import shutil
from pathlib import Path

import pytest
from commands import rows, write_rows
from tiny_models import entry

from bench.files import read_csv
from bench.measured import MeasuredScore, add_score
from bench.registry import load_registry
from bench.scoring.forward import kernels

COMPUTING = ["--dtype", "fp32", "--device", "cpu"]


@pytest.fixture
def prompts(tmp_path):
    """Two prompts whose rules every answer and no answer follows, one rule each, and one that is left out."""
    rows = [
        ({"length_constraints:number_words": {"num_words": 500, "relation": "less than"}}, "Name a colour."),
        ({"length_constraints:number_words": {"num_words": 500, "relation": "at least"}}, "Is 7 prime?"),
        ({"length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"}}, "Two and two?"),
    ]
    return write_rows(tmp_path / "prompts.jsonl", [
        {"key": i, "prompt": text, "instruction_id_list": list(rules), "kwargs": list(rules.values())}
        for i, (rules, text) in enumerate(rows)
    ])  # fmt: skip


def test_a_measured_model_has_its_score_in_the_registry(drsow, tiny_registry, prompts, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    models = (tiny_registry / "models.toml").read_text().replace('folder = "', f'folder = "{tiny_registry}/')
    (mine / "models.toml").write_text(models)
    words = ["perform", "--registry", mine, "--model", "tiny-strong", "--task", "ifeval", "--prompts", prompts]
    words += ["--max-new-tokens", 6, "--scores", mine / "scores.toml", "--results", tmp_path / "results", *COMPUTING]
    done = drsow(*words)
    assert done.returncode == 0, done.stderr
    assert "1 prompts left out" in done.stderr
    folder = tmp_path / "results" / "performance" / "tiny-strong"
    whole = read_csv(folder / "ifeval.csv").query("level == 'overall'").iloc[0]
    # One of two right, on two prompts: sqrt(2 / 1 x (0.25 + 0.25)) / 2.
    assert whole[["accuracy", "stderr", "n_prompts", "n_items", "n_left_out"]].tolist() == [0.5, 0.5, 2, 2, 1]
    score = load_registry(mine).model("tiny-strong").scores["ifeval"]
    assert (score.value, score.stderr) == (50.0, 50.0)
    assert score.source == (
        "drsow perform: IFEval, 2 prompts, strict accuracy by instruction, greedy, 6 tokens, float32"
    )
    reasons = [json.loads(line)["finish_reasons"] for line in (folder / "ifeval.jsonl").read_text().splitlines()]
    n_cut = reasons.count(["length"])
    assert n_cut and f"tiny-strong: {n_cut} of 2 responses are cut at 6 tokens or at the end" in done.stderr
    assert json.loads((folder / "ifeval.json").read_text())["finish_reasons"]["length"] == n_cut
    again = drsow(*words)
    assert again.stdout == done.stdout and "answering: 2 of 2" not in again.stderr


@pytest.mark.skipif(not kernels.suit_here(), reason="one arithmetic alone on this processor")
@pytest.mark.parametrize("verb", [["perform", "--task", "ifeval"], ["sample", "--n", "2"]])
def test_answers_that_other_operations_began_are_not_continued(drsow, tiny_registry, prompts, tmp_path, verb):
    words = [*verb, "--registry", tiny_registry, "--model", "tiny-strong", "--prompts", prompts, "--max-new-tokens", 2]
    words += ["--out", tmp_path / "out" if verb[0] == "perform" else tmp_path / "out.jsonl", "--dtype", "bf16"]
    first = drsow(*words, "--device", "cpu", DRSOW_KERNELS="off")
    assert first.returncode == 0, first.stderr
    other = drsow(*words, "--device", "cpu")
    assert other.returncode == 2 and "was begun with other settings" in other.stderr
    assert drsow(*words, "--device", "cpu", DRSOW_KERNELS="off").returncode == 0


def test_preferences_are_read_from_the_scores_of_a_pass(drsow, tiny_registry, finished, data, tmp_path):
    # The run has scored the model on these rows already.
    results = shutil.copytree(finished[0], tmp_path / "results")
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "preferences", "--data", data]
    done = drsow(*words, "--results", results, "--format", "json", *COMPUTING)
    assert done.returncode == 0, done.stderr
    assert "rows/s" not in done.stderr
    out = tmp_path / "scores.csv"
    drsow("scores", "--registry", tiny_registry, "--model", "tiny-strong", "--data", data, "--results", results,
          "--out", out, "--dtype", "fp32")  # fmt: skip
    scores = read_csv(out)
    scores["value"] = (scores["logp_sum_nats"] + scores["logp_end_nats"]) / scores["n_bytes"]
    sides = scores.pivot(index="example_id", columns="response_id", values="value")
    (row,) = json.loads(done.stdout)
    assert row["accuracy"] == (sides["chosen"] > sides["rejected"]).mean()
    assert (row["n_items"], row["n_left_out"]) == (24, 0)


def test_other_preferences_leave_a_table_as_it_is(drsow, tiny_registry, tmp_path):
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "preferences", *COMPUTING]
    first = write_rows(tmp_path / "rows.jsonl", rows(4))
    (tmp_path / "more").mkdir()
    other = write_rows(tmp_path / "more" / "rows.jsonl", rows(6))
    to = ["--results", tmp_path / "results"]
    files = [drsow(*words, *to, "--data", file).stdout.splitlines()[-1] for file in (first, other, first, other)]
    assert files[:2] == files[2:]
    assert [read_csv(Path(file))["n_items"][0] for file in files[:2]] == [4, 6]
    assert Path(files[0]).parent == tmp_path / "results" / "performance" / "tiny-strong" / "rows"
    out = ["--out", tmp_path / "out", *to]
    assert drsow(*words, *out, "--data", first).returncode == 0
    for more in (["--data", other], ["--data", first, "--model", "tiny-weak"]):
        done = drsow(*words, *out, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert "preferences.json: is of another model or of other preferences; name another folder with --out" in (
            done.stderr
        )
    assert read_csv(tmp_path / "out" / "preferences.csv")["n_items"][0] == 4


def test_another_tuned_model_of_the_same_name_leaves_a_table_as_it_is(drsow, tiny_registry, tmp_path):
    """`drsow tune` calls its model `model` in a folder of the user's, so that two of them have one model_id."""
    data, places = write_rows(tmp_path / "rows.jsonl", rows(4)), [tmp_path / name / "tuned" for name in ("e1", "e2")]
    for place, model in zip(places, ("strong", "weak"), strict=True):
        shutil.copytree(tiny_registry / model, place / "model")
    words = ["perform", "--task", "preferences", "--data", data, "--template", "tiny-strong", *COMPUTING]
    words += ["--registry", tiny_registry, "--results", tmp_path / "results"]
    out = ["--out", tmp_path / "out"]
    assert drsow(*words, *out, "--model", places[0]).returncode == 0
    facts, table = tmp_path / "out" / "preferences.json", (tmp_path / "out" / "preferences.csv").read_bytes()
    done = drsow(*words, *out, "--model", places[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert "preferences.json: is of another model or of other preferences; name another folder" in done.stderr
    assert (tmp_path / "out" / "preferences.csv").read_bytes() == table
    # As an earlier version wrote it: the name alone decides.
    facts.write_text(json.dumps({k: v for k, v in json.loads(facts.read_text()).items() if k != "revision"}))
    assert drsow(*words, *out, "--model", places[1]).returncode == 0


def test_a_model_that_was_tuned_again_in_its_place_has_another_folder(drsow, tiny_registry, tmp_path):
    data, place = write_rows(tmp_path / "rows.jsonl", rows(4)), tmp_path / "tuned"
    words = ["perform", "--task", "preferences", "--data", data, "--template", "tiny-strong", "--model", place]
    words += ["--registry", tiny_registry, "--results", tmp_path / "results", *COMPUTING]
    files = []
    for model in ("strong", "weak", "strong", "weak"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tiny_registry / model, place / "model")
        files.append(drsow(*words).stdout.splitlines()[-1])
    assert files[:2] == files[2:] and files[0] != files[1]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "preferences.csv",
            "my,table\n",
            "preferences.csv: drsow perform did not write this table; name another folder",
        ),
        ("preferences.json", "{broken", "preferences.json: is damaged (no JSON object); remove it, or name another"),
        ("preferences.json", "[]", "preferences.json: is damaged (no JSON object); remove it, or name another"),
    ],
)
def test_files_of_another_program_stay(drsow, tiny_registry, tmp_path, name, text, said):
    out, data = tmp_path / "out", write_rows(tmp_path / "rows.jsonl", rows(4))
    out.mkdir()
    (out / name).write_text(text)
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "preferences", "--data", data]
    done = drsow(*words, "--out", out, "--results", tmp_path / "results", *COMPUTING)
    assert done.returncode == 2 and said in done.stderr
    assert (out / name).read_text() == text


def test_a_table_of_another_program_is_no_ifevals(drsow, tiny_registry, prompts, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ifeval.csv").write_text("my,table\n")
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "ifeval", "--prompts", prompts]
    done = drsow(*words, "--max-new-tokens", 2, "--out", out, *COMPUTING)
    assert done.returncode == 2 and "ifeval.csv: drsow perform did not write this table" in done.stderr
    assert [path.name for path in out.iterdir()] == ["ifeval.csv"]


def test_ifeval_on_other_prompts_says_which_option_names_another_folder(drsow, tiny_registry, prompts, tmp_path):
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "ifeval", "--prompts", prompts]
    words += ["--max-new-tokens", 2, "--results", tmp_path / "results", *COMPUTING]
    assert drsow(*words).returncode == 0
    done = drsow(*words, "--limit", 1)
    assert done.returncode == 2
    assert "ifeval.jsonl was begun with other settings: prompts_digest was " in done.stderr
    assert "; name another --out, or remove ifeval.jsonl and ifeval.jsonl.settings.json" in done.stderr


@pytest.mark.parametrize(
    "several",
    [
        {"candidates": ["red", "blue", "seven"], "right": [0]},
        {"chosen": ["red", "blue"], "rejected": ["seven", "ten"]},
    ],
)
def test_rows_of_several_responses_are_refused_by_name(drsow, tiny_registry, tmp_path, several):
    file = write_rows(tmp_path / "rows.jsonl", [{"id": "many", "prompt": "Name a colour."} | several])
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "preferences", *COMPUTING]
    done = drsow(*words, "--data", file, "--results", tmp_path / "results")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "many: this verb takes preferences, one chosen and one rejected response per row" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "ifeval", "--data", "sample"], "--task ifeval reads --prompts, not --data"),
        (["--task", "preferences"], "--task preferences: name the preferences with --data"),
        (["--task", "preferences", "--prompts", "x"], "--task preferences reads --data, not --prompts"),
        (
            ["--task", "preferences", "--data", "sample", "--max-new-tokens", "256"],
            "--task preferences samples no answers; leave --max-new-tokens out",
        ),
        (["--task", "ifeval", "--prompts", "none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_options_that_do_not_fit_the_task_are_one_line(drsow, tiny_registry, words, said):
    done = drsow("perform", "--registry", tiny_registry, "--model", "tiny-strong", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_a_score_that_the_registry_could_not_read_is_refused_before_the_model_answers(drsow, tiny_registry, tmp_path):
    # A models.toml is no file of scores; a folder is no model of the registry.
    for model, file, said in (
        ("tiny-strong", tiny_registry / "models.toml", "models.toml: is no file of scores"),
        (tiny_registry / "strong", tmp_path / "scores.toml", "is no model_id of the registry"),
    ):
        words = ["perform", "--registry", tiny_registry, "--model", model, "--task", "ifeval", "--scores", file]
        done = drsow(*words, "--prompts", tmp_path / "none.jsonl")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert said in done.stderr
    assert not (tmp_path / "scores.toml").exists()


def test_a_score_that_the_models_entry_has_is_refused_before_the_model_answers(drsow, tiny_registry, tmp_path):
    score = 'scores.ifeval = { value = 40.0, source = "there" }\n\n'
    (tmp_path / "models.toml").write_text(entry("tiny-strong", str(tiny_registry / "strong")).rstrip() + "\n" + score)
    words = ["perform", "--registry", tmp_path, "--task", "ifeval", "--prompts", tmp_path / "none.jsonl"]
    done = drsow(*words, "--model", "tiny-strong", "--scores", tmp_path / "scores.toml")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "the entry of tiny-strong in models.toml has a score ifeval already; remove it there" in done.stderr


def test_a_measured_score_of_drsow_or_of_the_user_can_be_measured_again(drsow, tmp_path):
    words = ["perform", "--registry", tmp_path, "--task", "ifeval", "--prompts", tmp_path / "none.jsonl"]
    known = load_registry()
    shipped = next(name for name in known.measured if name.endswith(" ifeval")).split()[0]
    add_score(tmp_path / "scores.toml",
              MeasuredScore(model_id=shipped, performance_id="ifeval", value=1.0, source="us"))  # fmt: skip
    for file in ("scores.toml", "other.toml"):
        done = drsow(*words, "--model", shipped, "--scores", tmp_path / file)
        assert "none.jsonl: no such file" in done.stderr


def test_a_model_without_a_template_names_the_option_that_lends_it_one(drsow, tiny_registry, prompts, tmp_path):
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-weak", "--task", "ifeval", "--prompts", prompts]
    words += ["--max-new-tokens", 4, "--results", tmp_path / "results", *COMPUTING]
    done = drsow(*words)
    assert done.returncode == 2
    assert "tiny-weak has no chat template, so it cannot answer prompts; name another model's with --template" in (
        done.stderr
    )
    done = drsow(*words, "--template", "tiny-strong")
    assert done.returncode == 0, done.stderr
    score = json.loads((tmp_path / "results" / "performance" / "tiny-weak" / "ifeval.json").read_text())
    assert score["source"].endswith("float32, chat template of tiny-strong")


def test_without_the_extra_one_line_says_how_to_install_it(drsow, tiny_registry, prompts, tmp_path):
    (tmp_path / "if_verifiable").mkdir()
    (tmp_path / "if_verifiable" / "__init__.py").write_text("raise ImportError('not here')\n")
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "ifeval", "--prompts", prompts]
    done = drsow(*words, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "`pip install 'drsow[perform]'` installs it" in done.stderr


def test_without_a_hub_the_line_says_that_a_copy_can_be_named(drsow, tiny_registry, tmp_path):
    words = ["perform", "--registry", tiny_registry, "--model", "tiny-strong", "--task", "ifeval"]
    done = drsow(*words, HF_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "google/IFEval: not on this machine" in done.stderr and "--prompts" in done.stderr
