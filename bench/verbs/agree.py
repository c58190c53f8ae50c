"""The verb `agree`: measures how often a pair prefers the response that people chose, by the responses' similarity."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.load import check_preferences
from bench.files import write_csv, write_json, write_whole
from bench.prefer.select import cosines
from bench.schema import Dataset
from bench.store.places import Place, locked_folder, manifest
from bench.study.agreement import AGREEMENT, ALL, agreement
from bench.study.design import prompt_clusters
from bench.study.reward import margins
from bench.subject import Subject
from bench.units import tally
from bench.verbs.score import checked_scores
from bench.verbs.session import Session

_COUNTS = {
    "n_ties": "Ties, which count as disagreement",
    "n_excluded": "Rows left out, because a response is too long or has a score that is not finite",
}
"""Words of agreement.md for each count of AGREEMENT, over all rows; said only if the count is not 0."""


def agree(session: Session, subject: Subject, dataset: Dataset, *, embedder: str) -> Path:
    """Score preferences under a pair, embed their responses, and write agreement.csv and agreement.md.

    Args:
        session: The registry, where scores and tables are, device and dtype.
        subject: The pair.
        dataset: Preferences whose labels are people's.
        embedder: The model_id whose mean last hidden states measure similarity.

    Returns:
        The folder, below results/real/.

    Raises:
        UsageError: a row has not exactly one chosen and one rejected response.
    """
    from bench.scoring.embed import embed_with

    check_preferences(dataset)
    # First: it refuses a response that is too long, and scoring takes longer.
    embeddings = embed_with(session.registry.model(embedder), dataset.examples, session.options)
    sets = checked_scores(session, subject, dataset)
    subsets = pd.Series({e.example_id: e.subset for e in dataset.examples}, name="subset")
    strong, weak = (each.read() for each in sets)
    table = margins(strong, weak, subsets, pair_id=subject.pairs[0].pair_id)
    both = embeddings.reshape(len(dataset.examples), 2, -1)
    values = {e.example_id: cosines(each)[0, 1] for e, each in zip(dataset.examples, both, strict=True)}
    problems = pd.Series(prompt_clusters(dataset.examples), index=subsets.index)
    seed = zlib.crc32(dataset.digest.encode())
    rows = [
        agreement(part, pd.Series(values), rng=np.random.default_rng(seed), problems=problems)
        for _, part in table.groupby("reward", sort=False)
    ]
    found = pd.concat(rows, ignore_index=True)
    place = Place(subject.name, dataset, "agreement", {"embedder": embedder}, above="real")
    with locked_folder(session.store, place) as folder:
        # The manifest is written first. It names the rows and the embedder, so no other run writes into this folder.
        write_json(folder / "manifest.json", manifest(place, sets))
        write_csv(folder / "agreement.csv", found, AGREEMENT)
        write_whole(folder / "agreement.md", agreement_table(found).encode())
    return folder


def agreement_table(found: pd.DataFrame) -> str:
    """AGREEMENT as a Markdown table, in percent."""
    lines = ["| pair | reward | half | agreement % [95% interval] | difference to the similar half, points | rows |"]
    lines.append("|---|---|---|---|---|---|")
    for row in found.to_dict("records"):
        share = _with_limits("{:.1f}", row["agreement"], row["low"], row["high"])
        gap = _with_limits("{:+.1f}", row["difference"], row["difference_low"], row["difference_high"])
        names = f"| {row['pair_id']} | {row['reward']} | {row['half']}"
        lines.append(f"{names} | {share} | {gap} | {row['n_examples']} |")
    of_all = found[found["half"] == ALL].set_index("reward")
    for column, words in _COUNTS.items():
        if some := of_all[column][of_all[column] > 0].to_dict():
            lines += ["", f"{words}: {tally(some)}."]
    return "\n".join(lines) + "\n"


def _with_limits(form: str, value: float, low: float, high: float) -> str:
    """A share and its interval in percent. A missing share gives ""; a missing interval is left out."""
    if value != value:
        return ""
    text = form.format(100 * value)
    return text if low != low else f"{text} [{form.format(100 * low)}, {form.format(100 * high)}]"
