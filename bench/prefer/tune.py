"""Tunes a policy on preferences: SimPO (arXiv 2405.14734) or DPO, all weights or LoRA, on transformers' Trainer."""

import json
import warnings
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainingArguments

from bench.prefer.losses import IGNORED, dpo, response_logps, simpo
from bench.schema import CHOSEN, DrsowError, Example, UsageError
from bench.scoring.progress import Meter
from bench.scoring.render import Rendered, Sequence

SIMPO, DPO = "simpo", "dpo"

_TOLD = ("chosen_reward", "rejected_reward", "accuracy", "chosen_logp", "rejected_logp")
"""Means that `compute_loss` collects for Trainer's log, in this order."""

CURVE = ("step", "epoch", "loss", *_TOLD, "learning_rate", "grad_norm")
"""One row per step of the optimiser, means over the preferences of the step. A reward is that of the loss: for SimPO
beta x mean log-probability per token, for DPO beta x (log-probability - log-probability before tuning). `accuracy` is
the fraction of preferences whose chosen response has the higher reward. `chosen_logp` and `rejected_logp` are mean
log-probabilities per token, in nats."""

WARMUP = 0.1
"""Fraction of the steps during which the learning rate rises; after that, it falls along a cosine."""


class Tuning(NamedTuple):
    """Settings of the tuning."""

    loss: str = SIMPO
    """SIMPO or DPO."""
    beta: float = 10.0
    gamma_ratio: float = 0.3
    """SimPO's target margin divided by beta."""
    lr: float = 1e-6
    n_epochs: float = 1.0
    batch: int = 32
    """Preferences per step of the optimiser, on all devices together."""
    at_once: int = 4
    """Preferences that each device processes at once; it bounds the memory."""
    lora_rank: int = 0
    """0 tunes all weights."""
    seed: int = 0
    save_every: int = 50
    """Number of steps between two checkpoints."""


class Row(NamedTuple):
    """One preference as token sequences."""

    chosen: Sequence
    rejected: Sequence
    start: tuple[float, float] = (0.0, 0.0)
    """Summed log-probability of chosen and rejected response under the policy before tuning, nats. Only DPO uses it."""


def rows_of(examples: Seq[Example], rendered: Rendered, *, limit: int) -> list[Row]:
    """Preferences as token sequences; a preference with a sequence of more than `limit` tokens is left out."""
    both = {(s.example_id, s.response_id == CHOSEN): s for s in rendered.sequences}
    rows = [Row(both[e.example_id, True], both[e.example_id, False]) for e in examples]
    return [row for row in rows if max(len(row.chosen.ids), len(row.rejected.ids)) <= limit]


def collate(rows: Seq[Row]) -> dict:
    """Builds a batch: first the chosen sequences, then the rejected ones, padded on the right.

    Returns:
        `input_ids` and `attention_mask`, (2 x rows, length); `labels`, (2 x rows, kept), IGNORED outside the response;
        `logits_to_keep`, the number of last positions that need logits; `start`, (2 x rows,), nats.
    """
    sequences = [row.chosen for row in rows] + [row.rejected for row in rows]
    width, kept = max(len(s.ids) for s in sequences), min(s.start for s in sequences) - 1
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, sequence in enumerate(sequences):
        row = torch.from_numpy(sequence.ids.astype("int64"))
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
        labels[place, sequence.start : len(row)] = row[sequence.start :]
    start = torch.tensor([row.start[0] for row in rows] + [row.start[1] for row in rows])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels[:, kept:]}
    return batch | {"logits_to_keep": width - kept, "start": start}


def batch_logps(model: torch.nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
    """Summed log-probability in nats, and number of tokens, of each response of a batch, (2 x rows,) each."""
    told = {name: batch[name] for name in ("input_ids", "attention_mask", "logits_to_keep")}
    return response_logps(model(**told, use_cache=False).logits, batch["labels"])


class PreferenceTrainer(Trainer):
    """transformers' Trainer with a preference loss; its log contains the columns of CURVE."""

    def __init__(self, tuning: Tuning, **words: object) -> None:
        """Takes Trainer's arguments, and in `tuning` the loss."""
        super().__init__(data_collator=collate, **words)
        self.tuning = tuning
        # This callback prints to stdout, which is reserved for results.
        self.remove_callback(PrinterCallback)
        # The loss is a mean over the batch, so Trainer must divide it by the number of batches in a step.
        self.model_accepts_loss_kwargs = False
        self._told: list[Tensor] = []
        self.meter: Meter | None = None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean loss of a batch."""
        sums, counts = batch_logps(model, inputs)
        losses, rewards = preference_losses(sums, counts, inputs["start"], self.tuning)
        loss = losses.mean()
        if not torch.isfinite(loss):
            raise DrsowError(f"step {self.state.global_step + 1}: the loss is {loss.item()}; try a lower --lr")
        means = (sums / counts).chunk(2)
        right = (rewards[0] > rewards[1]).float()
        self._told.append(torch.stack([*rewards, right, *means]).detach().float().mean(dim=1))
        if self.meter:
            self.meter.add(rows=len(losses), tokens=len(losses))
        return loss

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Adds the means over all devices since the last log."""
        if self._told and "loss" in logs:
            values = self.accelerator.gather(torch.stack(self._told)).mean(dim=0)
            logs |= dict(zip(_TOLD, values.tolist(), strict=True))
            self._told.clear()
        super().log(logs, start_time)


def preference_losses(
    sums: Tensor, counts: Tensor, start: Tensor, tuning: Tuning
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Loss of each preference, and the rewards of its chosen and its rejected response, (rows,) each.

    Args:
        sums: Summed log-probabilities of the chosen responses, then of the rejected ones, (2 x rows,), nats.
        counts: Numbers of tokens of these responses, (2 x rows,).
        start: `sums` under the policy before tuning.
        tuning: Says which loss, and its parameters.
    """
    if tuning.loss == DPO:
        rewards = (tuning.beta * (sums - start)).chunk(2)
        return dpo(*sums.chunk(2), *start.chunk(2), beta=tuning.beta), rewards
    means = sums / counts
    return simpo(*means.chunk(2), beta=tuning.beta, gamma_ratio=tuning.gamma_ratio), (tuning.beta * means).chunk(2)


def arguments(tuning: Tuning, n_rows: int, *, out: Path, dtype: torch.dtype, device: str) -> TrainingArguments:
    """Trainer's arguments.

    Raises:
        UsageError: `batch` is not a multiple of what all devices process at once.
    """
    at_once = min(tuning.at_once, tuning.batch)
    words = {"output_dir": str(out), "seed": tuning.seed, "use_cpu": device == "cpu", "bf16": dtype == torch.bfloat16}
    words |= {"report_to": "none", "disable_tqdm": True, "logging_steps": 1, "logging_nan_inf_filter": False}
    words |= {"remove_unused_columns": False, "save_steps": tuning.save_every, "save_total_limit": 2}
    words |= {"learning_rate": tuning.lr, "lr_scheduler_type": "cosine", "num_train_epochs": tuning.n_epochs}
    words |= {"per_device_train_batch_size": at_once, "dataloader_pin_memory": device != "cpu"}
    devices = TrainingArguments(**words).world_size
    a_step, left = divmod(tuning.batch, at_once * devices)
    if left:
        raise UsageError(f"--batch {tuning.batch} is not a multiple of --at-once {at_once} on {devices} device(s)")
    warmup = round(WARMUP * tuning.n_epochs * n_rows / tuning.batch)
    return TrainingArguments(**words, gradient_accumulation_steps=a_step, warmup_steps=warmup)


def with_lora(model: PreTrainedModel, rank: int) -> torch.nn.Module:
    """Adds a LoRA adapter to every linear layer except the head (arXiv 2106.09685); only the adapters are tuned."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft uses names of transformers that are deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)


@torch.no_grad()
def with_start(trainer: PreferenceTrainer, rows: Seq[Row], *, at_once: int) -> list[Row]:
    """The rows with the log-probabilities of the current policy, which DPO compares the tuned policy with."""
    model = trainer.model.eval()
    found: list[Row] = []
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        batch = trainer._prepare_inputs(collate(part))
        with trainer.compute_loss_context_manager():
            chosen, rejected = batch_logps(model, batch)[0].cpu().chunk(2)
        starts = zip(chosen.tolist(), rejected.tolist(), strict=True)
        found += [row._replace(start=start) for row, start in zip(part, starts, strict=True)]
    return found


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; Trainer writes trainer_state.json last, so a readable one marks completeness."""
    names = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(names, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None


class Policy(NamedTuple):
    """The model to tune."""

    model: PreTrainedModel
    """The model from `models.load_policy`; its weights are float32 if all of them are tuned."""
    tokenizer: PreTrainedTokenizerFast
    dtype: torch.dtype
    """Precision of the computation."""
    device: str
    """"cpu" or "cuda"."""


def tune(policy: Policy, rows: Seq[Row], tuning: Tuning, *, out: Path) -> PreferenceTrainer:
    """Tunes a policy; continues from the last complete checkpoint in `out`.

    Returns:
        The trainer. Its model is the tuned model, and its state's log_history contains CURVE.

    Raises:
        DrsowError: The loss is not finite.
    """
    torch.manual_seed(tuning.seed)
    told = arguments(tuning, len(rows), out=out, dtype=policy.dtype, device=policy.device)
    model = with_lora(policy.model, tuning.lora_rank) if tuning.lora_rank else policy.model
    trainer = PreferenceTrainer(tuning, model=model, args=told, train_dataset=rows, processing_class=policy.tokenizer)
    if tuning.loss == DPO:
        trainer.train_dataset = with_start(trainer, rows, at_once=tuning.at_once)
    found = last_checkpoint(out)
    n_rows = round(tuning.n_epochs * len(rows))
    with Meter("tuning", n_rows=n_rows, n_tokens=n_rows, unit="preferences") as trainer.meter:
        trainer.train(resume_from_checkpoint=str(found) if found else None)
    return trainer
