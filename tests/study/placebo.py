"""How often the tests of the ladders' study reject where no model judges better than another.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/study/placebo.py results/statistics

writes placebo.csv (README.md beside it explains the columns). It needs RewardBench (DRSOW_REWARDBENCH, or the hub). The
models, their scores and their log-probabilities are the real ones, from the tables in git. Which response of a row is
right is a coin flip for each problem, so every rejection is an error. QAP takes the models of a family as exchangeable,
and the rungs of a ladder are tuned one from the other: so a performance that follows the order of the rungs may go with
any other trait that does.
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.load import load_data
from bench.files import write_csv
from bench.study.analysis import judgements
from bench.study.apart import slope_tests
from bench.study.design import Judged, OnAxis, Rows, on_axis, performance_of, plain_accuracy, rows_of, study_of
from bench.study.interval import wilson
from bench.study.qap import qap, relabellings
from bench.study.reward import reward_matrix

RESULTS = Path(__file__).parents[2] / "results"
LADDERS = RESULTS / "ladders" / "reward-bench-20-per-subset"

COLUMNS = ("reward", "performance", "estimator", "measure", "value", "low", "high", "observed_p", "n_flips", "n_draws")

CASES = (("sum", "ifeval"), ("sum", "net_preferences"), ("mean", "net_preferences"), ("per-byte", "net_preferences"))
"""The declared tests, and those by the recipe. Each has a folder of tables with its p."""

N_FLIPS, N_DRAWS, SEED = 1000, 399, 20261128
LEVEL = 0.05


class Placebo:
    """One reward and performance of the ladders' study, whose labels can be flipped."""

    def __init__(self, reward: str, performance: str) -> None:
        board = pd.read_csv(LADDERS / "leaderboard.csv")
        self.study = study_of(board)
        rows = load_data("reward-bench", limit_per_subset=20).examples
        examples = {example.example_id: example for example in rows}
        scores = {name: pd.read_parquet(LADDERS / "scores" / f"{name}.parquet") for name in self.study.model_ids}
        matrix = reward_matrix(scores, board, reward=reward)
        self.rows: Rows = rows_of(matrix.by_example(examples)[0])
        self.judged = judgements(matrix, examples)
        entries = tomllib.loads((RESULTS / "ladders" / "registry" / "scores.toml").read_text())["scores"]
        values = {each["model_id"]: each["value"] for each in entries if each["performance_id"] == performance}
        self.performance = performance_of(self.study, values)

    def tests(self, flip: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
        """rho, its p, and p of `either`, where the labels of some problems, (problems,), bool, are turned round."""
        turned = flip[self.rows.cluster]
        pairs = Judged(
            np.where(turned, self.judged.turned, self.judged.forward),
            np.where(turned, self.judged.forward, self.judged.turned),
        )
        on: OnAxis = on_axis(self.study, pairs, self.performance)
        forward, backward = (plain_accuracy(answers, self.rows)[0] for answers in on.answers)
        labels = relabellings(on.study.family, n_draws=N_DRAWS, rng=rng)
        found = qap(on.study, on.performance, forward, backward, labels)
        return found.rho, found.exchangeable, slope_tests(on.study, on.performance, forward, backward, labels)["either"]


def observed(reward: str, performance: str) -> dict[str, tuple[float, float]]:
    """rho and p of each estimator as the study's tables have them; rho is NaN for `either`."""
    study = "ladders" if performance == "ifeval" else "ladders-by-recipe"
    folder = RESULTS / study / "reward-bench-20-per-subset"
    rho = pd.read_csv(folder / "correlation.csv").query(
        "reward == @reward and level == 'overall' and family == 'all' and performance == @performance"
        " and estimator == 'spearman'"
    )
    apart = pd.read_csv(folder / "decomposition.csv").query(
        "reward == @reward and performance == @performance and estimator == 'either'"
    )
    found = {"spearman": (float(rho["estimate"].iloc[0]), float(rho["p_value"].iloc[0]))}
    return found | ({"either": (np.nan, float(apart["p_value"].iloc[0]))} if len(apart) else {})


def simulate(reward: str, performance: str, *, n_flips: int = N_FLIPS, seed: int = SEED) -> list[tuple]:
    """Rows of COLUMNS of one case."""
    placebo, rng = Placebo(reward, performance), np.random.default_rng(seed)
    n_problems = placebo.rows.cluster.max() + 1
    p = np.array([placebo.tests(rng.random(n_problems) < 0.5, rng)[1:] for _ in range(n_flips)])
    lines = []
    for estimator, column in zip(("spearman", "either"), p.T, strict=True):
        _, own = observed(reward, performance).get(estimator, (np.nan, np.nan))
        for measure, most in (("rejection", LEVEL), ("as-small", own)):
            if np.isfinite(most):
                share = float((column <= most).mean())
                low, high = wilson(np.array(share), np.array(float(n_flips)))
                lines.append((reward, performance, estimator, measure, share, low, high, own, n_flips, N_DRAWS))
    return lines


if __name__ == "__main__":
    out = Path(sys.argv[1])
    table = pd.DataFrame([line for case in CASES for line in simulate(*case)], columns=list(COLUMNS))
    write_csv(out / "placebo.csv", table, COLUMNS)
