"""The rows that each side of a pair reads: as they are, or with the text of a pair of one model before each prompt.

Stored scores are found by these rows.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.contrast import model_of
from bench.data.told import told
from bench.lookup import Lookup
from bench.prefer.route import by_classifier
from bench.registry import Registry
from bench.schema import DTYPES, Dataset, UsageError
from bench.scoring.identity import owner_digest, present_revision
from bench.subject import Subject

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer


def rows_for(registry: Registry, name: str, dataset: Dataset) -> Dataset:
    """The rows as one side of a pair reads them.

    Args:
        registry: Knows the pairs and domains.
        name: A model_id, whose rows stay as they are, or the name of a reader.
        dataset: The rows without texts.
    """
    if model_of(name) == name:
        return dataset
    reader = registry.readers[name]
    texts = reader.texts(registry.domains)
    if reader.text:
        digest = hashlib.sha256(reader.text.encode()).hexdigest()
        return told(dataset, texts, [""] * len(dataset.examples), name=f"text {digest[:8]}")
    domains = {name: registry.domains[name] for name in texts}
    routed = list(by_classifier(dataset, domains)["domain"]) if dataset.examples else []
    return told(dataset, texts, routed, name=reader.of_domain)


def lookup_of(registry: Registry, *, dtype: str = "auto", ops: str | None = None) -> Lookup:
    """The `Lookup` of a user's options: a dtype ("auto" accepts any) and an arithmetic.

    It knows this machine's chat templates and models, and the registry's texts.
    """

    @functools.cache
    def template_of(owner: str) -> str | None:
        return owner_digest(registry.models[owner]) if owner in registry.models else None

    @functools.cache
    def revision_of(name: str) -> str | None:
        return present_revision(registry.weights(name)) if model_of(name) in registry.models else None

    return Lookup(DTYPES.get(dtype), ops, template_of, functools.partial(rows_for, registry), revision_of)


def check_fits(scorer: "Scorer", texts: Mapping[str, Sequence[str]]) -> None:
    """Check that texts leave room for a prompt in a model's context.

    Args:
        scorer: The model.
        texts: Each reader's or domain's texts, by what an error calls it.

    Raises:
        UsageError: A text is too long; names whose it is, and the model.
    """
    for name, each in texts.items():
        n_tokens = max(map(len, scorer.tokenizer(list(each), verbose=False).input_ids))
        if n_tokens >= scorer.limit:
            room = f"the context of {scorer.ready.key.model_id} holds {scorer.limit:,}"
            raise UsageError(f"{name}: its longest text has {n_tokens:,} tokens, but {room}; shorten the text")


def check_reads_no_text(subject: Subject, what: str) -> None:
    """Refuse pairs of one model for something that would put another text before the prompts.

    Raises:
        UsageError: A pair's sides read texts of their own; names the pair and `what`.
    """
    for pair in subject.pairs:
        if pair.of_one_model:
            raise UsageError(
                f"{pair.pair_id}: is a pair of one model, whose sides read their own texts before each prompt, and "
                f"{what} would put another text there; name a pair of two models, or leave {what} out"
            )
