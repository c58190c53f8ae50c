"""What was measured against what is promised."""

from typing import NamedTuple

import pandas as pd

from bench.schema import CHOSEN, REJECTED
from perf.scorers import DPO, LM_EVAL, OURS, TOKENS
from perf.small import NEEDED_S

SPEED = {
    ("plain", "fp32", LM_EVAL): 1.8,
    ("plain", "bf16", LM_EVAL): 1.8,
    ("plain", "fp32", DPO): 5.0,
    ("plain", "bf16", DPO): 4.0,
    ("customised", "bf16", LM_EVAL): 8.0,
    ("annotate", "bf16", LM_EVAL): 4.0,
}
"""(workload, dtype, peer) -> how many times faster than it this engine has to be."""
TILES_SPEED = SPEED | {
    ("plain", "bf16", LM_EVAL): 3.0,
    ("plain", "bf16", DPO): 6.0,
    ("annotate", "bf16", LM_EVAL): 8.0,
}
"""The same on a processor with AMX."""
TOKENS_TIME = 1.05
"""Time with scores of tokens over time without, at most."""
COMPUTED = 1.05
"""Computed over unique tokens, at most."""
SHARES = {"fp32": 0.60, "bf16": 0.30}
"""Share of the matmul rate on the plain workload, at least."""
TILES_SHARES = SHARES | {"bf16": 0.60}
"""The same on a processor with AMX."""
PACKING_NATS = 3e-5
"""Between two ways of packing, a token of a response in float32, at most."""
LM_EVAL_NATS = 0.02
"""Between lm-eval and this engine, a response in float32, at most."""

BARS = ("bar", "measured", "needed", "met")


class Measured(NamedTuple):
    """What one run wrote; a part that did not run is empty."""

    perf: pd.DataFrame
    equality: pd.DataFrame
    packings: pd.DataFrame
    own_ids: pd.DataFrame
    profile: pd.DataFrame
    scaling: pd.DataFrame
    precision: pd.DataFrame
    small: pd.DataFrame


def bars(measured: Measured, *, tiles: bool) -> pd.DataFrame:
    """BARS of what was measured; a speed-up is a ratio of mean times over the rounds.

    Args:
        measured: By one run.
        tiles: Whether it ran on a processor with AMX.
    """
    rows = _speed(measured.perf, tiles=tiles) if len(measured.perf) else []
    for row in measured.equality.itertuples():
        if (row.check, row.dtype, row.against) == (LM_EVAL, "fp32", f"{OURS} fp32"):
            rows.append(_most("fp32: nats per response between lm-eval and drsow", row.max_nats, LM_EVAL_NATS))
    for row in measured.packings.itertuples():
        bar = f"{row.dtype}, {row.check} against {row.against}: nats per token"
        rows.append(_most(bar, row.max_nats_a_token, PACKING_NATS))
    if len(measured.small):
        seconds = measured.small.groupby("task", sort=False)["wall_s"].median()
        rows += [
            _most(f"{task}: seconds", value, most) for task, most in NEEDED_S.items() if (value := seconds.get(task))
        ]
    return pd.DataFrame(rows, columns=list(BARS))


def mean_times(perf: pd.DataFrame) -> pd.DataFrame:
    """Means over the rounds, indexed by workload, dtype and scorer."""
    return perf.groupby(["workload", "dtype", "scorer"], sort=False).mean(numeric_only=True)


def _speed(perf: pd.DataFrame, *, tiles: bool) -> list[tuple]:
    mean, shares = mean_times(perf), TILES_SHARES if tiles else SHARES
    rows = []
    for (workload, dtype, peer), least in (TILES_SPEED if tiles else SPEED).items():
        if (workload, dtype, peer) in mean.index:
            times = mean["wall_s"].loc[workload, dtype]
            rows.append(_least(f"{workload}, {dtype}: times faster than {peer}", times[peer] / times[OURS], least))
    if ("tokens", "bf16", TOKENS) in mean.index:
        times = mean["wall_s"].loc["tokens", "bf16"]
        rows.append(_most("bf16: time with --tokens over time without", times[TOKENS] / times[OURS], TOKENS_TIME))
    for workload, dtype in mean.xs(OURS, level="scorer").index:
        row = mean.loc[(workload, dtype, OURS)]
        ratio = row["computed_tokens"] / row["unique_tokens"]
        rows.append(_most(f"{workload}, {dtype}: computed over unique tokens", ratio, COMPUTED))
        if workload == "plain":
            share = row["share_of_matmul_rate"]
            rows.append(_least(f"{workload}, {dtype}: share of the matmul rate", share, shares[dtype]))
    return rows


def _least(bar: str, value: float, least: float) -> tuple:
    return bar, value, f">= {least:g}", value >= least


def _most(bar: str, value: float, most: float) -> tuple:
    return bar, value, f"<= {most:g}", value <= most


def table(found: pd.DataFrame) -> str:
    """The bars as aligned text."""
    width = found["bar"].str.len().max()
    return "\n".join(
        f"{row.bar:<{width}}  {row.measured:>10.4g}  {row.needed:>8}  {'ok' if row.met else 'not met'}"
        for row in found.itertuples()
    )


def own_ids_words(own: pd.DataFrame) -> str:
    """How DPOInference's own tokenising departs from ours, in a sentence; takes OWN_IDS."""
    more = own["n_response_dpo"] - own["n_response"]
    # It puts one BOS before the prompt: what is shorter than ours was cut.
    n_cut = (own["n_prompt_dpo"] + own["n_response_dpo"] < own["n_prompt"] + own["n_response"]).sum()
    moved = (own["nats"] - own["nats_dpo"]).abs()
    chosen, rejected = (own[own["response_id"] == side].set_index("example_id") for side in (CHOSEN, REJECTED))
    flipped = (chosen["nats"] > rejected["nats"]) != (chosen["nats_dpo"] > rejected["nats_dpo"])
    return (
        f"it counts {more.mean():.1f} more tokens per response on average ({more.min()} to {more.max()}), cuts "
        f"{n_cut} of {len(own)} sequences, moves a response by {moved.mean():.2f} nats on average (up to "
        f"{moved.max():.1f}), and {flipped.sum()} of {len(flipped)} rows come out in another order"
    )
