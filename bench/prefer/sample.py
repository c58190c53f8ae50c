"""On-policy candidates: several responses of one model to each prompt, the same ones in every run."""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from bench.data.rows import example_id, own_id
from bench.prefer.customise import row_number
from bench.schema import DrsowError, Example, UsageError
from bench.scoring.chat import Template, own_template
from bench.scoring.progress import Meter
from bench.scoring.render import check_ids, end_id, prompt_ids
from bench.store.folder import write_json, write_whole


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

    They are drawn from the model's own distribution: of its generation_config.json the end tokens alone are used, no
    penalty, no filter and no forced token. They depend on the prompt's id and the seed alone, not on what else is
    sampled, nor in what order. The prompt is read as `render` has it.

    Raises:
        UsageError: the prompt leaves no room in the model's context, or the template refuses it.
        DrsowError: the model has no embedding for a token of the prompt.
    """
    template, config = Template(tokenizer), model.config.get_text_config()
    ids = prompt_ids(example, tokenizer, template)
    check_ids(ids, tokenizer, n_embedded=config.vocab_size, row=example.example_id, model="the policy")
    width, limit = len(ids), config.max_position_embeddings
    if width >= limit:
        raise UsageError(f"{example.example_id}: {width:,} tokens, the model reads {limit:,}")
    ends = _end_ids(model, tokenizer, template)
    inputs = torch.tensor([ids], device=model.device)
    told = GenerationConfig(
        do_sample=True,
        temperature=wish.temperature,
        top_p=wish.top_p,
        top_k=0,
        num_return_sequences=wish.n,
        max_new_tokens=min(wish.max_new_tokens, limit - width),
        eos_token_id=ends,
        # Read behind an end alone, where it changes nothing; a tokenizer's own one may have no embedding.
        pad_token_id=ends[0],
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode(), _own_distribution(model):
        torch.manual_seed(row_number(example.example_id, seed=wish.seed))
        out = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=told)
    said = [itertools.takewhile(lambda token: token not in ends, row) for row in out[:, width:].tolist()]
    return [text.strip() for text in tokenizer.batch_decode([list(row) for row in said], skip_special_tokens=True)]


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """The tokens that end a response: the end that is scored, and those that the model's files name."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    found = dict.fromkeys([end_id(tokenizer, template), *named, tokenizer.eos_token_id])
    size = model.config.get_text_config().vocab_size
    ends = [token for token in found if token is not None and token < size]
    if not ends:
        raise DrsowError(
            "the policy has no embedding for its end-of-turn token: its tokenizer does not fit its weights"
        )
    return ends


@contextlib.contextmanager
def _own_distribution(model: PreTrainedModel) -> Iterator[None]:
    """Put the model's generation settings aside: `generate` would take from them whatever it is not told."""
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
        UsageError: there is no chat template, it refuses a prompt, or the file was begun with other settings or is of
            somebody else.
    """
    settings = facts | wish._asdict() | {"n_system_merged": _checked_prompts(examples, tokenizer)}
    partial, note = out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.settings.json")
    _check_ours(out, note, settings)
    if not out.exists():
        write_json(note, settings)
        lines = _sample_into(partial, load, tokenizer, examples, wish)
        write_whole(out, _encoded(lines if wish.keep_empty else _comparable(lines)))
        partial.unlink()
    return len(examples) - len(list(_whole_lines(out)))


def _checked_prompts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> int:
    """Refuse what the template refuses, before the model is loaded; returns how many system turns are merged."""
    template = own_template(tokenizer, "answer prompts")
    n_merged = sum(template.merges(example.messages) for example in examples)
    for example in examples:
        prompt_ids(example, tokenizer, template)
    if n_merged:
        words = "prompts have a system turn, which the chat template does not know: it was put into the first user turn"
        print(f"{n_merged} {words}", file=sys.stderr)
    return n_merged


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
