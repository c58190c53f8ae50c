"""The verb `export`, for stored scores and tables: writes them in the formats that other tools read.

drsow uploads nothing. The verb prints the command that would.
"""

import io
import json
from pathlib import Path

import pandas as pd

from bench.files import read_csv, write_whole
from bench.schema import CHOSEN, OK, REJECTED, Dataset, DrsowError, UsageError
from bench.scoring import passes
from bench.store.folder import Store
from bench.subject import Lookup, Subject, one_set, result_folder
from bench.verbs.evaluation import hub_data
from bench.verbs.session import Session

REFERENCE = ("prompt", "chosen", "rejected", "example_id", "ref_chosen_logps", "ref_rejected_logps")
"""One row per preference for TRL's DPOTrainer. The three texts are rendered: TRL encodes them as they are and adds the
EOS token. `ref_chosen_logps` and `ref_rejected_logps` are nats over a response's tokens, end of turn included."""


def reference_rows(
    session: Session, model_id: str, owner: str | None, dataset: Dataset, *, lookup: Lookup
) -> pd.DataFrame:
    """REFERENCE of a data set, from one model's stored scores. Rows that are too long or not finite are left out.

    Raises:
        PreconditionError: the model is not scored on these rows.
        UsageError: the rows are no preferences, or no row has both scores.
        DrsowError: the end of turn is not the tokenizer's EOS, so TRL would score another text.
    """
    registry = session.registry
    score_set = one_set(session.store, dataset, lookup, model_id, owner)
    named = owner or str(score_set.info().get("template", model_id))
    from bench.scoring.render import end_id
    from bench.scoring.served import scorer_of

    work = passes.Work(registry.model(model_id), registry.model(named), dataset)
    scorer = scorer_of(passes.make_ready(work, session.options, ops="none"), session.options)
    if end_id(scorer.tokenizer, scorer.template) != scorer.tokenizer.eos_token_id:
        raise DrsowError(
            f"{model_id}: its turns end in {scorer.template.end_token!r}, but its EOS is "
            f"{scorer.tokenizer.eos_token!r}: TRL adds the EOS to a response, so its sums would be of another text"
        )
    texts = {(s.example_id, s.response_id): s.text for s in scorer.rendered(dataset.examples).sequences}
    frame = score_set.read().set_index(["example_id", "response_id"])
    sums = (frame["logp_sum_nats"] + frame["logp_end_nats"])[frame["status"] == OK].to_dict()
    rows = []
    for example in dataset.examples:
        sides = [(example.example_id, side) for side in (CHOSEN, REJECTED)]
        if any(side not in texts for side in sides):
            raise UsageError(f"{example.example_id}: has no chosen and rejected response; --data takes preferences")
        if all(side in sums for side in sides):
            prompt = scorer.template.text(example.messages, generation=True)
            rows.append((prompt, *(texts[s] for s in sides), example.example_id, *(sums[s] for s in sides)))
    if not rows:
        raise UsageError(f"{dataset.slug}: no row has scores of both responses")
    return pd.DataFrame(rows, columns=list(REFERENCE))


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
    """A pair's accuracies as the hub's `.eval_results/*.yaml` has them, in percent; one entry a section and the score.

    Raises:
        PreconditionError: the tables of these rows are not written yet.
        UsageError: the data set is a file, so the hub has no name for it, or the tables are of other scores.
    """
    (pair,) = subject.pairs
    repo = hub_data(dataset)
    if repo is None:
        raise UsageError(f"--data {dataset.data_id}: the hub's results belong to a data set on the hub")
    folder = result_folder(store, subject, dataset, reward=reward)
    made = _computed(folder, lookup)
    table = read_csv(folder / "accuracy.csv")
    table = table[(table["reward"] == reward) & table["level"].isin(["overall", "section"]) & table["accuracy"].notna()]
    found = []
    for row in table.to_dict("records"):
        limits = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" if row["low"] == row["low"] else "unknown"
        reward_words = f"density-ratio reward ({reward}) of {pair.strong} over {pair.weak}, drsow"
        notes = f"{reward_words}; {row['n_examples']} rows, {made}, 95% interval {limits}"
        task = {"id": repo, "task_id": "default" if row["level"] == "overall" else row["name"]}
        found.append({"dataset": task, "value": round(100 * row["accuracy"], 2), "notes": notes})
    return found


def _computed(folder: Path, lookup: Lookup) -> str:
    """The dtype and arithmetic of the scores that tables were made of.

    Raises:
        UsageError: the user asked for others.
    """
    keys = [each["key"] for each in json.loads((folder / "manifest.json").read_text())["score_sets"]]
    made = " and ".join(dict.fromkeys(f"{key['dtype']} by {key['ops']}" for key in keys))
    for wanted, field in ((lookup.dtype, "dtype"), (lookup.ops, "ops")):
        if wanted is not None and any(key[field] != wanted for key in keys):
            raise UsageError(
                f"{folder}: its tables are of {made}, not of {wanted}; `drsow leaderboard` with the same options "
                "writes them again"
            )
    return made


def yaml_text(entries: list[dict]) -> str:
    """Entries as YAML. JSON is YAML, so every text is quoted safely."""
    return "".join(f"- {json.dumps(entry, ensure_ascii=False)}\n" for entry in entries)
