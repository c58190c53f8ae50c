"""Options that several verbs share, each defined once."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

COMPUTING, FOLDERS, PRINTING, SAMPLING = "Computing", "Folders", "Printing", "Sampling"
MACHINES, TRAINING, FILTERS = "Many machines", "Training", "Filters"
"""Groups of options in a verb's help. The main options are in no group."""


class Format(StrEnum):
    """What `--format` takes."""

    table = "table"
    csv = "csv"
    json = "json"


class Dtype(StrEnum):
    """What `--dtype` takes."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


class ScoredIn(StrEnum):
    """What `--dtype` of an import takes."""

    bf16 = "bf16"
    fp32 = "fp32"


class Device(StrEnum):
    """What `--device` takes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class TemplateMode(StrEnum):
    """What `--template` takes."""

    shared = "shared"
    native = "native"


class Reward(StrEnum):
    """What `--reward` takes."""

    sum = "sum"
    mean = "mean"
    per_byte = "per-byte"
    length_regularised = "length-regularised"
    calibrated = "calibrated"
    strong = "strong"
    strong_mean = "strong-mean"
    prefix_mean = "prefix-mean"
    prefix_min = "prefix-min"
    peak = "peak"
    last = "last"
    clipped = "clipped"
    trimmed = "trimmed"
    contrastive = "contrastive"


def finite(value: float | None) -> float | None:
    """The value of an option, which must be a finite number. An option with both limits needs no such check."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


Pairs = Annotated[
    list[str] | None, typer.Option("--pair", help="A pair_id (drsow pairs lists them); repeat for several.")
]
OnePair = Annotated[str, typer.Option("--pair", help="A pair_id (drsow pairs lists them).")]
StudyName = Annotated[str | None, typer.Option("--study", help="A study: all of its pairs.")]
Data = Annotated[
    str, typer.Option("--data", help="A benchmark's name, sample, a .jsonl, .parquet, .csv or .json file, or a hub id.")
]
Limit = Annotated[
    int | None, typer.Option("--limit-per-subset", min=1, help="Draw N rows of each subset, always the same.")
]
Results = Annotated[Path, typer.Option("--results", help="Results folder.", rich_help_panel=FOLDERS)]
RegistryDir = Annotated[
    Path | None,
    typer.Option("--registry", help="Folder with your own models.toml, pairs.toml.", rich_help_panel=FOLDERS),
]
As = Annotated[Format, typer.Option("--format", help="How to print.", rich_help_panel=PRINTING)]
RewardOption = Annotated[
    Reward,
    typer.Option(
        "--reward", help="The reward to rank by; prefix-mean and those after it use scores of tokens (run --tokens)."
    ),
]
TemplateOption = Annotated[
    TemplateMode, typer.Option("--template", help="One chat template for both models, or each its own.")
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", help="auto: bf16 where the hardware has it, else fp32.", rich_help_panel=COMPUTING)
]
StoredDtype = Annotated[
    Dtype,
    typer.Option(
        "--dtype", help="Read the stored scores of this dtype; auto: whichever is stored.", rich_help_panel=COMPUTING
    ),
]
OpsOption = Annotated[
    str | None,
    typer.Option(
        "--ops",
        help="If several are stored: the scores of this arithmetic, such as cpu-torch.",
        rich_help_panel=COMPUTING,
    ),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: the GPU where there is one.", rich_help_panel=COMPUTING)
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print the leaderboard as JSON.", rich_help_panel=PRINTING)
]
Owner = Annotated[
    str | None,
    typer.Option("--template", help="Model whose chat template rendered the text; default: the model itself."),
]
ScoredDtype = Annotated[ScoredIn, typer.Option("--dtype", help="The dtype that the scores were computed in.")]
ModelName = Annotated[str, typer.Option("--model", help="A model_id of the registry.")]
PolicyName = Annotated[str, typer.Option("--model", help="A model_id of the registry, or a model's folder.")]
Prompts = Annotated[
    str, typer.Option("--prompts", help="A .jsonl, .parquet, .csv or .json file with prompts, or a hub id.")
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0.01, callback=finite, help="Sampling temperature.", rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p",
        min=0.01,
        max=1,
        help="Sample from the most likely tokens with this much probability.",
        rich_help_panel=SAMPLING,
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Most tokens of a response.", rich_help_panel=SAMPLING)
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of every random draw; default: derived from the data.")
]
SampleSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampling.", rich_help_panel=SAMPLING)]

RESULTS = Path("results")
