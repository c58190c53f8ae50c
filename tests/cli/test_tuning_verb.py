"""`drsow tune`, `judge` and `agree` on the tiny models: what they write, what they refuse, what a kill costs."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import COMMAND, environment, leftovers, rows, write_rows
from typer.testing import CliRunner

import bench.cli  # noqa: F401
from bench import reward
from bench.cli.app import app
from bench.files import locked, read_csv
from bench.prefer.resumed import Sampling
from bench.prefer.select import cosines
from bench.schema import DrsowError, Message, UsageError
from bench.scoring import models
from bench.scoring.chat import Template
from bench.verbs.judge import Judging
from bench.verbs.tuning_folder import alone, begin

PROMPTS = [{"id": f"p{i}", "prompt": f"Is {i} prime?"} for i in range(6)]


@pytest.fixture(scope="module")
def preferences(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("preferences") / "rows.jsonl", rows(16))


@pytest.fixture(scope="module")
def words(tiny_registry, preferences) -> list:
    """A tuning in eight steps; --out is missing."""
    options = ["--dtype", "fp32", "--device", "cpu", "--batch", 2, "--at-once", 2, "--save-every", 2, "--lr", 0.001]
    return ["tune", "--registry", tiny_registry, "--policy", "tiny-strong", "--preferences", preferences, *options]


@pytest.fixture(scope="module")
def tuned(drsow, words, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    return out, drsow(*words, "--out", out)


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_tuning_leaves_a_whole_model_a_curve_and_a_figure(tuned, tiny_registry):
    out, done = tuned
    assert done.returncode == 0, done.stderr
    assert "16 preferences, 0 too long" in done.stdout and "{" not in done.stdout
    assert list(read_csv(out / "curve.csv")["step"]) == list(range(1, 9))
    assert {p.name for p in out.iterdir()} == {
        "README.md", "curve.csv", "figures", "manifest.json", "model", "settings.json"
    }  # fmt: skip
    digest = hashlib.sha256(weights(out)).hexdigest()
    assert f"- sha256 of model.safetensors: {digest}" in (out / "README.md").read_text()
    assert json.loads((out / "manifest.json").read_text())["weights"] == {"model.safetensors": digest}
    before, after = (
        models.load_policy(folder, dtype=torch.float32, device="cpu")
        for folder in (tiny_registry / "strong", out / "model")
    )
    moved = [(a - b).abs().max() for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert 1e-4 < max(moved) < 1e-1
    assert models.load_tokenizer(out / "model").chat_template


@pytest.mark.slow
def test_all_weights_in_bf16_begin_at_the_policys_own_numbers(drsow, small_models, preferences, tmp_path):
    folder = small_models["smollm2-135m-instruct-q4"]
    words = ["tune", "--policy", folder, "--preferences", preferences, "--loss", "dpo", "--dtype", "bf16"]
    done = drsow(*words, "--device", "cpu", "--batch", 4, "--at-once", 4, "--epochs", 0.25, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (first,) = read_csv(tmp_path / "out" / "curve.csv").itertuples()
    # Both passes compute in bf16; with the start in float32 the rewards would be the rounding, 0.025 here.
    assert abs(first.chosen_reward) < 0.005 and abs(first.rejected_reward) < 0.005


@pytest.mark.slow
def test_the_card_and_the_manifest_of_a_tuning_count_the_rows_that_prefer_no_response(drsow, words, tmp_path):
    scored = [row | {"score_chosen": 4, "score_rejected": 4 if i == 1 else 1} for i, row in enumerate(rows(5))]
    place = words.index("--preferences") + 1
    named = [*words[:place], write_rows(tmp_path / "scored.jsonl", scored), *words[place + 1 :]]
    done = drsow(*named, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows_left_out"] == {"ties": 1}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- rows left out: ties 1\n- preferences: 4\n" in card


@pytest.mark.slow
def test_a_finished_tuning_is_not_done_again_and_another_is_refused(drsow, tuned, words):
    out, _ = tuned
    before = weights(out), (out / "model" / "model.safetensors").stat().st_mtime_ns
    assert drsow(*words, "--out", out).returncode == 0
    assert (weights(out), (out / "model" / "model.safetensors").stat().st_mtime_ns) == before
    other = drsow(*words, "--out", out, "--loss", "dpo")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "holds a run with other settings: loss was simpo, now dpo; beta was " in other.stderr
    assert weights(out) == before[0]


@pytest.mark.slow
def test_a_killed_tuning_goes_on_to_the_same_bytes(drsow, tuned, words, tmp_path):
    out = tmp_path / "out"
    run = subprocess.Popen(
        [COMMAND, *map(str, words), "--out", str(out)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not list(out.glob("checkpoints/checkpoint-*/trainer_state.json")) and run.poll() is None:
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert not (out / "model").exists()
    done = drsow(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(tuned[0])
    assert (out / "curve.csv").read_bytes() == (tuned[0] / "curve.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--lora", "--lora-rank", 2]], ids=["all weights", "lora"])
def test_a_kill_between_the_last_step_and_the_model_changes_no_byte_of_it(drsow, words, tmp_path, more):
    # Three of the eight steps of an epoch.
    cut, whole = ([*words, *more, "--epochs", 0.375, "--out", tmp_path / name] for name in ("cut", "whole"))
    assert drsow(*cut, DRSOW_CRASH_AT="before-rename:curve").returncode == 137
    assert {path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()} == {"checkpoint-2", "checkpoint-3"}
    assert drsow(*cut).returncode == drsow(*whole).returncode == 0
    assert "- steps: 3\n" in (tmp_path / "cut" / "README.md").read_text()
    folders = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "model").iterdir()} for name in ("cut", "whole")
    ]
    assert folders[0] == folders[1]
    assert (tmp_path / "cut" / "curve.csv").read_bytes() == (tmp_path / "whole" / "curve.csv").read_bytes()


@pytest.mark.slow
def test_a_lora_run_leaves_the_adapter_and_the_merged_model(drsow, words, tiny_registry, tmp_path):
    out = tmp_path / "out"
    done = drsow(*words, "--out", out, "--lora", "--lora-rank", 2, "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    start = models.load_policy(tiny_registry / "strong", dtype=torch.float32, device="cpu")
    merged = models.load_policy(out / "model", dtype=torch.float32, device="cpu")
    assert not torch.equal(
        merged.model.layers[0].self_attn.q_proj.weight, start.model.layers[0].self_attn.q_proj.weight
    )


@pytest.mark.slow
def test_two_processes_tune_as_one_and_one_of_them_tells_it(drsow, words, tmp_path):
    # Steps of four and one preference: the last one leaves nothing to the second process.
    options = ["--preferences", write_rows(tmp_path / "few.jsonl", rows(5)), "--batch", 4, "--at-once", 1]
    one, two = ([*words, *options, "--lora", "--epochs", 2, "--out", tmp_path / name] for name in ("one", "two"))
    assert drsow(*one).returncode == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", COMMAND]
    done = subprocess.run([*launcher, *map(str, two)], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 preferences, 0 too long") == 1
    assert "tuning: 10 of 10 preferences" in done.stderr and done.stderr.count("tuning: ") == 1
    # A row that was read twice changes the loss; a sum of gradients in place of their mean changes the norm.
    ours, reference = (read_csv(tmp_path / name / "curve.csv").drop(columns="epoch") for name in ("two", "one"))
    pd.testing.assert_frame_equal(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_base_model_gets_the_plain_format_as_its_template_and_answers_prompts(drsow, words, tiny_registry, tmp_path):
    out, prompts = tmp_path / "out", write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    done = drsow(*words, "--policy", "tiny-weak", "--loss", "sft", "--template", "plain", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "16 preferences, 0 too long" in done.stdout
    curve = read_csv(out / "curve.csv")
    assert curve["accuracy"].isna().all() and curve["loss"].tolist() == pytest.approx((-curve["chosen_logp"]).tolist())
    assert "- chat template: plain" in (out / "README.md").read_text() and "beta" not in (out / "README.md").read_text()
    turns, formats = [Message("system", "a"), Message("user", "b\n")], [Template(None)]
    formats.append(Template(models.load_tokenizer(out / "model")))
    for generation in (False, True):
        plain, own = (each.text(turns, generation=generation) for each in formats)
        assert own == plain
    options = ["--n", 2, "--max-new-tokens", 4, "--dtype", "fp32", "--device", "cpu", "--registry", tiny_registry]
    said = drsow("sample", "--model", out, "--prompts", prompts, *options, "--out", tmp_path / "said.jsonl")
    assert said.returncode == 0, said.stderr


@pytest.mark.slow
def test_a_base_model_gets_the_template_of_another_model(drsow, words, tiny_registry, tmp_path):
    out = tmp_path / "out"
    done = drsow(*words, "--policy", "tiny-weak", "--template", "tiny-strong", "--out", out)
    assert done.returncode == 0, done.stderr
    owner = models.load_tokenizer(tiny_registry / "strong")
    assert models.load_tokenizer(out / "model").chat_template == owner.chat_template
    # The same command, after the owner's template has changed.
    mine = shutil.copytree(tiny_registry, tmp_path / "mine")
    owner.chat_template += "{# changed #}"
    owner.save_pretrained(mine / "strong")
    changed = [mine if word == tiny_registry else word for word in words]
    done = drsow(*changed, "--policy", "tiny-weak", "--template", "tiny-strong", "--out", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{out}: holds a run with other settings: template_digest was " in done.stderr


def test_a_tuning_whose_settings_lack_the_digest_of_its_template_goes_on_and_another_template_is_refused(tmp_path):
    told = {"policy": "tiny", "template": "a"}
    begin(tmp_path / "old", told)
    begin(tmp_path / "old", told | {"template_digest": "1"})
    assert json.loads((tmp_path / "old" / "settings.json").read_text()) == told
    begin(tmp_path / "new", told | {"template_digest": "1"})
    begin(tmp_path / "new", told | {"template": "/elsewhere/a", "template_digest": "1"})
    with pytest.raises(UsageError, match="template_digest was 1, now 2; name another folder"):
        begin(tmp_path / "new", told | {"template_digest": "2"})


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_with_room(drsow, words, tuned, tmp_path):
    out = tmp_path / "small" / "out"
    out.parent.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", out.parent], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        done = drsow(*words, "--out", out)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith("drsow: ") and "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", out.parent], check=True)
        assert drsow(*words, "--out", out).returncode == 0
        assert weights(out) == weights(tuned[0])
    finally:
        subprocess.run(["umount", out.parent], check=True)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--policy", "tiny-weak"], 2, "tiny-weak: it has no chat template, so it cannot be tuned on conversations"),
        (
            ["--policy", "tiny-weak", "--template", "tiny-weak"],
            2,
            "tiny-weak has no chat template; name another model, or",
        ),
        (["--policy", "tiny-stron"], 2, "did you mean 'tiny-strong'?"),
        (["--lora-rank", 8], 2, "--lora-rank is the rank of an adapter; name --lora too, or leave it out"),
        (
            ["--loss", "dpo", "--gamma-ratio", 0.3],
            2,
            "--gamma-ratio is the margin of SimPO's loss; leave it out with --loss dpo",
        ),
        (
            ["--loss", "sft", "--gamma-ratio", 0],
            2,
            "--gamma-ratio is the margin of SimPO's loss; leave it out with --loss sft",
        ),
        (["--loss", "sft", "--beta", 0], 2, "--beta scales the rewards of SimPO and DPO; leave it out with --loss sft"),
        (["--seed", 2**32], 2, "Invalid value for '--seed': Input should be less than or equal to 4294967295"),
        (["--batch", 6, "--at-once", 4], 2, "--batch 6 is not a multiple of --at-once 4 on 1 device(s)"),
    ],
)
def test_a_policy_that_cannot_be_tuned_is_one_line_and_nothing_is_written(drsow, words, tmp_path, options, code, said):
    done = drsow(*words, *options, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_second_run_into_a_tunings_folder_is_one_line_and_leaves_the_first_alone(drsow, words, tmp_path):
    out = tmp_path / "out"
    # Stopped after its last step, before the model is written: all that a second run could disturb is there.
    assert drsow(*words, "--out", out, DRSOW_CRASH_AT="before-rename:curve").returncode == 137
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "settings.json"}
    with locked(out / "tuning.lock", busy=""):
        done = drsow(*words, "--out", out)
        assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"drsow: {out}: another process tunes into this folder; wait for it, or name another folder"
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "settings.json"} == before
    assert drsow(*words, "--out", out).returncode == 0
    assert (out / "model").is_dir() and not list(out.glob("*.lock"))


def test_of_the_processes_that_tune_together_the_first_one_alone_holds_the_lock(tmp_path, monkeypatch):
    with alone(tmp_path):
        with pytest.raises(DrsowError, match="another process tunes into this folder"), alone(tmp_path):
            pass
        monkeypatch.setenv("RANK", "1")
        with alone(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == ["tuning.lock"]
        monkeypatch.setenv("RANK", "0")
    assert not list(tmp_path.iterdir())


def test_damaged_settings_of_a_tuning_are_one_line(drsow, words, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text('{"policy": ')
    done = drsow(*words, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"drsow: {tmp_path}/out/settings.json: is damaged (no JSON object)")
    assert leftovers(tmp_path / "out") == ["settings.json"]


@pytest.mark.slow
def test_the_judges_table_is_the_rewards_of_what_both_policies_said(drsow, tuned, tiny_registry, tmp_path):
    out = tmp_path / "judged"
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    options = ["--dtype", "fp32", "--device", "cpu", "--results", tmp_path / "results", "--registry", tiny_registry]
    words = ["--before", "tiny-strong", "--after", tuned[0], "--prompts", prompts, "--n", 3, "--max-new-tokens", 8]
    done = drsow("judge", *words, "--annotator", "tiny", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    table = read_csv(out / "judge.csv").query("reward == 'sum'").set_index("measure")
    means, told = {}, json.loads((out / "manifest.json").read_text())["finish_reasons"]
    for side in ("before", "after"):
        said = [json.loads(line) for line in (out / f"{side}.jsonl").read_text().splitlines()]
        assert [len(row["candidates"]) for row in said] == [3] * 6
        n_cut = sum(row["finish_reasons"].count("length") for row in said)
        assert n_cut == told[side]["length"] and f"{n_cut} of 18 responses are cut at 8 tokens" in done.stderr
        texts = [[text for text in row["candidates"] if text] for row in said]
        found = [
            reward("tiny", row["prompt"][0]["content"], some, dtype="fp32", registry=tiny_registry)
            for row, some in zip(said, texts, strict=True)
            if some
        ]
        means[side] = [np.mean(values) for values in found]
        assert table.loc["reward", side] == pytest.approx(np.mean(means[side]), abs=1e-3)
    row = table.loc["reward"]
    assert row["difference"] == pytest.approx(row["after"] - row["before"])
    assert row["low"] <= row["difference"] <= row["high"]
    assert table.loc["win_rate", "before"] == 0.5 and (out / "figures" / "tuning.svg").is_file()
    before = {path: (out / path).read_bytes() for path in ("judge.csv", "before.jsonl", "after.jsonl")}
    assert drsow("judge", *words, "--annotator", "tiny", *options, "--out", out).returncode == 0
    assert {path: (out / path).read_bytes() for path in before} == before


def test_each_setting_of_judges_sampling_is_that_of_the_option_of_its_name(tiny_registry, tmp_path, monkeypatch):
    taken = []

    def keep(_session, _prompts, wish: Judging, *, out) -> pd.DataFrame:
        taken.append(wish.sampling)
        raise DrsowError("enough")

    monkeypatch.setattr("bench.verbs.judge.judge_policies", keep)
    words = ["--before", "tiny-strong", "--after", "tiny-weak", "--annotator", "tiny", "--registry", tiny_registry]
    words += ["--prompts", write_rows(tmp_path / "prompts.jsonl", PROMPTS), "--device", "cpu", "--out", tmp_path]
    words += ["--n", 2, "--temperature", 0.3, "--top-p", 0.4, "--max-new-tokens", 5, "--seed", 6]
    assert str(CliRunner().invoke(app, ["judge", *map(str, words)]).exception) == "enough"
    assert taken == [Sampling(n=2, temperature=0.3, top_p=0.4, max_new_tokens=5, seed=6)]


def test_a_misspelt_policy_after_tuning_is_one_line_before_the_one_before_it_is_sampled(drsow, tiny_registry, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    words = ["--prompts", prompts, "--max-new-tokens", 2, "--annotator", "tiny", "--registry", tiny_registry]
    words += ["--dtype", "fp32", "--device", "cpu", "--results", tmp_path / "results", "--out", tmp_path / "out"]
    done = drsow("judge", "--before", "tiny-strong", "--after", "tiny-stron", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "unknown model 'tiny-stron', did you mean 'tiny-strong'?" in done.stderr
    assert leftovers(tmp_path) == ["prompts.jsonl"]


@pytest.mark.parametrize("name", ["judge.csv", "manifest.json"])
def test_a_folder_with_a_file_that_judge_did_not_write_is_refused_and_it_stays(drsow, tiny_registry, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    words = ["--prompts", prompts, "--annotator", "tiny", "--registry", tiny_registry, "--device", "cpu"]
    words += ["--results", tmp_path / "results", "--out", tmp_path / "out"]
    done = drsow("judge", "--before", "tiny-strong", "--after", "tiny-weak", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"out: drsow judge did not write its {name}; name another folder" in done.stderr
    assert leftovers(tmp_path / "out") == [name] and (tmp_path / "out" / name).read_text() == "{}"


def test_the_folder_that_make_pipeline_wrote_into_git_is_taken_for_judges_own(drsow, tiny_registry, tmp_path):
    committed = Path(__file__).parents[2] / "results" / "pipeline"
    shutil.copytree(committed, tmp_path / "out", ignore=shutil.ignore_patterns("run", "*.jsonl*"))
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    words = ["--prompts", prompts, "--annotator", "tiny", "--registry", tiny_registry, "--device", "cpu"]
    words += ["--results", tmp_path / "results", "--out", tmp_path / "out"]
    done = drsow("judge", "--before", "tiny-strong", "--after", "tiny-stron", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "unknown model 'tiny-stron', did you mean 'tiny-strong'?" in done.stderr


@pytest.mark.slow
def test_agreement_is_counted_on_halves_by_the_cosine_of_the_mean_hidden_states(drsow, tiny_registry, tmp_path):
    data = write_rows(
        tmp_path / "people.jsonl",
        [row | {"prompt": f"Human: {row['prompt']}\n\nAssistant: yes\n\nHuman: more"} for row in rows(24)],
    )
    options = ["--dtype", "fp32", "--device", "cpu", "--results", tmp_path / "results", "--registry", tiny_registry]
    words = ["agree", "--pair", "tiny", "--data", data, "--model", "tiny-strong", *options]
    done = drsow(*words, "--transcripts")
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "results" / "real").rglob("agreement.csv")
    found = read_csv(table)
    rows_of = found[found["reward"] == "sum"].set_index("half")
    model = models.load_policy(tiny_registry / "strong", dtype=torch.float32, device="cpu").double()
    tokenizer = models.load_tokenizer(tiny_registry / "strong")
    values, right = [], []
    for row in rows(24):
        both = []
        for side in ("chosen", "rejected"):
            ids = torch.tensor([tokenizer(row[side]).input_ids])
            with torch.inference_mode():
                both.append(model.model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy())
        values.append(cosines(np.array(both))[0, 1])
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "yes"}]
        turns += [{"role": "user", "content": "more"}]
        good, bad = reward("tiny", turns, [row["chosen"], row["rejected"]], dtype="fp32", registry=tiny_registry)
        right.append(good > bad)
    order = np.argsort(values, kind="stable")
    assert rows_of.loc["dissimilar", "agreement"] == pytest.approx(np.mean(np.array(right)[order[:12]]))
    assert rows_of.loc["similar", "agreement"] == pytest.approx(np.mean(np.array(right)[order[12:]]))
    assert rows_of.loc["dissimilar", "similarity_low"] == pytest.approx(min(values), abs=1e-6)
    plain = drsow(
        "agree", "--pair", "tiny", "--data", write_rows(tmp_path / "x.jsonl", rows(2)), *options, "--transcripts"
    )
    assert plain.returncode == 2 and "is no transcript" in plain.stderr


def test_a_broken_line_of_prompts_is_named_and_nothing_is_written(drsow, tiny_registry, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b"\n')
    options = ["--registry", tiny_registry, "--prompts", prompts, "--out", tmp_path / "out.jsonl"]
    done = drsow("sample", "--model", "tiny-strong", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{prompts}, line 2" in done.stderr
    assert leftovers(tmp_path) == ["prompts.jsonl"]
