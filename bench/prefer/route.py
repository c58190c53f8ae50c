"""Assigns a domain to each prompt with one of three routers, and measures how often the routers are right.

All routers return the same table, ROUTES. `by_section` reads the known domain from the prompt's subset.
`by_classifier` is a classifier trained on the domains' labelled queries. `by_model` scores every domain name as the
answer of a causal language model and takes the most likely one. The model generates nothing, and it reads the query
only once for all names.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.data.load import digest
from bench.entries import Domain
from bench.files import edited_text
from bench.prefer.customise import Domains
from bench.registry import pairs_folder
from bench.schema import OK, ROUTES, Dataset, Example, Message, UsageError

FALLBACK = "chat"
"""Domain of a prompt whose domain is unknown or uncertain."""

MIN_CONFIDENCE = 0.3
"""A prompt whose most likely domain has a lower probability gets FALLBACK."""

_NEUTRAL = Example("neutral", "", (Message("user", "N/A"),), ())
"""A query that belongs to no domain. The model's log-probabilities of the names here are its bias for each name, which
`by_model` subtracts (Zhao et al. 2021)."""

_FREE_ID = "/neutral"
"""example_id of the neutral query if a row is called "neutral"; `data.rows.example_id` never gives this id to a row."""


def by_section(dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """ROUTES from the subsets that the domains list. A subset that no domain lists gets FALLBACK with confidence 0.

    Raises:
        UsageError: No domain lists any of the data set's subsets.
    """
    known = subset_domains(domains)
    if not knows_sections(dataset, domains):
        raise UsageError(f"{dataset.data_id}: no domain lists any of its subsets, so --router section cannot be used")
    rows = [
        (example.example_id, known.get(example.subset, FALLBACK), float(example.subset in known))
        for example in dataset.examples
    ]
    return pd.DataFrame(rows, columns=list(ROUTES))


def knows_sections(dataset: Dataset, domains: Domains) -> bool:
    """Whether the domains list any of the data set's subsets, as `by_section` needs."""
    known = subset_domains(domains)
    return any(example.subset in known for example in dataset.examples)


def by_classifier(dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """ROUTES from a logistic regression on character n-grams, fitted only on the domains' queries and exemplars."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    queries = [(name, query) for name, domain in domains.items() for query in labelled_queries(domain)]
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(letters, LogisticRegression(C=10, class_weight="balanced", max_iter=2000))
    model.fit([query for _, query in queries], [name for name, _ in queries])
    found = model.predict_proba([query_text(example) for example in dataset.examples])
    return _routes([example.example_id for example in dataset.examples], found, list(model.classes_))


def labelled_queries(domain: Domain) -> list[str]:
    """The classifier's training texts for a domain."""
    return [*domain.queries, *(exemplar.user for exemplar in domain.exemplars)]


def questions(dataset: Dataset, domains: Domains) -> Dataset:
    """The prompts that `by_model` needs scores of: each query and the neutral one, with all domain_ids as responses."""
    frame = edited_text(pairs_folder() / "route.txt").strip()
    names = "\n".join(f"- {name}: {domain.description}" for name, domain in domains.items())
    answers = tuple((name, name) for name in domains)
    taken = any(example.example_id == _NEUTRAL.example_id for example in dataset.examples)
    neutral = _NEUTRAL._replace(example_id=_FREE_ID) if taken else _NEUTRAL
    examples = tuple(
        Example(
            example.example_id,
            "",
            (Message("user", frame.replace("{domains}", names).replace("{query}", query_text(example))),),
            answers,
        )
        for example in (neutral, *dataset.examples)
    )
    return Dataset(dataset.data_id, f"{dataset.slug}-route", digest(examples), examples)


def by_model(scores: pd.DataFrame, domains: Domains) -> pd.DataFrame:
    """ROUTES from a model's log-probabilities of the domain names, minus those under the neutral query.

    Args:
        scores: SCORES of `questions`. A prompt longer than the model's context has no scores: all domains are equally
            likely for it, so it gets FALLBACK if there are four domains or more.
        domains: The domains that `questions` got.
    """
    from scipy.special import softmax

    names = list(domains)
    total = (scores["logp_sum_nats"] + scores["logp_end_nats"]).where(scores["status"] == OK)
    table = scores.assign(total=total).pivot(index="example_id", columns="response_id", values="total")[names]
    neutral = _FREE_ID if _FREE_ID in table.index else _NEUTRAL.example_id
    ids = [name for name in pd.unique(scores["example_id"]) if name != neutral]
    shares = softmax((table.loc[ids] - table.loc[neutral]).fillna(0).to_numpy(), axis=1)
    return _routes(ids, shares, names)


def _routes(ids: Sequence[str], shares: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """ROUTES from probabilities, (prompts, domains)."""
    best = shares.argmax(axis=1)
    confidence = shares[np.arange(len(best)), best]
    domains = np.where(confidence < MIN_CONFIDENCE, FALLBACK, np.array(names)[best])
    return pd.DataFrame({"example_id": ids, "domain": domains, "confidence": confidence.round(6)})


def subset_domains(domains: Domains) -> dict[str, str]:
    """domain_id by subset, for the subsets that the domains list."""
    return {subset: name for name, domain in domains.items() for subset in domain.subsets}


def query_text(example: Example) -> str:
    """The text that a router reads: the last turn of the prompt."""
    return example.messages[-1].content


def confusion(routes: pd.DataFrame, dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """Counts how a router assigned the prompts of each known domain; a subdomain counts as its parent.

    Returns:
        `known`, one column of counts per domain, and `recall`, the fraction of the row's prompts that got their known
        domain. The last row, "macro", has the mean recall. The table is empty if no prompt's domain is known.
    """
    top = {name: domain.parent or name for name, domain in domains.items()}
    known = subset_domains(domains)
    subsets = {example.example_id: example.subset for example in dataset.examples}
    frame = routes[routes["example_id"].map(subsets).isin(known)]
    names = [name for name in domains if top[name] == name]
    truth = frame["example_id"].map(subsets).map(known).map(top)
    table = pd.crosstab(truth, frame["domain"].map(top)).reindex(columns=names, fill_value=0)
    table = table.loc[[name for name in names if name in table.index]]
    recall = [table.loc[name, name] / table.loc[name].sum() for name in table.index]
    table = table.astype("Int64").assign(recall=recall)
    if len(table):
        table.loc["macro", "recall"] = np.mean(recall)
    return table.rename_axis(index="known", columns=None).reset_index()
