"""The look of each verb's printed table: the order of its columns, its note, and columns that look different there."""

from collections.abc import Mapping
from typing import NamedTuple

from bench import units
from bench.cli.columns import PLAIN, Column, text, whole


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
        ("rule", "place", "pair_id", "held_out", "score", "over_random", "over_gap", "over_best", "n_passes",
         "gap_points", "optimism", "best_share", "p_not_worse", "n_params", "cost_flop", "licence", "name", "why"),
        n_important=6,
        hidden=("n_rows", "n_candidates", "n_not_worse"),
        note="held out: the expected score on other prompts of a pair chosen by this rule and place, with its 95% "
        "interval; optimism: the score minus held out.",
    ),
    "compare": View(
        ("name", "difference", "p_bootstrap", "n_first_only", "n_second_only", "n_rows", "p_mcnemar", "n_clusters",
         "p_bootstrap_holm", "p_mcnemar_holm", "level"),
        hidden=("first", "second"),
        note="n: rows that both pairs scored. [low, high] and p: 95% interval of the difference and test that it is 0, "
        "from 10,000 redraws of problems; better: problems of which a pair judges more rows rightly, and McNemar's "
        "exact test of their numbers.",
        own={"name": text("rows")},
    ),
    "rewards": View(
        ("reward", "accuracy", "difference", "p_bootstrap_holm", "n_examples", "n_only", "n_sum_only",
         "n_ties", "n_excluded", "p_bootstrap", "p_mcnemar", "p_mcnemar_holm"),
        hidden=("pair_id", "family", "level", "name"),
        note="difference: to the reward sum on the same rows; better: problems of which a reward judges more rows "
        "rightly. [low, high]: 95% intervals over prompts; rows of one problem count together. Holm's p is adjusted "
        "over all rewards on all levels.",
        own={"difference": Column("over sum (points)", units.points, limits=(("difference_low", "difference_high"),)),
             "n_only": Column("better than sum", units.count), "n_sum_only": Column("sum better", units.count)},
        more="rewards.md has the sections, rewards.csv all columns",
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
    "power": View(
        ("n_models", "n_families", "n_pairs", "rho", "n_rows", "power", "n_worlds"),
        n_important=6,
        note="power: how often the declared test (rho inside families, 5%) finds this true rho. [low, high]: error of "
        "the simulation, 95%, over n made-up studies.",
        own={"power": Column("power %", units.percent, limits=(PLAIN,)), "n_models": Column("models", units.count),
             "n_families": Column("families", units.count), "n_pairs": Column("pairs", units.count),
             "rho": Column("rho", units.significant), "n_rows": Column("rows", units.count),
             "n_worlds": Column("n", units.count)},
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
        note="n: prompts with responses of both. [low, high]: 95% interval of the difference over prompts, a "
        "proportion's for win rates, Student's t for the others. Rewards: nats, per-byte nats per byte; win rates in "
        "percent, their difference is from 50.",
        more="judge.csv has all columns",
        own={"difference": Column("difference", limits=(PLAIN,))},
    ),
    "verify": View(
        ("example_id", "response_id", "shift_a_token", "nats", "nats_plain", "n_tokens", "n_tokens_plain", "status"),
        hidden=("n_bytes", "n_bytes_plain"),
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
        own={"n_preferences": Column("preferences", whole), "n_steps": Column("steps", whole),
             "empty": Column("empty %", units.percent), "repeated": Column("repeated %", units.percent),
             "broken": Column("broken", whole)},
        more="rungs.csv has all columns",
    ),
}  # fmt: skip
"""Verb -> its view; "" is the view of a table without a verb."""
