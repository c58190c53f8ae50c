"""The verb `route`: finds the domain of each prompt by its known section, a text classifier or a language model."""

import pandas as pd

from bench.faults import warn
from bench.prefer import route
from bench.registry import Registry
from bench.schema import Dataset
from bench.scoring import passes
from bench.study.ablation import KNOWN
from bench.verbs.score import compared, completed
from bench.verbs.session import Session

CLASSIFIER, MODEL = "classifier", "model"
"""Routers beside KNOWN: the small text classifier, and a causal language model that compares likelihoods."""

CONFUSION = ("router", "known", "domain", "n_examples")
"""`n_examples`: prompts of the domain `known` that a router sent to `domain`. Parts count as their domain."""


def usable_routers(registry: Registry, dataset: Dataset) -> list[str]:
    """The routers that can be used on a data set: all, or all but KNOWN; then a line on stderr says why."""
    if route.knows_sections(dataset, registry.domains):
        return [KNOWN, CLASSIFIER, MODEL]
    warn(f"{dataset.data_id}: no domain lists any of its subsets, so --router {KNOWN} is left out")
    return [CLASSIFIER, MODEL]


def routes(session: Session, dataset: Dataset, router: str, *, model_id: str) -> pd.DataFrame:
    """ROUTES of a data set's prompts by KNOWN, CLASSIFIER or MODEL; MODEL asks the model `model_id`."""
    if router == MODEL:
        return asked_routes(session, dataset, model_id)
    return plain_routes(session.registry, dataset, router)


def plain_routes(registry: Registry, dataset: Dataset, router: str) -> pd.DataFrame:
    """ROUTES by KNOWN or CLASSIFIER. They load no language model, so no session has to import torch."""
    by = {KNOWN: route.by_section, CLASSIFIER: route.by_classifier}[router]
    return by(dataset, registry.domains)


def asked_routes(session: Session, dataset: Dataset, model_id: str) -> pd.DataFrame:
    """ROUTES by a language model's likelihoods. The store keeps its scores."""
    spec, domains = session.registry.model(model_id), session.registry.domains
    work = passes.Work(spec, spec, route.questions(dataset, domains))
    return route.by_model(completed(session, compared(session, work)).read(), domains)


def confusion_counts(router: str, table: pd.DataFrame, dataset: Dataset, registry: Registry) -> pd.DataFrame:
    """CONFUSION of one router; empty if the data set's domains are not known."""
    counts = route.confusion(table, dataset, registry.domains).drop(columns="recall").dropna()
    long = counts.melt(id_vars="known", var_name="domain", value_name="n_examples")
    long = long.astype({"n_examples": "int64"}).assign(router=router)
    return long[list(CONFUSION)].sort_values(["known", "domain"], ignore_index=True)
