"""The look of printed tables: heading and format of each column, and the order of columns of each verb."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bench import units
from bench.schema import PARTS

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


class View(NamedTuple):
    """What a verb's table looks like."""

    columns: tuple[str, ...] = ()
    """The most important columns first; the frame's other columns follow."""
    n_important: int = 5
    """The first so many columns fold their texts to fit; later columns appear only if there is room."""
    hidden: tuple[str, ...] = ()
    """Columns that are not printed, because they say nothing here or the title has them."""
    note: str = ""
    """Explains n and the intervals, below the table."""
    own: Mapping[str, Column] = {}
    """Columns that look different in this table."""
    more: str = "--format csv prints all columns"
    """Says how to see the columns that a narrow terminal leaves out."""


def text(heading: str) -> Column:
    """A column of texts, aligned to the left."""
    return Column(heading, right=False)


def _own(name: str) -> tuple[str, str]:
    return (f"{name}_low", f"{name}_high")


_PLAIN = ("low", "high")
_P = units.p_value


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _located(location: str) -> str:
    """Where a model's files are; of many packages the first and the last."""
    parts = location.split()
    many = len(parts) > 2 and all("==" in part for part in parts)
    return f"{parts[0]} to {parts[-1]}" if many else location


GAP_POINTS = Column("gap", units.decimal)
"""A gap in points of a published board: these have one decimal."""
GAP_OTHER = Column("gap", units.significant)
"""A gap in any other unit."""

PART_HEADINGS = {
    "".join(c if c.isalnum() else "_" for c in name.lower()): name.replace("-", " ") if name == name.lower() else name
    for names in PARTS.values()
    for name in names
}
"""Column of a leaderboard -> heading, for the parts of all benchmarks."""

COLUMNS = {
    "rank": Column("rank", _whole, limits=(_own("rank"),), missing="not ranked"),
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
    "place": Column("place", _whole),
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
    "score": Column("score %", units.percent, limits=(_own("score"), _PLAIN)),
    "score_held_out": Column("held out %", units.percent),
    "plain_accuracy": Column("accuracy %", units.percent, limits=(_own("plain_accuracy"),)),
    **{column: Column(f"{heading} %", units.percent) for column, heading in PART_HEADINGS.items()},
    "held_out": Column("held out %", units.percent, limits=(_own("held_out"),)),
    "optimism": Column("optimism (points)", units.points),
    "over_random": Column("over a random pair (points)", units.points, limits=(_own("over_random"),)),
    "over_gap": Column("over the largest gap (points)", units.points, limits=(_own("over_gap"),)),
    "best_share": Column("first in % of rankings", units.percent),
    "p_not_worse": Column("p of not being worse", _P),
    "accuracy": Column("accuracy %", units.percent, limits=(_own("accuracy"), _PLAIN)),
    "agreement": Column("agreement %", units.percent, limits=(_own("agreement"), _PLAIN)),
    "stderr": Column("standard error (points)", units.percent),
    "difference": Column("difference (points)", units.points, limits=(_own("difference"), _PLAIN)),
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
    "cost_flop": Column("work a row", lambda value: units.si(value, "FLOP")),
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
    "n_first_only": Column("first alone right", units.count),
    "n_second_only": Column("second alone right", units.count),
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
    "shift_a_token": Column("shift (nats a token)", units.tiny),
    "p_bootstrap": Column("p", _P),
    "p_bootstrap_holm": Column("p (Holm)", _P),
    "p_mcnemar": Column("p (McNemar)", _P),
    "p_mcnemar_holm": Column("p (McNemar, Holm)", _P),
    "similarity_low": Column("least cosine", units.significant),
    "similarity_high": Column("largest cosine", units.significant),
    "bits_per_byte": Column("bits a byte", lambda value: f"{value:.4f}"),
    "step": Column("step", _whole),
    "loss": Column("loss", units.significant),
    "chosen_reward": Column("reward of chosen", units.signed),
    "rejected_reward": Column("reward of rejected", units.signed),
    "before": Column("before", str),
    "after": Column("after", str),
}

VIEWS = {
    "": View(),
    "leaderboard": View(
        ("rank", "pair_id", "plain_accuracy", "score", "gap_points", "n_examples", "n_excluded", "reward",
         "dtype", "n_params", "cost_flop", "licence", "family", "strong", "weak", "score_held_out"),
        n_important=9,
        hidden=("strong_revision", "weak_revision"),
        note="n: scored rows; rows left out were too long or not finite. [low, high]: 95% intervals over prompts; rows "
        "of one problem count together.",
        more="leaderboard.csv and --json have all columns",
    ),
    "choose": View(
        ("rule", "place", "pair_id", "held_out", "score", "over_random", "over_gap", "gap_points", "optimism",
         "best_share", "p_not_worse", "n_params", "cost_flop", "licence", "name", "why"),
        n_important=6,
        hidden=("n_rows", "n_candidates", "n_not_worse"),
        note="held out: the expected score on other prompts of a pair chosen by this rule and place, with its 95% "
        "interval; optimism: the score less it.",
    ),
    "compare": View(
        ("name", "difference", "p_bootstrap", "n_first_only", "n_second_only", "n_rows", "p_mcnemar", "n_clusters",
         "p_bootstrap_holm", "p_mcnemar_holm", "level"),
        hidden=("first", "second"),
        note="n: rows that both pairs scored. [low, high] and p: 95% interval of the difference and test that it is 0, "
        "from 10,000 redraws of problems; McNemar's test is exact and unweighted.",
        own={"name": text("rows")},
    ),
    "board": View(
        ("pair_id", "system", "mean_rank"),
        hidden=("strong", "weak"),
        note="[low, high]: 95% intervals over prompts. mean rank: over the benchmarks that rank the pair, among the "
        "measured pairs here. hard: RM-Bench's plain right responses against fancier wrong ones.",
        own={"source": text("published in")},
        more="board.csv has all columns",
    ),
    "plan": View(
        ("model_id", "status", "tokens", "flop", "gpu_h", "cpu_s", "download_bytes", "weights_bytes", "counted",
         "template"),
        note="tokens: those that a pass computes, shared text counted once; memory: of the weights.",
    ),
    "pairs": View(
        ("pair_id", "gap_points", "gap_arena_hard_points", "family", "strong", "weak", "template"),
        n_important=3,
    ),
    "models": View(
        ("model_id", "n_params", "alpaca_eval_2_lc", "arena_hard", "context_tokens", "licence", "format", "location",
         "source"),
        note="AlpacaEval 2 LC and Arena-Hard: published win rates in points, 0 to 100.",
    ),
    "route": View(
        ("known", "domain"),
        note="Rows: known domains; columns: domains that the router chose; right %: the share of right choices, and in "
        "the last row their mean.",
    ),
    "domains": View(("domain", "count"), note="The domains of these rows are not known, so the router is not checked."),
    "ablate": View(
        ("variant", "router", "section", "accuracy", "difference", "routing_difference", "n_examples", "n_ties",
         "n_excluded", "stderr"),
        note="n: rows scored in both models. [low, high]: 95% intervals, of the accuracy from its counts (Wilson), of "
        "a difference to the plain run on the same rows by drawing problems again.",
        more="ablation.csv has all columns",
    ),
    "agree": View(
        ("reward", "half", "agreement", "difference", "n_examples", "n_ties", "n_excluded", "similarity_low",
         "similarity_high", "pair_id"),
        note="n: scored rows. [low, high]: 95% intervals, Wilson's; of the difference to the similar half Newcombe's.",
        more="agreement.csv has all columns",
    ),
    "judge": View(
        ("pair_id", "reward", "measure", "before", "after", "difference", "n_prompts", "annotator", "n_excluded",
         "n_before", "n_after", "n_empty_before", "n_empty_after"),
        n_important=7,
        note="n: prompts with responses of both. [low, high]: 95% interval of the difference, from 10,000 redraws of "
        "prompts. Rewards: nats, per-byte nats a byte; win rates in percent, their difference is from 50.",
        more="judge.csv has all columns",
        own={"difference": Column("difference", limits=(_PLAIN,))},
    ),
    "verify": View(
        ("example_id", "response_id", "shift_a_token", "nats", "nats_plain", "n_tokens", "n_tokens_plain", "status"),
        note="stored: the stored score; here: a plain float32 pass of transformers for each response.",
    ),
    "perform": View(
        ("model_id", "task", "accuracy", "stderr", "n_prompts", "n_items", "n_left_out", "n_empty"),
        hidden=("level", "name"),
        note="n: prompts. The standard error takes into account that the instructions of one prompt, or preferences "
        "with one prompt, are not independent. The file has a row for each rule too.",
        more="the file has all columns",
        own={"accuracy": Column("accuracy %", units.percent)},
    ),
    "bits": View(("model_id", "bits_per_byte"), note="In float32 on the CPU; a lower number is a better model."),
    "select": View(
        ("n_kept", "mean", "min", "50%", "max"),
        note="Cosine of the two kept responses of a prompt: mean, least, median and largest.",
        own={"mean": Column("mean cosine", units.significant), "min": Column("least", units.significant),
             "50%": Column("median", units.significant), "max": Column("largest", units.significant)},
        more="the file has each prompt's",
    ),
    "annotate": View(("prompts", "n"), note="n: prompts kept, and left out for each reason."),
    "tune": View(
        ("step", "loss", "accuracy", "chosen_reward", "rejected_reward"),
        note="The first and the last logged step; accuracy: preferences of the step whose chosen reward is larger.",
        more="curve.csv has all steps",
    ),
    "ladder": View(
        ("model_id", "start", "loss", "labels", "n_preferences", "n_steps", "empty", "repeated", "broken"),
        hidden=("template", "ladder", "data_digest", "weights_sha256"),
        note="empty, repeated: share of the sampled answers that are empty or repeat themselves; broken: half of them.",
        own={"n_preferences": Column("preferences", _whole), "n_steps": Column("steps", _whole),
             "empty": Column("empty %", units.percent), "repeated": Column("repeated %", units.percent),
             "broken": Column("broken", _whole)},
        more="rungs.csv has all columns",
    ),
}  # fmt: skip
"""Verb -> its view; "" is the view of a table without a verb."""


def measured(found: "pd.DataFrame", column: str) -> list[str | None]:
    """Texts of a column of JUDGED. The unit differs from row to row: nats, percent or bytes."""
    plus = column == "difference" or column in _PLAIN
    writers = {
        "win_rate": units.points if plus else units.percent,
        "bytes": units.signed if plus else units.significant,
        "reward": units.signed if plus else units.significant,
    }
    return [
        None if value != value else writers[measure](value)
        for measure, value in zip(found["measure"], found[column], strict=True)
    ]
