"""Checks that stored tables are of the scores, files and registry that are there now."""

import math
from collections.abc import Mapping
from pathlib import Path

from bench.lookup import Lookup, dtype_option
from bench.schema import IMPORTED, Dataset, PreconditionError, UsageError
from bench.store.folder import Store, read_table
from bench.store.places import data_option, results_option, stored_manifest
from bench.subject import Subject


def check_tables(
    folder: Path, store: Store, subject: Subject, dataset: Dataset, lookup: Lookup, *, reward: str
) -> None:
    """Checks that the tables of a results folder are of the scores that are asked for and, if any are stored, of those.

    It also checks that the tables' pairs and gaps are those that the registry has now. Pairs that the tables lack are
    no error: their models may have failed.

    Args:
        folder: The folder, by `result_folder`.
        store: The store of the folder and of the scores.
        subject: The subject of the tables.
        dataset: Their rows.
        lookup: Which scores are asked for.
        reward: The reward of the tables.

    Raises:
        UsageError: The tables are of another dtype or arithmetic.
        PreconditionError: Other scores are stored than those that the tables were made of, or the registry has changed.
    """
    ops = f" --ops {lookup.ops}" if lookup.ops else ""
    named = (f" --reward {reward}" if reward != "sum" else "") + dtype_option(lookup) + ops + results_option(store)
    remedy = f"`drsow leaderboard {subject.option} {data_option(dataset)}{named}` writes them again"
    keys = [each["key"] for each in stored_manifest(folder).get("score_sets", [])]
    for wanted, field in ((lookup.dtype, "dtype"), (lookup.ops, "ops")):
        if wanted is not None and any(key[field] != wanted for key in keys):
            made = " and ".join(dict.fromkeys(f"{key['dtype']} by {key['ops']}" for key in keys))
            raise UsageError(f"{folder}: its tables are of {made}, not of {wanted}; {remedy}")
    found = [s.key._asdict() for name, owner in subject.passes() for s in lookup.find(store, name, dataset, owner)]
    for key in keys:
        same = [each for each in found if all(each[name] == key.get(name) for name in ("model_id", "domain_digest"))]
        if same and key not in same:
            raise PreconditionError(f"{folder}: its tables are of other scores of {key['model_id']}; {remedy}")
    if changed := _changed(folder, subject):
        raise PreconditionError(f"{folder}: the registry has changed since its tables were made ({changed}); {remedy}")


def outdated_model(stored: Mapping, store: Store, lookup: Lookup) -> str:
    """A model whose files, template or stored scores are others than those that tables were made of; "" if none is.

    Args:
        stored: The manifest of the tables.
        store: The store of the scores.
        lookup: What is on this machine.
    """
    for each in stored.get("score_sets", []):
        key, owner = each["key"], each["info"].get("template")
        read_now = lookup.revision_of(key["model_id"]), lookup.template_of(owner)
        read_then = key["revision"], key["template_digest"]
        changed = any(now not in (None, then) for now, then in zip(read_now, read_then, strict=True))
        same = {name: key.get(name) for name in ("model_id", "data_digest", "domain_digest", "template_digest")}
        there = [score_set.key._asdict() for score_set in store.find(**same)]
        if (changed and key["ops"] != IMPORTED) or (there and key not in there):
            return str(key["model_id"])
    return ""


def _changed(folder: Path, subject: Subject) -> str:
    """A pair of a folder's tables of which the registry has other models or another gap, or a study's performance that
    they lack; "" if there is none."""
    now = {pair.pair_id: pair for pair in subject.pairs}
    for row in read_table(folder / "leaderboard.csv").to_dict("records"):
        pair = now.get(row["pair_id"])
        if pair is None or (pair.strong, pair.weak) != (row["strong"], row["weak"]):
            return str(row["pair_id"])
        gaps = pair.gap_points, float(row.get("gap_points", pair.gap_points))
        if not (math.isclose(*gaps, rel_tol=1e-9, abs_tol=1e-9) or all(map(math.isnan, gaps))):
            return str(row["pair_id"])
    if subject.axes and (folder / "correlation.csv").is_file():
        measured = set(read_table(folder / "correlation.csv")["performance"])
        return "" if not measured or subject.performance in measured else subject.performance
    return ""
