"""`drsow export`: reference columns that TRL's collator takes, and the hub's results as its own library reads them."""

import json
import math
import re
import shlex

import pandas as pd
import pytest
import yaml
from commands import rows, write_rows
from huggingface_hub import parse_eval_result_entries

from bench.cli import app
from bench.data.load import load_data
from bench.registry import load_registry
from bench.schema import UsageError
from bench.store.folder import Store
from bench.subject import Subject
from bench.verbs import evaluation, publish
from bench.verbs.told import lookup_of

BOARD = ["--to", "alpaca-eval", "--responses", "r.jsonl", "--generator", "g"]
"""The words of an export to a board."""


@pytest.fixture(scope="module")
def reference(drsow, finished, tiny_registry, data, tmp_path_factory):
    """The exported rows of tiny-strong, whose turns end in its EOS."""
    out = tmp_path_factory.mktemp("export") / "reference.parquet"
    stored = ["--registry", tiny_registry, "--data", data, "--results", finished[0]]
    done = drsow("export", "--to", "trl-reference", "--model", "tiny-strong", "--out", out, *stored)
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(out)


def test_trls_collator_takes_the_columns_and_its_sums_are_ours(reference, tiny_registry):
    pytest.importorskip("trl", reason="the extra `dev` is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    folder = tiny_registry / "strong"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for row in reference.head(3).to_dict("records"):
        # As DPOTrainer encodes a text prompt: alone, and with each response and its EOS.
        head = tokenizer(row["prompt"]).input_ids
        both = {
            side: tokenizer(row["prompt"] + row[side] + tokenizer.eos_token).input_ids
            for side in ("chosen", "rejected")
        }
        assert all(ids[: len(head)] == head for ids in both.values())
        sums = {name: row[name] for name in ("ref_chosen_logps", "ref_rejected_logps")}
        rows.append({"prompt_ids": head, **{f"{side}_ids": ids[len(head) :] for side, ids in both.items()}, **sums})
    batch = DataCollatorForPreference(pad_token_id=0)(rows)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    logps = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    sums = (logps * batch["completion_mask"][:, 1:]).sum(1)
    ours = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    torch.testing.assert_close(sums, ours.float(), rtol=0, atol=1e-2)


def trainer_of(folder, rows, out, **more: object):
    """TRL's DPOTrainer on rows, beta 0.1, that changes no weight."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    steps = {"per_device_train_batch_size": 4, "max_steps": 2, "logging_steps": 1, "learning_rate": 0.0}
    quiet = {"report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True}
    return DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        args=DPOConfig(str(out), beta=0.1, max_length=None, gradient_checkpointing=False, **steps, **quiet, **more),
        train_dataset=Dataset.from_pandas(rows, preserve_index=False),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def losses(trainer, *, with_columns: bool) -> list[float]:
    """The loss of each step."""
    if with_columns:
        # Without a reference model, the trainer cannot compute the columns again.
        trainer.precompute_ref_logps, trainer.ref_model = True, None
    trainer.train()
    return [each["loss"] for each in trainer.state.log_history if "loss" in each]


@pytest.mark.filterwarnings("ignore")
def test_trls_dpo_trainer_takes_the_columns_and_computes_none_itself(reference, tiny_registry, tmp_path):
    """The policy is the reference, so its log-ratios are 0 and the loss is log 2; 10 nats off, it is log(1 + 1/e)."""
    pytest.importorskip("trl", reason="the extra `dev` is not installed")
    folder = tiny_registry / "strong"
    assert losses(trainer_of(folder, reference, tmp_path), with_columns=True) == pytest.approx(
        [math.log(2)] * 2, abs=1e-3
    )
    moved = reference.assign(ref_chosen_logps=reference["ref_chosen_logps"] - 10)
    expected = [math.log1p(math.exp(-1))] * 2
    assert losses(trainer_of(folder, moved, tmp_path), with_columns=True) == pytest.approx(expected, abs=1e-3)
    # As the trainer is made, it loads a reference model and does not look at the columns.
    assert losses(trainer_of(folder, moved, tmp_path), with_columns=False) == pytest.approx([math.log(2)] * 2, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_trls_own_option_computes_the_columns_again_and_then_fails(reference, tiny_registry, tmp_path):
    """Why docs/guides/engines.md sets the trainer's attribute. If this fails, TRL has a better way."""
    pytest.importorskip("trl", reason="the extra `dev` is not installed")
    with pytest.raises(ValueError, match=r"duplicated columns but columns .*ref_chosen_logps"):
        trainer_of(tiny_registry / "strong", reference, tmp_path, precompute_ref_log_probs=True)


def test_every_preference_is_exported_with_its_id(reference, data):
    ids = [json.loads(line) for line in data.read_text().splitlines()]
    assert reference["example_id"].tolist() == [f"{row['subset']}/{row['id']}" for row in ids]
    assert list(reference.columns) == [
        "prompt",
        "chosen",
        "rejected",
        "example_id",
        "ref_chosen_logps",
        "ref_rejected_logps",
    ]


def test_a_row_of_which_trl_reads_other_tokens_than_were_scored_is_left_out_and_counted(drsow, tiny_registry, tmp_path):
    # The prompt ends on a line break. Encoded together, it is one token with the first of two more.
    crossing = [dict(rows(4)[0], chosen="\n\nyes"), dict(rows(4)[1], rejected="\n\nno")]
    data, out = write_rows(tmp_path / "rows.jsonl", [*crossing, *rows(4)[2:]]), tmp_path / "reference.jsonl"
    stored = ["--model", "tiny-strong", "--registry", tiny_registry, "--data", data, "--results", tmp_path / "results"]
    assert drsow("perform", "--task", "preferences", "--dtype", "fp32", "--device", "cpu", *stored).returncode == 0
    done = drsow("export", "--to", "trl-reference", *stored, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "2 rows are left out: in 2 TRL reads other tokens than those that were scored\n" in done.stderr
    assert [json.loads(line)["example_id"] for line in out.read_text().splitlines()] == ["numbers/2", "words/3"]


def test_results_belong_to_a_data_set_on_the_hub(drsow, finished, tiny_registry, data, tmp_path):
    stored = ["--registry", tiny_registry, "--data", data, "--results", finished[0]]
    done = drsow("export", "--to", "hf-eval-results", "--pair", "tiny", "--out", tmp_path / "x.yaml", *stored)
    assert done.returncode == 2
    assert "the hub's results belong to a data set on the hub" in done.stderr


def test_the_hubs_library_reads_its_results(drsow, results, tiny_registry, data, tmp_path, monkeypatch, capsys):
    # The same rows, which are scored already, under the name reward-bench.
    named, out = {"DRSOW_REWARDBENCH": str(data)}, tmp_path / "rewardbench.yaml"
    stored = ["--pair", "tiny", "--registry", tiny_registry, "--data", "reward-bench", "--results", results]
    assert drsow("leaderboard", *stored, **named).returncode == 0
    for limit, said in ([], "and these rows are a file's"), (["--limit-per-subset", "2"], "those of a whole data set"):
        done = drsow("export", "--to", "hf-eval-results", "--out", out, *stored, *limit, **named)
        assert done.returncode == 2 and said in done.stderr and not out.exists()
    # Under the digest of RewardBench's rows they are a copy of the hub's.
    monkeypatch.setenv("DRSOW_REWARDBENCH", str(data))
    known, rows = load_registry(tiny_registry), load_data("reward-bench")
    monkeypatch.setattr(evaluation, "REWARD_BENCH_ROWS", rows.digest)
    subject, lookup = Subject("tiny", (known.pair("tiny"),)), lookup_of(known)
    found = publish.hub_results(Store(results), subject, rows, lookup=lookup, reward="sum")
    entries = parse_eval_result_entries(yaml.safe_load(publish.yaml_text(found)))
    (path,) = (results / "tiny").glob("*/accuracy.csv")
    table = pd.read_csv(path)
    whole = table[(table["reward"] == "sum") & (table["level"] == "overall")]["accuracy"].item()
    assert {entry.dataset_id for entry in entries} == {"allenai/reward-bench"}
    assert [entry.value for entry in entries if entry.task_id == "default"] == [round(100 * whole, 2)]
    assert "float32 by " in entries[0].notes and "95% interval" in entries[0].notes
    with pytest.raises(
        UsageError, match=r"its tables are of float32 by .*, not of bfloat16; `drsow leaderboard --pair .* --dtype bf16"
    ):
        publish.hub_results(Store(results), subject, rows, lookup=lookup_of(known, dtype="bf16"), reward="sum")
    written = tmp_path / "my results" / "rewardbench.yaml"
    app([str(word) for word in ["export", "--to", "hf-eval-results", "--out", written, *stored]], standalone_mode=False)
    (command,) = re.findall("hf upload .*", capsys.readouterr().err)
    named = shlex.split(command)[3:]
    assert named == [str(written), ".eval_results/rewardbench.yaml", "--create-pr"] and written.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "trl-reference"], "--to trl-reference needs --model"),
        (["--to", "arena-hard", "--responses", "r.jsonl"], "--to arena-hard needs --generator"),
        (["--to", "hf-eval-results", "--pair", "tiny", "--model", "m"], "--to hf-eval-results takes no --model"),
        ([*BOARD, "--data", "absent.jsonl"], "--to alpaca-eval reads --responses alone, without --data, "),
        ([*BOARD, "--limit-per-subset", 3], "--to alpaca-eval reads --responses alone, without --data, "),
        ([*BOARD, "--reward", "mean"], "--to alpaca-eval reads --responses alone, without --data, "),
        (["--to", "trl-reference", "--model", "m", "--reward", "mean"], "--to trl-reference takes no --reward: "),
    ],
)
def test_a_format_names_the_options_that_it_lacks_or_does_not_take(drsow, words, said):
    done = drsow("export", "--out", "x", *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(("to", "name"), [("alpaca-eval", "b.json"), ("arena-hard", "b.jsonl")])
def test_an_export_to_a_board_replaces_its_like_and_no_other_file(drsow, tmp_path, to, name):
    said, out = write_rows(tmp_path / "said.jsonl", [{"prompt": "a", "candidates": ["b"]}]), tmp_path / name
    words = ["export", "--to", to, "--responses", said, "--generator", "g", "--out", out]
    assert [drsow(*words).returncode for _ in range(2)] == [0, 0]
    # AlpacaEval's own questions have the keys of an export in another order.
    questions = [{"dataset": "helpful_base", "instruction": "a", "output": "b", "generator": "text_davinci_003"}]
    other = [json.dumps(rows, indent=2) + "\n" for rows in (questions, [{"instruction": "a"}])]
    for mine in ('{"uid": "mine"}\n', "some words\n", "[\n", *other):
        out.write_text(mine)
        done = drsow(*words)
        assert (done.returncode, done.stdout, out.read_text()) == (2, "", mine)
        assert (
            done.stderr
            == f"drsow: {out} exists already, and drsow export --to {to} did not write it; name another --out\n"
        )


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["export", "--to", "trl-reference"], "r.jsonl"),
        (["export", "--to", "trl-reference"], "r.parquet"),
        (["scores"], "s.csv"),
        (["scores"], "s.parquet"),
    ],
)
def test_stored_scores_replace_their_like_and_no_other_table(
    drsow, finished, tiny_registry, data, tmp_path, words, name
):
    out = tmp_path / name
    stored = ["--registry", tiny_registry, "--data", data, "--results", finished[0]]
    words = [*words, "--model", "tiny-strong", "--out", out, *stored]
    assert [drsow(*words).returncode for _ in range(2)] == [0, 0]
    mine = pd.DataFrame({"example_id": ["a"], "mine": [1.0]})
    writers = {".csv": mine.to_csv, ".parquet": mine.to_parquet, ".jsonl": mine.to_json}
    writers[out.suffix](out, **({"orient": "records", "lines": True} if out.suffix == ".jsonl" else {"index": False}))
    before = out.read_bytes()
    done = drsow(*words)
    assert (done.returncode, done.stdout, out.read_bytes()) == (2, "", before)
    assert f"{out} exists already, and drsow {words[0]}" in done.stderr and done.stderr.count("\n") == 1


def test_an_export_is_not_written_over_what_it_reads(drsow, tmp_path):
    said = write_rows(tmp_path / "said.jsonl", [{"prompt": "a", "candidates": ["b"]}])
    data = write_rows(tmp_path / "rows.jsonl", rows(4))
    before = said.read_bytes(), data.read_bytes()
    board = ["export", *BOARD[:2], "--responses", said, "--generator", "g"]
    assert drsow(*board, "--out", said).stderr.endswith("is the file that --responses reads; name another file\n")
    for words in (["export", "--to", "trl-reference"], ["scores"]):
        done = drsow(*words, "--model", "smollm2-135m-instruct-q4", "--data", data, "--out", data)
        assert done.returncode == 2 and done.stderr.endswith("is the file that --data reads; name another file\n")
    assert (said.read_bytes(), data.read_bytes()) == before
    assert drsow(*board, "--out", tmp_path / "board.json").returncode == 0
