"""Finds the checkpoints of a stopped tuning, and restores the one after the last step."""

import json
from pathlib import Path

from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import align_special_tokens


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; Trainer writes trainer_state.json last, so a readable one marks completeness."""
    names = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(names, key=step_of, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None


def step_of(checkpoint: Path) -> int:
    """The step after which Trainer wrote a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def is_last(checkpoint: Path) -> bool:
    """Whether no step of the tuning comes after a checkpoint."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state.global_step >= state.max_steps


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """Gives a trainer the weights and the log of a checkpoint, without a further step.

    `Trainer.train` would make one more step from the last checkpoint of a run that ends inside an epoch.
    """
    # As `Trainer.train` does, so that the model's files name the same end tokens.
    align_special_tokens(trainer.model, trainer.processing_class)
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
