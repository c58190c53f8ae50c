"""Finds the domain of each prompt: by its section, by a text classifier, or by a language model."""

import pandas as pd

from bench.prefer import route
from bench.registry import Registry
from bench.schema import Dataset
from bench.scoring import passes, run
from bench.study.ablation import KNOWN
from bench.verbs.session import Session

CLASSIFIER, MODEL = "classifier", "model"


ROUTERS = (KNOWN, CLASSIFIER, MODEL)
"""The known section, the small text classifier, a causal language model by likelihood."""


CONFUSION = ("router", "known", "domain", "n_examples")
"""How many prompts of a known domain a router sent where, parts counted as their parent."""


def routes(session: Session, dataset: Dataset, router: str, *, model_id: str) -> pd.DataFrame:
    """ROUTES of a data set's prompts by one of ROUTERS; `model_id` is whom MODEL asks."""
    if router == MODEL:
        return asked_routes(session, dataset, model_id)
    return plain_routes(session.registry, dataset, router)


def plain_routes(registry: Registry, dataset: Dataset, router: str) -> pd.DataFrame:
    """ROUTES by KNOWN or CLASSIFIER, which load no language model."""
    by = {KNOWN: route.by_section, CLASSIFIER: route.by_classifier}[router]
    return by(dataset, registry.domains)


def asked_routes(session: Session, dataset: Dataset, model_id: str) -> pd.DataFrame:
    """ROUTES by the likelihoods of a language model, whose scores are stored."""
    spec, domains = session.registry.model(model_id), session.registry.domains
    work = passes.Work(spec, spec, route.questions(dataset, domains))
    ready = passes.make_ready(work, session.options)
    return route.by_model(run.score_missing(ready, session.store, session.options).read(), domains)


def confusion_counts(router: str, table: pd.DataFrame, dataset: Dataset, registry: Registry) -> pd.DataFrame:
    """CONFUSION of one router; no rows where the data set's domains are not known."""
    counts = route.confusion(table, dataset, registry.domains).drop(columns="recall").dropna()
    long = counts.melt(id_vars="known", var_name="domain", value_name="n_examples")
    long = long.astype({"n_examples": "int64"}).assign(router=router)
    return long[list(CONFUSION)].sort_values(["known", "domain"], ignore_index=True)
