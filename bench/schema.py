"""The records and the column tuples that cross a room's door. No logic.

Units live in the names: `_nats` natural-log units, `_points` points of a published
board (0 to 100), `_s` seconds; `accuracy`, `stderr`, `tie_rate` are fractions, 0 to 1.
Missing is NaN, never 0.
"""

from typing import NamedTuple

SCHEMA_VERSION = 2
"""Raised when a stored score set written before can no longer be compared with one written now."""

CHOSEN, REJECTED = "chosen", "rejected"

OK, TOO_LONG, NONFINITE = "ok", "too_long", "nonfinite"
"""Status of a score or margin: scored; longer than the model's context; NaN or infinite."""

IMPORTED = "imported"
"""What a score key says of how imported numbers came to be."""

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""What a user types -> the full name. Never fp16."""

REWARDS = ("sum", "mean", "per-byte")
"""`sum` is strong's minus weak's summed log-probability, end of turn included; `mean` divides it by
the strong model's token count; `per-byte` by the UTF-8 bytes of the rendered response."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


class Example(NamedTuple):
    """A prompt with the responses that are to be scored under it, never changed after loading."""

    example_id: str
    """`subset/id`, or the id alone where there is no subset, as `data.example_id` writes it; unique in its data set."""
    subset: str
    """The part of the data set it belongs to; "" where the data set has none."""
    messages: tuple[Message, ...]
    """The prompt; the last turn is never the assistant's."""
    responses: tuple[tuple[str, str], ...]
    """(response_id, text): ("chosen", …), ("rejected", …), or "0" to "n-1" for candidates."""


class Dataset(NamedTuple):
    """Examples in the order of their source."""

    data_id: str
    """What the user called it: "reward-bench", "sample" or a path."""
    slug: str
    """Safe folder name; a limit is part of it ("reward-bench-5-per-subset")."""
    digest: str
    """sha256 over every field of every example, in order."""
    examples: tuple[Example, ...]
    domain: str = ""
    """The customisation that its prompts were given, "" for none."""
    domain_digest: str = ""
    """sha256 over all that the customisation could have written."""
    limit: int | None = None
    """Rows of each subset that were asked for, None for all."""


ROUTES = ("example_id", "domain", "confidence")
"""One row a prompt. `domain` is a domain_id; `confidence` the router's probability of it, 0 to 1."""

ABLATION = (
    "variant", "router", "section", "accuracy", "stderr", "low", "high",
    "difference", "difference_low", "difference_high", "routing_difference", "routing_low", "routing_high",
    "n_examples", "n_ties", "n_excluded",
)  # fmt: skip
"""One row a variant, router and section ("score" for the whole). `difference` is the variant's accuracy less that of
the plain run on the same rows, `routing_difference` less that of the same variant under the known sections: what
misrouting costs. Intervals are 95%; what does not apply is missing."""


class ScoreKey(NamedTuple):
    """Everything that can change a number of a score set; two sets with one key hold the same numbers.

    No name that a user gives is part of it: what the data set and the template's owner are called is in the manifest.
    Batch budget and thread count are settings, recorded in the manifest too.
    """

    model_id: str
    revision: str
    """Commit on the hub, or "sha256:…" over the files of a folder or package, or of an imported file."""
    template_digest: str
    """sha256 over what the chat template contributes: its text, the special tokens that it writes, the BOS that is
    taken off it, the end of turn. Of an imported file "imported:" and the owner's model_id: no more is known."""
    domain: str
    """Name of the customisation, "" for none."""
    domain_digest: str
    data_digest: str
    dtype: str
    """"bfloat16" or "float32"."""
    ops: str
    """The arithmetic that computes the numbers: kind of device and kernels, as "cpu-torch"; IMPORTED for imports."""
    attention: str
    span: str
    """Version of the rule that says which tokens are the response."""
    schema_version: int


SCORES = ("example_id", "response_id", "logp_sum_nats", "logp_end_nats", "n_tokens", "n_bytes", "status")
"""One row a response under one model. `logp_sum_nats` is the rendered text's log-probability,
`logp_end_nats` the end-of-turn token's; `n_tokens` counts both; `n_bytes` is of the rendered text."""

TOKENS = ("example_id", "response_id", "byte_start", "byte_end", "logp_nats")

MARGINS = ("pair_id", "reward", "example_id", "subset", "margin_nats", "status")
"""One row a pair x reward x preference. `margin_nats` is reward(chosen) - reward(rejected):
nats for `sum`, nats a token for `mean`, nats a byte for `per-byte`."""

ACCURACY = (
    "pair_id", "reward", "level", "name", "accuracy", "stderr", "low", "high", "tie_rate",
    "n_examples", "n_ties", "n_excluded",
)  # fmt: skip
"""`level` is "overall", "section" or "subset"; `name` "score", a section's or a subset's name. `low` and `high` are the
limits of the accuracy's 95% interval; they are missing where a subset has rows of fewer than two problems.
`n_examples` counts scored rows, `n_excluded` those left out as too_long or nonfinite."""

LEADERBOARD = (
    "rank", "rank_low", "rank_high", "pair_id", "strong", "weak", "family", "gap_points",
    "score", "score_low", "score_high", "score_held_out", "chat", "chat_hard", "safety", "reasoning",
    "n_examples", "n_excluded", "reward", "dtype", "strong_revision", "weak_revision",
    "n_params", "licence", "cost_flop",
)  # fmt: skip
"""`score_held_out` is what whoever comes to this place is expected to score on prompts that had no part in ranking the
pairs; missing for a single pair, which nothing chose."""

CORRELATION = (
    "reward", "level", "name", "family", "performance", "estimator",
    "estimate", "low", "high", "p_value", "n_pairs", "n_models", "n_prompts", "p_holm", "primary",
)  # fmt: skip
"""`primary` marks the one test that a study declares before it looks; its `p_holm` is its `p_value`. Every other
`p_holm` is Holm's adjustment over all other tests of the table."""

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

SUBSET_WEIGHTS = {
    "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46, "refusals-dangerous": 100, "refusals-offensive": 100,
    "xstest-should-refuse": 154, "xstest-should-respond": 250, "donotanswer": 136,
    "math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164, "hep-rust": 164,
}  # fmt: skip
"""A subset's weight in its section: its rows in RewardBench, but maths weighs as all code together."""


class DrsowError(Exception):
    """Something a user can mend: the command prints it as one line and exits with `code`."""

    code = 1


class CannotWrite(DrsowError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


class UsageError(DrsowError):
    """A wrong name, option or input file."""

    code = 2


class PreconditionError(DrsowError):
    """A model, data set or earlier result that has to be there first is missing."""

    code = 4
