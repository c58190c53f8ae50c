"""The verb `tune`: tunes a policy on preferences into a folder with the tuned model and its training curve."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from bench.data.load import check_preferences, load_data
from bench.faults import first_line, warn
from bench.files import read_csv, rename, write_csv, write_json, write_whole
from bench.prefer.export import check_finished
from bench.schema import Dataset, DrsowError, UsageError
from bench.scoring import SPAN, fetch, passes, templates
from bench.scoring.located import Located, file_digest
from bench.units import tally
from bench.verbs.session import Session
from bench.verbs.tuning_folder import TEMPLATE_DIGEST, alone, begin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from bench.prefer.tune import Policy, PreferenceTrainer, Row, Tuning

PLAIN_NAME = "plain"
"""Name of the plain format as a chat template."""

MODEL, ADAPTER, CHECKPOINTS = "model", "adapter", "checkpoints"
"""What a tuning's folder holds: the whole tuned model; with LoRA the adapter too; checkpoints until tuning ends."""


class Tuned(NamedTuple):
    """What a tuning wrote."""

    curve: pd.DataFrame
    """CURVE."""
    n_preferences: int
    n_too_long: int
    """Preferences that were left out because they are longer than the policy's context."""


def preferences(name: str) -> Dataset:
    """The preferences of a folder that `annotate` wrote, or of anything that `load_data` takes.

    Raises:
        PreconditionError: `annotate` was stopped while it wrote the folder.
    """
    found = load_data(place_of(name))
    check_preferences(found)
    return found


def place_of(name: str) -> str:
    """The file of preferences in a folder that `annotate` wrote; any other name as it is.

    Raises:
        PreconditionError: `annotate` was stopped while it wrote the folder.
    """
    check_finished(Path(name))
    inside = Path(name) / "preferences.jsonl"
    return str(inside) if inside.is_file() else name


class Start(NamedTuple):
    """What is tuned."""

    policy: str
    """A model_id, or a model's folder."""
    template: str | None = None
    """The model whose chat template the tuned model gets, or PLAIN_NAME; None: the policy keeps its own."""


def tune_policy(session: Session, start: Start, dataset: Dataset, tuning: "Tuning", *, out: Path) -> Tuned:
    """Tune a model on preferences into a folder: model/, README.md, curve.csv, figures/, manifest.json.

    A stopped run continues from its last whole checkpoint; a finished one is not repeated.

    Args:
        session: The registry, which knows the policy; device and dtype.
        start: The policy, and its chat template.
        dataset: The preferences.
        tuning: Loss, rates and sizes of the training.
        out: The folder to write.

    Raises:
        UsageError: the folder holds a run with other settings, the policy has no chat template, or a batch cannot be
            divided among the devices. Nothing is written then.
        DrsowError: memory or disk ran out, the loss is no longer finite, or another run tunes into the folder.
    """
    located = fetch.fetch(session.registry.policy(start.policy))
    settings = {"policy": start.policy, "revision": located.revision, "dtype": session.options.dtype, "span": SPAN}
    settings |= {"data": dataset.data_id, "data_digest": dataset.digest} | tuning._asdict()
    tokenizer = _tokenizer(session, located, start)
    settings |= _template_settings(start, tokenizer)
    rows, oddities = _read(located, start.policy, tokenizer, dataset, loss=tuning.loss)
    check_steps(tuning, len(rows), session.options, out=out)
    counts = {"n_preferences": len(rows), "n_too_long": len(dataset.examples) - len(rows)}
    told = {"rows_left_out": dict(dataset.left_out)} if dataset.left_out else {}
    begin(out, settings)
    with alone(out), _failing_clearly(out):
        if not (out / MODEL).exists():
            from bench.scoring.models import without_bars

            policy = _policy(located, tokenizer, tuning, session.options)
            facts = settings | counts | told | oddities | {"versions": passes.versions()}
            with without_bars():
                _tune_into(out, policy, rows, tuning, facts)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return Tuned(read_csv(out / "curve.csv"), **counts)


def _template_settings(start: Start, tokenizer: "PreTrainedTokenizerFast") -> dict[str, str]:
    """What the settings say about a chat template that is not the policy's own: its owner may change it."""
    if not start.template:
        return {}
    digest = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    return {"template": start.template, TEMPLATE_DIGEST: digest}


def _tokenizer(session: Session, located: Located, start: Start) -> "PreTrainedTokenizerFast":
    """The policy's tokenizer, with the chat template that the tuned model gets."""
    from bench.scoring import models

    tokenizer = models.load_tokenizer(located.folder, trust_remote_code=located.trust_remote_code)
    if start.template == PLAIN_NAME:
        tokenizer.chat_template = templates.PLAIN
    elif start.template:
        owner = fetch.fetch(session.registry.policy(start.template), weights=False)
        tokenizer.chat_template = templates.read(owner.folder).text
        if not tokenizer.chat_template:
            raise UsageError(f"{start.template} has no chat template; name another model, or {PLAIN_NAME}")
    elif note := templates.read(located.folder).note:
        warn(f"{start.policy} {note}")
    return tokenizer


def _read(
    located: Located, name: str, tokenizer: "PreTrainedTokenizerFast", dataset: Dataset, *, loss: str
) -> tuple[list["Row"], dict[str, int]]:
    """The preferences that fit the policy's context, and the counts of `Rendered`."""
    from bench.prefer.tune import rows_of
    from bench.scoring import models
    from bench.scoring.chat import own_template
    from bench.scoring.render import check_ids, render

    folder, trusted = located.folder, located.trust_remote_code
    n_embedded = models.n_embedded(folder, trust_remote_code=trusted)
    try:
        rendered = render(dataset.examples, tokenizer, own_template(tokenizer, "be tuned on conversations"))
        for sequence in rendered.sequences:
            ids = sequence.ids.tolist()
            check_ids(ids, tokenizer, n_embedded=n_embedded, row=sequence.example_id, model="the policy")
    except DrsowError as error:
        raise type(error)(f"{name}: {error}") from error
    limit = models.context_tokens(folder, trust_remote_code=trusted)
    rows = rows_of(dataset.examples, rendered, limit=limit, loss=loss)
    if not rows:
        raise UsageError(f"{dataset.data_id}: every preference is longer than the context of {name}")
    for line in rendered.lines():
        warn(f"{name}: {line}")
    return rows, rendered.counts()


def check_steps(tuning: "Tuning", n_rows: int, options: passes.Options, *, out: Path) -> None:
    """Check that every device gets an equal part of a batch, while the folder is still as it was."""
    from bench.prefer.tune import arguments
    from bench.scoring import models

    arguments(tuning, n_rows, out=out, dtype=models.TORCH_DTYPES[options.dtype], device=options.device)


def _policy(
    located: Located, tokenizer: "PreTrainedTokenizerFast", tuning: "Tuning", options: passes.Options
) -> "Policy":
    from bench.prefer.tune import Policy
    from bench.scoring import models

    dtype, device = models.TORCH_DTYPES[options.dtype], options.device
    # bf16 rounds steps of 1e-6 away, so tuned weights stay in float32 and are cast for each use.
    loaded = dtype if tuning.lora_rank else models.TORCH_DTYPES["float32"]
    model = models.located_policy(located, dtype=loaded, device=device)
    return Policy(model, tokenizer, dtype, device)


def _tune_into(out: Path, policy: "Policy", rows: list["Row"], tuning: "Tuning", facts: dict) -> None:
    """Tune; then one process writes the results. It writes the model last: a folder with a model is a finished run."""
    from bench.prefer.tune import CURVE, tune

    trainer = tune(policy, rows, tuning, out=out / CHECKPOINTS)
    if trainer.is_world_process_zero():
        steps = [entry for entry in trainer.state.log_history if "loss" in entry]
        write_csv(out / "curve.csv", pd.DataFrame(steps)[list(CURVE)], CURVE)
        _draw(out, len(rows))
        partial = _save(trainer, policy, out=out)
        facts |= {"n_steps": trainer.state.global_step, "weights": weights(partial)}
        write_json(out / "manifest.json", facts)
        write_whole(out / "README.md", card(facts).encode())
        rename(partial, out / MODEL)
    trainer.accelerator.wait_for_everyone()


def weights(folder: Path) -> dict[str, str]:
    """sha256 of each file of weights in a folder."""
    return {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}


def card(facts: Mapping[str, Any]) -> str:
    """The tuned model's README: from which model and data it was made, and how."""
    unread = {"sft": {"beta", "gamma_ratio"}, "dpo": {"gamma_ratio"}}.get(facts["loss"], set())
    names = ("n_preferences", "n_too_long", "loss", "beta", "gamma_ratio", "lr", "n_epochs", "n_steps", "batch", "seed")
    left_out = facts.get("rows_left_out", {})
    told = {
        "start": f"{facts['policy']}, revision {facts['revision']}",
        "chat template": facts.get("template") or "of the start",
        "data": f"{Path(facts['data']).name}, digest {facts['data_digest']}",
        **({"rows left out": tally(left_out)} if left_out else {}),
        **{name.removeprefix("n_").replace("_", " "): facts[name] for name in names if name not in unread},
        "tuned weights": f"a LoRA adapter of rank {facts['lora_rank']}, merged" if facts["lora_rank"] else "all",
        "dtype": facts["dtype"],
        **{f"sha256 of {name}": digest for name, digest in facts["weights"].items()},
    }
    lines = [f"- {name}: {value}\n" for name, value in told.items()]
    return f"# A tuned model\n\n`drsow tune` made it. The licence of its start applies to it.\n\n{''.join(lines)}"


def _save(trainer: "PreferenceTrainer", policy: "Policy", *, out: Path) -> Path:
    """Write the tuned model and its tokenizer as a folder of safetensors, which still has to get its name."""
    model, partial = trainer.accelerator.unwrap_model(trainer.model), out / f"{MODEL}.partial"
    if trainer.tuning.lora_rank:
        model.save_pretrained(out / ADAPTER)
        # Merged in float32, because bf16 would round small changes of the adapter away. A GPU may have no room for it.
        model = model.cpu().float().merge_and_unload()
    model.save_pretrained(partial)
    policy.tokenizer.save_pretrained(partial)
    return partial


def curves(curve: pd.DataFrame) -> pd.DataFrame:
    """CURVE in the figure's columns: step, measure, series, value, and low and high, which are missing."""
    series = {
        "loss": ("loss", "loss"),
        "chosen_reward": ("reward", "chosen"),
        "rejected_reward": ("reward", "rejected"),
    }
    parts = [
        curve[["step"]].assign(measure=measure, series=name, value=curve[column])
        for column, (measure, name) in series.items()
    ]
    # SFT has no rewards.
    return pd.concat(parts, ignore_index=True).dropna(subset="value").assign(low=float("nan"), high=float("nan"))


def _draw(out: Path, n_preferences: int) -> None:
    from bench.study import figures

    figure = figures.tuning(curves(read_csv(out / "curve.csv")), n_models=1, n_pairs=0, n_prompts=n_preferences)
    for suffix in figures.FORMATS:
        write_whole(out / "figures" / f"curve.{suffix}", figures.encode(figure, suffix))


@contextlib.contextmanager
def _failing_clearly(out: Path) -> Iterator[None]:
    """Turn a full disk or a lack of memory into one clear error."""
    from safetensors import SafetensorError

    from bench.scoring.forward.device import out_of_memory

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DrsowError(f"{out}: cannot be written: {first_line(error)}") from error
    except RuntimeError as error:
        if out_of_memory(error):
            raise DrsowError("out of memory; --at-once 1 or --lora needs less memory") from error
        # torch names its checkpoint writer in the error if the disk is full.
        if "inline_container" in str(error) or "PytorchStreamWriter" in str(error):
            raise DrsowError(f"{out}: a checkpoint cannot be written; is the disk full?") from error
        raise
