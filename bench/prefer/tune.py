"""Tunes a policy on preferences: SimPO (arXiv 2405.14734), DPO, or SFT on the chosen responses; all weights or LoRA."""

import functools
import json
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainingArguments

from bench.files import write_json
from bench.prefer.checkpoints import is_last, last_checkpoint, restore, step_of
from bench.prefer.lora import with_lora
from bench.prefer.losses import GAMMA_RATIO, dpo, simpo
from bench.prefer.packed import packable, packed
from bench.prefer.packed import sums as packed_sums
from bench.prefer.steps import n_steps, rows_until
from bench.schema import CHOSEN, DrsowError, Example, UsageError
from bench.scoring.forward.device import moved
from bench.scoring.progress import Meter
from bench.scoring.render import Rendered, Sequence

SIMPO, DPO, SFT = "simpo", "dpo", "sft"

_TOLD = ("chosen_reward", "rejected_reward", "accuracy", "chosen_logp", "rejected_logp")
"""What `compute_loss` adds up for the means in Trainer's log, in this order."""

CURVE = ("step", "epoch", "loss", *_TOLD, "learning_rate", "grad_norm")
"""One row per step of the optimiser, means over the preferences of the step. A reward is that of the loss: for SimPO
beta x mean log-probability per token, for DPO beta x (log-probability - log-probability before tuning). `accuracy` is
the fraction of preferences whose chosen response has the higher reward. `chosen_logp` and `rejected_logp` are mean
log-probabilities per token, in nats. SFT has neither rewards nor rejected responses, so only `chosen_logp` is there."""

START = "start.json"
"""File among the checkpoints with the log-probabilities before tuning: chosen and rejected of each row, nats."""

WARMUP = 0.1
"""Fraction of n_epochs x rows / batch steps. In so many steps the learning rate rises; then it falls along a cosine."""


class Tuning(NamedTuple):
    """Settings of the tuning."""

    loss: str = SIMPO
    """SIMPO, DPO or SFT."""
    beta: float = 10.0
    gamma_ratio: float = GAMMA_RATIO
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

    def read(self, loss: str) -> tuple[Sequence, ...]:
        """The sequences that a loss reads: SFT the chosen one."""
        return (self.chosen,) if loss == SFT else (self.chosen, self.rejected)


def rows_of(examples: Seq[Example], rendered: Rendered, *, limit: int, loss: str) -> list[Row]:
    """Preferences as token sequences; a preference is left out if the loss reads more than `limit` tokens of one."""
    both = {(s.example_id, s.response_id == CHOSEN): s for s in rendered.sequences}
    rows = [Row(both[e.example_id, True], both[e.example_id, False]) for e in examples]
    return [row for row in rows if max(len(sequence.ids) for sequence in row.read(loss)) <= limit]


def collate(rows: Seq[Row], *, loss: str) -> dict[str, Any]:
    """Builds a batch: the chosen sequences, then the rejected ones if the loss reads them; `start` likewise, nats.

    `n_rows` is the number of preferences, `n_all` that of all devices at once.
    """
    start = torch.tensor([row.start[0] for row in rows] + [row.start[1] for row in rows])
    sequences = [sequence for side in zip(*(row.read(loss) for row in rows), strict=True) for sequence in side]
    return packed(sequences) | {"start": start[: len(sequences)], "n_rows": len(rows), "n_all": len(rows)}


class PreferenceTrainer(Trainer):
    """transformers' Trainer with a preference loss; its log contains the columns of CURVE."""

    def __init__(self, tuning: Tuning, **words: Any) -> None:
        """Takes Trainer's arguments, and in `tuning` the loss."""
        super().__init__(data_collator=functools.partial(collate, loss=tuning.loss), **words)
        self.tuning = tuning
        # This callback prints to stdout, which is reserved for results.
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False
        # `compute_loss` divides by the rows of a whole step: the batches of an epoch's last step may differ in size.
        self.loss_is_scaled_for_ga = True
        self._told: list[Tensor] = []
        self.meter: Meter | None = None

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The batches of a step, and the number of its preferences on all devices; `compute_loss` gets it.

        accelerate deals whole batches to the devices in turn, and fills an epoch's last ones up with rows that were
        read before. These are behind the others, and `n_rows` does not count them.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        step, n_rows, size = self.state.global_step, len(self.train_dataset), self.tuning.batch
        n_step = rows_until(step + 1, n_rows, batch=size) - rows_until(step, n_rows, batch=size)
        at_once, left = self.args.per_device_train_batch_size, n_step
        for batch in batches:
            here = left - self.args.process_index * at_once
            batch |= {"n_rows": min(max(here, 0), at_once), "n_all": min(left, self.args.world_size * at_once)}
            left -= batch["n_all"]
        return batches, n_step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """A batch's part of the mean loss of its step.

        Args:
            model: From `packable`, or a wrapper of it.
            inputs: From `collate`.
            return_outputs: Not read.
            num_items_in_batch: Number of preferences of the step on all devices; None: those of the batch.

        Raises:
            DrsowError: The loss is not finite.
        """
        # Trainer has just turned dropout on. DPO's log-probabilities before tuning are without it.
        model.eval()
        sums = packed_sums(model, inputs)
        counts = moved(inputs["packing"].n_tokens, sums.device)
        losses, told = self._losses(sums, counts, inputs["start"])
        values = torch.stack([*told, torch.ones_like(losses)])[:, : inputs["n_rows"]]
        # The devices' gradients are averaged, not added.
        n_devices = self.args.world_size
        loss = losses[: inputs["n_rows"]].sum() / (num_items_in_batch or len(losses)) * n_devices
        if not torch.isfinite(loss):
            raise DrsowError(f"step {self.state.global_step + 1}: the loss is {loss.item()}; try a lower --lr")
        self._told.append(values.detach().float().sum(dim=1))
        if self.meter:
            self.meter.add(rows=inputs["n_all"], tokens=inputs["n_all"])
        return loss

    def _losses(self, sums: Tensor, counts: Tensor, start: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Loss of each row, and what `_TOLD` names."""
        means = sums / counts
        if self.tuning.loss == SFT:
            unknown = torch.full_like(means, torch.nan)
            return -means, [unknown, unknown, unknown, means, unknown]
        losses, rewards = preference_losses(sums, counts, start, self.tuning)
        return losses, [*rewards, (rewards[0] > rewards[1]).float(), *means.chunk(2)]

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Adds the means over the preferences of all devices since the last log."""
        if self._told and "loss" in logs:
            *sums, n_rows = self.accelerator.gather(torch.stack(self._told)).sum(dim=0).tolist()
            logs |= {name: value / n_rows for name, value in zip(_TOLD, sums, strict=True)}
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
    told = TrainingArguments(**words, gradient_accumulation_steps=a_step, warmup_steps=warmup)
    # One process uses one GPU: Trainer would cut a packed batch into pieces for several.
    told._n_gpu = min(told.n_gpu, 1)
    return told


def with_start(trainer: PreferenceTrainer, rows: Seq[Row], *, at_once: int, out: Path) -> list[Row]:
    """The rows with the log-probabilities of the policy before tuning, which DPO compares the tuned policy with.

    One pass computes them; a run that continues reads them from `out`.
    """
    note = out / START
    if not note.is_file():
        values = _starts(trainer, rows, at_once=at_once)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            write_json(note, values)
    else:
        values = json.loads(note.read_text(encoding="utf-8"))
    return [row._replace(start=(chosen, rejected)) for row, (chosen, rejected) in zip(rows, values, strict=True)]


@torch.no_grad()
def _starts(trainer: PreferenceTrainer, rows: Seq[Row], *, at_once: int) -> list[tuple[float, float]]:
    model = trainer.model.eval()
    found: list[tuple[float, float]] = []
    with _meter(trainer, "start", len(rows)) as meter:
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            batch = trainer._prepare_inputs(collate(part, loss=DPO))
            with trainer.accelerator.autocast():
                chosen, rejected = packed_sums(model, batch).cpu().chunk(2)
            found += zip(chosen.tolist(), rejected.tolist(), strict=True)
            if meter:
                meter.add(rows=len(part), tokens=len(part))
    return found


def _meter(trainer: PreferenceTrainer, name: str, n_rows: int) -> AbstractContextManager[Meter | None]:
    """Shows the progress through the preferences, on the first of the processes that tune together."""
    if not trainer.is_world_process_zero():
        return nullcontext()
    return Meter(name, n_rows=n_rows, n_tokens=n_rows, unit="preferences")


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
    plain = packable(policy.model, dtype=policy.dtype)
    model = with_lora(plain, tuning.lora_rank, dtype=policy.dtype) if tuning.lora_rank else plain
    trainer = PreferenceTrainer(tuning, model=model, args=told, train_dataset=rows, processing_class=policy.tokenizer)
    if tuning.loss == DPO:
        trainer.train_dataset = with_start(trainer, rows, at_once=tuning.at_once, out=out)
    found = last_checkpoint(out)
    if found and is_last(found):
        restore(trainer, found)
        return trainer
    last = n_steps(len(rows), n_epochs=tuning.n_epochs, batch=tuning.batch)
    n_rows = rows_until(last, len(rows), batch=tuning.batch)
    n_rows -= rows_until(step_of(found), len(rows), batch=tuning.batch) if found else 0
    with _meter(trainer, "tuning", n_rows) as trainer.meter:
        trainer.train(resume_from_checkpoint=str(found) if found else None)
    return trainer
