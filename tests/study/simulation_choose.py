"""What the held-out estimates and the intervals of shares are worth: bias and coverage over made-up worlds.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/study/simulation_choose.py results/statistics

writes choose.csv (its columns are explained in README.md beside it) and the figure drawn from it.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from worlds import SIZES, draw, draw_answers, limited, world_rows

from bench.study.choose import Wish, choose
from bench.study.design import Rows, plain_accuracy
from bench.study.held_out import held_out_scores
from bench.study.interval import Sample, share_limits
from bench.study.leaderboard import bootstrap_scores, rank_limits

COLUMNS = ("claim", "world", "n_rows", "rows_a_subset", "quantity", "measure", "value", "low", "high", "n_worlds")

SEED = 20250611

N_PAIRS = 30
LATENT = 0.8
"""Correlation of two pairs' leanings on a row that makes their correctness correlate by 0.58 at 65%."""
ROUNDING = 1e-9
"""A limit this far from the truth is the truth: which side it falls on depends on the order of a sum."""
LANGUAGES = 0.75
"""Of one pair's leanings on two languages of a problem: its correctness correlates by about 0.5."""

SAMPLE, FULL = 8, None
"""Rows a subset: 184 rows, and all 2,985."""
FEW = (1, 2, 5, 8, 20)


class Size(NamedTuple):
    """How many worlds of each kind."""

    n_choices: int = 600
    """On 184 rows."""
    n_full_choices: int = 100
    """On all rows."""
    n_intervals: int = 2000


SIZE = Size()


def _spread(centre: float, by: float) -> np.ndarray:
    """Truths of N_PAIRS pairs, at the quantiles of a normal distribution."""
    return centre + by * stats.norm.ppf((np.arange(N_PAIRS) + 0.5) / N_PAIRS)


CHOICES = {
    "equal-pairs": np.full(N_PAIRS, 0.65),
    "unequal-pairs": _spread(0.65, 0.03),
    "very-unequal-pairs": _spread(0.65, 0.06),
    "one-better-pair": np.append(np.full(N_PAIRS - 1, 0.65), 0.70),
}
"""True accuracy of each pair, alike in every subset. The pairs' order is that of the truth."""


def _uneven(seed: int, spread: float) -> np.ndarray:
    """True accuracies that differ from subset to subset, (subsets,)."""
    return np.clip(stats.norm.cdf(0.5 + spread * np.random.default_rng(seed).standard_normal(len(SIZES))), 0.02, 0.98)


SHARES = {
    "65-percent": np.full(len(SIZES), 0.65),
    "95-percent": np.full(len(SIZES), 0.95),
    "50-percent": np.full(len(SIZES), 0.5),
    "uneven-subsets": _uneven(1, 0.6),
    "very-uneven-subsets": _uneven(2, 1.2),
}


def one_choice(truth: np.ndarray, rows: Rows, *, rng: np.random.Generator) -> dict[str, float]:
    """What `choose` and the leaderboard say of one world, and whether it is true."""
    correct = draw_answers(np.tile(truth[:, None], len(SIZES)), rows, LATENT, LANGUAGES, rng=rng)
    board = pd.DataFrame({"pair_id": [str(n) for n in range(N_PAIRS)], "n_params": 1.0, "cost_flop": 1.0})
    # the largest gap is a pair of middling truth
    board = board.assign(gap_points=(np.arange(N_PAIRS) == N_PAIRS // 2) * 1.0, licence="mit")
    found = choose(board, correct, rows, Wish(), rng=rng, top=1)
    best, gap, random = (found.table.iloc[row] for row in range(3))
    chosen, middle = truth[int(best["pair_id"])], truth[N_PAIRS // 2]
    # how lucky all pairs are together on these rows is known here, and is taken off
    luck = random["score"] - truth.mean()
    column = held_out_scores(correct, Sample(rows.weights[0], rows.subset, rows.cluster), rng=rng)[0]
    scores = plain_accuracy(correct, rows)[0]
    best_rank, _ = rank_limits(scores, bootstrap_scores(correct, rows, rng=rng))
    truly_best = int(np.argmax(truth + 1e-9 * rng.random(N_PAIRS)))
    return {
        "score, bias": best["score"] - luck - chosen,
        "held-out, bias": best["held_out"] - luck - chosen,
        "leaderboard-held-out, bias": column - luck - chosen,
        "held-out, coverage": best["held_out_low"] <= chosen <= best["held_out_high"],
        "largest-gap, coverage": gap["held_out_low"] <= middle <= gap["held_out_high"],
        "random-pair, coverage": random["held_out_low"] <= truth.mean() <= random["held_out_high"],
        "best-over-random-pair, coverage": best["over_random_low"] <= chosen - truth.mean() <= best["over_random_high"],
        "best-over-largest-gap, coverage": best["over_gap_low"] <= chosen - middle <= best["over_gap_high"],
        "best-in-confidence-set, coverage": str(truly_best) in found.not_worse,
        "rank-of-the-best, coverage": best_rank[truly_best] == 1,
        "outside-0-to-1, share": not 0 <= best["held_out_low"] <= best["held_out_high"] <= 1,
        "confidence-set, pairs": len(found.not_worse),
    }


def _one_share(truth: np.ndarray, rows: Rows, n: int, *, rng: np.random.Generator) -> np.ndarray:
    """Whether the interval of the score and of each section holds the truth, (n, levels); NaN without one."""
    correct = draw_answers(np.tile(truth, (n, 1)), rows, 0.0, LANGUAGES, rng=rng)
    return _held(correct, truth, rows)


def _held(correct: np.ndarray, truth: np.ndarray, rows: Rows) -> np.ndarray:
    """The same of given answers, (pairs, rows)."""
    found = []
    for weights in rows.weights:
        target = weights @ truth[rows.subset]
        low, high = share_limits(correct, Sample(weights, rows.subset, rows.cluster))
        found.append(np.where(np.isfinite(low), _between(low, target, high), np.nan))
    return np.stack(found, axis=1)


def _bootstrap_held(truth: np.ndarray, rows: Rows, n: int, *, rng: np.random.Generator) -> np.ndarray:
    """How often the interval of before would have: rows drawn again one by one, percentiles, (n, levels)."""
    correct = draw_answers(np.tile(truth, (n, 1)), rows, 0.0, LANGUAGES, rng=rng)
    found = np.empty((n, len(rows.levels)))
    loose = rows._replace(cluster=np.arange(len(rows.cluster)))
    for level, weights in enumerate(rows.weights):
        draws = np.zeros((400, n))
        for subset in np.unique(loose.subset):
            columns = np.flatnonzero(loose.subset == subset)
            times = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=400)
            draws += weights[columns].sum() * times @ correct[:, columns].T / len(columns)
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        target = weights @ truth[rows.subset]
        found[:, level] = _between(low, target, high)
    return found


def _between(low: np.ndarray, target: float, high: np.ndarray) -> np.ndarray:
    return (low <= target + ROUNDING) & (target - ROUNDING <= high)


def simulate(size: Size = SIZE, *, choices: dict = CHOICES, shares: dict = SHARES, n_jobs: int = 1) -> pd.DataFrame:
    """COLUMNS: every measure of every claim."""
    frames = []
    for number, (world, truth) in enumerate(choices.items()):
        for rows_a_subset, n in ((SAMPLE, size.n_choices), (FULL, size.n_full_choices)):
            rows = world_rows(limited(rows_a_subset))
            seeds = [[SEED, 1, number, len(rows.subset), world_number] for world_number in range(n)]
            run = delayed(one_choice)
            found = Parallel(n_jobs=n_jobs)(run(truth, rows, rng=np.random.default_rng(seed)) for seed in seeds)
            frames.append(_choices(pd.DataFrame(found), world, rows, rows_a_subset))
            print(f"{world}, {len(rows.subset)} rows: done", file=sys.stderr)
    for number, (world, truth) in enumerate(shares.items()):
        for rows_a_subset in (*FEW, FULL):
            rows = world_rows(limited(rows_a_subset))
            n = size.n_intervals if rows_a_subset else size.n_intervals // 4
            for claim, how in (("interval", _one_share), ("interval-before", _bootstrap_held)):
                rng = np.random.default_rng([SEED, 2, number, len(rows.subset), claim == "interval"])
                frames.append(_shares(how(truth, rows, n, rng=rng), claim, world, rows, rows_a_subset))
        print(f"{world}: done", file=sys.stderr)
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _choices(found: pd.DataFrame, world: str, rows: Rows, rows_a_subset: int | None) -> pd.DataFrame:
    """The measures of one kind of world: shares with Wilson's interval over worlds, means with Student's."""
    lines = []
    for name, values in found.astype(float).items():
        quantity, measure = name.split(", ")
        ends = _wilson(values) if measure in ("coverage", "share") else _mean_limits(values)
        lines.append((quantity, measure, values.mean(), *ends, len(values)))
    return _framed(lines, "choose", world, rows, rows_a_subset)


def _shares(held: np.ndarray, claim: str, world: str, rows: Rows, rows_a_subset: int | None) -> pd.DataFrame:
    """Coverage by level, and how often there was no interval."""
    lines = []
    for level, (_, name) in enumerate(rows.levels):
        known = held[np.isfinite(held[:, level]), level]
        refused = np.isnan(held[:, level])
        lines.append((name, "refused", refused.mean(), *_wilson(refused), len(held)))
        if len(known):
            lines.append((name, "coverage", known.mean(), *_wilson(known), len(known)))
    return _framed(lines, claim, world, rows, rows_a_subset)


def _framed(lines: list[tuple], claim: str, world: str, rows: Rows, rows_a_subset: int | None) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["quantity", "measure", "value", "low", "high", "n_worlds"])
    return frame.assign(claim=claim, world=world, n_rows=len(rows.subset), rows_a_subset=rows_a_subset or np.nan)


def _wilson(hits: np.ndarray) -> tuple[float, float]:
    interval = stats.binomtest(int(np.sum(hits)), len(hits)).proportion_ci(method="wilson")
    return interval.low, interval.high


def _mean_limits(values: pd.Series) -> tuple[float, float]:
    if values.std() == 0:
        return values.mean(), values.mean()
    return stats.t.interval(0.95, len(values) - 1, values.mean(), values.sem())


def figure(frame: pd.DataFrame) -> Figure:
    """How far each estimate is off, how often each interval of `choose` holds, and how often that of a share does."""
    result = Figure(figsize=(10.5, 6.4), layout="constrained")
    left, middle, right = result.subplots(1, 3, width_ratios=[1, 1.25, 1])
    chosen = frame[frame["claim"] == "choose"]
    for panel, measure in ((left, "bias"), (middle, "coverage")):
        _by_quantity(panel, chosen[chosen["measure"] == measure])
    left.axvspan(-0.5, 0.5, color="0.92", zorder=0)
    middle.axvspan(90, 100, color="0.92", zorder=0)
    left.set_xlabel("Above the truth, points")
    middle.set_xlabel("95% interval or set holds the truth, %")
    _by_rows(right, frame[(frame["claim"] != "choose") & (frame["measure"] == "coverage")])
    for panel, places in ((left, (0.0, 1.02)), (right, (0.0, 1.02))):
        panel.legend(loc="lower left", bbox_to_anchor=places, fontsize=7)
    n = chosen.groupby("n_rows")["n_worlds"].max()
    counts = ", ".join(f"{worlds:,} on {rows:,} rows" for rows, worlds in n.items())
    result.suptitle(f"Worlds of a kind: {counts}; {N_PAIRS} pairs. Bars: 95% intervals over worlds", fontsize=10)
    return result


def _by_quantity(panel: Axes, rows: pd.DataFrame) -> None:
    """A line a quantity, a mark a kind of world, hollow for the rows of the sample."""
    quantities, worlds = list(pd.unique(rows["quantity"])), list(CHOICES)
    scale = 100
    for number, world in enumerate(worlds):
        for hollow, n_rows in enumerate(sorted(pd.unique(rows["n_rows"]), reverse=True)):
            part = rows[(rows["world"] == world) & (rows["n_rows"] == n_rows)]
            height = [quantities.index(name) + 0.1 * (2 * number + hollow - 3.5) for name in part["quantity"]]
            value, low, high = (scale * part[name] for name in ("value", "low", "high"))
            grey = str(np.linspace(0, 0.7, len(worlds))[number])
            label = f"{world.replace('-', ' ')}, {n_rows:,} rows"
            style = {"color": grey, "mfc": "white" if hollow else grey, "ms": 4, "label": label}
            panel.errorbar(value, height, xerr=[value - low, high - value], fmt="osD^"[number], **style)
    panel.set_yticks(
        range(len(quantities)), [name.replace("-", " ").replace(" ", "\n", 1) for name in quantities], fontsize=7
    )
    panel.invert_yaxis()


def _by_rows(panel: Axes, rows: pd.DataFrame) -> None:
    """Coverage by rows per subset: the mean over the kinds of worlds, and the least."""
    for claim, line in (("interval", "-"), ("interval-before", ":")):
        for name, mark in (("score", "o"), ("reasoning", "s")):
            part = rows[(rows["claim"] == claim) & (rows["quantity"] == name)]
            by_size = part.assign(size=part["rows_a_subset"].fillna(130)).groupby("size")["value"]
            least = 100 * by_size.min()
            panel.plot(
                least.index, least, line, marker=mark, color="0", ms=4, label=f"{name}, {claim.replace('-', ' of ')}"
            )
    panel.axhspan(90, 100, color="0.92", zorder=0)
    panel.set_xscale("log")
    panel.set_xticks([*FEW, 130], [*map(str, FEW), "all"])
    panel.minorticks_off()
    panel.set(xlabel="Rows a subset", ylabel="Coverage of the 95% interval, %, least of the worlds", ylim=(45, 101))


def main(folder: Path) -> None:
    """Simulate, then write the table and its figure."""
    folder.mkdir(parents=True, exist_ok=True)
    simulate().round(6).to_csv(folder / "choose.csv", index=False)
    draw(figure, folder / "choose.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
