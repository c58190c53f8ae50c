"""Defines the records, table columns and errors that several packages share. It contains no logic.

Names end in the unit: `_nats` for natural-log units, `_points` for points of a published
leaderboard (0 to 100), `_s` for seconds. `accuracy`, `stderr` and `tie_rate` are fractions, 0 to 1.
A missing value is NaN, never 0.
"""

from typing import NamedTuple

SCHEMA_VERSION = 2
"""Version of the score sets. It increases when new score sets are no longer comparable with older ones."""

CHOSEN, REJECTED = "chosen", "rejected"

RM_BENCH_STYLES = ("concise", "plain", "markdown")
RM_BENCH_IDS = tuple(f"{side}-{style}" for side in (CHOSEN, REJECTED) for style in RM_BENCH_STYLES)
"""response_ids of an RM-Bench example: its right responses in three styles, then its wrong ones."""

OK, TOO_LONG, NONFINITE = "ok", "too_long", "nonfinite"
"""Status of a score or margin: scored; longer than the model's context; NaN or infinite."""

IMPORTED = "imported"
"""Value of a score key's fields that describe the computation, for imported scores."""

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""Full names of the dtypes, by the names of the option. drsow does not support fp16."""

MAX_SEED = 2**32 - 1
"""The largest seed of a tuning: numpy, one of the generators that transformers seeds, takes no larger one."""

REWARDS = ("sum", "mean", "per-byte")
"""`sum` is strong's minus weak's summed log-probability, end of turn included; `mean` divides it by
the strong model's token count; `per-byte` by the UTF-8 bytes of the rendered response."""

TOKEN_REWARDS = ("prefix-mean", "prefix-min", "peak", "last", "clipped", "trimmed", "contrastive")
"""Names of the rewards that need the scores of tokens; `study.rewards.known` has all rewards, with their formulas.
Tables hold REWARDS, and the reward that `--reward` names."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


class Example(NamedTuple):
    """A prompt with its candidate responses, of which a set is right; it does not change after loading."""

    example_id: str
    """`subset/id`, or the id alone where there is no subset, as `data.example_id` writes it; unique in its data set."""
    subset: str
    """Name of its subset; "" if the data set has no subsets."""
    messages: tuple[Message, ...]
    """The prompt; the last turn is never the assistant's."""
    responses: tuple[tuple[str, str], ...]
    """(response_id, text): ("chosen", …), ("rejected", …), or "0" to "n-1" for candidates."""
    right: tuple[str, ...] = (CHOSEN,)
    """response_ids of the right responses; the others are wrong. Empty for responses without labels."""
    scores: tuple[float, ...] = ()
    """The data's own score of each response of candidates, in their order. Empty if the data has none."""

    @property
    def is_preference(self) -> bool:
        """Whether the example has one right and one wrong response, with the ids "chosen" and "rejected"."""
        return tuple(name for name, _ in self.responses) == (CHOSEN, REJECTED) and self.right == (CHOSEN,)


class Dataset(NamedTuple):
    """Examples in the order of their source."""

    data_id: str
    """The user's name for it: "reward-bench", "sample", a path or a hub id."""
    slug: str
    """Safe folder name; includes the limit ("reward-bench-5-per-subset")."""
    digest: str
    """sha256 over every example, in order (`data.load.digest`)."""
    examples: tuple[Example, ...]
    domain: str = ""
    """Name of the customisation of its prompts, "" for none."""
    domain_digest: str = ""
    """sha256 over all texts that the customisation can add."""
    limit: int | None = None
    """Maximum number of rows of each subset, None for all."""
    revision: str = ""
    """Commit of the hub repository that the rows come from; "" for a file, or if it is unknown."""
    left_out: tuple[tuple[str, int], ...] = ()
    """Rows of the source that prefer no response, such as ties: the reason, and how many there are."""


ROUTES = ("example_id", "domain", "confidence")
"""One row per prompt. `domain` is a domain_id, and `confidence` is the router's probability of it, 0 to 1."""

ABLATION = (
    "variant", "router", "section", "accuracy", "stderr", "low", "high",
    "difference", "difference_low", "difference_high", "routing_difference", "routing_low", "routing_high",
    "n_examples", "n_ties", "n_excluded",
)  # fmt: skip
"""One row per variant, router and section ("score" for the whole). `difference` is the variant's accuracy minus that of
the plain run on the same rows. `routing_difference` is the variant's accuracy minus that of the same variant with the
known sections, which is the cost of misrouting. Intervals are 95%; values that do not apply are missing."""


class ScoreKey(NamedTuple):
    """Everything that decides a number of a score set; two sets with the same key differ by rounding alone.

    Of the names that the user chose, the key has the model's alone: a model with a new name is scored again. The
    manifest has those of the data set and of the template's owner. Token budget and number of threads are settings,
    which the manifest also has. They decide how sums are rounded: in float32 they move rows of RewardBench by less than
    3e-5 nats per token.
    """

    model_id: str
    revision: str
    """Commit on the hub, or "sha256:…" of the files of a folder or package, or of an imported file. For a model on a
    server: its name, address and tokenizer, because nothing else is known."""
    template_digest: str
    """sha256 over the chat template's effect: its text, the special tokens that it writes, the BOS that is removed from
    its output, the end of turn. For an imported file, "imported:" and the owner's model_id, because nothing else is
    known."""
    domain: str
    """Name of the customisation, "" for none."""
    domain_digest: str
    data_digest: str
    dtype: str
    """"bfloat16" or "float32"."""
    ops: str
    """The arithmetic that computes the numbers: kind of device and kernels, such as "cpu-torch"; a server's name and
    version, such as "vllm-0.12.0"; or IMPORTED."""
    attention: str
    span: str
    """Version of the rule that decides which tokens belong to the response."""
    schema_version: int


SCORES = ("example_id", "response_id", "logp_sum_nats", "logp_end_nats", "n_tokens", "n_bytes", "status")
"""One row per response of one model. `logp_sum_nats` is the log-probability of the rendered text, and `logp_end_nats`
that of the end-of-turn token. `n_tokens` counts the tokens of both; `n_bytes` counts the bytes of the rendered text."""

TOKENS = ("example_id", "response_id", "byte_start", "byte_end", "logp_nats")

TOKEN_LISTS = ("logp_nats", "logsumexp_nats", "top_logp_nats")
TOKEN_SCORES = ("example_id", "response_id", *TOKEN_LISTS, "byte_end")
"""One row per response of one model, if its tokens are stored. Each other column is a list with a value per token, the
end of turn last: the token's log-probability, the logarithm of the sum of all exp(logits), the largest log-probability
of any token there (float32), and the byte of the rendered text at which the token ends. A list is missing if the status
is not ok, or if it is not known: a server does not give logits, and a token may not be found in the text."""

MARGINS = ("pair_id", "reward", "example_id", "subset", "margin_nats", "status")
"""One row per pair x reward x example. `margin_nats` is the best reward of a right response minus the best of a wrong
one, in the unit of the reward (`study.rewards.known.UNITS`): nats for `sum`, nats per token for `mean`."""

ACCURACY = (
    "pair_id", "reward", "level", "name", "accuracy", "stderr", "low", "high", "tie_rate",
    "n_examples", "n_ties", "n_excluded",
)  # fmt: skip
"""`level` is "overall", "section" or "subset"; `name` is "score" or the name of a section or subset. `low` and `high`
are the limits of the accuracy's 95% interval; they are missing if a subset has rows of fewer than two problems.
`n_examples` counts the scored rows, and `n_excluded` the rows left out as too_long or nonfinite."""

LEADERBOARD = (
    "rank", "rank_low", "rank_high", "pair_id", "strong", "weak", "family", "gap_points",
    "score", "score_low", "score_high", "score_held_out", "chat", "chat_hard", "safety", "reasoning",
    "n_examples", "n_excluded", "reward", "dtype", "strong_revision", "weak_revision",
    "n_params", "licence", "cost_flop",
)  # fmt: skip
"""The columns of RewardBench's leaderboard. Another benchmark has its own sections in place of the four, and data
of no benchmark has none (`study.leaderboard.columns_of`). `score_held_out` belongs to the rank: it is the expected
score, on prompts that did not rank the pairs, of the pair that takes this rank. It is missing for a single pair,
because there is no ranking."""

CORRELATION = (
    "reward", "level", "name", "family", "performance", "estimator",
    "estimate", "low", "high", "p_value", "n_pairs", "n_models", "n_prompts", "p_holm", "primary",
)  # fmt: skip
"""`primary` marks the one test that a study declares before it sees the data; its `p_holm` equals its `p_value`. Every
other `p_holm` is Holm's adjustment over all other tests of the table."""

SECTIONS = {
    "chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "chat-hard": (
        "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor",
        "llmbar-adver-GPTInst", "llmbar-adver-GPTOut", "llmbar-adver-manual",
    ),
    "safety": (
        "refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond", "donotanswer",
    ),
    "reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}  # fmt: skip
"""RewardBench's four sections and their 23 subsets."""

PARTS = {
    "reward-bench": tuple(SECTIONS),
    "reward-bench-2": ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"),
    "rm-bench": ("chat", "math", "code", "safety", "easy", "normal", "hard"),
    "judge-bench": ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench"),
}
"""The parts of each benchmark that leaderboards have columns for, besides the score."""


def column(name: str) -> str:
    """The name of a part as a column's name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


SUBSET_WEIGHTS = {
    "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46, "refusals-dangerous": 100, "refusals-offensive": 100,
    "xstest-should-refuse": 154, "xstest-should-respond": 250, "donotanswer": 136,
    "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164, "hep-rust": 164,
}  # fmt: skip
"""Weight of each subset in its section: its number of rows in RewardBench, except that math-prm weighs as much as all
code subsets together."""


class DrsowError(Exception):
    """An error that the user can solve. The command prints it as one line and exits with `code`."""

    code = 1


class CannotWrite(DrsowError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


class UsageError(DrsowError):
    """A wrong name, option or input file."""

    code = 2


class PreconditionError(DrsowError):
    """A model, data set or earlier result that the command needs is missing."""

    code = 4
