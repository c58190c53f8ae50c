"""The verb `sample`: samples a policy's responses to prompts into a candidates file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.load import load_prompts
from bench.data.rows import candidate_list
from bench.data.sources import file_rows
from bench.schema import Dataset, DrsowError
from bench.scoring import SPAN, fetch, templates
from bench.verbs.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bench.prefer.asked import Speaker
    from bench.prefer.resumed import Sampling


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
    from bench.prefer.sample import sample_all
    from bench.scoring import models

    found = fetch.fetch(session.registry.policy(name))
    options = session.options
    facts: dict[str, object] = {"model_id": name, "revision": found.revision, "dtype": options.dtype}
    facts |= {"span": SPAN, "prompts": dataset.data_id, "prompts_digest": dataset.digest}

    def load() -> "PreTrainedModel":
        return models.located_policy(found, dtype=models.TORCH_DTYPES[options.dtype], device=options.device)

    template = templates.read(found.folder)
    if template.text and template.note:
        print(f"{name} {template.note}", file=sys.stderr)
    try:
        speaker = _speaker(found.folder, trusted=found.trust_remote_code)
        return sample_all(load, speaker, dataset.examples, wish, out=out, facts=facts, cache_tokens=cache_tokens)
    except DrsowError as error:
        raise type(error)(f"{name}: {error}") from error


def _speaker(folder: Path, *, trusted: bool) -> "Speaker":
    from bench.prefer.asked import Speaker
    from bench.scoring import models
    from bench.scoring.chat import own_template

    tokenizer = models.load_tokenizer(folder, trust_remote_code=trusted)
    limit = models.context_tokens(folder, trust_remote_code=trusted)
    return Speaker(tokenizer, own_template(tokenizer, "answer prompts"), limit)


def first_responses(path: str) -> tuple[Dataset, dict[str, str]]:
    """The prompts of a file that `sample` wrote, and the first response to each, which may be empty.

    Raises:
        UsageError: there is no such file, or a row is wrong; names its line and field.
    """
    dataset = load_prompts(path)
    texts = {}
    for example, row in zip(dataset.examples, file_rows(path), strict=True):
        found = candidate_list(row)
        if not found or not isinstance(found[0], str):
            raise row.error("candidates", "must be a list of texts")
        texts[example.example_id] = found[0]
    return dataset, texts
