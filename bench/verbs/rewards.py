"""The verb `rewards`: compares all rewards of a pair on the same rows, and writes table and figure."""

from pathlib import Path

import pandas as pd

from bench.faults import warn
from bench.files import write_csv, write_json, write_whole
from bench.lookup import Lookup, stored_sets
from bench.schema import TOKEN_REWARDS, Dataset, PreconditionError
from bench.store.folder import Store
from bench.store.places import locked_folder, manifest
from bench.study.board import seeded
from bench.study.measure import scores_of
from bench.study.reward_table import reward_table
from bench.study.side_by_side import SIDE_BY_SIDE, Compared, side_by_side
from bench.study.tables import markdown
from bench.subject import Subject, rewards_place


def compare_rewards(
    subject: Subject, dataset: Dataset, store: Store, *, lookup: Lookup, seed: int | None
) -> tuple[Compared, list[Path]]:
    """Compare a pair's rewards from stored scores, and write rewards.csv, .md, .json and the figure.

    Returns:
        The rewards, and the files.

    Raises:
        PreconditionError: a model of the pair is not scored on these rows.
    """
    sets = stored_sets(store, subject, dataset, lookup)
    try:
        scores = scores_of(sets, TOKEN_REWARDS[0])
    except PreconditionError:
        scores = scores_of(sets, "sum")
    found = side_by_side(subject, dataset, scores, rng=seeded(dataset, seed))
    for words in dict.fromkeys(_told(found)):
        warn(f"left out: {words}")
    place = rewards_place(subject, dataset)
    facts = manifest(place, sets.values()) | {"seed": seed, "left_out": found.left_out}
    with locked_folder(store, place) as folder:
        return found, _write(folder, found.table, facts)


def _write(folder: Path, table: pd.DataFrame, facts: dict) -> list[Path]:
    """Write the manifest, rewards.csv, .md, .json and the figure; return the files without the manifest."""
    from bench.study import figures

    write_json(folder / "manifest.json", facts)
    write_csv(folder / "rewards.csv", table, SIDE_BY_SIDE)
    write_json(folder / "rewards.json", table.astype(object).where(table.notna(), None).to_dict("records"))
    where = f"Data and versions: manifest.json of {folder.parent.name}/{folder.name}."
    write_whole(folder / "rewards.md", markdown(reward_table(table, provenance=where)).encode())
    files = [folder / f"rewards.{suffix}" for suffix in ("csv", "md", "json")]
    figure = figures.reward_families(table)
    for suffix in figures.FORMATS:
        files.append(folder / "figures" / f"rewards.{suffix}")
        write_whole(files[-1], figures.encode(figure, suffix))
    write_csv(folder / "figures" / "rewards.csv", table, SIDE_BY_SIDE)
    return files


def _told(found: Compared) -> list[str]:
    """Why rewards are left out; the rewards with the same reason in one line."""
    reasons: dict[str, list[str]] = {}
    for name, words in found.left_out.items():
        reasons.setdefault(words.removeprefix(f"reward {name}: "), []).append(name)
    return [f"{', '.join(names)}: {words}" for words, names in reasons.items()]
