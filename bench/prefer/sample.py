"""Samples several responses of one model to each prompt; every run with the same seed samples the same responses."""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from bench.data.rows import example_id, own_id
from bench.prefer.customise import row_number
from bench.schema import DrsowError, Example, UsageError
from bench.scoring.chat import Template, own_template
from bench.scoring.progress import Meter
from bench.scoring.render import check_ids, end_id, prompt_ids
from bench.store.folder import write_json, write_whole


class Sampling(NamedTuple):
    """Settings of the sampling."""

    n: int = 32
    """Number of responses per prompt."""
    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    keep_empty: bool = False
    """Whether to keep empty responses, and so every prompt."""


def sample_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, example: Example, wish: Sampling
) -> list[str]:
    """Samples responses to one prompt in one batch, under the model's own chat template.

    The responses come from the model's unchanged distribution: only the end tokens of its generation_config.json are
    used, but no penalty, filter or forced token. The random draws depend only on the prompt's id and the seed, not on
    the other prompts or their order. `render` gives the tokens of the prompt.

    Raises:
        UsageError: The prompt fills the model's context, or the template rejects it.
        DrsowError: The model has no embedding for a token of the prompt.
    """
    template, config = Template(tokenizer), model.config.get_text_config()
    limit = config.max_position_embeddings
    ids = fitting_ids(example, tokenizer, template, limit=limit)
    check_ids(ids, tokenizer, n_embedded=config.vocab_size, row=example.example_id, model="the policy")
    width = len(ids)
    ends = end_ids(model, tokenizer, template)
    inputs = torch.tensor([ids], device=model.device)
    told = GenerationConfig(
        do_sample=True,
        temperature=wish.temperature,
        top_p=wish.top_p,
        top_k=0,
        num_return_sequences=wish.n,
        max_new_tokens=min(wish.max_new_tokens, limit - width),
        eos_token_id=ends,
        # The tokenizer's own padding token may have no embedding. Padding only follows an end token, so any token does.
        pad_token_id=ends[0],
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode(), own_distribution(model):
        torch.manual_seed(row_number(example.example_id, seed=wish.seed))
        out = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=told)
    return [text.strip() for text in texts_before(ends, out[:, width:], tokenizer)]


def fitting_ids(example: Example, tokenizer: PreTrainedTokenizerFast, template: Template, *, limit: int) -> list[int]:
    """Token ids of a prompt that leaves room for an answer in a context of `limit` tokens.

    Raises:
        UsageError: The prompt fills the context, or the template rejects it.
    """
    ids = prompt_ids(example, tokenizer, template)
    if len(ids) >= limit:
        raise UsageError(
            f"{example.example_id}: the prompt has {len(ids):,} tokens, but the model reads at most {limit - 1:,}"
        )
    return ids


def texts_before(ends: Sequence[int], tokens: Tensor, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The text of each row of generated tokens, (rows, n), before its first end token."""
    said = [list(itertools.takewhile(lambda token: token not in ends, row)) for row in tokens.tolist()]
    return tokenizer.batch_decode(said, skip_special_tokens=True)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """The tokens that end a response: the end-of-turn token that is scored, and those that the model's files name."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    found = dict.fromkeys([end_id(tokenizer, template), *named, tokenizer.eos_token_id])
    size = model.config.get_text_config().vocab_size
    ends = [token for token in found if token is not None and token < size]
    if not ends:
        raise DrsowError(
            "the policy has no embedding for its end-of-turn token: its tokenizer does not belong to its weights"
        )
    return ends


@contextlib.contextmanager
def own_distribution(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's generation settings, because `generate` takes every setting that it is not given from them."""
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


def sample_all(
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    wish: Sampling,
    *,
    out: Path,
    facts: dict[str, object],
) -> int:
    """Samples responses to every prompt into a candidates file; a stopped run continues after its last whole line.

    The file's name ends in ".partial" until the file is complete. Unless `wish.keep_empty` is set, the file contains
    neither empty responses nor prompts with fewer than two other responses.

    Args:
        load: Returns the policy; it is not called if every prompt is sampled already.
        tokenizer: The policy's tokenizer, with a chat template.
        examples: The prompts.
        wish: Settings of the sampling.
        out: The .jsonl file.
        facts: What the samples depend on besides `wish`. It is stored beside the file; a run that continues compares
            it.

    Returns:
        The number of prompts that were left out.

    Raises:
        UsageError: There is no chat template, the template rejects a prompt, the file was begun with other settings,
            or another program wrote it.
    """
    settings = facts | wish._asdict() | {"n_system_merged": _checked_prompts(examples, tokenizer)}
    partial, note = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.settings.json")
    check_ours(out, note, settings)
    if not out.exists():
        write_json(note, settings)
        lines = _sample_into(partial, load, tokenizer, examples, wish)
        write_whole(out, encoded(lines if wish.keep_empty else _comparable(lines)))
        partial.unlink()
    return len(examples) - len(list(whole_lines(out)))


def _checked_prompts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> int:
    """Checks that the template accepts every prompt, before the model is loaded; counts the merged system turns."""
    template = own_template(tokenizer, "answer prompts")
    n_merged = sum(template.merges(example.messages) for example in examples)
    for example in examples:
        prompt_ids(example, tokenizer, template)
    if n_merged:
        words = "prompts have a system turn, which the chat template does not support; it goes into the first user turn"
        print(f"{n_merged} {words}", file=sys.stderr)
    return n_merged


def check_ours(out: Path, note: Path, settings: dict) -> None:
    """Rejects a file that was begun with other settings, or that no run wrote."""
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
        raise UsageError(f"{out} was begun with other settings, see {note.name}; name another file or remove both")
    if out.exists() and not note.exists():
        raise UsageError(
            f"{out} exists already, and drsow did not write it ({note.name} is missing); name another file"
        )


def _sample_into(
    partial: Path,
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    wish: Sampling,
) -> list[dict]:
    """Adds a line for every prompt that has none; returns all lines."""
    # A stopped run may have left half a line: remove it before adding lines.
    lines = list(whole_lines(partial))
    write_whole(partial, encoded(lines))
    done = {sampled_id(line) for line in lines}
    todo = [example for example in examples if example.example_id not in done]
    model = load() if todo else None
    try:
        with (
            partial.open("ab") as file,
            Meter("sampling", n_rows=len(todo), n_tokens=len(todo), unit="prompts") as meter,
        ):
            for example in todo:
                texts = sample_prompt(model, tokenizer, example, wish)
                prompt = [message._asdict() for message in example.messages]
                head = {"subset": example.subset} if example.subset else {}
                lines.append({"id": own_id(example), **head, "prompt": prompt, "candidates": texts})
                file.write(encoded(lines[-1:]))
                file.flush()
                meter.add(rows=1, tokens=1)
    except OSError as error:
        raise DrsowError(f"{partial} cannot be written: {error.strerror or error}") from error
    return lines


def sampled_id(line: dict) -> str:
    """The example_id of a line of the candidates file."""
    return example_id(line.get("subset", ""), line["id"])


def _comparable(lines: Sequence[dict]) -> list[dict]:
    """The lines without their empty responses; a line that keeps fewer than two responses is dropped."""
    told = [line | {"candidates": [text for text in line["candidates"] if text]} for line in lines]
    return [line for line in told if len(line["candidates"]) > 1]


def whole_lines(path: Path) -> Iterator[dict]:
    """The complete lines of a file; a stop may have cut its last line off."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            yield json.loads(line)


def encoded(lines: Sequence[dict]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
