"""What the decomposition "is it the gap?" is worth: levels, coverage and verdicts over made-up worlds.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/study/simulation_decompose.py results/statistics worlds.csv

writes decompose.csv (its columns are explained in README.md beside it) and its figure. The second argument names a file
in which worlds are kept as they are done: a run that was stopped goes on from there.
"""

import gc
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats
from worlds import Models, Traits, dataset, draw, draw_models, draw_rows, model_margins, study

from bench.study.bootstrap import Resampling, estimate
from bench.study.decompose import decompose, doubled, measured_of, parts_of
from bench.study.design import Judged, OnAxis, Rows, judged, on_axis, rows_of
from bench.study.verdict import CHECKS, EITHER, MIXED, SLOPES, WORLDS

COLUMNS = (
    "world", "effect", "estimator", "measure", "value", "low", "high", "truth", "truth_stderr", "n_worlds", "n_draws",
)  # fmt: skip

ESTIMATED = (*SLOPES, *CHECKS)

AXIS = "alpaca_eval_2_lc"

SEED = 20261127
"""These worlds took no part in the choice of the tests: that was made on 200 worlds per kind of the seed 20261126."""

EFFECT = 0.109
"""As the largest of simulation.csv: rho is 0.56 where the difference counts."""

TASTE = 0.1
"""By how much a point of quality lowers the liking for long responses in the world `length`."""

MODELS_A_START = 11
"""One model in so many is one that tuning began with: those with the lowest published score of their family."""


class Size(NamedTuple):
    """How much is simulated."""

    n_worlds: int = 600
    n_draws: int = 299
    """Relabellings, and bootstrap draws, in each world."""
    n_truth_models: int = 132
    n_truth_worlds: int = 10
    """The true value of an estimator is its mean over so many worlds of so many models."""


FULL = Size()


class Kind(NamedTuple):
    """A kind of world: whose quality shows in a pair's margins."""

    name: str
    strong: bool
    """Whether the better model's quality does."""
    weak: bool
    taste: float = 0.0
    """By how much a point of quality lowers the liking for long responses, which are rarely the better ones."""


KINDS = (
    Kind("nothing", False, False),
    Kind("only-strong", True, False),
    Kind("only-weak", False, True),
    Kind("difference", True, True),
    Kind("length", False, False, TASTE),
)


class World(NamedTuple):
    """The judgements of a world."""

    axis: OnAxis
    length: Judged
    """Whether a pair prefers the longer response."""
    starts: tuple[str, ...]


def made_world(kind: Kind, *, rng: np.random.Generator, n_models: int = 44) -> World:
    """A world of a kind: margins are those of the better model, with or without its quality, less the worse one's."""
    models, rows = draw_models(effect=EFFECT, rng=rng, n_models=n_models), draw_rows(rng=rng)
    models = models._replace(taste=models.taste - kind.taste * models.lean / EFFECT)
    seed = int(rng.integers(2**63))
    full, idle = (_margins(models, rows, lean, seed) for lean in (models.lean, 0 * models.lean))
    made, position = study(models)
    better = (full if kind.strong else idle)[position][made.strong]
    margins = better - (full if kind.weak else idle)[position][made.weak]
    axis = on_axis(made, judged(margins), models.performance[AXIS][position])
    longer = judged(margins * np.sign(rows.length))
    return World(axis, on_axis(made, longer, models.performance[AXIS][position]).answers, _starts(axis))


def _margins(models: Models, rows: Traits, lean: np.ndarray, seed: int) -> np.ndarray:
    return model_margins(models._replace(lean=lean), rows, rng=np.random.default_rng(seed))


def _starts(axis: OnAxis) -> tuple[str, ...]:
    names = []
    for family in np.unique(axis.study.family):
        members = np.flatnonzero(axis.study.family == family)
        lowest = members[np.argsort(axis.performance[members])][: max(1, round(len(members) / MODELS_A_START))]
        names += list(axis.study.model_ids[lowest])
    return tuple(names)


def score_rows() -> Rows:
    """The rows with their overall score alone."""
    levels = rows_of(dataset().examples)
    return levels._replace(levels=levels.levels[:1], weights=levels.weights[:1])


def true_values(kind: Kind, size: Size, *, rng: np.random.Generator) -> np.ndarray:
    """ESTIMATED in large worlds, (worlds, 6)."""
    rows, found = score_rows(), []
    for _ in range(size.n_truth_worlds):
        world = made_world(kind, rng=rng, n_models=size.n_truth_models)
        measured = measured_of(world.axis.answers, world.length, rows)
        both, twice = doubled(world.axis, world.length)
        found.append(estimate(both, twice, rows, parts_of(world.axis, measured, world.starts)))
    return np.array(found)


def one_world(kind: Kind, rows: Rows, n_draws: int, *, rng: np.random.Generator) -> pd.DataFrame:
    """DECOMPOSITION of one world."""
    axis, length, starts = made_world(kind, rng=rng)
    return decompose(axis, length, rows, starts=starts, resampling=Resampling(n_draws), rng=rng)


def simulate(kinds: tuple[Kind, ...] = KINDS, size: Size = FULL, *, kept: Path | None = None) -> pd.DataFrame:
    """COLUMNS of every kind of world. `kept` is the file in which worlds are kept as they are done."""
    rows = score_rows()
    # Holm's method in statsmodels collects garbage each time; what is there already need not be looked through.
    gc.freeze()
    done = _done(kept)
    for number in range(size.n_worlds):
        for kind in kinds:
            if (kind.name, number) not in done:
                rng = np.random.default_rng([SEED, KINDS.index(kind), number])
                frame = one_world(kind, rows, size.n_draws, rng=rng).assign(kind=kind.name, number=number)
                done[kind.name, number] = frame
                if kept is not None:
                    frame.to_csv(kept, mode="a", header=not kept.exists(), index=False)
    frames = []
    for kind in kinds:
        true = true_values(kind, size, rng=np.random.default_rng([SEED, KINDS.index(kind)]))
        found = pd.concat([done[kind.name, number] for number in range(size.n_worlds)])
        frames.append(_summary(kind, found, true, size))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _done(kept: Path | None) -> dict[tuple[str, int], pd.DataFrame]:
    """DECOMPOSITION of the worlds in a file, by the name of their kind and their number."""
    if kept is None or not kept.exists():
        return {}
    return {(str(kind), int(number)): rows for (kind, number), rows in pd.read_csv(kept).groupby(["kind", "number"])}


def _summary(kind: Kind, found: pd.DataFrame, true: np.ndarray, size: Size) -> pd.DataFrame:
    """The measures of every estimator, with their 95% Wilson interval over worlds."""
    lines = []
    for name in (EITHER, *ESTIMATED, *MIXED):
        mine = found[found["estimator"] == name]
        values = true[:, ESTIMATED.index(name.removeprefix("mixed-"))] if name != EITHER else np.full(2, np.nan)
        truth = {"truth": values.mean(), "truth_stderr": values.std(ddof=1) / np.sqrt(len(values))}
        lines.append({"estimator": name, "measure": "rejection", **_share(mine["p_value"] <= 0.05), **truth})
        if name != EITHER:
            covers = (mine["low"] <= truth["truth"]) & (truth["truth"] <= mine["high"])
            lines.append({"estimator": name, "measure": "coverage", **_share(covers), **truth})
    verdicts = found[found["estimator"] == EITHER]["world"]
    lines += [{"estimator": f"verdict-{name}", "measure": "named", **_share(verdicts == name)} for name in WORLDS]
    counts = {"n_worlds": len(verdicts), "n_draws": size.n_draws}
    effect = EFFECT * (kind.strong or kind.weak)
    return pd.DataFrame(lines).assign(world=kind.name, effect=effect, **counts).reindex(columns=list(COLUMNS))


def _share(hits: pd.Series) -> dict[str, float]:
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"value": hits.mean(), "low": interval.low, "high": interval.high}


def figure(frame: pd.DataFrame) -> Figure:
    """How often each test rejects, how often each interval holds the truth, and how often each verdict is given."""
    result = Figure(figsize=(11, 5.2), layout="constrained")
    left, middle, right = result.subplots(1, 3, width_ratios=[1, 1, 1.1])
    names = [EITHER, *ESTIMATED, *MIXED]
    words = ["either model counts" if name == EITHER else name.replace("-", " ") for name in names]
    kinds = list(pd.unique(frame["world"]))
    for panel, measure in ((left, "rejection"), (middle, "coverage")):
        for number, kind in enumerate(kinds):
            rows = frame[(frame["measure"] == measure) & (frame["world"] == kind)]
            height = [names.index(name) + 0.15 * (number - (len(kinds) - 1) / 2) for name in rows["estimator"]]
            grey = str(np.linspace(0, 0.7, len(kinds))[number])
            error = [100 * (rows["value"] - rows["low"]), 100 * (rows["high"] - rows["value"])]
            style = {"color": grey, "mfc": "white" if number % 2 else grey, "ms": 4, "label": kind.replace("-", " ")}
            panel.errorbar(100 * rows["value"], height, xerr=error, fmt="osD^v"[number], **style)
        panel.set_yticks(range(len(names)), words, fontsize=7)
        panel.set_ylim(len(names) - 0.5, -0.5)
    left.axvspan(2.5, 8, color="0.92", zorder=0)
    middle.axvspan(92, 99, color="0.92", zorder=0)
    left.set_xlabel("Rejects at 5%, % of worlds")
    middle.set_xlabel("95% interval holds the truth, %")
    _verdicts(right, frame[frame["measure"] == "named"], kinds)
    result.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=5, title="What counts in the world"
    )
    n_worlds, n_draws = frame["n_worlds"].min(), frame["n_draws"].iloc[0]
    result.suptitle(
        f"{n_worlds} worlds of a kind, {n_draws} draws a world; 44 models, 221 pairs, 2,985 rows", fontsize=10
    )
    return result


def _verdicts(panel, rows: pd.DataFrame, kinds: list[str]) -> None:
    """A matrix: the share of each verdict in each kind of world."""
    shares = rows.assign(verdict=rows["estimator"].str.removeprefix("verdict-"))
    table = shares.pivot(index="world", columns="verdict", values="value").loc[kinds, list(WORLDS)]
    panel.imshow(table, cmap="Greys", vmin=0, vmax=1.3, aspect="auto")
    for y, line in enumerate(table.to_numpy()):
        for x, value in enumerate(line):
            panel.text(x, y, f"{100 * value:.1f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    panel.set_xticks(range(len(WORLDS)), [name.replace("-", "\n") for name in WORLDS], fontsize=6)
    panel.set_yticks(range(len(kinds)), [kind.replace("-", "\n") for kind in kinds], fontsize=7)
    panel.set(xlabel="Verdict, % of worlds", ylabel="What counts in the world")


def main(folder: Path, kept: Path | None) -> None:
    """Simulate, then write the table and its figure."""
    folder.mkdir(parents=True, exist_ok=True)
    simulate(kept=kept).round(6).to_csv(folder / "decompose.csv", index=False)
    draw(figure, folder / "decompose.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
