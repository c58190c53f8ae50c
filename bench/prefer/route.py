"""Prompts -> the domain of each: three routers that give the same table, and how often they are right.

`by_section` knows: it reads which subsets a domain names. `by_classifier` has learnt the domains' own labelled
queries. `by_model` asks a causal language model, by the likelihood of each class name as its answer: nothing is
generated, and the query is computed once with the names as leaves under it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax

from bench.data.load import digest
from bench.entries import Domain
from bench.files import edited_text
from bench.prefer.customise import Domains
from bench.registry import pairs_folder
from bench.schema import OK, ROUTES, Dataset, Example, Message, UsageError

FALLBACK = "chat"
"""The domain of what no router knows, or is not sure of."""

MIN_CONFIDENCE = 0.3
"""Below this probability a prompt is FALLBACK."""

_NEUTRAL = Example("neutral", "", (Message("user", "N/A"),), ())
"""A query of no domain: what a model prefers even here is its bias for a name, and is taken off (Zhao et al. 2021)."""

_FREE_ID = "/neutral"
"""Its example_id where a row is called "neutral" itself: `data.example_id` gives this one to no row."""


def by_section(dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """ROUTES from the subsets that the domains name; a subset that none names is FALLBACK with confidence 0.

    Raises:
        UsageError: no domain names any of the data set's subsets.
    """
    known = subset_domains(domains)
    if not any(example.subset in known for example in dataset.examples):
        raise UsageError(f"{dataset.data_id}: no domain names one of its subsets, so its sections are not known")
    rows = [
        (example.example_id, known.get(example.subset, FALLBACK), float(example.subset in known))
        for example in dataset.examples
    ]
    return pd.DataFrame(rows, columns=list(ROUTES))


def by_classifier(dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """ROUTES from character n-grams and a logistic regression, fitted on the domains' queries and exemplars alone."""
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
    """What the classifier learns a domain from."""
    return [*domain.queries, *(exemplar.user for exemplar in domain.exemplars)]


def questions(dataset: Dataset, domains: Domains) -> Dataset:
    """What `by_model` asks a model: each query with every domain_id as a response to it, and a query of no domain."""
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
    """ROUTES from a model's log-probabilities of the names, less those under a query of no domain.

    Args:
        scores: SCORES of `questions`; a prompt longer than the model's context gets equal shares, so FALLBACK.
        domains: As given to `questions`.
    """
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
    """Subset -> domain_id, for the subsets that the domains name."""
    return {subset: name for name, domain in domains.items() for subset in domain.subsets}


def query_text(example: Example) -> str:
    """What a router reads of a prompt: its last turn."""
    return example.messages[-1].content


def confusion(routes: pd.DataFrame, dataset: Dataset, domains: Domains) -> pd.DataFrame:
    """Where prompts of each known domain were sent, parts counted as their parent.

    Returns:
        `known`, one column of counts a domain, and `recall`, the share of the row that stands on the diagonal; the
        last row, "macro", has the mean recall. No rows where no prompt's domain is known.
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
