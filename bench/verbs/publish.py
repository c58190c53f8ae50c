"""The verb `export`, for stored scores and tables: writes them in the formats that other tools read.

drsow uploads nothing. The verb prints the command that would.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bench.current import check_tables
from bench.files import write_whole
from bench.lookup import Lookup, one_set
from bench.schema import CHOSEN, OK, REJECTED, Dataset, DrsowError, UsageError
from bench.scoring import passes
from bench.scoring.forward.trie import common_prefix
from bench.store.folder import Store, read_table
from bench.subject import Subject, result_folder
from bench.verbs.evaluation import hub_data
from bench.verbs.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from bench.scoring.render import Sequence as Rendered
    from bench.scoring.scorer import Scorer

MISSING = "a score is missing, because a response is too long"
OTHER_TOKENS = "TRL reads other tokens than those that were scored"
"""Why a row is left out."""

REFERENCE = ("prompt", "chosen", "rejected", "example_id", "ref_chosen_logps", "ref_rejected_logps")
"""One row per preference for TRL's DPOTrainer. The three texts are rendered: TRL encodes them as they are and adds the
EOS token. `ref_chosen_logps` and `ref_rejected_logps` are nats over a response's tokens, end of turn included."""


class Reference(NamedTuple):
    """Rows for TRL, and why others are left out."""

    table: pd.DataFrame
    """REFERENCE."""
    left_out: Counter[str]
    """Rows that are left out, by reason."""

    def told(self) -> str:
        """One line about the rows that are left out; "" if there are none."""
        reasons = [f"in {n:,} {reason}" for reason, n in self.left_out.items()]
        return f"{self.left_out.total():,} rows are left out: {'; '.join(reasons)}" if reasons else ""


def reference_rows(session: Session, model_id: str, dataset: Dataset, *, lookup: Lookup) -> Reference:
    """The rows of a data set for TRL, from one model's stored scores.

    A row is left out if a score is missing, or if TRL would read other tokens than those that were scored.

    Raises:
        PreconditionError: the model is not scored on these rows.
        UsageError: the rows are no preferences, or no row is left.
        DrsowError: the end of turn is not the tokenizer's EOS, so TRL would score another text.
    """
    score_set = one_set(session.store, dataset, lookup, model_id, None)
    scorer = _scorer(session, model_id, str(score_set.info().get("template", model_id)), dataset)
    sequences = {(s.example_id, s.response_id): s for s in scorer.rendered(dataset.examples).sequences}
    frame = score_set.read().set_index(["example_id", "response_id"])
    sums = (frame["logp_sum_nats"] + frame["logp_end_nats"])[frame["status"] == OK].to_dict()
    rows, left_out = [], Counter[str]()
    for example in dataset.examples:
        sides = [(example.example_id, side) for side in (CHOSEN, REJECTED)]
        if any(side not in sequences for side in sides):
            raise UsageError(f"{example.example_id}: has no chosen and rejected response; --data takes preferences")
        if any(side not in sums for side in sides):
            left_out[MISSING] += 1
            continue
        prompt, both = scorer.template.text(example.messages, generation=True), [sequences[side] for side in sides]
        if not _read_alike(scorer.tokenizer, prompt, both):
            left_out[OTHER_TOKENS] += 1
            continue
        rows.append((prompt, *(s.text for s in both), example.example_id, *(sums[side] for side in sides)))
    found = Reference(pd.DataFrame(rows, columns=list(REFERENCE)), left_out)
    if not rows:
        raise UsageError(f"{dataset.slug}: no row can be exported; {found.told()}")
    return found


def _scorer(session: Session, model_id: str, owner: str, dataset: Dataset) -> "Scorer":
    """What renders the rows for a model; refuses a model to whose responses TRL would add another end."""
    from bench.scoring.render import end_id
    from bench.scoring.served import scorer_of

    work = passes.Work(session.registry.model(model_id), session.registry.model(owner), dataset)
    scorer = scorer_of(passes.make_ready(work, session.options, ops="none"), session.options)
    if end_id(scorer.tokenizer, scorer.template) != scorer.tokenizer.eos_token_id:
        raise DrsowError(
            f"{model_id}: its turns end in {scorer.template.end_token!r}, but its EOS is "
            f"{scorer.tokenizer.eos_token!r}: TRL adds the EOS to a response, so its sums would be of another text"
        )
    return scorer


def _read_alike(tokenizer: "PreTrainedTokenizerFast", prompt: str, both: Sequence["Rendered"]) -> bool:
    """Whether TRL reads the scored tokens of a prompt and its two responses, as prompt and as responses.

    TRL (1.16) encodes a prompt alone, and with each response and the EOS. The responses begin where the first of these
    differs from one of the others.
    """
    eos = tokenizer.eos_token
    texts = [prompt, *(prompt + each.text.removesuffix(eos) + eos for each in both)]
    head, *wholes = (np.array(ids) for ids in tokenizer(texts, verbose=False).input_ids)
    start = min(common_prefix(head, whole) for whole in wholes)
    return all(
        start == each.start and np.array_equal(whole, each.ids) for each, whole in zip(both, wholes, strict=True)
    )


def check_suffix(out: Path) -> None:
    """Refuses a file name that says no format.

    Raises:
        UsageError: the name ends in neither .parquet nor .jsonl.
    """
    if out.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{out}: the file must end in .parquet or .jsonl")


def write_reference(frame: pd.DataFrame, out: Path) -> None:
    """Writes REFERENCE as .parquet or .jsonl; errors as in `check_suffix`."""
    check_suffix(out)
    if out.suffix == ".parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_whole(out, buffer.getvalue())
    else:
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in frame.to_dict("records"))
        write_whole(out, "".join(f"{line}\n" for line in lines).encode())


def hub_results(store: Store, subject: Subject, dataset: Dataset, *, lookup: Lookup, reward: str) -> list[dict]:
    """A pair's accuracies as the hub's `.eval_results/*.yaml` has them, in percent: an entry per section and the score.

    Raises:
        PreconditionError: the tables of these rows are not written yet, or are older than the stored scores.
        UsageError: the data set is a file, so the hub has no name for it, or a part, or the tables are of another dtype
            or arithmetic.
    """
    (pair,) = subject.pairs
    repo = hub_data(dataset)
    if dataset.limit is not None:
        raise UsageError("--limit-per-subset: the hub's results are those of a whole data set; score all of its rows")
    if repo is None:
        raise UsageError(
            f"--data {dataset.data_id}: the hub's results belong to a data set on the hub, and these rows are a file's"
        )
    folder = result_folder(store, subject, dataset, reward=reward)
    check_tables(folder, store, subject, dataset, lookup, reward=reward)
    made = _computed(folder)
    table = read_table(folder / "accuracy.csv")
    table = table[(table["reward"] == reward) & table["level"].isin(["overall", "section"]) & table["accuracy"].notna()]
    found = []
    for row in table.to_dict("records"):
        limits = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" if row["low"] == row["low"] else "unknown"
        reward_words = f"density-ratio reward ({reward}) of {pair.strong} over {pair.weak}, drsow"
        notes = f"{reward_words}; {row['n_examples']} rows, {made}, 95% interval {limits}"
        task = {"id": repo, "task_id": "default" if row["level"] == "overall" else row["name"]}
        found.append({"dataset": task, "value": round(100 * row["accuracy"], 2), "notes": notes})
    return found


def _computed(folder: Path) -> str:
    """The dtype and arithmetic of the scores that tables were made of."""
    keys = [each["key"] for each in json.loads((folder / "manifest.json").read_text())["score_sets"]]
    return " and ".join(dict.fromkeys(f"{key['dtype']} by {key['ops']}" for key in keys))


def yaml_text(entries: list[dict]) -> str:
    """Entries as YAML. JSON is YAML, so every text is quoted safely."""
    return "".join(f"- {json.dumps(entry, ensure_ascii=False)}\n" for entry in entries)
