"""Tuning: its loss and gradient beside TRL's and float64, what a stop costs, what the curve says."""

import json
import math
import shutil
import warnings

import numpy as np
import pytest
import torch
from plain import padded_batch, plain_logps
from tiny_models import config, tiny_model
from transformers import GPT2Config

from bench.prefer.checkpoints import last_checkpoint
from bench.prefer.lora import with_lora
from bench.prefer.packed import packable
from bench.prefer.tune import (
    CURVE,
    START,
    Policy,
    PreferenceTrainer,
    Tuning,
    arguments,
    collate,
    preference_losses,
    rows_of,
    tune,
)
from bench.schema import DrsowError, Example, Message, UsageError
from bench.scoring import models
from bench.scoring.render import Template, render

PREFERENCES = [
    Example(
        str(i), "", (Message("user", f"Is {i} prime?"),), (("chosen", f"yes, {i}\nis"), ("rejected", "no " * (1 + i)))
    )
    for i in range(8)
]
SIMPO = Tuning(lr=1e-2, batch=2, at_once=2, save_every=2)
DPO = SIMPO._replace(loss="dpo", beta=0.1)
SFT = SIMPO._replace(loss="sft")


def policy(tiny_registry) -> Policy:
    folder = tiny_registry / "strong"
    model = models.load_policy(folder, dtype=torch.float32, device="cpu")
    return Policy(model, models.load_tokenizer(folder), torch.float32, "cpu")


def curve(trainer: PreferenceTrainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def start(tiny_registry) -> Policy:
    """The policy as it is. Not to be tuned."""
    return policy(tiny_registry)


def read(start: Policy, *, limit: int, loss: str = "dpo") -> list:
    return rows_of(PREFERENCES, render(PREFERENCES, start.tokenizer, Template(start.tokenizer)), limit=limit, loss=loss)


@pytest.fixture(scope="module")
def rows(start):
    return read(start, limit=2048)


@pytest.fixture(scope="module")
def exact(start, rows) -> np.ndarray:
    """Summed log-probability, (rows, 2), and tokens, (rows, 2), of chosen and rejected: one pass each, float64."""
    both = [[plain_logps(start.model, s.ids, s.start) for s in row[:2]] for row in rows]
    return np.array([[[v.sum() for v in row], [len(v) for v in row]] for row in both])


def trainer_of(start, tuning, tmp_path) -> PreferenceTrainer:
    told = arguments(tuning, 8, out=tmp_path, dtype=torch.float32, device="cpu")
    return PreferenceTrainer(tuning, model=start.model, args=told, processing_class=start.tokenizer)


def test_simpos_loss_of_a_packed_batch_is_its_formula_in_float64(tiny_registry, start, rows, exact, tmp_path):
    model = packable(policy(tiny_registry).model, dtype=torch.float32)
    loss = trainer_of(start, SIMPO, tmp_path).compute_loss(model, collate(rows, loss="simpo")).item()
    means = exact[:, 0] / exact[:, 1]
    assert loss == pytest.approx(np.log1p(np.exp(-(10 * (means[:, 0] - means[:, 1]) - 3))).mean(), rel=1e-5)


def test_loss_and_gradient_of_every_weight_are_trls(tiny_registry, rows, tmp_path):
    start = policy(tiny_registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        config = CPOConfig(
            output_dir=str(tmp_path), loss_type="simpo", cpo_alpha=0.0, beta=10.0, simpo_gamma=3.0, use_cpu=True,
            bf16=False, report_to="none",
        )  # fmt: skip
        data = datasets_of(PREFERENCES)
        theirs = CPOTrainer(model=start.model, args=config, train_dataset=data, processing_class=start.tokenizer)
    ids, mask, labels = padded_batch([row.chosen for row in rows] + [row.rejected for row in rows])
    logits = start.model(input_ids=ids, attention_mask=mask).logits
    means = theirs.get_batch_logps(logits, labels, average_log_prob=True).chunk(2)
    loss = theirs.cpo_loss(*means)[0].mean()
    packable(start.model, dtype=torch.float32)
    ours = trainer_of(start, SIMPO, tmp_path).compute_loss(start.model, collate(rows, loss="simpo"))
    assert ours.item() == pytest.approx(loss.item(), rel=1e-6)
    weights = list(start.model.parameters())
    for mine, reference in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def datasets_of(examples):
    import datasets

    rows = [
        {"prompt": [m._asdict() for m in e.messages]}
        | {side: [{"role": "assistant", "content": text}] for side, text in e.responses}
        for e in examples
    ]
    return datasets.Dataset.from_list(rows)


def test_dpo_starts_at_log_two_with_rewards_of_zero(tiny_registry, rows, tmp_path):
    first = curve(tune(policy(tiny_registry), rows, DPO, out=tmp_path))[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["chosen_reward"] == pytest.approx(0, abs=1e-4) and first["rejected_reward"] == pytest.approx(
        0, abs=1e-4
    )


GPT2, OPT = GPT2Config(n_positions=512, n_embd=32, n_layer=2, n_head=4), config("OPT", ffn_dim=48, layerdrop=0.5)


@pytest.mark.parametrize(
    ("shape", "tuning"),
    [(shape, tuning) for shape in (GPT2, OPT) for tuning in (DPO, DPO._replace(lora_rank=2))],
    ids=["of modules", "of modules, lora", "of functions", "of functions, lora"],
)
def test_dpo_stays_at_log_two_at_a_rate_of_zero_whatever_dropout_a_model_has(start, rows, tmp_path, shape, tuning):
    shape.vocab_size = len(start.tokenizer)
    dropping = Policy(tiny_model(shape, seed=3), start.tokenizer, torch.float32, "cpu")
    told = curve(tune(dropping, rows, tuning._replace(lr=0.0), out=tmp_path))
    assert [entry["loss"] for entry in told] == pytest.approx([math.log(2)] * 4, abs=1e-4)


def test_sfts_loss_is_minus_the_mean_log_probability_of_a_chosen_token(tiny_registry, rows, exact, tmp_path):
    model = packable(policy(tiny_registry).model, dtype=torch.float32)
    trainer = trainer_of(policy(tiny_registry), SFT, tmp_path)
    batch = collate(rows, loss="sft")
    # One sequence a preference; a response weighs the same whatever its length.
    assert batch["packing"].n_tokens.tolist() == exact[:, 1, 0].tolist()
    assert trainer.compute_loss(model, batch).item() == pytest.approx(
        -(exact[:, 0, 0] / exact[:, 1, 0]).mean(), rel=1e-5
    )


def test_sft_raises_the_log_probability_of_chosen_responses_and_says_nothing_of_rejected_ones(
    tiny_registry, rows, tmp_path
):
    told = curve(tune(policy(tiny_registry), rows, SFT._replace(n_epochs=3), out=tmp_path))
    logps = [entry["chosen_logp"] for entry in told]
    assert [entry["loss"] for entry in told] == pytest.approx([-logp for logp in logps])
    assert np.mean(logps[-4:]) > np.mean(logps[:4]) + 0.1
    unknown = ("chosen_reward", "rejected_reward", "accuracy", "rejected_logp")
    assert all(math.isnan(entry[name]) for entry in told for name in unknown)


def test_sft_leaves_out_no_preference_for_a_long_rejected_response(start):
    lengths = [(len(row.chosen.ids), len(row.rejected.ids)) for row in read(start, limit=99)]
    limit = max(chosen for chosen, _ in lengths)
    assert max(rejected for _, rejected in lengths) > limit
    assert len(read(start, limit=limit)) < 8 and len(read(start, limit=limit, loss="sft")) == 8


def test_sft_reads_no_rejected_response_even_one_beyond_the_models_positions(start, tmp_path):
    example = Example("a", "", (Message("user", "Is 7 prime?"),), (("chosen", "yes"), ("rejected", "no " * 99)))
    rendered, n_positions = render([example], start.tokenizer, Template(start.tokenizer)), 90
    (row,) = rows_of([example], rendered, limit=n_positions, loss="sft")
    assert len(row.rejected.ids) > n_positions
    # A table of positions has no entry for a later token, so a pass over the rejected response is an error.
    shape = GPT2Config(vocab_size=len(start.tokenizer), n_positions=n_positions, n_embd=32, n_layer=2, n_head=4)
    learned = Policy(tiny_model(shape, seed=3), start.tokenizer, torch.float32, "cpu")
    (step,) = curve(tune(learned, [row], SFT._replace(batch=1, at_once=1), out=tmp_path))
    assert math.isfinite(step["loss"])


@pytest.mark.parametrize("tuning", [SIMPO, SFT._replace(batch=1, at_once=1)], ids=["simpo", "sft, one at once"])
def test_a_model_whose_layers_read_the_texts_beside_is_refused_whatever_the_loss(start, rows, tmp_path, tuning):
    falcon = tiny_model(config("Falcon", vocab_size=len(start.tokenizer)), seed=3)
    with pytest.raises(DrsowError, match=r"FalconForCausalLM is not supported: its own forward pass differs by"):
        tune(Policy(falcon, start.tokenizer, torch.float32, "cpu"), rows, tuning, out=tmp_path)


def test_dpos_loss_counts_from_the_start_in_float64(exact):
    sums, counts = (torch.tensor(exact[:, i].T.reshape(-1)) for i in (0, 1))
    start = sums - torch.arange(16.0)
    losses, rewards = preference_losses(sums, counts, start, DPO)
    # The chosen ones have gained 0 to 7 nats, the rejected ones 8 to 15: eight less each.
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(0.8))] * 8)
    assert rewards[0].tolist() == pytest.approx([0.1 * i for i in range(8)])


@pytest.mark.parametrize("tuning", [SIMPO, DPO, SIMPO._replace(lora_rank=2)], ids=["simpo", "dpo", "lora"])
def test_the_margin_grows_and_the_curve_is_whole(tiny_registry, rows, tmp_path, tuning):
    trainer = tune(policy(tiny_registry), rows, tuning._replace(n_epochs=3), out=tmp_path)
    told = curve(trainer)
    assert [entry["step"] for entry in told] == list(range(1, 13))
    assert all(set(CURVE) <= set(entry) for entry in told)
    margins = [entry["chosen_reward"] - entry["rejected_reward"] for entry in told]
    assert np.mean(margins[-4:]) > np.mean(margins[:4])


@pytest.mark.parametrize("n_rows", [8, 7], ids=["whole steps", "a short last step"])
def test_a_step_of_two_batches_is_the_step_of_one(tiny_registry, rows, tmp_path, n_rows):
    # Adam divides a gradient by its own size. Where it is almost 0, float32's rounding would decide a weight.
    weights, norms = [], []
    for at_once in (4, 2):
        tuning, start = SIMPO._replace(batch=4, at_once=at_once), policy(tiny_registry)
        exact = start._replace(model=start.model.double(), dtype=torch.float64)
        trainer = tune(exact, rows[:n_rows], tuning, out=tmp_path / str(at_once))
        assert trainer.state.global_step == 2
        weights.append(torch.cat([w.detach().reshape(-1) for w in trainer.model.parameters()]))
        norms.append([entry["grad_norm"] for entry in curve(trainer)])
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
    # The weights alone would not tell a sum from a mean, which Adam divides away.
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("at_once", [4, 2, 1])
def test_the_curve_is_the_mean_over_a_steps_preferences_however_many_are_in_memory(
    tiny_registry, rows, exact, tmp_path, at_once
):
    # With a rate of 0 all preferences meet the same weights: four of them in the first step, three in the second.
    tuning = SIMPO._replace(lr=0.0, batch=4, at_once=at_once)
    told = curve(tune(policy(tiny_registry), rows[:7], tuning, out=tmp_path))
    chosen, rejected = (exact[:7, 0] / exact[:7, 1]).T
    sums = {"loss": np.log1p(np.exp(3 - 10 * (chosen - rejected))), "chosen_reward": 10 * chosen}
    sums |= {"rejected_reward": 10 * rejected, "accuracy": chosen > rejected, "rejected_logp": rejected}
    for name, values in sums.items():
        assert 4 * told[0][name] + 3 * told[1][name] == pytest.approx(values.sum(), rel=1e-4), name


def test_a_saved_adapter_names_its_layers_in_order(tiny_registry, rows, tmp_path):
    """In peft's own order, which differs from process to process, the same adapter would have another digest."""
    trainer = tune(policy(tiny_registry), rows, SIMPO._replace(lora_rank=2), out=tmp_path / "run")
    trainer.model.save_pretrained(tmp_path / "adapter")
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert named == sorted(named) and len(named) == 14


def test_a_saved_adapter_names_the_weights_of_experts_in_order(start):
    shape = config("Mixtral", num_local_experts=4, num_experts_per_tok=2, vocab_size=len(start.tokenizer))
    adapted = with_lora(tiny_model(shape, seed=3), 2, dtype=torch.float32)
    assert adapted.peft_config["default"].target_parameters == ["down_proj", "gate.weight", "gate_up_proj"]


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("tuning", "damaged"),
    [(SIMPO, False), (SIMPO, True), (DPO, False), (SFT, False), (SFT._replace(lora_rank=2), False)],
    ids=["simpo", "a damaged checkpoint", "dpo", "sft", "sft, lora"],
)
def test_a_stopped_run_goes_on_to_the_same_weights(tiny_registry, rows, tmp_path, monkeypatch, tuning, damaged):
    whole = tune(policy(tiny_registry), rows, tuning, out=tmp_path / "whole")
    plain, n_losses = PreferenceTrainer.compute_loss, []

    def until(trainer, *args, **words):
        n_losses.append(trainer.state.global_step)
        if trainer.state.global_step == 3 and len(n_losses) < 5:
            raise Stop
        return plain(trainer, *args, **words)

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", until)
    with pytest.raises(Stop):
        tune(policy(tiny_registry), rows, tuning, out=tmp_path / "cut")
    if damaged:
        # A checkpoint that a kill cut off: its last file is missing.
        (tmp_path / "cut" / "checkpoint-4").mkdir()
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-2"
    again = tune(policy(tiny_registry), rows, tuning, out=tmp_path / "cut")
    assert n_losses == [0, 1, 2, 3, 2, 3]
    # Half of the preferences were left.
    assert again.meter.rows == again.meter.n_rows == len(rows) / 2
    for mine, reference in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, reference)
    assert [e["loss"] for e in curve(again)] == [e["loss"] for e in curve(whole)]


@pytest.mark.parametrize(("n_rows", "n_epochs", "n_read"), [(8, 0.375, 4), (7, 1.5, 11), (7, 2, 14)])
def test_progress_ends_at_its_end_where_an_epoch_ends_inside_a_step(
    tiny_registry, rows, tmp_path, n_rows, n_epochs, n_read
):
    # Steps of two: part of a step is a whole one, and the last of an epoch of seven has one preference.
    meter = tune(policy(tiny_registry), rows[:n_rows], SIMPO._replace(n_epochs=n_epochs), out=tmp_path).meter
    assert (meter.rows, meter.n_rows) == (n_read, n_read)


def test_progress_of_a_run_that_goes_on_in_its_second_epoch_counts_what_is_left(tiny_registry, rows, tmp_path):
    tuning = SIMPO._replace(n_epochs=2)
    tune(policy(tiny_registry), rows[:7], tuning, out=tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-8")
    # The first six of eight steps have read 7 + 4 of 14.
    meter = tune(policy(tiny_registry), rows[:7], tuning, out=tmp_path).meter
    assert (meter.rows, meter.n_rows) == (3, 3)


@pytest.mark.parametrize("tuning", [SIMPO, DPO._replace(lora_rank=2)], ids=["all weights", "lora"])
def test_a_run_stopped_after_its_last_step_is_tuned_no_further(tiny_registry, rows, tmp_path, tuning):
    starts = [policy(tiny_registry) for _ in range(2)]
    for start in starts:
        # Trainer adds the tokenizer's end token to those of the model.
        start.model.generation_config.eos_token_id = 5
    # Half an epoch is two of its four steps, and the second leaves a checkpoint.
    whole, again = (tune(start, rows, tuning._replace(n_epochs=0.5), out=tmp_path) for start in starts)
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    assert whole.state.global_step == again.state.global_step == 2 and curve(whole) == curve(again)
    for mine, reference in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, reference)
    ends = [each.model.generation_config.eos_token_id for each in (whole, again)]
    assert ends[0] == ends[1] != 5


def test_a_run_that_goes_on_reads_the_log_probabilities_before_tuning(tiny_registry, rows, tmp_path):
    first = curve(tune(policy(tiny_registry), rows, DPO, out=tmp_path))[0]
    shutil.rmtree(tmp_path / "checkpoint-2")
    shutil.rmtree(tmp_path / "checkpoint-4")
    note = tmp_path / START
    # 3 nats less for every chosen response: its reward is 0.1 x 3 higher.
    note.write_text(json.dumps([[chosen - 3, rejected] for chosen, rejected in json.loads(note.read_text())]))
    again = curve(tune(policy(tiny_registry), rows, DPO, out=tmp_path))[0]
    assert again["chosen_reward"] == pytest.approx(first["chosen_reward"] + 0.3, abs=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_registry, rows, tmp_path):
    broken = policy(tiny_registry)
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    with pytest.raises(DrsowError, match=r"step 1: the loss is nan; try a lower --lr"):
        tune(broken, rows, SIMPO, out=tmp_path)


def test_what_the_context_does_not_hold_is_left_out(start):
    longest = [max(len(row.chosen.ids), len(row.rejected.ids)) for row in read(start, limit=99)]
    kept = read(start, limit=sorted(longest)[4])
    assert [row.chosen.example_id for row in kept] == [str(i) for i in range(8) if longest[i] <= sorted(longest)[4]]
    assert 5 <= len(kept) < 8


def test_a_step_is_as_many_preferences_as_was_said_or_refused(tmp_path):
    words = {"out": tmp_path, "dtype": torch.float32, "device": "cpu"}
    with pytest.raises(UsageError, match=r"--batch 6 is not a multiple of --at-once 4 on 1 device"):
        arguments(SIMPO._replace(batch=6, at_once=4), 8, **words)
    told = arguments(SIMPO._replace(batch=3, at_once=4), 8, **words)
    assert told.per_device_train_batch_size * told.gradient_accumulation_steps == 3


def test_the_learning_rate_rises_over_a_tenth_of_the_steps_of_all_epochs(tmp_path):
    told = arguments(Tuning(batch=4, n_epochs=3), 40, out=tmp_path, dtype=torch.float32, device="cpu")
    assert told.warmup_steps == 3  # of 3 x 10
