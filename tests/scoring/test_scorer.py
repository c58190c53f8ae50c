"""One model's pass: what is too long, not finite or too much for memory; what its files must hold."""

import gc
import hashlib
import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_templates import CHATML, CHATML_SYSTEM
from plain import plain_logps
from safetensors.torch import load_file, save_file
from tiny_models import CONTEXT, entry, pair_entry, save_tiny
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM

import bench
from bench.cli.show import row_lines
from bench.lookup import Lookup
from bench.registry import Registry, load_registry
from bench.schema import Dataset, DrsowError, Example, Message, PreconditionError, UsageError
from bench.scoring import PLAIN, fetch, models, passes, run, served
from bench.scoring.forward import engine, trie
from bench.scoring.forward.device import out_of_memory
from bench.scoring.forward.engine import Prepared
from bench.scoring.render import render
from bench.scoring.scorer import Scorer
from bench.store.folder import Store
from bench.study import measure
from bench.study.board import Subject
from bench.verbs import score, texts
from bench.verbs.plan import Planner, plan_passes
from bench.verbs.session import Session

OPTIONS = passes.Options(dtype="float32", device="cpu", batch_tokens=256)


def example(number: int, prompt: str, *responses: str) -> Example:
    names = ("chosen", "rejected")[: len(responses)]
    return Example(f"s/{number}", "s", (Message("user", prompt),), tuple(zip(names, responses, strict=True)))


WORDS = ["water is two", "no", "yes, the answer is prime", "three!", "é 🎉", "the user"]
ROWS = [example(i, f"{word} {i}?", word, f"{word} {word}") for i, word in enumerate(WORDS)]
LONG = example(90, "x" * (CONTEXT + 1), "yes", "no")


def session(known: Registry, results: Path = Path("nowhere")) -> Session:
    return Session(known, Store(results), OPTIONS)


def ready(registry, rows, *, options: passes.Options = OPTIONS) -> passes.Ready:
    spec = load_registry(registry).model("tiny-strong")
    return passes.make_ready(passes.Work(spec, spec, Dataset("rows", "rows", "0", tuple(rows))), options)


def scored(registry, rows, root, *, options: passes.Options = OPTIONS):
    """The stored scores, by example_id and response_id, and what the run reported."""
    score_set = run.score_missing(ready(registry, rows, options=options), Store(root), options)
    return score_set.read().set_index(["example_id", "response_id"]), score_set.info()


def changed(registry, target, change):
    """A copy of a registry whose strong model's weights were changed."""
    shutil.copytree(registry, target)
    weights = load_file(target / "strong" / "model.safetensors")
    change(weights)
    save_file(weights, target / "strong" / "model.safetensors", metadata={"format": "pt"})
    return target


def test_stored_sums_are_the_plain_loops(tiny_registry, tmp_path):
    scores, info = scored(tiny_registry, ROWS, tmp_path)
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    model = AutoModelForCausalLM.from_pretrained(tiny_registry / "strong", dtype=torch.float32).eval()
    for sequence in render(ROWS, scorer.tokenizer, scorer.template).sequences:
        logps = plain_logps(model, sequence.ids, sequence.start)
        row = scores.loc[sequence.example_id, sequence.response_id]
        assert row["logp_sum_nats"] == pytest.approx(logps[:-1].sum(), abs=3e-5 * len(logps))
        assert row["logp_end_nats"] == pytest.approx(logps[-1], abs=3e-5)
        assert (row["n_tokens"], row["n_bytes"], row["status"]) == (len(logps), sequence.n_bytes, "ok")
    assert info["n_examples"] == len(ROWS)
    assert info["context_tokens"] == CONTEXT


def test_no_part_of_a_model_is_in_memory_when_the_next_one_loads_or_after_a_pass(tiny_registry, tmp_path, monkeypatch):
    def n_parts() -> int:
        # By type: some objects of torch warn when they are asked for their class.
        return sum(issubclass(type(each), torch.nn.Module) for each in gc.get_objects())

    def load_model(*args, **options):
        at_loads.append(n_parts())
        return real(*args, **options)

    # A pass that imports it hides all objects of that moment, the parts of other tests' models too.
    assert served
    at_loads, real = [], models.load_model
    monkeypatch.setattr(models, "load_model", load_model)
    gc.collect()
    before = n_parts()
    gc.disable()
    try:
        # In bf16 first, then for its precision in float32.
        scored(tiny_registry, ROWS, tmp_path, options=OPTIONS._replace(dtype="bfloat16"))
        assert at_loads == [before, before]
        assert n_parts() == before
    finally:
        gc.enable()


def test_the_next_models_weights_are_read_whole_and_a_folder_without_any_is_no_error(tiny_registry, tmp_path):
    def n_read() -> int:
        return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])

    folder, before = tiny_registry / "strong", n_read()
    fetch.read_ahead(folder).join()
    assert n_read() - before >= (folder / "model.safetensors").stat().st_size
    fetch.read_ahead(tmp_path / "none").join()


def test_a_row_longer_than_the_context_is_too_long_and_the_others_stay(tiny_registry, tmp_path):
    scores, _ = scored(tiny_registry, [*ROWS, LONG], tmp_path / "with")
    without, _ = scored(tiny_registry, ROWS, tmp_path / "without")
    assert scores.loc["s/90", "status"].tolist() == ["too_long", "too_long"]
    assert scores.loc["s/90", ["logp_sum_nats", "logp_end_nats"]].isna().all(axis=None)
    shared = scores.drop(index="s/90")
    assert shared["status"].eq("ok").all()
    np.testing.assert_allclose(shared["logp_sum_nats"], without["logp_sum_nats"], rtol=0, atol=1e-3)


def test_a_row_of_exactly_the_context_is_scored(tiny_registry, tmp_path):
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    around = len(render([example(1, "x", "7")], scorer.tokenizer, scorer.template).sequences[0].ids)
    fits = example(1, "x" * (1 + CONTEXT - around), "7", "77")
    scores, _ = scored(tiny_registry, [fits], tmp_path)
    assert scores["status"].tolist() == ["ok", "too_long"]


def test_rewards_of_a_text_longer_than_the_context_are_an_error_with_the_response_and_the_model_named(tiny_registry):
    prompt = LONG.messages[0].content
    with pytest.raises(UsageError, match=r"^the prompt: response 0 has \d tokens and its prompt 2,\d\d\d, but tiny-s"):
        bench.reward("tiny", prompt, ["yes"], dtype="fp32", registry=tiny_registry)
    responses = ["yes", "no", "x" * CONTEXT]
    words = rf"response 2 has {CONTEXT + 1:,} tokens and its prompt \d+, but tiny-strong reads at most {CONTEXT:,} "
    with pytest.raises(UsageError, match=f"^the prompt: {words}"):
        bench.reward("tiny", "7?", responses, dtype="fp32", registry=tiny_registry)
    opened = bench.Annotator("tiny", dtype="fp32", device="cpu", registry=tiny_registry)
    with opened, pytest.raises(UsageError, match=rf"^batch\[1\]: {words}"):
        opened.rewards([("7?", ["yes"]), ("7?", responses)])


def test_what_is_not_finite_has_that_status_and_no_number(tiny_registry, tmp_path):
    broken = changed(tiny_registry, tmp_path / "r", lambda w: w["model.norm.weight"].fill_(float("nan")))
    scores, _ = scored(broken, ROWS, tmp_path / "out")
    assert len(scores) == 2 * len(ROWS)
    assert scores["status"].eq("nonfinite").all()
    assert scores[["logp_sum_nats", "logp_end_nats"]].isna().all(axis=None)


def test_one_token_that_is_not_finite_makes_the_response_so(tiny_registry):
    sequences = render(ROWS[:1], *_reader(tiny_registry)).sequences
    frame = passes.scores_frame(sequences, [np.array([-1.0, np.nan, -2.0]), np.array([-1.0, -np.inf])])
    assert frame["status"].tolist() == ["nonfinite", "nonfinite"]
    assert frame[["logp_sum_nats", "logp_end_nats"]].isna().all(axis=None)


def test_a_broken_token_spoils_the_responses_that_hold_it_alone(tiny_registry, tmp_path):
    token = _reader(tiny_registry)[0].convert_tokens_to_ids("7")
    broken = changed(tiny_registry, tmp_path / "r", lambda w: w["model.embed_tokens.weight"][token].fill_(float("nan")))
    rows = [*ROWS, example(7, "what?", "7 7", "no")]
    scores, _ = scored(broken, rows, tmp_path / "out")
    sound, _ = scored(tiny_registry, rows, tmp_path / "sound")
    assert scores.loc[("s/7", "chosen"), "status"] == "nonfinite"
    others = scores.drop(index=("s/7", "chosen"))
    assert others["status"].eq("ok").all()
    np.testing.assert_allclose(
        others["logp_sum_nats"], sound.drop(index=("s/7", "chosen"))["logp_sum_nats"], rtol=0, atol=1e-3
    )


def _reader(registry):
    scorer = Scorer(ready(registry, ROWS), OPTIONS)
    return scorer.tokenizer, scorer.template


class Memory:
    """A hook that runs out of memory above some number of tokens per step."""

    def __init__(self, most: int) -> None:
        self.most, self.refused = most, 0

    def __call__(self, module, args, kwargs) -> None:
        if kwargs["input_ids"].shape[1] > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_out_of_memory_the_budget_is_halved_and_the_numbers_stay(tiny_registry, capsys):
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    sequences = render(ROWS, scorer.tokenizer, scorer.template).sequences
    calm, counts = scorer.logps(sequences, 256), {"n_steps": 0, "n_computed_tokens": 0, "halved": 0}
    memory = Memory(70)
    handle = scorer.model().model.base_model.register_forward_pre_hook(memory, with_kwargs=True)
    tight = scorer.logps(sequences, 256, counts)
    handle.remove()
    assert memory.refused == counts["halved"] == 2
    assert capsys.readouterr().err.count("tiny-strong: out of memory, continuing with") == 2
    for ours, theirs in zip(tight, calm, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5)


def test_what_is_no_lack_of_memory_is_not_tried_again(tiny_registry):
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    sequences = render(ROWS, scorer.tokenizer, scorer.template).sequences

    def fail(module, args) -> None:
        raise RuntimeError("shape mismatch")

    scorer.model().model.base_model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        scorer.logps(sequences, 256)


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, lack):
    assert out_of_memory(error) == lack


def test_bfloat16_reports_how_far_it_moves_a_sample(tiny_registry, tmp_path):
    low, info = scored(tiny_registry, ROWS, tmp_path, options=OPTIONS._replace(dtype="bfloat16"))
    high, exact = scored(tiny_registry, ROWS, tmp_path)
    precision = info["precision"]
    assert precision["n_responses"] == 2 * len(ROWS)
    sums = ["logp_sum_nats", "logp_end_nats"]
    total = (low[sums] - high[sums]).sum(axis=1).abs()
    assert precision["max_shift_nats"] == pytest.approx(total.max(), abs=1e-3)
    assert precision["mean_shift_nats"] == pytest.approx(total.mean(), abs=1e-3)
    assert "precision" not in exact


BF16 = OPTIONS._replace(dtype="bfloat16")
OTHERS = [example(i, f"{word} {i}!", f"{word} {word}", word) for i, word in enumerate(WORDS)]


def of_rows(rows):
    """A dataset of `rows` with the digest of its texts, as loading gives it one."""
    return Dataset("rows", "rows", hashlib.sha256(repr(rows).encode()).hexdigest(), tuple(rows))


def bf16_info(registry, rows, root, *, model="tiny-strong"):
    """What a bfloat16 run over some rows reports."""
    known = load_registry(registry)
    work = passes.Work(known.model(model), known.model("tiny-strong"), of_rows(rows))
    return run.score_missing(passes.make_ready(work, BF16), Store(root), BF16).info()


def test_a_small_set_takes_the_precision_of_an_earlier_one_and_says_when_and_on_which_rows(tiny_registry, tmp_path):
    first = bf16_info(tiny_registry, ROWS, tmp_path)
    second = bf16_info(tiny_registry, OTHERS[:4], tmp_path)
    told = {"data": "rows", "data_digest": of_rows(ROWS).digest, "utc": first["finished_utc"]}
    assert "measured_earlier" not in first["precision"]
    assert second["precision"] == first["precision"] | {"measured_earlier": told}
    assert bf16_info(tiny_registry, OTHERS[4:], tmp_path)["precision"] == second["precision"]


def test_a_set_with_more_responses_than_the_earlier_one_is_measured(tiny_registry, tmp_path):
    bf16_info(tiny_registry, ROWS[:4], tmp_path)
    precision = bf16_info(tiny_registry, OTHERS, tmp_path)["precision"]
    assert precision["n_responses"] == 2 * len(OTHERS)
    assert "measured_earlier" not in precision


def test_a_large_set_is_measured_on_its_own_rows(tiny_registry, tmp_path):
    bf16_info(tiny_registry, [example(i, f"{i}?", "yes", "no") for i in range(20)], tmp_path)
    many = [example(i, f"{i}!", "yes", "no") for i in range(passes.SMALL_RESPONSES // 2 + 1)]
    assert "measured_earlier" not in bf16_info(tiny_registry, many, tmp_path)["precision"]
    assert "measured_earlier" in bf16_info(tiny_registry, many[1:], tmp_path)["precision"]


def test_precision_under_other_versions_or_of_another_model_is_not_taken(tiny_registry, tmp_path, monkeypatch):
    bf16_info(tiny_registry, ROWS, tmp_path)
    assert "measured_earlier" not in bf16_info(tiny_registry, OTHERS[:4], tmp_path, model="tiny-weak")["precision"]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    assert "measured_earlier" not in bf16_info(tiny_registry, OTHERS[:4], tmp_path)["precision"]


def test_a_pairs_flips_are_counted_where_its_models_were_measured(tiny_registry, tmp_path):
    known = load_registry(tiny_registry)
    store, subject = Store(tmp_path), Subject("tiny", (known.pair("tiny"),))
    opened = Session(known, store, BF16)

    def counts(rows):
        dataset = of_rows(rows)
        sets, errors, _ = score.score_all(opened, [subject], dataset)
        assert errors == []
        return measure.precision(subject, sets, dataset)

    first = counts(ROWS)
    assert first["tiny"]["n_examples"] == len(ROWS)
    assert counts(OTHERS[:3]) == first
    # Now the strong model alone has a larger sample, of other rows: no decision of the pair was scored in both.
    bf16_info(tiny_registry, [*ROWS, example(99, "One?", "yes", "no")], tmp_path)
    assert counts(OTHERS[3:]) == {}


def test_the_precision_sample_holds_whole_finite_rows_alone(tiny_registry, tmp_path):
    half = example(91, "x" * (CONTEXT - 200), "no " * 99, "no")
    token = _reader(tiny_registry)[0].convert_tokens_to_ids("7")
    broken = changed(tiny_registry, tmp_path / "r", lambda w: w["model.embed_tokens.weight"][token].fill_(float("nan")))
    rows = [example(1, "water", "yes", "no"), example(2, "two", "7 7", "no"), half]
    scores, info = scored(broken, rows, tmp_path / "out", options=OPTIONS._replace(dtype="bfloat16"))
    statuses = scores["status"].to_dict()
    assert statuses[("s/2", "chosen")] == "nonfinite"
    assert (statuses[("s/91", "chosen")], statuses[("s/91", "rejected")]) == ("too_long", "ok")
    assert sorted(info["precision"]["sums_nats"]) == ["s/1 chosen", "s/1 rejected"]
    assert np.isfinite(info["precision"]["max_shift_nats"])


class Small(Scorer):
    """A scorer on a device that holds no float32 model."""

    def model(self, dtype: str | None = None) -> Prepared:
        if dtype == "float32":
            raise DrsowError("tiny-strong: out of memory on cpu in float32")
        return super().model(dtype)


def test_a_model_too_large_for_float32_is_scored_without_that_sample(tiny_registry, tmp_path, capsys):
    options = OPTIONS._replace(dtype="bfloat16")
    job = ready(tiny_registry, ROWS, options=options)
    score_set = Store(tmp_path).score_set(job.key)
    with score_set.lock():
        list(Small(job, options).stages(score_set))
    assert score_set.complete
    assert "precision" not in score_set.info()
    assert "in float32; its precision is not measured" in capsys.readouterr().err


def test_a_lack_of_memory_for_one_token_is_an_error_with_the_model_named(tiny_registry):
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    sequences = render(ROWS[:1], scorer.tokenizer, scorer.template).sequences
    scorer.model().model.base_model.register_forward_pre_hook(Memory(0), with_kwargs=True)
    with pytest.raises(DrsowError, match="tiny-strong: out of memory on cpu with one token a step"):
        scorer.logps(sequences, 256)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_a_missing_precondition(tiny_registry):
    with pytest.raises(PreconditionError, match="torch finds no GPU"):
        passes.resolved(device="cuda")


def lacks_a_weight(folder) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def is_cut_short(folder) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def has_another_shape(folder) -> None:
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"intermediate_size": 128}))


def is_of_no_known_kind(folder) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}')


def sets(**more):
    """A damage that changes settings of config.json."""

    def damage(folder) -> None:
        shape = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(shape | more))

    return damage


def holds(name: str, like: str = "model.norm.weight", dtype: torch.dtype = torch.float32):
    """A damage that stores a weight of the shape of another one."""

    def damage(folder) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[name] = torch.ones_like(weights[like]).to(dtype)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lacks_a_weight, r"model\.layers\.1\.mlp\.up_proj\.weight is not in its files \(1 weights are missing\)"),
        (is_cut_short, "the model cannot be loaded: "),
        (
            has_another_shape,
            r"down_proj\.weight has the shape \(32, 64\) in its files and \(32, 128\) by its configuration",
        ),
        (
            sets(num_hidden_layers=1),
            r"model\.layers\.1\.\S+ is in its files, but not in the model .* \(9 such weights\)",
        ),
        (holds("model.layers.0.self_attn.q_proj.bias"), r"q_proj\.bias is in its files, but not in the model "),
        (holds(UP.replace("weight", "weight_scale")), r"up_proj\.weight_scale is in its files, but not in the model "),
        (holds("score.weight"), r"score\.weight is in its files, but not in the model "),
        (
            holds(UP, like=UP, dtype=torch.float8_e4m3fn),
            "up_proj.weight is stored as F8_E4M3, but config.json names no ",
        ),
        (holds(UP, like=UP, dtype=torch.int8), "up_proj.weight is stored as I8, but config.json names no "),
        (
            sets(quantization_config={"quant_method": "modelopt"}),
            "does not read the quantisation 'modelopt' that config",
        ),
        (is_of_no_known_kind, "the model cannot be loaded: .*abacus"),
    ],
)
def test_weights_that_are_not_whole_are_refused_in_one_line(tiny_registry, tmp_path, damage, words):
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "model")
    damage(folder)
    with pytest.raises(DrsowError, match=words) as error:
        models.load_model(folder, dtype=torch.float32, device="cpu")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("model.layers.0.attn.masked_bias", False),
        ("vision_tower.encoder.layers.0.mlp.fc1.weight", False),
        ("mtp.layers.0.mlp.up_proj.weight", False),
        ("model.layers.2.mlp.up_proj.weight", False),
        ("v_head.summary.weight", True),
    ],
)
def test_what_a_language_model_does_not_need_is_left_out(tiny_registry, tmp_path, capsys, name, said):
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "model")
    holds(name)(folder)
    sets(num_nextn_predict_layers=1)(folder)
    for _ in range(2):
        models.load_model(folder, dtype=torch.float32, device="cpu")
    line = f"{folder}: {name} is in its files, but not in the language model, and is left out (1 such weights)\n"
    assert capsys.readouterr().err == line * said


def test_block_fp8_weights_are_read_as_the_numbers_that_they_stand_for(tiny_registry, tmp_path):
    plain, folder = (shutil.copytree(tiny_registry / "strong", tmp_path / name) for name in ("plain", "fp8"))
    weights = load_file(folder / "model.safetensors")
    meant = {name: weight.bfloat16() for name, weight in weights.items()}
    stored = dict(meant)
    for name in [name for name in weights if "_proj" in name]:
        scale = weights[name].abs().max() / 448
        stored[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
        meant[name] = stored[name].float() * scale
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    sets(quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})(folder)
    rows = trie.pack([np.arange(30), np.arange(5, 40)], [9, 9], budget=100)
    for dtype in (torch.float32, torch.bfloat16):
        ours, theirs = (models.load_model(each, dtype=dtype, device="cpu") for each in (folder, plain))
        assert np.array_equal(engine.score(ours, rows), engine.score(theirs, rows))


@pytest.mark.parametrize(
    ("left", "error", "words"),
    [
        ([], DrsowError, "has no tokenizer.json; save the tokenizer of the model"),
        (["tokenizer.model"], PreconditionError, "run `pip install sentencepiece protobuf`, or save the tokenizer as"),
    ],
)
def test_a_folder_without_a_tokenizer_is_refused(tiny_registry, tmp_path, left, error, words):
    folder = shutil.copytree(tiny_registry / "strong", tmp_path / "model", ignore=shutil.ignore_patterns("token*"))
    for name in left:
        (folder / name).write_bytes(b"no pieces")
    with pytest.raises(error, match=words) as found:
        models.load_tokenizer(folder)
    assert str(folder) in str(found.value)


def a_registry(folder: Path, **templates: object) -> Path:
    """Models "strong", with these chat templates, and "weak", with ChatML; the pair "both"."""
    for name, template in {"strong": CHATML, "weak": CHATML, **templates}.items():
        chat = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
        chat.chat_template = template
        save_tiny(folder / name, tokenizer=chat, seed=len(name))
    (folder / "models.toml").write_text(entry("strong", "strong") + entry("weak", "weak"))
    (folder / "pairs.toml").write_text(pair_entry("both", "strong", "weak"))
    return folder


def of_both(folder: Path, rows) -> tuple:
    """A registry's pair as a subject, and rows as a data set."""
    known = load_registry(folder)
    return known, [Subject("both", (known.pair("both"),))], Dataset("rows", "rows", "0", tuple(rows))


def test_a_template_chosen_without_a_default_is_said_in_the_plan_the_run_and_the_manifest(tmp_path, capsys):
    made = a_registry(tmp_path / "r", strong={"rag": CHATML_SYSTEM, "tool_use": CHATML})
    known, subjects, dataset = of_both(made, ROWS[:2])
    opened = session(known, tmp_path / "out")
    planner = Planner(opened, dataset, Lookup())
    plan_passes(planner, subjects, gpu="h100", cpu_rate=None)
    note = "has no chat template named 'default', only 'rag', 'tool_use'; the plain format is used"
    assert planner.notes == {"strong": note}
    capsys.readouterr()
    sets, _, _ = score.score_all(opened, subjects, dataset)
    assert {each.info()["template_choice"] for each in sets.values()} == {f"strong {note}"}
    assert {each.key.template_digest for each in sets.values()} == {hashlib.sha256(PLAIN.encode()).hexdigest()}
    assert f"weak: strong {note}" in capsys.readouterr().err


def test_a_tokenizer_of_more_tokens_than_the_embedding_stops_its_own_pair_with_row_and_token_named(tmp_path):
    made = a_registry(tmp_path / "r")
    odd = models.load_tokenizer(made / "strong")
    odd.add_special_tokens({"pad_token": "[PAD]"})
    odd.save_pretrained(made / "strong")
    rows = [*ROWS[:2], example(7, "so?", "yes [PAD]", "no")]
    known, subjects, dataset = of_both(made, rows)
    sets, errors, code = score.score_all(session(known, tmp_path / "out"), subjects, dataset)
    assert [side for side, _ in sets] == ["weak"]
    (line,) = errors
    assert line.startswith(
        "strong: s/7: response chosen: token '[PAD]' has id 356, but the embedding of strong ends at"
    )
    assert code == 1
    # Rows without it are scored.
    known, subjects, dataset = of_both(made, ROWS[:2])
    assert len(score.score_all(session(known, tmp_path / "out"), subjects, dataset)[0]) == 2


def test_what_rows_needed_a_rule_of_their_own_is_said_and_in_the_manifest(tmp_path, capsys):
    rows = [example(1, "so?", "yes<|im_end|>\n", "no <|im_start|>user"), ROWS[0]]
    known, subjects, dataset = of_both(a_registry(tmp_path / "r"), rows)
    sets, _, _ = score.score_all(session(known, tmp_path / "out"), subjects, dataset)
    for each in sets.values():
        counts = ("n_end_cut", "n_end_kept", "n_special_text", "n_system_merged", "n_trimmed", "n_start_fallback")
        assert [each.info()[name] for name in counts] == [1, 0, 1, 0, 0, 0]
        (ended,) = each.read().query("example_id == 's/1' and response_id == 'chosen'").to_dict("records")
        assert ended["n_bytes"] == 3
    said = capsys.readouterr().err
    assert "strong: 1 responses end in end-of-turn text: drsow removed it, so one end of turn is scored" in said
    assert "weak: 1 examples contain the text of special tokens" in said


def test_a_row_is_shown_as_its_template_renders_it(tmp_path):
    made = a_registry(tmp_path / "r", strong=CHATML.replace("turn['content']", "' ' + turn['content'] | trim"))
    known, (subject,), dataset = of_both(made, [example(1, "so?", "\u00e9\u00e9 yes\n", "no\n\n")])
    table = texts.token_table(texts.scorers(session(known), subject.pairs[0]), dataset.examples[0])
    assert table.texts == {"chosen": " \u00e9\u00e9 yes", "rejected": " no"}
    *_, chosen, _, _, rejected = row_lines(dataset.examples[0], *table, colour=False)
    assert re.sub(r"\[[^]]*\]", "", chosen) == " \u00e9\u00e9 yes<end>"
    assert re.sub(r"\[[^]]*\]", "", rejected) == " no<end>"
