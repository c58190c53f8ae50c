"""Adds a domain's text to each prompt, the same text for both models of a pair (arXiv 2411.02481, customised reward).

The added text, called a block, is the domain's instruction, one exemplar drawn for the prompt, or both. The domain's
entry says where the block goes: into the system turn or to the start of the first user turn. If a chat template has no
system role, a block in the system turn also ends up at the start of the first user turn.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from bench.data.load import digest
from bench.data.told import under
from bench.entries import Domain, Exemplar
from bench.schema import Dataset

INSTRUCTION, EXEMPLARS, BOTH = "instruction", "exemplars", "both"
VARIANTS = (INSTRUCTION, EXEMPLARS, BOTH)
"""The possible contents of a block."""

Domains = Mapping[str, Domain]


def pool(domains: Domains, domain_id: str) -> list[Exemplar]:
    """The exemplars that a domain draws from: those of the domain, then those of its subdomains."""
    parts = [domain for domain in domains.values() if domain.parent == domain_id]
    return [exemplar for domain in (domains[domain_id], *parts) for exemplar in domain.exemplars]


def drawn(blocks: Sequence[str], example_id: str, *, seed: int) -> str:
    """The block of one prompt. It depends only on the row's id and the seed, so all responses to a prompt share it."""
    return blocks[row_number(example_id, seed=seed) % len(blocks)]


def row_number(example_id: str, *, seed: int) -> int:
    """A pseudo-random 64-bit number that depends only on a row's id and a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {example_id}".encode()).digest()[:8], "big")


def written(exemplar: Exemplar) -> str:
    """The text of an exemplar in a block."""
    return (
        f"{exemplar.principle} For example,\n\nUser: {exemplar.user}\n\nGood Assistant: {exemplar.good}\n\n"
        f"Bad Assistant: {exemplar.bad}\n\nExplanation: {exemplar.explanation}"
    )


def blocks(domains: Domains, domain_id: str, *, variant: str) -> list[str]:
    """All blocks of a domain; `drawn` takes one of them for each prompt.

    Args:
        domains: The registry's domains, by id.
        domain_id: Id of the domain.
        variant: One of VARIANTS.
    """
    instruction = domains[domain_id].instruction
    if variant == INSTRUCTION:
        return [instruction]
    exemplars = [written(exemplar) for exemplar in pool(domains, domain_id)]
    return exemplars if variant == EXEMPLARS else [f"{instruction}\n\n{text}" for text in exemplars]


def row_id(example_id: str, domain_id: str) -> str:
    """The example_id of a row under a domain; one row may be scored under several domains."""
    return f"{example_id}@{domain_id}"


def customised(
    dataset: Dataset, domains: Domains, wanted: Iterable[tuple[str, str]], *, variant: str, seed: int
) -> Dataset:
    """Adds the blocks of their domains to the prompts of a data set.

    Args:
        dataset: Rows without blocks.
        domains: The registry's domains, by id.
        wanted: (example_id, domain_id), in any order; each becomes one row of the result.
        variant: One of VARIANTS.
        seed: Decides which exemplar each prompt gets.

    Returns:
        Rows with ids from `row_id`, in the order of the data set. `domain` and `domain_digest` identify the change.
    """
    chosen: dict[str, list[str]] = {}
    for example_id, domain_id in sorted(set(wanted)):
        chosen.setdefault(example_id, []).append(domain_id)
    texts = {name: blocks(domains, name, variant=variant) for name in sorted(domains)}
    turns = {name: domains[name].turn for name in sorted(domains)}
    rows = tuple(
        example._replace(
            example_id=row_id(example.example_id, name),
            messages=under(example.messages, drawn(texts[name], example.example_id, seed=seed), turn=turns[name]),
        )
        for example in dataset.examples
        for name in chosen.get(example.example_id, ())
    )
    words = json.dumps([variant, seed, texts, turns])
    name = f"{variant}, seed {seed}"
    return Dataset(dataset.data_id, dataset.slug, digest(rows), rows, name, hashlib.sha256(words.encode()).hexdigest())


def of_routes(scores: pd.DataFrame, domains: pd.Series) -> pd.DataFrame:
    """Selects the SCORES of each row under the domain that one router chose for it.

    Args:
        scores: SCORES of customised rows, whose example_id comes from `row_id`.
        domains: The router's domain_id, by the example_id of the row without a block.

    Returns:
        SCORES with the example_ids of the rows without blocks.
    """
    names = {row_id(example_id, domain): example_id for example_id, domain in domains.items()}
    kept = scores[scores["example_id"].isin(names)]
    return kept.assign(example_id=kept["example_id"].map(names)).reset_index(drop=True)
