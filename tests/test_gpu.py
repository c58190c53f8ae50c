"""On a GPU: scores, rewards, responses and tuning beside the processor's; too little room, and no compiler.

`perf.gpu` checks each architecture's sums there; these tests run the verbs on tiny models of random weights.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_templates import CHATML
from commands import environment, rows, write_rows
from tiny_models import entry, pair_entry, save_adapter, tiny_model
from tiny_tokenizers import byte_level
from transformers import LlamaConfig

import bench
from bench.data.load import load_data
from bench.prefer import decode
from bench.prefer.asked import Speaker
from bench.prefer.respond import texts_of
from bench.prefer.resumed import Sampling
from bench.prefer.tune import Policy, Tuning, rows_of, tune
from bench.registry import load_registry
from bench.schema import Dataset, DrsowError
from bench.scoring import models, passes, run
from bench.scoring.embed import embed
from bench.scoring.render import Template, render
from bench.store.folder import ScoreSet, Store

GPU = "cuda"
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
    # Of torch: its compiler's modules under Python 3.12, and the first product of a backward pass.
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning"),
]

FP32_NATS = 2e-3
"""Largest distance of a response's sum to the processor's in float32; a response has 6 to 250 tokens."""
BF16_TIMES = 1.5
"""How many times as far from float32 as the processor's a GPU's bfloat16 sums may be, on average."""

MORE = """[[models]]
model_id = "gpu-lora"
source = { adapter = "lora", base = "gpu-strong" }
format = "safetensors"
method = "dpo"

[[models]]
model_id = "gpu-noise"
source = { base = "gpu-strong", noise = 0.2, seed = 1 }
format = "safetensors"
method = "noise"
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A registry of two models whose files are bfloat16, with heads that FlexAttention takes; an adapter and noise."""
    folder = tmp_path_factory.mktemp("gpu")
    chat = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    chat.chat_template = CHATML
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": chat.bos_token_id, "eos_token_id": chat.eos_token_id}
    config = LlamaConfig(vocab_size=len(chat), num_key_value_heads=2, max_position_embeddings=4096, **shape, **ends)
    for seed, name in enumerate(("strong", "weak"), 1):
        tiny_model(config, seed=seed, scale=4.0).to(torch.bfloat16).save_pretrained(folder / name)
        chat.save_pretrained(folder / name)
    save_adapter(folder / "lora", folder / "strong", base_name="strong", target_modules=["q_proj", "down_proj"])
    (folder / "models.toml").write_text(entry("gpu-strong", "strong") + entry("gpu-weak", "weak") + MORE)
    (folder / "pairs.toml").write_text(pair_entry("gpu", "gpu-strong", "gpu-weak"))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("data"), 96)


def preferences(folder: Path, n: int) -> Dataset:
    """Preferences with responses of 6 to 250 tokens, all different."""
    content = [row | {"rejected": row["rejected"] * (1 + row["id"] % 30)} for row in rows(n)]
    return load_data(str(write_rows(folder / "rows.jsonl", content)))


def scored(place, data, root, model_id: str, *, dtype: str, device: str):
    """Sums by response, nats, and what the run reported."""
    spec, options = load_registry(place).model(model_id), passes.resolved(dtype=dtype, device=device)
    found = run.score_missing(passes.make_ready(passes.Work(spec, spec, data), options), Store(root), options)
    return sums_of(found), found.info()


def sums_of(found: ScoreSet) -> np.ndarray:
    frame = found.read().set_index(["example_id", "response_id"]).sort_index()
    assert (frame["status"] == "ok").all()
    return (frame["logp_sum_nats"] + frame["logp_end_nats"]).to_numpy()


@pytest.mark.parametrize("model_id", ["gpu-strong", "gpu-lora", "gpu-noise"])
def test_sums_are_those_of_the_processor(place, data, tmp_path, model_id):
    exact, _ = scored(place, data, tmp_path, model_id, dtype="fp32", device="cpu")
    ours, info = scored(place, data, tmp_path, model_id, dtype="fp32", device=GPU)
    assert np.abs(ours - exact).max() < FP32_NATS
    assert info["device"] == torch.cuda.get_device_name()
    own, _ = scored(place, data, tmp_path, model_id, dtype="bf16", device="cpu")
    low, info = scored(place, data, tmp_path, model_id, dtype="bf16", device=GPU)
    assert np.abs(low - exact).mean() < BF16_TIMES * np.abs(own - exact).mean()
    # Measured against float32 on the same GPU: the model was made float32 in place, or read again.
    shown = info["precision"]
    assert shown["n_responses"] >= 32
    assert 0 < shown["mean_shift_nats"] < 2 * BF16_TIMES * np.abs(own - exact).mean()


@contextmanager
def little_memory(n_bytes: int) -> Iterator[None]:
    """Bounds the memory that torch may take beyond what it holds."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + n_bytes) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_with_little_memory_a_step_is_halved_and_the_sums_stay(place, tmp_path, capsys):
    # Several steps of full size, beside which the room is small that preparing the model takes.
    data = preferences(tmp_path, 600)
    torch.cuda.reset_peak_memory_stats()
    exact, _ = scored(place, data, tmp_path / "all", "gpu-strong", dtype="fp32", device=GPU)
    peak = torch.cuda.max_memory_allocated()
    with little_memory(peak * 6 // 10):
        ours, _ = scored(place, data, tmp_path / "some", "gpu-strong", dtype="fp32", device=GPU)
    assert "gpu-strong: out of memory, continuing with" in capsys.readouterr().err
    assert np.abs(ours - exact).max() < FP32_NATS


def test_a_model_without_room_is_refused_in_one_line(place, data, tmp_path):
    with little_memory(0), pytest.raises(DrsowError, match=r"^gpu-strong: out of memory on cuda in bfloat16$"):
        scored(place, data, tmp_path, "gpu-strong", dtype="bf16", device=GPU)


def test_rewards_and_tokens_are_those_of_the_processor_and_the_memory_is_given_back(place):
    batch = [("Is 7 prime?", ["yes, it is", "no " * 20]), ("Name a colour.", ["water", "the answer is two"])]
    found, held = {}, []
    # The first time, cuBLAS takes room for its products that it keeps.
    for device in ("cpu", GPU, GPU):
        with bench.Annotator("gpu", dtype="fp32", device=device, registry=place) as annotator:
            tokens = annotator.tokens("Is 7 prime?", "no " * 20)
            found[device] = annotator.rewards(batch), tokens.select_dtypes("number").to_numpy(dtype=float)
        held.append(torch.cuda.memory_allocated())
    for ours, exact in zip(found[GPU], found["cpu"], strict=True):
        np.testing.assert_allclose(np.concatenate(ours), np.concatenate(exact), rtol=0, atol=FP32_NATS)
    assert held[2] == held[1]


def test_what_a_model_embeds_is_that_of_the_processor(place):
    tokenizer, texts = models.load_tokenizer(place / "strong"), ["yes", "no, never", "it is two\nand three"] * 3
    ours, exact = (
        embed(models.load_model(place / "strong", dtype=torch.float32, device=device), tokenizer, texts, limit=2048)
        for device in (GPU, "cpu")
    )
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-3)


def policy(place, dtype: torch.dtype, device: str, *, computed: torch.dtype | None = None) -> Policy:
    model = models.load_policy(place / "strong", dtype=dtype, device=device)
    return Policy(model, models.load_tokenizer(place / "strong"), computed or dtype, device)


def speaker_of(policy: Policy) -> Speaker:
    return Speaker(policy.tokenizer, Template(policy.tokenizer), policy.model.config.max_position_embeddings)


def test_the_next_tokens_logits_are_those_of_the_processor(place, data):
    head, said = speaker_of(policy(place, torch.float32, "cpu")).head(data.examples[0]), [65, 70, 99]
    found = []
    for device in ("cpu", GPU):
        model = policy(place, torch.float32, device).model
        assert not decode.fit(model)
        with torch.inference_mode(), decode.decoding(model):
            prompt = decode.read(model, head)
            group = decode.Group(prompt, 3)
            steps = [prompt.logits] + [decode.advance(model, [group], said) for _ in range(3)]
            found.append([step.float().cpu() for step in steps])
    for exact, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-3)


def test_responses_in_a_batch_are_those_of_each_prompt_alone_in_bf16(place, data):
    start = policy(place, torch.bfloat16, GPU)
    speaker, wish = speaker_of(start), Sampling(n=8, max_new_tokens=24)
    heads = {example.example_id: speaker.head(example) for example in data.examples[:12]}
    together = dict(texts_of(start.model, speaker, heads, wish))
    alone = {name: dict(texts_of(start.model, speaker, {name: ids}, wish))[name] for name, ids in heads.items()}
    assert together == alone
    assert len({text for texts in together.values() for text in texts}) > 80


ALL = Tuning(lr=1e-3, batch=6, at_once=3, save_every=100)
LOSSES = {
    "simpo": ALL._replace(beta=2.0), "dpo": ALL._replace(loss="dpo", beta=0.1), "sft": ALL._replace(loss="sft"),
    "dpo, LoRA": ALL._replace(loss="dpo", beta=0.1, lora_rank=4, lr=1e-2),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_tuning_follows_the_processors_curve(place, data, tmp_path, name):
    tuning, curves = LOSSES[name], {}
    low = torch.bfloat16 if tuning.lora_rank else torch.float32
    for place_of, start in {
        "cpu": policy(place, torch.float32, "cpu"),
        "fp32": policy(place, torch.float32, GPU),
        # Its weights are float32 where all of them are tuned, as the verb loads them.
        "bf16": policy(place, low, GPU, computed=torch.bfloat16),
    }.items():
        examples = data.examples[:20]
        read = rows_of(examples, render(examples, start.tokenizer, Template(start.tokenizer)), limit=2048, loss="dpo")
        trainer = tune(start, read, tuning, out=tmp_path / place_of)
        curves[place_of] = [each["loss"] for each in trainer.state.log_history if "loss" in each]
        assert next(trainer.model.parameters()).device.type == ("cpu" if place_of == "cpu" else GPU)
    # 20 rows in steps of 6: the last step has two, in one batch.
    assert len(curves["cpu"]) == 4
    np.testing.assert_allclose(curves["fp32"], curves["cpu"], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(curves["bf16"], curves["cpu"], rtol=0.1, atol=0.05)


def command(*words: object, **more: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    call = [sys.executable, "-c", "from bench.cli import main; main()", *map(str, words)]
    return subprocess.run(call, env=environment(**more), capture_output=True, text=True, check=False, timeout=300)


def test_where_nothing_compiles_the_run_says_so_and_its_sums_are_right(place, tmp_path):
    few = write_rows(tmp_path / "rows.jsonl", rows(24))
    words = ["run", "--registry", place, "--pair", "gpu", "--data", few, "--results", tmp_path / "results"]
    caches = {name: str(tmp_path / name) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
    done = command(*words, CC="/bin/false", CXX="/bin/false", **caches)
    assert done.returncode == 0, done.stderr
    assert "drsow uses cuda-tiles-eager" in done.stderr and "Traceback" not in done.stderr
    (found,) = Store(tmp_path / "results").find(model_id="gpu-strong", dtype="bfloat16")
    data = load_data(str(few))
    exact, _ = scored(place, data, tmp_path, "gpu-strong", dtype="fp32", device="cpu")
    own, _ = scored(place, data, tmp_path, "gpu-strong", dtype="bf16", device="cpu")
    assert np.abs(sums_of(found) - exact).mean() < BF16_TIMES * np.abs(own - exact).mean()


def test_doctor_names_the_gpu_and_its_memory():
    (line,) = (line for line in command("doctor").stdout.splitlines() if " device: " in line)
    assert torch.cuda.get_device_name() in line and line.endswith("B free")
