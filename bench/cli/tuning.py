"""The verbs `tune`, `judge` and `agree`: tune a policy, and compare its responses and labels with others."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import LABEL, TUNE, app
from bench.cli.columns import measured
from bench.cli.options import (
    RESULTS,
    TRAINING,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Format,
    Limit,
    MaxNewTokens,
    Prompts,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    SampleSeed,
    Temperature,
    TemplateMode,
    TopP,
    finite,
)
from bench.cli.printed import emit
from bench.cli.session import select
from bench.cli.views import VIEWS
from bench.schema import MAX_SEED, UsageError

if TYPE_CHECKING:
    from bench.verbs.tune import Tuned


class Loss(StrEnum):
    """What `--loss` takes."""

    simpo = "simpo"
    dpo = "dpo"
    sft = "sft"


LR = {Loss.simpo: 1e-6, Loss.dpo: 1e-6, Loss.sft: 1e-5}
LORA_LR = 1e-4
LORA_RANK = 16

PolicyOption = Annotated[str, typer.Option("--policy", help="A model_id of the registry, or a model's folder.")]


LossOption = Annotated[
    Loss,
    typer.Option(
        "--loss", help="SimPO as in Dr. SoW, DPO as in REAL, or SFT on chosen responses.", rich_help_panel=TRAINING
    ),
]
BetaOption = Annotated[
    float | None,
    typer.Option(
        "--beta", min=0, callback=finite, help="Default: 10 for SimPO, 0.1 for DPO.", rich_help_panel=TRAINING
    ),
]
GammaRatioOption = Annotated[
    float | None,
    typer.Option(
        "--gamma-ratio",
        min=0,
        callback=finite,
        help="SimPO: target margin over beta; default 0.3.",
        rich_help_panel=TRAINING,
    ),
]
LrOption = Annotated[
    float | None,
    typer.Option(
        "--lr",
        min=0,
        callback=finite,
        help="The highest learning rate; default: 1e-6, for SFT 1e-5, with --lora 1e-4.",
        rich_help_panel=TRAINING,
    ),
]
EpochsOption = Annotated[
    float,
    typer.Option(
        "--epochs",
        min=0.01,
        callback=finite,
        help="Passes over the preferences, rounded up to whole steps.",
        rich_help_panel=TRAINING,
    ),
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Preferences per step.", rich_help_panel=TRAINING)]
AtOnceOption = Annotated[
    int, typer.Option("--at-once", min=1, help="Preferences in memory at once, per device.", rich_help_panel=TRAINING)
]
LoraOption = Annotated[
    bool,
    typer.Option("--lora", metavar="", help="Tune a LoRA adapter instead of all weights.", rich_help_panel=TRAINING),
]
LoraRankOption = Annotated[
    int | None,
    typer.Option("--lora-rank", min=1, help="--lora: rank of the adapter; default 16.", rich_help_panel=TRAINING),
]
SaveEveryOption = Annotated[
    int, typer.Option("--save-every", min=1, help="Steps between checkpoints.", rich_help_panel=TRAINING)
]


SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the order of rows and of the adapter.")
]


TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="For a policy without a chat template: 'plain', or the model whose template it gets.",
        rich_help_panel=TRAINING,
    ),
]


@app.command(rich_help_panel=TUNE)
def tune(
    policy: PolicyOption,
    preferences: Annotated[
        str, typer.Option("--preferences", help="The folder that `annotate` wrote, or what `run --data` takes.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    loss: LossOption = Loss.simpo,
    beta: BetaOption = None,
    gamma_ratio: GammaRatioOption = None,
    lr: LrOption = None,
    epochs: EpochsOption = 1,
    batch: BatchOption = 32,
    at_once: AtOnceOption = 4,
    lora: LoraOption = False,
    lora_rank: LoraRankOption = None,
    save_every: SaveEveryOption = 50,
    template: TemplateOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    registry: RegistryDir = None,
) -> None:
    """Tune a policy on preferences with SimPO, DPO or SFT."""
    from bench.prefer.tune import Tuning
    from bench.registry import load_registry
    from bench.verbs.session import open_session
    from bench.verbs.tune import Start, tune_policy
    from bench.verbs.tune import preferences as load_preferences
    from bench.verbs.tuning_folder import is_first

    rate = lr if lr is not None else (LORA_LR if lora else LR[loss])
    tuning = Tuning(
        loss=loss.value, beta=_beta(beta, loss), gamma_ratio=_gamma_ratio(gamma_ratio, loss), lr=rate, seed=seed,
        n_epochs=epochs, batch=batch, at_once=at_once, lora_rank=_rank(lora_rank, lora=lora), save_every=save_every,
    )  # fmt: skip
    dataset = load_preferences(preferences)
    session = open_session(load_registry(registry), dtype=dtype.value, device=device.value)
    done = tune_policy(session, Start(policy, template), dataset, tuning, out=out)
    if is_first():
        _tell(done, out)


def _tell(done: "Tuned", out: Path) -> None:
    """Print the first and the last row of the curve, and what was tuned on."""
    ends = done.curve.iloc[[0, -1]][["step", "loss", "accuracy", "chosen_reward", "rejected_reward"]]
    emit(ends, Format.table, VIEWS["tune"])
    print(f"{done.n_preferences} preferences, {done.n_too_long} too long; {out / 'model'}")


def _beta(asked: float | None, loss: Loss) -> float:
    """The beta of the loss; SFT reads none, and with 0 folders that were tuned before continue."""
    from bench.prefer.losses import BETA

    if asked is not None and loss is Loss.sft:
        raise UsageError("--beta scales the rewards of SimPO and DPO; leave it out with --loss sft")
    return BETA.get(loss.value, 0.0) if asked is None else asked


def _gamma_ratio(asked: float | None, loss: Loss) -> float:
    """SimPO's target margin over beta; the other losses read none."""
    if asked is not None and loss is not Loss.simpo:
        raise UsageError(f"--gamma-ratio is the margin of SimPO's loss; leave it out with --loss {loss.value}")
    from bench.prefer.losses import GAMMA_RATIO

    return GAMMA_RATIO if asked is None else asked


def _rank(asked: int | None, *, lora: bool) -> int:
    """The rank of the adapter; 0 tunes all weights."""
    if asked is not None and not lora:
        raise UsageError("--lora-rank is the rank of an adapter; name --lora too, or leave it out to tune all weights")
    return (asked or LORA_RANK) if lora else 0


@app.command(rich_help_panel=TUNE)
def judge(
    before: Annotated[str, typer.Option("--before", help="The policy before tuning: a model_id or a folder.")],
    after: Annotated[str, typer.Option("--after", help="The tuned policy, such as the folder that `tune` wrote.")],
    prompts: Prompts,
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    annotator: Annotated[str | None, typer.Option("--annotator", help="The pair that labelled the data.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="A pair that did not label it; repeat for several.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Responses of each policy to each prompt.")] = 4,
    temperature: Temperature = 0.7,
    top_p: TopP = 1,
    max_new_tokens: MaxNewTokens = 512,
    seed: SampleSeed = 0,
    limit: Limit = None,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Compare a policy before and after tuning on held-out prompts."""
    from bench.data.load import load_prompts
    from bench.prefer.resumed import Sampling
    from bench.verbs.judge import Judging, judge_policies
    from bench.verbs.session import open_session

    names = [*([annotator] if annotator else []), *(pair or [])]
    if not names:
        raise UsageError("name who judges: --annotator PAIR, --pair PAIR, or both")
    known, subjects = select(registry, names, None, TemplateMode.shared)
    first, others = (subjects[0], subjects[1:]) if annotator else (None, subjects)
    sampling = Sampling(n, temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    wish = Judging(before, after, first, others, sampling, reward.value)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    found = judge_policies(session, load_prompts(prompts, limit_per_subset=limit), wish, out=out)
    numbers = ("before", "after", "difference", "low", "high")
    emit(found.assign(**{name: measured(found, name) for name in numbers}), Format.table, VIEWS["judge"])


@app.command(rich_help_panel=LABEL)
def agree(
    pair: Annotated[str, typer.Option("--pair", help="A pair_id (drsow pairs lists them).")],
    data: Annotated[str, typer.Option("--data", help="Preferences that people labelled.")],
    model: Annotated[
        str, typer.Option("--model", help="The model that embeds responses.")
    ] = "smollm2-135m-instruct-q4",
    transcripts: Annotated[
        bool, typer.Option("--transcripts", metavar="", help="The prompts are Human:/Assistant: transcripts.")
    ] = False,
    limit: Limit = None,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Measure how often a pair labels as people did, by how alike the responses are."""
    from bench.data.load import load_data, load_transcripts
    from bench.files import read_csv
    from bench.verbs.agree import agree as agree_on
    from bench.verbs.session import open_session

    dataset = (load_transcripts if transcripts else load_data)(data, limit_per_subset=limit)
    known, (subject,) = select(registry, [pair], None, TemplateMode.shared)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    folder = agree_on(session, subject, dataset, embedder=model)
    emit(read_csv(folder / "agreement.csv"), Format.table, VIEWS["agree"])
    print(f"\n{folder / 'agreement.csv'}")
