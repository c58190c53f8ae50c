"""Finds the domain of each prompt: by its section, by a text classifier, or by a language model."""

import pandas as pd

from bench.prefer import route
from bench.registry import Registry
from bench.schema import Dataset
from bench.scoring import passes, run
from bench.store.folder import Store
from bench.study.ablation import KNOWN

CLASSIFIER, MODEL = "classifier", "model"


ROUTERS = (KNOWN, CLASSIFIER, MODEL)
"""The known section, the small text classifier, a causal language model by likelihood."""


CONFUSION = ("router", "known", "domain", "n_examples")
"""How many prompts of a known domain a router sent where, parts counted as their parent."""


def routes(
    registry: Registry, dataset: Dataset, store: Store, router: str, *, model_id: str, options: passes.Options
) -> pd.DataFrame:
    """ROUTES of a data set's prompts by one of ROUTERS; `model_id` is whom MODEL asks."""
    if router == KNOWN:
        return route.by_section(dataset, registry.domains)
    if router == CLASSIFIER:
        return route.by_classifier(dataset, registry.domains)
    spec = registry.model(model_id)
    work = passes.Work(spec, spec, route.questions(dataset, registry.domains))
    scores = run.score_missing(passes.make_ready(work, options), store, options).read()
    return route.by_model(scores, registry.domains)


def confusion_counts(router: str, table: pd.DataFrame, dataset: Dataset, registry: Registry) -> pd.DataFrame:
    """CONFUSION of one router; no rows where the data set's domains are not known."""
    counts = route.confusion(table, dataset, registry.domains).drop(columns="recall").dropna()
    long = counts.melt(id_vars="known", var_name="domain", value_name="n_examples")
    long = long.astype({"n_examples": "int64"}).assign(router=router)
    return long[list(CONFUSION)].sort_values(["known", "domain"], ignore_index=True)
