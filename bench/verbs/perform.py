"""The verb `perform`: measures how good a single model is, as a score that the registry takes.

Task ifeval lets the model answer prompts and checks the answers by rules; task preferences asks which of two responses
the model finds likelier for each of its bytes. Neither compares two models, so no pair's rewards take part.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bench.data.instructed import Instructed, load_instructed
from bench.data.load import check_preferences, digest
from bench.entries import ModelSpec
from bench.faults import warn
from bench.files import read_if_there, safe_name, write_csv, write_json
from bench.measured import MeasuredScore
from bench.prefer.resumed import tell_cut, whole_lines
from bench.prefer.rules import checkable, followed
from bench.schema import CHOSEN, OK, REJECTED, Dataset, UsageError
from bench.scoring import SPAN, fetch, passes
from bench.scoring.identity import ops_name
from bench.store.places import SHORT
from bench.study.design import prompt_clusters
from bench.study.performance import PERFORMANCE, table
from bench.verbs.score import compared, completed
from bench.verbs.session import Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IFEVAL, PREFERENCES = "ifeval", "preferences"
"""The tasks; a task's name is the performance_id of its score."""


class Measured(NamedTuple):
    """A model's performance."""

    table: pd.DataFrame
    """PERFORMANCE."""
    score: MeasuredScore
    """The score in points."""
    file: Path
    """The table's CSV."""


class Speech(NamedTuple):
    """Who answers, and how."""

    model: str
    """A model_id of the registry, or a model's folder."""
    template: str | None = None
    """model_id of the owner of the chat template; None: the model itself."""
    max_new_tokens: int = 256


class Rows(NamedTuple):
    """What was measured on."""

    told: str
    """The rows and the rule, in the words of the score's source."""
    digest: str
    """`Dataset.digest`."""
    revision: str
    """The model's."""
    finish_reasons: Mapping[str, int] | None = None
    """How many answers ended for each reason; None if the model gave none."""


def measure_ifeval(
    session: Session, speech: Speech, prompts: str | None, *, limit: int | None, out: Path | None
) -> Measured:
    """Let a model answer IFEval's prompts greedily, and check the answers by strict rules, instruction by instruction.

    Args:
        session: The registry, which knows the model; device and dtype.
        speech: Who answers.
        prompts: A .jsonl file in IFEval's columns; None: the hub's, at a fixed commit.
        limit: Only the first so many of the prompts that can be checked; None for all.
        out: The folder for the answers and the table; None: one in the results folder.
    """
    found = load_instructed(prompts)
    names = checkable(found)
    n_left_out = len(found.dataset.examples) - len(names)
    if n_left_out:
        warn(f"{n_left_out} prompts left out: a rule needs data that nltk would download")
    if not names:
        raise UsageError(f"{found.dataset.data_id}: no prompt has rules that can be checked")
    _stored(_folder(session, speech, out), IFEVAL)
    dataset = _of(found, set(names[:limit]))
    file = _folder(session, speech, out) / f"{IFEVAL}.jsonl"
    answers = _answers(session, speech, dataset, out=file)
    reasons = tell_cut(whole_lines(file), speech.max_new_tokens, model=speech.model)
    items = []
    for number, example in enumerate(dataset.examples):
        rules = found.rules[example.example_id]
        kept = followed(answers[example.example_id], rules)
        items += [(rule.name, right, number) for rule, right in zip(rules, kept, strict=True)]
    counts = {"n_left_out": n_left_out, "n_empty": sum(not answer for answer in answers.values())}
    told = f"IFEval, {len(answers)} prompts, strict accuracy by instruction, greedy, {speech.max_new_tokens} tokens"
    of = Rows(told, dataset.digest, fetch.fetch(session.registry.policy(speech.model)).revision, reasons)
    return _measured(session, speech, IFEVAL, items, counts=counts, of=of, out=_folder(session, speech, out))


def _of(found: Instructed, kept: set[str]) -> Dataset:
    examples = tuple(e for e in found.dataset.examples if e.example_id in kept)
    return found.dataset._replace(examples=examples, digest=digest(examples))


def _answers(session: Session, speech: Speech, dataset: Dataset, *, out: Path) -> dict[str, str]:
    from bench.prefer.asked import Speaker
    from bench.prefer.greedy import answer_all
    from bench.scoring import models
    from bench.scoring.chat import Template

    spec = session.registry.policy(speech.model)
    found = fetch.fetch(spec)
    owner = session.registry.policy(speech.template or speech.model)
    home = fetch.fetch(owner, weights=False) if owner != spec else found
    template = Template(models.load_tokenizer(home.folder, trust_remote_code=home.trust_remote_code), owner.model_id)
    if not template.source:
        raise UsageError(
            f"{owner.model_id} has no chat template, so it cannot answer prompts; name another model's with --template"
        )
    options = session.options
    settings: dict[str, object] = {
        "model_id": speech.model,
        "revision": found.revision,
        "template": template.source,
        "dtype": options.dtype,
        # Other operations round elsewhere, so their answers differ.
        "ops": ops_name(options.device, options.dtype),
        "prompts": dataset.data_id,
        "prompts_digest": dataset.digest,
        "max_new_tokens": speech.max_new_tokens,
        "span": SPAN,
    }

    def load() -> "PreTrainedModel":
        return models.located_policy(found, dtype=models.TORCH_DTYPES[options.dtype], device=options.device)

    trusted = found.trust_remote_code
    limit = models.context_tokens(found.folder, trust_remote_code=trusted)
    speaker = Speaker(models.load_tokenizer(found.folder, trust_remote_code=trusted), template, limit)
    return answer_all(load, speaker, dataset.examples, out=out, settings=settings)


def measure_preferences(session: Session, speech: Speech, dataset: Dataset, *, out: Path | None) -> Measured:
    """Measure how often a model finds the chosen response likelier for each byte than the rejected one.

    The model's scores are stored like those of any pass, so they are computed once. A tie counts as wrong.

    Args:
        session: The registry, the results folder, device and dtype.
        speech: Who reads.
        dataset: Preferences that the model was not tuned on.
        out: The folder for the table; None: one of the data set in the results folder.

    Raises:
        UsageError: `out` has the table of another model or of other preferences, or a row has several responses.
    """
    check_preferences(dataset)
    spec = _spec(session, speech)
    owner = session.registry.policy(speech.template) if speech.template else spec
    ready = compared(session, passes.Work(spec, owner, dataset))
    folder = _folder_of_data(session, speech, ready, out)
    scores = completed(session, ready).read()
    per_byte = (scores["logp_sum_nats"] + scores["logp_end_nats"]) / scores["n_bytes"]
    sides = scores.assign(value=per_byte.where(scores["status"] == OK)).pivot(
        index="example_id", columns="response_id", values="value"
    )
    sides = sides.loc[[example.example_id for example in dataset.examples]]
    scored = sides[[CHOSEN, REJECTED]].notna().all(axis=1).to_numpy()
    right = (sides[CHOSEN] > sides[REJECTED]).to_numpy()
    problems = prompt_clusters(dataset.examples)
    items = [("", bool(r), int(number)) for r, number in zip(right[scored], problems[scored], strict=True)]
    counts = {"n_left_out": int(np.sum(~scored)), "n_empty": 0}
    told = f"{dataset.slug}, {len(items)} preferences, the better response likelier by the byte"
    of = Rows(told, dataset.digest, ready.model.revision)
    return _measured(session, speech, PREFERENCES, items, counts=counts, of=of, out=folder)


def _folder(session: Session, speech: Speech, out: Path | None) -> Path:
    return out or session.store.result_dir("performance", safe_name(speech.model))


def _folder_of_data(session: Session, speech: Speech, ready: passes.Ready, out: Path | None) -> Path:
    """The folder for the table of preferences.

    In the results folder, other rows of the same name, and another model in the same place, get another folder.
    """
    dataset, revision = ready.work.dataset, ready.model.revision
    folder = out or _folder(session, speech, None) / dataset.slug
    mine = {"model_id": ready.work.spec.model_id, "data_digest": dataset.digest, "revision": revision}
    tags = dataset.digest[:SHORT], hashlib.sha256(revision.encode()).hexdigest()[:SHORT]
    others = [] if out else [f"{folder.name}-{tags[0]}", f"{folder.name}-{'-'.join(tags)}"]
    for place in (folder, *map(folder.with_name, others)):
        stored = _stored(place, PREFERENCES)
        # Earlier versions of drsow wrote no revision.
        if all(stored.get(name, value) == value for name, value in mine.items()):
            return place
    file = folder / f"{PREFERENCES}.json"
    raise UsageError(f"{file}: is of another model or of other preferences; name another folder with --out")


def _stored(folder: Path, task: str) -> dict:
    """The facts that belong to the table of a task; rejects a table of another program, and a damaged file."""
    facts, table_file = folder / f"{task}.json", folder / f"{task}.csv"
    data = read_if_there(facts)
    if data is None and table_file.exists():
        raise UsageError(f"{table_file}: drsow perform did not write this table; name another folder with --out")
    try:
        stored = json.loads(data or b"{}")
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise UsageError(f"{facts}: is damaged (no JSON object); remove it, or name another folder with --out")
    return stored


def _spec(session: Session, speech: Speech) -> ModelSpec:
    """The model. A noise model can be scored, though it is no policy."""
    return session.registry.models.get(speech.model) or session.registry.policy(speech.model)


def _measured(
    session: Session, speech: Speech, task: str, items: list[tuple], *, counts: dict[str, int], of: Rows, out: Path
) -> Measured:
    """Write the table and the score's provenance."""
    frame = pd.DataFrame(items, columns=["name", "right", "cluster"])
    if frame.empty:
        raise UsageError(f"{speech.model}: every row is longer than it can read, so there is nothing to measure")
    model_id = _spec(session, speech).model_id
    found = table(frame, model_id=model_id, task=task, **counts)
    whole = found.iloc[0]
    stderr = None if pd.isna(whole.stderr) else round(100 * float(whole.stderr), 2)
    template = f", chat template of {speech.template}" if speech.template else ""
    score = MeasuredScore(
        model_id=model_id,
        performance_id=task,
        value=round(100 * float(whole.accuracy), 2),
        stderr=stderr,
        source=f"drsow perform: {of.told}, {session.options.dtype}{template}",
    )
    file = out / f"{task}.csv"
    facts = {"data_digest": of.digest, "revision": of.revision, "versions": passes.versions()}
    facts |= {} if of.finish_reasons is None else {"finish_reasons": of.finish_reasons}
    # First, because a table without these facts is not ours.
    write_json(out / f"{task}.json", score.model_dump() | facts)
    write_csv(file, found, PERFORMANCE)
    return Measured(found, score, file)
