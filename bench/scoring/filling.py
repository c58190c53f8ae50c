"""Scores the parts of a set that are not stored, and stores each with its costs and, if wanted, its tokens."""

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING

from bench.faults import warn
from bench.scoring.fetch import read_ahead
from bench.scoring.passes import Options, scores_frame
from bench.scoring.progress import Meter
from bench.scoring.render import Sequence
from bench.scoring.tokens import token_scores
from bench.store.folder import ScoreSet

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer


def wanted(score_set: ScoreSet, options: Options) -> list[int]:
    """Numbers of the parts that a run scores: those without sums and, if it stores tokens, those without tokens."""
    missing = score_set.missing()
    if not options.tokens:
        return missing
    without = score_set.without_tokens()
    if again := sorted(set(without) - set(missing)):
        warn(
            f"{score_set.key.model_id}: the sums of {len(again)} parts are stored without tokens: drsow scores these "
            "parts again and stores the tokens; the sums stay as they are"
        )
    return sorted({*missing, *without})


def fill_parts(
    scorer: "Scorer",
    score_set: ScoreSet,
    todo: Mapping[int, Seq[Sequence]],
    budget: int,
    following: Path | None,
    *,
    began: float,
) -> float:
    """Scores some parts of a set and stores each with its costs. Returns the time of the last storing.

    `following` is the folder of the next model. The first part's duration counts from `began` on.
    """
    tokens = {index: sum(len(s.ids) for s in part) for index, part in todo.items()}
    rows = {index: len({s.example_id for s in part}) for index, part in todo.items()}
    missing = set(score_set.missing())
    with Meter(scorer.ready.label, n_rows=sum(rows.values()), n_tokens=sum(tokens.values())) as meter:
        if todo:
            scorer.load()
            meter.restart()
        for index, sequences in todo.items():
            cost = {"n_steps": 0, "n_computed_tokens": 0, "halved": 0}
            told = meter.part(rows=rows[index], tokens=tokens[index])
            values = scorer.values(sequences, budget, cost, on_share=told, detailed=scorer.options.tokens)
            # Time between two parts belongs to the later part.
            before, began = began, time.monotonic()
            if scorer.options.tokens:
                score_set.write_tokens(index, token_scores(scorer, sequences, values))
            if index in missing:
                cost["duration_ms"] = round(1000 * (began - before))
                score_set.write_part(index, scores_frame(sequences, [each and each.logps for each in values]), cost)
            if following:
                # Only after this model is loaded: otherwise both would compete for the disk.
                read_ahead(following)
                following = None
            meter.add(rows=rows[index], tokens=tokens[index])
    return began


def spent(score_set: ScoreSet, began: float) -> dict:
    """The costs of the set over all processes. `began` is the time at which this process stored its last part."""
    costs = score_set.spent()
    duration_s = costs.pop("duration_ms", 0) / 1000 + time.monotonic() - began
    return {"duration_s": round(duration_s, 1)} | costs
