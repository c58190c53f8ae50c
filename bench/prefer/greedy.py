"""Answers prompts with a model's likeliest tokens; a stopped run continues after its last whole answer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from bench.prefer.asked import Speaker
from bench.prefer.decode import SLOTS
from bench.prefer.respond import SCHEME, texts_of
from bench.prefer.resumed import REASONS, Line, Sampling, finish
from bench.schema import Example
from bench.scoring.progress import Meter


def answer_all(
    load: Callable[[], PreTrainedModel],
    speaker: Speaker,
    examples: Sequence[Example],
    *,
    out: Path,
    settings: dict[str, object],
) -> dict[str, str]:
    """Answers every prompt into a file, one line per prompt, in their order.

    The file's name ends in ".partial" until it is complete. An answer depends on its prompt alone, so a run that was
    stopped gives the answers of one that was not.

    Args:
        load: Returns the model; it is not called if every prompt is answered already.
        speaker: How the model reads prompts.
        examples: The prompts.
        out: The .jsonl file.
        settings: What the answers depend on; `max_new_tokens` is one of them. They are stored beside the file.

    Returns:
        Answers by example_id; an answer may be empty.

    Raises:
        UsageError: A prompt is too long, or the file was begun with other settings.
    """
    heads = {example.example_id: speaker.head(example) for example in examples}
    wish = Sampling(n=1, temperature=0, max_new_tokens=int(str(settings["max_new_tokens"])))

    def make(todo: list[str]) -> Iterator[tuple[str, Line]]:
        model = load()
        with Meter("answering", n_rows=len(todo), n_tokens=len(todo), unit="prompts") as meter:
            for name, (said,) in texts_of(model, speaker, {name: heads[name] for name in todo}, wish):
                yield name, {"id": name, "answer": said.text, REASONS: [said.reason]}
                meter.add(rows=1, tokens=1)

    told = settings | {"sampler": SCHEME, "slots": SLOTS}
    lines = finish(out, told, list(heads), make, name_of=lambda line: str(line["id"]))
    return {str(line["id"]): str(line["answer"]) for line in lines}
