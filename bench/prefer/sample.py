"""On-policy candidates: several responses of one model to each prompt, the same ones in every run."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bench.data import example_id, own_id
from bench.prefer.customise import row_number
from bench.schema import DrsowError, Example, UsageError
from bench.scoring.progress import Meter
from bench.store import write_json, write_whole


class Sampling(NamedTuple):
    """How responses are drawn."""

    n: int = 32
    """Responses a prompt."""
    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    keep_empty: bool = False
    """Whether empty responses stay, and with them every prompt."""


def sample_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, example: Example, wish: Sampling
) -> list[str]:
    """Responses to one prompt under the model's own chat template, in one batch.

    They hang on the prompt's id and the seed alone, not on what else is sampled, nor in what order.

    Raises:
        UsageError: the prompt leaves no room in the model's context.
    """
    turns = [message._asdict() for message in example.messages]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    width, limit = ids["input_ids"].shape[1], model.config.get_text_config().max_position_embeddings
    if width >= limit:
        raise UsageError(f"{example.example_id}: {width:,} tokens, the model reads {limit:,}")
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(row_number(example.example_id, seed=wish.seed))
        out = model.generate(
            **ids.to(model.device),
            do_sample=True,
            temperature=wish.temperature,
            top_p=wish.top_p,
            top_k=0,
            num_return_sequences=wish.n,
            max_new_tokens=min(wish.max_new_tokens, limit - width),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    return [text.strip() for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def sample_all(
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    wish: Sampling,
    *,
    out: Path,
    facts: dict[str, object],
) -> int:
    """Sample every prompt into a candidates file; a run that was stopped goes on after its last whole line.

    Until it is complete the file's name ends in ".partial". Unless `wish` keeps them, empty responses are left out, and
    prompts with fewer than two others.

    Args:
        load: Gives the policy; not called where every prompt is sampled.
        tokenizer: Its tokenizer, with a chat template.
        examples: The prompts.
        wish: How responses are drawn.
        out: The .jsonl file.
        facts: What the samples hang on beside `wish`, written beside them and compared on going on.

    Returns:
        How many prompts were left out.

    Raises:
        UsageError: there is no chat template, or the file was begun with other settings or is of somebody else.
    """
    if tokenizer.chat_template is None:
        raise UsageError(f"{tokenizer.name_or_path}: has no chat template, so it cannot answer prompts")
    settings = facts | wish._asdict()
    partial, note = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.settings.json")
    _check_ours(out, note, settings)
    if not out.exists():
        write_json(note, settings)
        lines = _sample_into(partial, load, tokenizer, examples, wish)
        write_whole(out, _encoded(lines if wish.keep_empty else _comparable(lines)))
        partial.unlink()
    return len(examples) - len(list(_whole_lines(out)))


def _check_ours(out: Path, note: Path, settings: dict) -> None:
    """Refuse a file that was begun with other settings, or that no run wrote."""
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
        raise UsageError(f"{out}: was begun with other settings, see {note.name}; name another file or remove both")
    if out.exists() and not note.exists():
        raise UsageError(f"{out}: is there already, and no run of these settings wrote it")


def _sample_into(
    partial: Path,
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    wish: Sampling,
) -> list[dict]:
    """Add a line for every prompt that has none; returns all lines."""
    # What a stop cut off in the middle of a line goes before anything is added behind it.
    lines = list(_whole_lines(partial))
    write_whole(partial, _encoded(lines))
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
                file.write(_encoded(lines[-1:]))
                file.flush()
                meter.add(rows=1, tokens=1)
    except OSError as error:
        raise DrsowError(f"{partial}: cannot be written: {error.strerror or error}") from error
    return lines


def sampled_id(line: dict) -> str:
    """The example_id of a line that sampling wrote."""
    return example_id(line.get("subset", ""), line["id"])


def _comparable(lines: Sequence[dict]) -> list[dict]:
    """The lines without empty responses, where two are left."""
    told = [line | {"candidates": [text for text in line["candidates"] if text]} for line in lines]
    return [line for line in told if len(line["candidates"]) > 1]


def _whole_lines(path: Path) -> Iterator[dict]:
    """The lines of a file that may have been cut off in the middle of one."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            yield json.loads(line)


def _encoded(lines: Sequence[dict]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
