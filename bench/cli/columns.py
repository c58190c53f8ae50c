"""The look of printed tables: heading and format of each column, and the order of columns of each verb."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bench import units
from bench.schema import PARTS, column

if TYPE_CHECKING:
    import pandas as pd


class Column(NamedTuple):
    """How a column is printed."""

    heading: str
    write: Callable = str
    """Writes a value; it is not called for missing values."""
    right: bool = True
    """Whether cells are aligned to the right, as numbers are."""
    limits: tuple[tuple[str, str], ...] = ()
    """Pairs of columns that may hold the ends of its interval: the first pair that is there and unused is printed."""
    missing: str = units.MISSING


def text(heading: str) -> Column:
    """A column of texts, aligned to the left."""
    return Column(heading, right=False)


def _own(name: str) -> tuple[str, str]:
    return (f"{name}_low", f"{name}_high")


PLAIN = ("low", "high")
_P = units.p_value


def whole(value: float) -> str:
    return f"{value:.0f}"


def _located(location: str) -> str:
    """Where a model's files are; of many packages the first and the last."""
    parts = location.split()
    many = len(parts) > 2 and all("==" in part for part in parts)
    return f"{parts[0]} to {parts[-1]}" if many else location


def _part(name: str) -> str:
    """The heading of a part of a benchmark: a name with capital letters stays."""
    return name if name != name.lower() else name.replace("-", " ")


GAP_POINTS = Column("gap", units.decimal)
"""A gap in points of a published board: these have one decimal."""
GAP_OTHER = Column("gap", units.significant)
"""A gap in any other unit."""

COLUMNS = {
    "rank": Column("rank", whole, limits=(_own("rank"),), missing="not ranked"),
    "pair_id": text("pair"),
    "strong": text("strong"),
    "weak": text("weak"),
    "model_id": text("model"),
    "family": text("family"),
    "template": text("chat template of"),
    "location": Column("location", _located, right=False),
    "source": text("scores published in"),
    "format": text("format"),
    "licence": text("licence"),
    "reward": text("reward"),
    "dtype": text("dtype"),
    "rule": text("rule"),
    "place": Column("place", whole),
    "system": text("system"),
    "mean_rank": Column("mean rank", units.decimal),
    "n_ranked": Column("benchmarks", units.count),
    "name": text("on"),
    "level": text("level"),
    "why": text("why"),
    "status": text("status"),
    "counted": text("tokens counted by"),
    "variant": text("variant"),
    "router": text("router"),
    "section": text("section"),
    "known": text("known domain"),
    "domain": text("domain"),
    "measure": text("measure"),
    "annotator": text("labelled the data"),
    "half": text("responses"),
    "prompts": text("prompts"),
    "example_id": text("row"),
    "response_id": text("response"),
    "strong_revision": text("strong revision"),
    "weak_revision": text("weak revision"),
    "score": Column("score %", units.percent, limits=(_own("score"), PLAIN)),
    "score_held_out": Column("held out %", units.percent),
    "plain_accuracy": Column("accuracy %", units.percent, limits=(_own("plain_accuracy"),)),
    **{column(name): Column(f"{_part(name)} %", units.percent) for names in PARTS.values() for name in names},
    "held_out": Column("held out %", units.percent, limits=(_own("held_out"),)),
    "optimism": Column("optimism (points)", units.points),
    "over_best": Column("over the best pair (points)", units.points, limits=(_own("over_best"),)),
    "n_passes": Column("passes", whole),
    "over_random": Column("over a random pair (points)", units.points, limits=(_own("over_random"),)),
    "over_gap": Column("over the largest gap (points)", units.points, limits=(_own("over_gap"),)),
    "best_share": Column("first in % of rankings", units.percent),
    "p_not_worse": Column("p of not being worse", _P),
    "accuracy": Column("accuracy %", units.percent, limits=(_own("accuracy"), PLAIN)),
    "agreement": Column("agreement %", units.percent, limits=(_own("agreement"), PLAIN)),
    "stderr": Column("standard error (points)", units.percent),
    "difference": Column("difference (points)", units.points, limits=(_own("difference"), PLAIN)),
    "routing_difference": Column("cost of routing (points)", units.points, limits=(_own("routing"),)),
    "recall": Column("right %", units.percent),
    "gap_points": GAP_POINTS,
    "gap_arena_hard_points": Column("gap in Arena-Hard", units.decimal),
    "alpaca_eval_2_lc": Column("AlpacaEval 2 LC", units.decimal),
    "arena_hard": Column("Arena-Hard", units.decimal),
    "n_params": Column("parameters", units.amount),
    "context_tokens": Column("context (tokens)", units.count),
    "tokens": Column("tokens", units.amount),
    "flop": Column("work", lambda value: units.si(value, "FLOP")),
    "cost_flop": Column("work per row", lambda value: units.si(value, "FLOP")),
    "download_bytes": Column("download", lambda value: units.si(value, "B")),
    "weights_bytes": Column("memory", lambda value: units.si(value, "B")),
    "gpu_h": Column("GPU time", lambda value: units.duration(3600 * value)),
    "cpu_s": Column("CPU time", units.duration),
    "n": Column("n", units.count),
    "count": Column("prompts", units.count),
    "n_rows": Column("n", units.count),
    "n_examples": Column("n", units.count),
    "n_prompts": Column("n", units.count),
    "n_excluded": Column("left out", units.count),
    "n_ties": Column("ties", units.count),
    "n_clusters": Column("problems", units.count),
    "n_candidates": Column("pairs weighed", units.count),
    "n_not_worse": Column("pairs not worse", units.count),
    "n_first_only": Column("first better", units.count),
    "n_second_only": Column("second better", units.count),
    "n_before": Column("responses before", units.count),
    "n_after": Column("responses after", units.count),
    "n_empty_before": Column("empty before", units.count),
    "n_empty_after": Column("empty after", units.count),
    "task": text("task"),
    "n_items": Column("instructions or preferences", units.count),
    "n_left_out": Column("left out", units.count),
    "n_empty": Column("empty answers", units.count),
    "n_kept": Column("prompts kept", units.count),
    "n_tokens": Column("tokens stored", units.count),
    "n_tokens_plain": Column("tokens here", units.count),
    "nats": Column("stored (nats)", units.significant),
    "nats_plain": Column("here (nats)", units.significant),
    "shift_a_token": Column("shift (nats per token)", units.tiny),
    "p_bootstrap": Column("p", _P),
    "p_bootstrap_holm": Column("p (Holm)", _P),
    "p_mcnemar": Column("p (McNemar)", _P),
    "p_mcnemar_holm": Column("p (McNemar, Holm)", _P),
    "similarity_low": Column("least cosine", units.significant),
    "similarity_high": Column("largest cosine", units.significant),
    "bits_per_byte": Column("bits per byte", lambda value: f"{value:.4f}"),
    "step": Column("step", whole),
    "loss": Column("loss", units.significant),
    "chosen_reward": Column("reward of chosen", units.signed),
    "rejected_reward": Column("reward of rejected", units.signed),
    "before": Column("before", str),
    "after": Column("after", str),
}


def measured(found: "pd.DataFrame", column: str) -> list[str | None]:
    """Texts of a column of JUDGED. The unit differs from row to row: nats, percent or bytes."""
    plus = column == "difference" or column in PLAIN
    writers = {
        "win_rate": units.points if plus else units.percent,
        "bytes": units.signed if plus else units.significant,
        "reward": units.signed if plus else units.significant,
    }
    return [
        None if value != value else writers[measure](value)
        for measure, value in zip(found["measure"], found[column], strict=True)
    ]
