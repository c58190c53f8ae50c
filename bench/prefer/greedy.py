"""Answers prompts with a model's likeliest tokens, in batches; a stopped run continues after its last whole batch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from bench.prefer.sample import (
    check_ours,
    encoded,
    end_ids,
    fitting_ids,
    own_distribution,
    texts_before,
    whole_lines,
)
from bench.schema import DrsowError, Example
from bench.scoring.chat import Template
from bench.scoring.progress import Meter
from bench.scoring.render import check_ids
from bench.store.folder import write_json, write_whole

BATCH = 32
"""Prompts of one batch. In bfloat16 the last bits of a sum depend on it, so it is fixed."""


class Speaker(NamedTuple):
    """How a model reads prompts."""

    tokenizer: PreTrainedTokenizerFast
    template: Template
    """Its own chat template, or that of another model."""
    limit: int
    """The most tokens that the model reads."""


def answer_all(
    load: Callable[[], PreTrainedModel],
    speaker: Speaker,
    examples: Sequence[Example],
    *,
    out: Path,
    settings: dict[str, Any],
) -> dict[str, str]:
    """Answers every prompt into a file, one line a prompt, in their order.

    The file's name ends in ".partial" until it is complete. Prompts of similar lengths share a batch, and the batches
    depend on nothing but the prompts, so a run that was stopped gives the answers of one that was not.

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
    partial, note = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.settings.json")
    check_ours(out, note, settings)
    if not out.exists():
        tokenizer, template, limit = speaker
        heads = {e.example_id: fitting_ids(e, tokenizer, template, limit=limit) for e in examples}
        write_json(note, settings)
        found = _answer_into(partial, load, speaker, heads, n_new=settings["max_new_tokens"])
        write_whole(out, encoded([{"id": e.example_id, "answer": found[e.example_id]} for e in examples]))
        partial.unlink()
    return {line["id"]: line["answer"] for line in whole_lines(out)}


def _answer_into(
    partial: Path,
    load: Callable[[], PreTrainedModel],
    speaker: Speaker,
    heads: dict[str, list[int]],
    *,
    n_new: int,
) -> dict[str, str]:
    """Answers the batches that the file lacks; returns all answers by example_id."""
    # A stop may have cut the last line off, and so a batch: what is left of it is kept, and the batch computed again.
    found = {line["id"]: line["answer"] for line in whole_lines(partial)}
    write_whole(partial, encoded([{"id": name, "answer": answer} for name, answer in found.items()]))
    order = sorted(heads, key=lambda name: len(heads[name]))
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    todo = [names for names in batches if not all(name in found for name in names)]
    model, n_rows = load() if todo else None, sum(map(len, todo))
    try:
        with partial.open("ab") as file, Meter("answering", n_rows=n_rows, n_tokens=n_rows, unit="prompts") as meter:
            for names in todo:
                answers = answers_of(model, speaker, {name: heads[name] for name in names}, n_new=n_new)
                file.write(encoded([{"id": n, "answer": a} for n, a in answers.items() if n not in found]))
                file.flush()
                found = answers | found
                meter.add(rows=len(names), tokens=len(names))
    except OSError as error:
        raise DrsowError(f"{partial} cannot be written: {error.strerror or error}") from error
    return found


def answers_of(
    model: PreTrainedModel, speaker: Speaker, heads: Mapping[str, list[int]], *, n_new: int
) -> dict[str, str]:
    """The model's greedy answers to some prompts, computed in one batch.

    Of generation_config.json only the end tokens are used. An answer ends before the template's end-of-turn text, even
    if that text is no token of the model.

    Args:
        model: The model.
        speaker: How the model reads prompts.
        heads: Token ids of each prompt, by example_id.
        n_new: The most tokens of an answer.

    Returns:
        Answers by example_id.

    Raises:
        DrsowError: The model has no embedding for a token of a prompt.
    """
    tokenizer, template = speaker.tokenizer, speaker.template
    size, width = model.config.get_text_config().vocab_size, max(map(len, heads.values()))
    for name, ids in heads.items():
        check_ids(ids, tokenizer, n_embedded=size, row=name, model="the model")
    ends = end_ids(model, tokenizer, template)
    # The tokenizer's own padding token may have no embedding; the mask hides the padding before a prompt.
    told = GenerationConfig(
        do_sample=False, max_new_tokens=min(n_new, speaker.limit - width), eos_token_id=ends, pad_token_id=ends[0]
    )
    padded = [[ends[0]] * (width - len(ids)) + ids for ids in heads.values()]
    seen = [[0] * (width - len(ids)) + [1] * len(ids) for ids in heads.values()]
    inputs, mask = (torch.tensor(rows, device=model.device) for rows in (padded, seen))
    with torch.inference_mode(), own_distribution(model):
        out = model.generate(inputs, attention_mask=mask, generation_config=told)
    texts = texts_before(ends, out[:, width:], tokenizer)
    end = template.around[1].strip()
    return {name: (text.partition(end)[0] if end else text).strip() for name, text in zip(heads, texts, strict=True)}
