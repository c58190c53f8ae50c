"""What the study's test and interval are worth: their level, coverage, width and power over made-up worlds.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/study/simulation.py results/statistics

writes simulation.csv (its columns are explained in README.md beside it) and the figure drawn from it.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from scipy import stats
from worlds import (
    ADVANTAGE_NATS,
    Models,
    Traits,
    dataset,
    difference,
    draw,
    draw_models,
    draw_rows,
    favour,
    model_margins,
    order_only,
    study,
)

from bench.study.bootstrap import Resampling, crossed_bootstrap, estimate
from bench.study.correlate import HEADLINE, POOLED, interval_of
from bench.study.design import OnAxis, Rows, judged, on_axis, oriented, pair_families, plain_accuracy, rows_of
from bench.study.effects import (
    comparable,
    dyadic_test,
    family_by_family,
    membership,
    midranks,
    spearman,
    standardised,
)
from bench.study.qap import qap, relabellings

COLUMNS = (
    "world", "effect", "truth", "truth_stderr", "method", "measure", "value", "low", "high", "n_worlds", "n_draws",
)  # fmt: skip

MEASURES = ("rejection", "coverage", "width")

METHODS = {
    "qap-exchangeable": "QAP, labels exchangeable",
    "qap-sign-only": "QAP, only the sign matters",
    "bootstrap-basic-z": "Crossed bootstrap, basic on Fisher's z",
    "bootstrap-basic": "Crossed bootstrap, basic",
    "bootstrap-percentile": "Crossed bootstrap, percentile",
    "dyadic-t": "Dyadic-robust t",
    "pooled-basic-z": "Families pooled: crossed bootstrap",
    "naive-pearson": "Families pooled: naive Pearson",
}

TRUTHS = ("within", "pooled", "pearson")
"""What the methods estimate: rho inside families, but for the last two of METHODS."""

SEED = 20241104

AXIS = "alpaca_eval_2_lc"


class Size(NamedTuple):
    """How much is simulated."""

    n_worlds: int = 400
    n_draws: int = 599
    """Relabellings, and bootstrap draws, in each world."""
    n_truth_models: int = 300
    n_truth_worlds: int = 40
    """The true rho is the mean of so many worlds of so many models, so that it is not itself a draw."""


FULL = Size()


class Kind(NamedTuple):
    """A generator of worlds."""

    name: str
    effect: float
    pair: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Margins of the better and of the worse model, (pairs, rows) each -> the pair's."""
    advantage_nats: float = 0.0
    """What one family's margins are raised by."""


KINDS = (
    Kind("none", 0.0, difference),
    Kind("order-only", 0.0, order_only),
    Kind("planted", 0.04, difference),
    Kind("planted", 0.109, difference),
    Kind("family", 0.0, difference, ADVANTAGE_NATS),
    Kind("family-planted", 0.04, difference, ADVANTAGE_NATS),
    Kind("family-planted", 0.109, difference, ADVANTAGE_NATS),
)


class Rho(NamedTuple):
    """Statistic for the bootstrap: rho inside families and rho over all pairs, of some pairs, on the first level."""

    gap: np.ndarray
    family: np.ndarray
    pairs: np.ndarray

    def __call__(self, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
        gap, answer, weight = self.gap[self.pairs], answers[:, 0, self.pairs], weights[:, self.pairs]
        families = (self.family[self.pairs], np.zeros(len(self.pairs), dtype=int))
        return np.column_stack([spearman(gap, answer, weight, family) for family in families])


class Outcome(NamedTuple):
    """What a method says of one world."""

    rejects: bool
    """At 5%; an interval rejects where it leaves 0 out."""
    low: float
    high: float


def one_axis(models: Models, rows: Traits, kind: Kind, *, rng: np.random.Generator) -> OnAxis:
    """A world's pairs and their answers; the strong model of each is the better one."""
    made, position = study(models)
    margins = model_margins(models, rows, rng=rng)[position]
    of_pairs = kind.pair(margins[made.strong], margins[made.weak])
    answers = judged(favour(of_pairs, made.family[made.strong], kind.advantage_nats))
    return on_axis(made, answers, models.performance[AXIS][position])


def truth(kind: Kind, levels: Rows, size: Size, *, rng: np.random.Generator) -> np.ndarray:
    """TRUTHS in large worlds, (worlds, 3)."""
    found = []
    for _ in range(size.n_truth_worlds):
        models = draw_models(effect=kind.effect, rng=rng, n_models=size.n_truth_models)
        rows = draw_rows(rng=rng)
        margins = model_margins(models, rows, rng=rng)
        families = [_family(models, margins, name, levels, kind) for name in np.unique(models.family)]
        own = [stats.spearmanr(gap, accuracy)[0] for gap, accuracy in families]
        within = np.average(own, weights=[len(gap) for gap, _ in families])
        gap, accuracy = (np.concatenate(part) for part in zip(*families, strict=True))
        found.append((within, stats.spearmanr(gap, accuracy)[0], stats.pearsonr(gap, accuracy)[0]))
    return np.array(found)


def _family(models: Models, margins: np.ndarray, name: str, levels: Rows, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Gap and accuracy of a large family's pairs with a gap, the better model strong."""
    members = np.flatnonzero(models.family == name)
    members = members[np.argsort(models.performance[AXIS][members])]
    score = models.performance[AXIS][members]
    gap, accuracy = [], []
    for at in range(1, len(members)):
        of_pairs = kind.pair(margins[members[at]], margins[members[:at]])
        right = favour(of_pairs, np.full(at, name), kind.advantage_nats) > 0
        accuracy.append(right @ levels.weights[0])
        gap.append(np.round(score[at] - score[:at], 9))
    gap, accuracy = np.concatenate(gap), np.concatenate(accuracy)
    return gap[gap > 0], accuracy[gap > 0]


def one_world(kind: Kind, levels: Rows, n_draws: int, *, rng: np.random.Generator) -> dict[str, Outcome]:
    """What each of METHODS says."""
    axis = one_axis(draw_models(effect=kind.effect, rng=rng), draw_rows(rng=rng), kind, rng=rng)
    correct = oriented(axis)
    answers = plain_accuracy(correct, levels)[0]
    forward, turned = (plain_accuracy(side, levels)[0] for side in axis.answers)
    labels = relabellings(axis.study.family, n_draws=n_draws, rng=rng)
    test = qap(axis.study, axis.performance, forward, turned, labels)
    statistic = Rho(np.abs(axis.gap), pair_families(axis.study), np.flatnonzero(axis.gap != 0))
    rho, pooled = estimate(correct, axis.study, levels, statistic)
    draws = crossed_bootstrap(correct, axis.study, levels, statistic, resampling=Resampling(n_draws), rng=rng)
    low, high = np.nanquantile(draws[:, 0], [0.025, 0.975])
    return {
        "qap-exchangeable": Outcome(test.exchangeable <= 0.05, np.nan, np.nan),
        "qap-sign-only": Outcome(test.sign_only <= 0.05, np.nan, np.nan),
        "bootstrap-basic-z": _by_interval(*interval_of(HEADLINE)(rho, draws[:, 0])),
        "bootstrap-basic": _by_interval(2 * rho - high, 2 * rho - low),
        "bootstrap-percentile": _by_interval(low, high),
        "dyadic-t": dyadic(axis, answers),
        "pooled-basic-z": _by_interval(*interval_of(POOLED)(pooled, draws[:, 1])),
        "naive-pearson": naive(axis, answers),
    }


def dyadic(axis: OnAxis, answers: np.ndarray) -> Outcome:
    """rho -+ t x its dyadic-robust standard error, with a degree of freedom a model but one."""
    used = axis.gap != 0
    ones, family = np.ones((1, used.sum())), pair_families(axis.study)[used]
    models = membership(axis.study.strong[used], axis.study.weak[used], len(axis.performance))
    sides = (np.abs(axis.gap[used]), answers[None, used])
    ranks = [standardised(midranks(family_by_family(side, family), ones), ones, family) for side in sides]
    rho, t = (float(value[0]) for value in dyadic_test(*comparable(*ranks, ones), models))
    half = stats.t.ppf(0.975, len(axis.performance) - 1) * rho / t
    return _by_interval(rho - half, rho + half)


def naive(axis: OnAxis, answers: np.ndarray) -> Outcome:
    """Pearson's r with its textbook test and interval, as if the pairs were independent."""
    used = axis.gap != 0
    result = stats.pearsonr(np.abs(axis.gap[used]), answers[used])
    return Outcome(bool(result.pvalue <= 0.05), *(float(limit) for limit in result.confidence_interval()))


def simulate(kinds: tuple[Kind, ...] = KINDS, size: Size = FULL, *, n_jobs: int = 1) -> pd.DataFrame:
    """COLUMNS: every measure of every method in every kind of world."""
    return pd.concat([simulated(kind, size, n_jobs=n_jobs) for kind in kinds], ignore_index=True)


def simulated(kind: Kind, size: Size = FULL, *, n_jobs: int = 1) -> pd.DataFrame:
    """COLUMNS of one kind of world."""
    levels = rows_of(dataset().examples)
    levels = levels._replace(levels=levels.levels[:1], weights=levels.weights[:1])
    seed = [SEED, KINDS.index(kind)]
    true = truth(kind, levels, size, rng=np.random.default_rng(seed))
    rngs = (np.random.default_rng([*seed, world]) for world in range(size.n_worlds))
    run = delayed(one_world)
    outcomes = Parallel(n_jobs=n_jobs)(run(kind, levels, size.n_draws, rng=rng) for rng in rngs)
    frames = [_summary(kind, method, [o[method] for o in outcomes], true, size) for method in METHODS]
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _by_interval(low: float, high: float) -> Outcome:
    return Outcome(bool(low > 0 or high < 0), float(low), float(high))


def _summary(kind: Kind, method: str, outcomes: list[Outcome], true: np.ndarray, size: Size) -> pd.DataFrame:
    """The measures of one method; shares with their 95% Wilson interval over worlds, the width with a t interval."""
    found = pd.DataFrame(outcomes)
    values = true[:, TRUTHS.index({"pooled-basic-z": "pooled", "naive-pearson": "pearson"}.get(method, "within"))]
    target = values.mean()
    lines = [("rejection", found["rejects"].mean(), *_wilson(found["rejects"].sum(), len(found)))]
    if found["low"].notna().all():
        covers = (found["low"] <= target) & (target <= found["high"])
        lines.append(("coverage", covers.mean(), *_wilson(covers.sum(), len(found))))
        width = found["high"] - found["low"]
        lines.append(("width", width.mean(), *stats.t.interval(0.95, len(width) - 1, width.mean(), width.sem())))
    frame = pd.DataFrame(lines, columns=["measure", "value", "low", "high"])
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    counts = {"n_worlds": len(found), "n_draws": size.n_draws}
    return frame.assign(world=kind.name, effect=kind.effect, truth=target, truth_stderr=stderr, method=method, **counts)


def _wilson(n_hits: int, n: int) -> tuple[float, float]:
    interval = stats.binomtest(int(n_hits), n).proportion_ci(method="wilson")
    return interval.low, interval.high


def figure(frame: pd.DataFrame) -> Figure:
    """A panel a measure; a row a method, a mark a kind of world, with the simulation's own error."""
    result = Figure(figsize=(10, 5.2), layout="constrained")
    panels = result.subplots(1, 3, sharey=True)
    worlds = list(frame[["world", "effect"]].drop_duplicates().itertuples(index=False, name=None))
    greys, marks = np.linspace(0, 0.75, len(worlds)), "osD^vP*X"
    for panel, measure in zip(panels, MEASURES, strict=True):
        for number, (world, effect) in enumerate(worlds):
            rows = frame[(frame["measure"] == measure) & (frame["world"] == world) & (frame["effect"] == effect)]
            rho = frame.loc[
                (frame["world"] == world) & (frame["effect"] == effect) & (frame["method"] == "dyadic-t"), "truth"
            ].iloc[0]
            height = [
                list(METHODS).index(method) + 0.12 * (number - (len(worlds) - 1) / 2) for method in rows["method"]
            ]
            error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            label = f"{world}, true ρ {rho:.2f}".replace("-0.00", "0.00")
            panel.errorbar(
                rows["value"], height, xerr=error, fmt=marks[number], color=str(greys[number]), ms=4, label=label
            )
        panel.set_xlabel({"rejection": "Rejects at 5%", "coverage": "95% interval covers", "width": "Width"}[measure])
    panels[0].axvspan(0.025, 0.08, color="0.92", zorder=0)
    panels[1].axvspan(0.92, 0.99, color="0.92", zorder=0)
    panels[0].set_yticks(range(len(METHODS)), METHODS.values())
    panels[0].invert_yaxis()
    result.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    n_worlds, n_draws = frame["n_worlds"].iloc[0], frame["n_draws"].iloc[0]
    result.suptitle(f"{n_worlds} worlds a mark, {n_draws} draws a world; 44 models, 221 pairs, 2,985 rows", fontsize=10)
    return result


def main(folder: Path) -> None:
    """Simulate, write each kind of world as it is done, then the table's figure."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for kind in KINDS:
        frames.append(simulated(kind))
        pd.concat(frames).round(6).to_csv(folder / "simulation.csv", index=False)
        print(f"{kind.name} {kind.effect}: done", file=sys.stderr)
    draw(figure, folder / "simulation.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
