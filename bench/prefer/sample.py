"""Samples several responses of one model to each prompt; every run with the same seed samples the same responses."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from bench.faults import warn
from bench.prefer.asked import Speaker
from bench.prefer.decode import SLOTS
from bench.prefer.respond import CACHE_TOKENS, SCHEME, texts_of
from bench.prefer.resumed import Line, Said, Sampling, candidates_line, comparable, finish, sampled_id
from bench.schema import Example
from bench.scoring.progress import Meter


def sample_all(
    load: Callable[[], PreTrainedModel],
    speaker: Speaker,
    examples: Sequence[Example],
    wish: Sampling,
    *,
    out: Path,
    facts: dict[str, object],
    cache_tokens: int | None = None,
) -> int:
    """Samples responses to every prompt into a candidates file; a stopped run continues after its last whole line.

    Unless `wish.keep_empty` is set, the file contains neither empty responses nor prompts with fewer than two others.

    Args:
        load: Returns the policy; it is not called if every prompt is sampled already.
        speaker: How the policy reads prompts.
        examples: The prompts.
        wish: Settings of the sampling.
        out: The .jsonl file.
        facts: What the samples depend on besides `wish`; stored beside the file, and compared by a run that continues.
        cache_tokens: The most tokens that are in memory at once; None for the usual number.

    Returns:
        The number of prompts that were left out.

    Raises:
        UsageError: A prompt is refused or too long, or another run or program wrote the file.
    """
    settings = facts | wish._asdict() | _method(examples, speaker)
    heads = {example.example_id: speaker.head(example) for example in examples}
    by_name = {example.example_id: example for example in examples}

    def make(todo: list[str]) -> Iterator[tuple[str, Line]]:
        missing = {name: heads[name] for name in todo}
        for name, said in _sampled(load(), speaker, missing, wish, cache_tokens=cache_tokens or CACHE_TOKENS):
            yield name, candidates_line(by_name[name], said)

    final = None if wish.keep_empty else comparable
    return len(examples) - len(finish(out, settings, list(heads), make, name_of=sampled_id, final=final))


def _sampled(
    model: PreTrainedModel, speaker: Speaker, heads: dict[str, list[int]], wish: Sampling, *, cache_tokens: int
) -> Iterator[tuple[str, list[Said]]]:
    """`texts_of` with its progress on stderr."""
    with Meter("sampling", n_rows=len(heads), n_tokens=len(heads), unit="prompts") as meter:
        ahead = meter.part(rows=1, tokens=1)
        for found in texts_of(model, speaker, heads, wish, cache_tokens=cache_tokens, on_share=ahead):
            yield found
            meter.add(rows=1, tokens=1)


def _method(examples: Sequence[Example], speaker: Speaker) -> dict[str, object]:
    """How prompts are read and responses drawn; stderr says the number of merged system turns."""
    n_merged = sum(speaker.template.merges(example.messages) for example in examples)
    if n_merged:
        words = "prompts have a system turn, which the chat template does not support; it goes into the first user turn"
        warn(f"{n_merged} {words}")
    return {"n_system_merged": n_merged, "sampler": SCHEME, "slots": SLOTS}
