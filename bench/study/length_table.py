"""Makes the printable table of length-balanced accuracies: the length-balanced score beside each pair's score."""

import pandas as pd

from bench.study.benchmarks import STUDIED, column, title
from bench.study.length_balance import LONGER, SHORTER, length_note
from bench.study.tables import DASH, Table, number_texts

WHERE = "Length alone is as good on"


def length_table(rows: pd.DataFrame, order: list[str], *, provenance: str) -> Table:
    """One row per pair: its score, its length-balanced score and sections, and what length alone scores.

    Args:
        rows: LENGTH_BALANCED of one reward.
        order: pair_ids, best first.
        provenance: How the numbers were made, for the note.
    """
    tops = rows[rows["level"].isin(STUDIED)]
    overall = tops[tops["level"] == "overall"].set_index("pair_id").loc[order]
    sections = list(dict.fromkeys(tops.loc[tops["level"] != "overall", "name"]))
    balanced = tops.pivot(index="pair_id", columns="name", values="balanced").reindex(index=order, columns=sections)
    percents = {"score": "accuracy", "balanced": "balanced", "balanced_low": "low", "balanced_high": "high"}
    frame = pd.DataFrame({f"{name}_percent": 100 * overall[each] for name, each in percents.items()})
    frame = frame.assign(**{f"balanced_{column(name)}_percent": 100 * balanced[name] for name in sections})
    frame = frame.assign(**{f"{name}_percent": 100 * overall[name] for name in (LONGER, SHORTER)})
    frame = frame.assign(as_good_on=_as_good(rows).reindex(order).fillna(""))
    counts = overall[["n_longer", "n_shorter", "n_equal"]]
    frame = pd.concat([frame, counts], axis=1).rename_axis("pair_id").reset_index()
    cells = {"Pair": list(frame["pair_id"]), "Score": number_texts(frame["score_percent"], 1)}
    ends = zip(*(number_texts(frame[f"balanced_{end}_percent"], 1) for end in ("low", "high")), strict=True)
    shares = zip(number_texts(frame["balanced_percent"], 1), ends, strict=True)
    cells["Length-balanced"] = [
        share if DASH in (share, low) else f"{share} [{low}, {high}]" for share, (low, high) in shares
    ]
    cells |= {title(name): number_texts(frame[f"balanced_{column(name)}_percent"], 1) for name in sections}
    cells |= {f"{name.title()} alone": number_texts(frame[f"{name}_percent"], 1) for name in (LONGER, SHORTER)}
    cells[WHERE] = [names or DASH for names in frame["as_good_on"]]
    warning = length_note(rows, order[0])
    note = (
        f"{warning} Accuracies are in percent. Length-balanced: rows are weighted so that the longer response is right "
        "in half of the weight, with 95% intervals over prompts; a dash where the longer response is right in every "
        "row of different lengths, or in none. Sections are length-balanced too. Longer, shorter alone: a judge that "
        f"always prefers the longer, or the shorter response. Reward: {rows['reward'].iloc[0]}. {provenance}"
    )
    return Table("Accuracy without the advantage of length", frame, pd.DataFrame(cells), note.strip())


def _as_good(rows: pd.DataFrame) -> pd.Series:
    """Names of the score, the sections and styles, and the number of subsets, on which length alone is as good."""
    flagged = rows["as_good"].fillna("") != ""
    found = {}
    for pair_id, mine in rows.assign(flagged=flagged).groupby("pair_id", sort=False):
        names = list(mine.loc[mine["flagged"] & mine["level"].isin(STUDIED), "name"])
        subsets = mine[mine["level"] == "subset"]
        n = int(subsets["flagged"].sum())
        # a single subset is the score again
        found[pair_id] = ", ".join([*names, *([f"{n} of {len(subsets)} subsets"] if n and len(subsets) > 1 else [])])
    return pd.Series(found, dtype=object)
