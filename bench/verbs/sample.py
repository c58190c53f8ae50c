"""The verb `sample`: samples a policy's responses to prompts into a candidates file."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench import units
from bench.data.load import load_prompts
from bench.data.rows import candidate_list, text_of
from bench.data.sources import file_rows
from bench.faults import warn
from bench.files import write_json
from bench.schema import Dataset, DrsowError
from bench.scoring import SPAN, fetch, templates
from bench.scoring.identity import ops_name
from bench.scoring.progress import Meter
from bench.sources import Served
from bench.verbs.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bench.prefer.asked import Speaker
    from bench.prefer.resumed import Line, Sampling


def sample_candidates(
    session: Session, dataset: Dataset, name: str, wish: "Sampling", *, out: Path, cache_tokens: int | None = None
) -> int:
    """Sample a policy's responses to every prompt into a file; see `prefer.sample.sample_all`.

    Args:
        session: The registry, which knows the policy; device and dtype.
        dataset: The prompts.
        name: The policy's model_id, or its folder.
        wish: How responses are drawn.
        out: The .jsonl file.
        cache_tokens: The most tokens whose keys and values are kept at once; None for the usual number.

    Returns:
        The number of prompts that were left out.
    """
    from bench.prefer.resumed import tell_cut, whole_lines
    from bench.prefer.sample import sample_all
    from bench.scoring import models

    found = fetch.fetch(session.registry.policy(name))
    options = session.options
    # Other operations round elsewhere, so their responses differ.
    facts: dict[str, object] = {"dtype": options.dtype, "ops": ops_name(options.device, options.dtype), "span": SPAN}
    facts |= {"model_id": name, "revision": found.revision}
    facts |= {"prompts": dataset.data_id, "prompts_digest": dataset.digest}

    def load() -> "PreTrainedModel":
        return models.located_policy(found, dtype=models.TORCH_DTYPES[options.dtype], device=options.device)

    template = templates.read(found.folder)
    if template.text and template.note:
        warn(f"{name} {template.note}")
    try:
        speaker = _speaker(found.folder, trusted=found.trust_remote_code)
        n_left_out = sample_all(load, speaker, dataset.examples, wish, out=out, facts=facts, cache_tokens=cache_tokens)
    except DrsowError as error:
        raise type(error)(f"{name}: {error}") from error
    tell_cut(whole_lines(out), wish.max_new_tokens, model=name)
    return n_left_out


def _speaker(folder: Path, *, trusted: bool) -> "Speaker":
    from bench.prefer.asked import Speaker
    from bench.scoring import models
    from bench.scoring.chat import own_template

    tokenizer = models.load_tokenizer(folder, trust_remote_code=trusted)
    limit = models.context_tokens(folder, trust_remote_code=trusted)
    return Speaker(tokenizer, own_template(tokenizer, "answer prompts"), limit)


ANSWERING = "answering_model"
"""The field beside a file's settings, and in its manifest, that says which model of the server answered."""


def sample_served(dataset: Dataset, source: Served, wish: "Sampling", *, out: Path) -> int:
    """Sample the responses of a model on a server to every prompt into a file.

    `FILE.manifest.json` beside the file names the server and its model. Each line says why each response ended.

    Args:
        dataset: The prompts.
        source: The server and the model's name there.
        wish: How responses are drawn.
        out: The .jsonl file.

    Returns:
        The number of prompts that were left out.
    """
    from bench.prefer import resumed, served

    note, record = (out.with_name(f"{out.name}{end}") for end in (resumed.SETTINGS, ".manifest.json"))
    settings = {"url": source.url, "model_id": source.model, "prompts": dataset.data_id}
    settings |= {"prompts_digest": dataset.digest, "sampler": "chat-1"} | wish._asdict()
    by_name = {example.example_id: example for example in dataset.examples}
    every: list[resumed.Line] = []
    service = served.Service(source, wish)
    if before := (resumed.stored_settings(note) or {}).get(ANSWERING):
        settings[ANSWERING] = service.told.before = before

    def make(todo: list[str]) -> Iterator[tuple[str, resumed.Line]]:
        with Meter("sampling", n_rows=len(todo), n_tokens=len(todo), unit="prompts") as meter:
            for name, said in served.served_texts(service, [by_name[name] for name in todo]):
                _remember(service.told.model, settings, note)
                yield name, resumed.candidates_line(by_name[name], said)
                meter.add(rows=1, tokens=1)

    final = functools.partial(_final, every, keep_empty=wish.keep_empty)
    lines = resumed.finish(out, settings, list(by_name), make, name_of=resumed.sampled_id, final=final)
    ended = resumed.tell_cut(every or lines, wish.max_new_tokens, model=source.model)
    # A run that was killed before it wrote the manifest leaves a complete file without one.
    if service.told.model or not record.exists():
        write_json(record, settings | service.facts() | _counts(ended) | {"finished_utc": units.utc_now()})
    return len(dataset.examples) - len(lines)


def _final(every: list["Line"], lines: list["Line"], *, keep_empty: bool) -> list["Line"]:
    """The lines of the complete file; all lines go into `every`, because empty responses count too: a model that
    thinks may be cut before its answer begins."""
    from bench.prefer.resumed import comparable

    every += lines
    return lines if keep_empty else comparable(lines)


def _counts(ended: dict[str, int]) -> dict[str, object]:
    """How many responses there are, and how many of them ended for each reason, for the manifest."""
    from bench.prefer.resumed import CUT, REASONS

    return {"n_responses": sum(ended.values()), "n_cut": ended.get(CUT, 0), REASONS: ended}


def _remember(model: str, settings: dict, note: Path) -> None:
    """Adds the model that answers to a file's settings, and to the note of them, unless it is there already."""
    if model and ANSWERING not in settings:
        settings[ANSWERING] = model
        write_json(note, settings)


def single_responses(path: str) -> tuple[Dataset, dict[str, str]]:
    """The prompts of a file that `sample` wrote, and the response to each, which may be empty.

    Raises:
        UsageError: there is no such file, a row is wrong or has several responses; names its line and field.
    """
    dataset = load_prompts(path)
    texts = {}
    for example, row in zip(dataset.examples, file_rows(path), strict=True):
        found = candidate_list(row)
        if not found or not isinstance(found[0], str):
            raise row.error("candidates", "must be a list of texts")
        if len(found) > 1:
            words = f"has {len(found)} responses, a board judges one; sample with --n 1, or keep the one to be judged"
            raise row.error("candidates", words)
        if found[0].strip():
            text_of(row, "candidates[0]", found[0])
        texts[example.example_id] = found[0]
    return dataset, texts
