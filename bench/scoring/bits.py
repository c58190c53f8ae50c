"""Measures how well a model predicts a text, in bits per byte. This performance orders the `noise` study."""

import math
import re
from itertools import pairwise

import torch

from bench.entries import ModelSpec
from bench.schema import Example, Message, UsageError
from bench.scoring import fetch, models
from bench.scoring.forward import engine, trie
from bench.scoring.noise import noise_of
from bench.scoring.passes import BATCH_TOKENS
from bench.scoring.render import Template, check_ids, render


def bits_per_byte(spec: ModelSpec, examples: tuple[Example, ...]) -> float:
    """-log2 p of the examples' responses in float32 on the CPU, divided by the number of their UTF-8 bytes.

    Every response follows its prompt in the plain format, "User: <prompt>\\n\\nAssistant: <response>", even if the
    model has a chat template. The sum includes each response token once, but no token of a prompt and no end of turn.
    The bytes are those that the tokens spell, so they include the space before each response.

    Raises:
        UsageError: A prompt with its response is longer than the model's context, or the model is on a server.
    """
    fetch.check_here(spec)
    found = fetch.fetch(spec)
    folder, trusted = found.folder, found.trust_remote_code
    tokenizer = models.load_tokenizer(folder, trust_remote_code=trusted)
    sequences = render(examples, tokenizer, Template(None)).sequences
    n_embedded = models.n_embedded(folder, trust_remote_code=trusted)
    for sequence in sequences:
        check_ids(sequence.ids, tokenizer, n_embedded=n_embedded, row=sequence.example_id, model=spec.model_id)
    limit = models.context_tokens(folder, trust_remote_code=trusted)
    if too_long := [s.example_id for s in sequences if len(s.ids) > limit]:
        raise UsageError(f"{too_long[0]}: longer than the {limit} tokens of {spec.model_id}")
    plan = trie.pack([s.ids for s in sequences], [s.start for s in sequences], budget=BATCH_TOKENS["cpu"])
    model = models.load_model(
        folder, dtype=torch.float32, device="cpu", trust_remote_code=trusted, change=noise_of(spec) or found.adapter
    )
    logps = engine.score(model, plan)
    nats = sum(float(logps[first : last - 1].sum()) for first, last in pairwise(plan.offsets))
    return -nats / math.log(2) / sum(s.n_bytes for s in sequences)


def sections(text: str) -> tuple[Example, ...]:
    """Splits a text into sections. Each starts with a line "== Title": the title is the prompt, the rest the response.

    Raises:
        UsageError: The text has no such line, or there is text before the first one.
    """
    before, *rest = re.split(r"^== (.+)\n", text, flags=re.MULTILINE)
    if before.strip() or not rest:
        raise UsageError('a text to measure on begins with a line "== Title", as each of its sections does')
    return tuple(
        Example(title, "", (Message("user", title),), (("0", body.strip()),))
        for title, body in zip(rest[::2], rest[1::2], strict=True)
    )
