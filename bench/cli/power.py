"""Plans the number of models of a study: `plan --power`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.cli.options import Format
from bench.cli.printed import emit
from bench.cli.session import Rows, load
from bench.cli.views import VIEWS
from bench.schema import UsageError

MODELS, RHO, N_ROWS, FAMILIES, SEED = (12, 24, 44, 88), 0.3, 2985, 4, 0
"""Defaults: a range around the paper's 44 models in 4 families, on the rows of RewardBench."""

MOST_MODELS = 200
"""The most models that are planned: the 9,900 pairs of one family of 200 models take a minute."""


_GROUP = "With --power"

Power = Annotated[
    bool, typer.Option("--power", metavar="", help="Instead, say how often a study of N models finds an effect.")
]
Models = Annotated[
    list[int] | None,
    typer.Option("--models", min=2, help="How many models; repeat for several.", rich_help_panel=_GROUP),
]
Rho = Annotated[float | None, typer.Option("--rho", help="True rho; default: 0.3.", rich_help_panel=_GROUP)]
NRows = Annotated[
    int | None, typer.Option("--rows", min=1, help="Rows; default: the study's, or 2985.", rich_help_panel=_GROUP)
]
Families = Annotated[
    int | None, typer.Option("--families", min=1, help="How many families; default: 4.", rich_help_panel=_GROUP)
]
PowerSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of the simulation; default: 0.", rich_help_panel=_GROUP)
]


class Wanted(NamedTuple):
    """The options of `plan --power`; None if not given."""

    models: list[int] | None
    rho: float | None
    rows: int | None
    families: int | None
    seed: int | None


def refuse_without_power(wanted: Wanted) -> None:
    """Refuse options that only --power reads."""
    given = [f"--{name}" for name, value in wanted._asdict().items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} needs --power, which plans how many models a study needs")


def refuse_with_power(given: Mapping[str, object]) -> None:
    """Refuse options that --power does not read; their values are None if they are not given."""
    for name in (name for name, value in given.items() if value is not None):
        raise UsageError(f"--power takes no {name}: it plans how many models a study needs, not what a run costs")


def show_power(
    wanted: Wanted, registry: Path | None, pair: list[str] | None, study: str | None, rows: Rows, output: Format
) -> None:
    """Print the power by number of models.

    Raises:
        UsageError: A pair is named, or the numbers make no study.
    """
    if pair:
        raise UsageError("--power plans a study: a pair has no gap to compare; leave out --pair")
    rho = RHO if wanted.rho is None else wanted.rho
    if math.isnan(rho) or abs(rho) > 0.95:
        raise UsageError(f"--rho {rho:g}: give a correlation between -0.95 and 0.95")
    if study and wanted.families:
        raise UsageError("--study names the families; leave out --families")
    sizes = _study_sizes(registry, study) if study else ()
    n_rows = wanted.rows or (len(load(*rows, offline=True).examples) if study else N_ROWS)

    import numpy as np

    from bench.study.power import Wish, power

    wishes = [Wish(each, rho, n_rows) for each in _plans(wanted, sizes)]
    seed = SEED if wanted.seed is None else wanted.seed
    emit(power(wishes, rng=np.random.default_rng(seed)), output, VIEWS["power"])


def _study_sizes(registry: Path | None, study: str) -> tuple[int, ...]:
    """Number of models of each family of a study."""
    from bench.registry import load_registry

    known = load_registry(registry)
    return tuple(len(known.families[name].members) for name in known.study(study).families)


def _plans(wanted: Wanted, sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sizes of the families, for each number of models."""
    from bench.study.power import even_sizes, scaled_sizes

    whole = sum(sizes)
    numbers = wanted.models or ([whole // 2, whole, 2 * whole] if sizes else list(MODELS))
    n_families = len(sizes) or wanted.families or FAMILIES
    for number in wanted.models or ():
        if number < 2 * n_families:
            raise UsageError(f"--models {number}: {n_families} families of at least 2 models need {2 * n_families}")
        if number > MOST_MODELS:
            raise UsageError(f"--models {number}: give at most {MOST_MODELS}")
    kept = [number for number in numbers if 2 * n_families <= number <= MOST_MODELS]
    plans = [scaled_sizes(sizes, number) if sizes else even_sizes(number, n_families) for number in kept]
    if not plans:
        raise UsageError(f"{n_families} families need more models: give --models, at least {2 * n_families}")
    return list(dict.fromkeys(plans))
