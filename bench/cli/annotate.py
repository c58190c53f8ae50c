"""The verb `annotate`: labels candidates and writes a preference set."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import LABEL, app
from bench.cli.customise import Router
from bench.cli.options import (
    FILTERS,
    RESULTS,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    Format,
    RegistryDir,
    Results,
    Reward,
    RewardOption,
    TemplateMode,
    finite,
)
from bench.cli.printed import emit
from bench.cli.session import load, select
from bench.cli.views import VIEWS
from bench.faults import warn
from bench.schema import PreconditionError, UsageError

if TYPE_CHECKING:
    from bench.subject import Subject
    from bench.verbs.annotate import EnsembleWish


class Variant(StrEnum):
    """What `--customise` takes."""

    plain = "plain"
    instruction = "instruction"
    exemplars = "exemplars"
    both = "both"


class Rejected(StrEnum):
    """What `--rejected` takes."""

    worst = "worst"
    random = "random"


Candidates = Annotated[
    str, typer.Option("--candidates", help="A file with prompt and candidates, or with preferences.")
]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
Best = Annotated[str | None, typer.Option("--best", help="Use this study's best pair on RewardBench.")]
Told = Annotated[Variant, typer.Option("--customise", help="Tell both models by domain what a good answer is.")]
Routed = Annotated[Router, typer.Option("--router", help="How to find each prompt's domain.")]
Rejects = Annotated[Rejected, typer.Option("--rejected", help="Which candidate is rejected.")]
Margin = Annotated[
    float | None,
    typer.Option(
        "--min-margin",
        callback=finite,
        help="Smallest margin to keep, in the reward's unit.",
        rich_help_panel=FILTERS,
    ),
]
Sure = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        min=0,
        max=1,
        help="Least probability that the label is right, to keep.",
        rich_help_panel=FILTERS,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        help="Scored labelled data that says how sure labels are; default: the candidates' own labels, or a scored "
        "benchmark.",
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--max-length-ratio",
        min=0,
        callback=finite,
        help="Largest ratio of bytes, chosen over rejected, to keep.",
        rich_help_panel=FILTERS,
    ),
]
Poorest = Annotated[
    float | None,
    typer.Option(
        "--drop-poorest",
        min=0,
        max=1,
        help="Share of prompts to drop: those with the lowest rejected reward.",
        rich_help_panel=FILTERS,
    ),
]
Widest = Annotated[
    float | None,
    typer.Option(
        "--drop-widest",
        min=0,
        max=1,
        help="Share of prompts to drop: those with the largest margin.",
        rich_help_panel=FILTERS,
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of exemplars and random rejected candidates.")]


class Rule(StrEnum):
    """What `--ensemble` takes."""

    mean = "mean"
    minimum = "minimum"
    fitted = "fitted"


Together = Annotated[Rule | None, typer.Option("--ensemble", help="How several pairs label together.")]
FittedOn = Annotated[
    str | None,
    typer.Option(
        "--ensemble-on",
        help="--ensemble: scored, labelled data that gives scales and weights; default reward-bench.",
    ),
]


@app.command(rich_help_panel=LABEL)
def annotate(
    candidates: Candidates,
    out: Out,
    pair: Annotated[list[str] | None, typer.Option("--pair", help="A pair_id; with --ensemble, repeat.")] = None,
    ensemble: Together = None,
    ensemble_on: FittedOn = None,
    best: Best = None,
    customise: Told = Variant.plain,
    router: Routed = Router.classifier,
    rejected: Rejects = Rejected.worst,
    min_margin: Margin = None,
    min_confidence: Sure = None,
    calibration: Calibration = None,
    max_length_ratio: Ratio = None,
    drop_poorest: Poorest = None,
    drop_widest: Widest = None,
    seed: Seed = 0,
    reward: RewardOption = Reward.sum,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = Device.auto,
    results: Results = RESULTS,
    registry: RegistryDir = None,
) -> None:
    """Label candidates with a pair's reward, as preferences that TRL reads."""
    together = _ensemble(ensemble, ensemble_on)
    names = _named(pair, best, ensemble) or [_best_pair(registry, str(best), results, reward.value)]
    known, subjects = select(registry, names, None, TemplateMode.shared)

    from bench.data.load import load_candidates
    from bench.prefer.annotate import Filters
    from bench.verbs.annotate import Annotation, annotate_candidates
    from bench.verbs.session import open_session

    filters = Filters(rejected=rejected.value, min_margin=min_margin, min_confidence=min_confidence)
    filters = filters._replace(max_length_ratio=max_length_ratio, poorest_share=drop_poorest, widest_share=drop_widest)
    session = open_session(known, dtype=dtype.value, device=device.value, results=results)
    wish = Annotation(filters, customise.value, router.value, seed, reward.value, calibration, together)
    counts = annotate_candidates(session, _together(names, subjects), load_candidates(candidates), wish, out=out)
    emit(counts.rename_axis("prompts").rename("n").reset_index(), Format.table, VIEWS["annotate"])


def _ensemble(rule: Rule | None, data: str | None) -> "EnsembleWish | None":
    """How several pairs label together; None without `--ensemble`."""
    if rule is None and data is not None:
        raise UsageError(
            "--ensemble-on names the data of an ensemble's scales and weights; name --ensemble too, or leave it out"
        )
    if rule is None:
        return None

    from bench.data.load import REWARD_BENCH
    from bench.verbs.annotate import EnsembleWish

    return EnsembleWish(rule.value, REWARD_BENCH if data is None else data)


def _named(pair: list[str] | None, best: str | None, ensemble: Rule | None) -> list[str]:
    """The named pairs, each once: several with `--ensemble`, otherwise one; empty with `--best`."""
    if bool(pair) == (best is not None):
        raise UsageError("name who annotates: --pair PAIR or --best STUDY")
    names = list(dict.fromkeys(pair or []))
    if (len(names) > 1) != (ensemble is not None):
        raise UsageError("several pairs label together: name two or more with --pair, and --ensemble RULE; or one pair")
    return names


def _together(names: list[str], subjects: list["Subject"]) -> "Subject":
    """One subject of all pairs."""
    return subjects[0]._replace(name="+".join(names), pairs=tuple(each.pairs[0] for each in subjects))


def _best_pair(registry: Path | None, study: str, results: Path, reward: str) -> str:
    """The first pair of a study's leaderboard on RewardBench under the reward that labels."""
    _, (subject,) = select(registry, None, study, TemplateMode.shared)

    from bench.data.load import REWARD_BENCH
    from bench.store.folder import Store, read_table
    from bench.subject import result_folder, variant_of

    store = Store(results)
    try:
        rows = load(REWARD_BENCH, None, offline=True)
    except PreconditionError as error:
        warn(f"warning: the leaderboard may be of other rows than this data set's, which is not here: {error}")
        folder = store.result_dir(study, REWARD_BENCH, variant_of(subject, reward))
    else:
        folder = result_folder(store, subject, rows, reward=reward)
    board = read_table(folder / "leaderboard.csv")
    return str(board["pair_id"].iloc[0])
