"""The verb `ladder`: tunes families of models by a recipe, and writes a registry folder with all of them."""

import gc
import json
import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from bench.data.load import check_preferences, digest, load_readable
from bench.entries import AdapterSource, ModelSpec
from bench.faults import warn
from bench.files import edited_text, write_csv, write_whole
from bench.links import unknown
from bench.measured import MeasuredScore, add_score, replace_scores
from bench.prefer.ladder import (
    NET_PREFERENCES,
    RUNGS,
    WHOLE_NUMBERS,
    Ladder,
    Recipe,
    Rung,
    judged,
    ladders_in_order,
    models_toml,
    net_preferences,
    pairs_toml,
    recipe_of,
    rows_of_rung,
)
from bench.registry import Registry, load_registry
from bench.schema import Dataset, Example, UsageError
from bench.sources import FileSource, FolderSource
from bench.verbs.sample import sample_candidates
from bench.verbs.session import Session
from bench.verbs.tune import MODEL, Start, check_steps, place_of, tune_policy

if TYPE_CHECKING:
    from bench.prefer.tune import Tuning

WEIGHTS, REGISTRY = "run", "registry"
"""Folders of a ladder's results: the tuned models, and the registry that names them."""

SCORES = "scores.toml"
"""The registry's file of measured performances."""

N_ANSWERS, ANSWER_TOKENS = 8, 128
"""Sampled answers to each prompt, and their longest length: what tells a broken rung."""


class Inputs(NamedTuple):
    """What a recipe is followed with."""

    preferences: str
    """Preferences for all rungs, as `drsow tune` takes them."""
    prompts: Dataset
    """Prompts that each rung answers, to see whether it is broken."""


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        UsageError: The file is no TOML, or a field is wrong.
    """
    try:
        return recipe_of(tomllib.loads(edited_text(path)), str(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error


def climb(session: Session, recipe: Recipe, inputs: Inputs, *, out: Path) -> pd.DataFrame:
    """Tune and sample every rung that is missing, then write the table and the registry.

    A stopped run continues where it was: a rung is tuned from its last checkpoint, and a finished one is not repeated.

    Args:
        session: The registry, which knows the starts; device and dtype.
        recipe: What to tune.
        inputs: The data.
        out: The folder to write.

    Returns:
        RUNGS.

    Raises:
        UsageError: As `check_registry`; too few preferences; a batch cannot be divided. Then nothing is tuned.
    """
    check_registry(session.registry, recipe, out=out)
    for ladder in recipe.ladders:
        _check_batch(session, ladder, out=out)
    examples = judgeable(inputs.preferences)
    slices = {(ladder.id, rung.id): rows_of_rung(examples, rung) for ladder in recipe.ladders for rung in ladder.rungs}
    rows = []
    for ladder, rung in ladders_in_order(recipe):
        model_id = ladder.model_id(None if rung is None else rung.id)
        row: dict[str, Any] = {"model_id": model_id, "template": ladder.owner, "ladder": ladder.id}
        if rung is not None:
            warn(f"{model_id}: {rung.loss} on {rung.n} preferences")
            folder = out / WEIGHTS / model_id
            row |= _tuned(session, ladder, rung, slices[ladder.id, rung.id], inputs.preferences, folder)
            # The next model needs the room.
            gc.collect()
            row |= _answered(session, inputs.prompts, folder)
            gc.collect()
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(RUNGS)).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))
    write_csv(out / "rungs.csv", table, RUNGS)
    write_registry(session.registry, recipe, table, out=out)
    return table


def judgeable(name: str) -> list[Example]:
    """The preferences of what `drsow tune` takes; rows that cannot be judged are left out, and stderr says how many."""
    dataset, errors = load_readable(place_of(name))
    found = [example for example in dataset.examples if example.is_preference]
    if not found:
        check_preferences(dataset)
    if errors:
        warn(f"{len(errors)} rows left out; the first: {errors[0]}")
    if n_several := len(dataset.examples) - len(found):
        warn(f"{n_several} rows left out: they have several responses")
    return found


def _check_batch(session: Session, ladder: Ladder, *, out: Path) -> None:
    """Check that the batch of a ladder's rungs can be divided among the devices."""
    rung = ladder.rungs[0]
    try:
        check_steps(_tuning(ladder, rung), rung.n, session.options, out=out)
    except UsageError as error:
        raise UsageError(f"{ladder.id}: {error}") from error


def _tuning(ladder: Ladder, rung: Rung) -> "Tuning":
    from bench.prefer.losses import BETA, GAMMA_RATIO
    from bench.prefer.tune import Tuning

    return Tuning(
        loss=rung.loss,
        # SFT reads no beta; with 0.1, rungs that were tuned before continue.
        beta=BETA.get(rung.loss, 0.1) if rung.beta is None else rung.beta,
        gamma_ratio=GAMMA_RATIO if rung.gamma_ratio is None else rung.gamma_ratio,
        lr=rung.lr,
        n_epochs=rung.n_epochs,
        batch=ladder.batch,
        at_once=ladder.at_once,
        lora_rank=ladder.lora_rank,
        seed=rung.seed,
        save_every=4,
    )


def _tuned(
    session: Session, ladder: Ladder, rung: Rung, examples: list[Example], source: str, folder: Path
) -> dict[str, Any]:
    """Tune a rung; returns its recipe and digests for the table."""
    subset = f" of {rung.subset}" if rung.subset else ""
    name = f"{Path(source).name}, {rung.labels} labels, rows {rung.first} to {rung.first + rung.n}{subset}"
    dataset = Dataset(name, Path(source).stem, digest(examples), tuple(examples))
    start = Start(ladder.start, ladder.template)
    if rung.after is not None:
        start = Start(str(folder.parent / ladder.model_id(rung.after)))
    done = tune_policy(session, start, dataset, _tuning(ladder, rung), out=folder)
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "start": ladder.model_id(rung.after),
        "labels": rung.labels,
        "subset": rung.subset,
        "first": rung.first,
        "n_preferences": done.n_preferences,
        "n_too_long": done.n_too_long,
        "weights_sha256": " ".join(facts["weights"].values()),
        **{name: facts[name] for name in ("loss", "n_steps", "lr", "beta", "lora_rank", "seed", "data_digest")},
    }


def _answered(session: Session, prompts: Dataset, folder: Path) -> dict[str, Any]:
    """Sample a rung's answers, and count those that are empty or repeat themselves."""
    from bench.prefer.resumed import Sampling, candidates, whole_lines

    wish = Sampling(N_ANSWERS, max_new_tokens=ANSWER_TOKENS, keep_empty=True)
    file = folder / "answers.jsonl"
    sample_candidates(session, prompts, str(folder), wish, out=file)
    found = judged([text for line in whole_lines(file) for text in candidates(line)])
    return found._asdict() | {"broken": int(found.broken)}


def check_registry(known: Registry, recipe: Recipe, *, out: Path) -> None:
    """Check, before a tuning that may take hours, that the registry of its models can be written and read.

    Raises:
        UsageError: An id is taken, a name is unknown, or OUT/registry is another one or has scores that do not fit.
    """
    if (out / REGISTRY / "models.toml").exists() and not (out / "rungs.csv").exists():
        raise UsageError(f"{out / REGISTRY}: drsow ladder did not write this registry; name another folder")
    performances = load_registry().performances
    for name in filter(None, [recipe.study.performance, recipe.study.second_performance]):
        if name not in performances:
            raise UsageError(f"study: {unknown('performance', name, performances)}")
    with tempfile.TemporaryDirectory() as place:
        folder, measured = Path(place) / REGISTRY, out / REGISTRY / SCORES
        if measured.is_file():
            write_whole(folder / SCORES, measured.read_bytes())
        try:
            for _ in range(2):
                write_registry(known, recipe, _planned(recipe), out=Path(place))
                # With a score of each model the second round writes the studies of the measured performance.
                for spec in _unmeasured(recipe, load_registry(folder)):
                    row = {"model_id": spec.id, "performance_id": recipe.study.performance, "value": 0.0, "source": "-"}
                    add_score(folder / SCORES, MeasuredScore.model_validate(row))
        except UsageError as error:
            raise UsageError(str(error).replace(place, str(out))) from error


def _planned(recipe: Recipe) -> pd.DataFrame:
    """What the registry needs of RUNGS, before anything is tuned."""
    rows = [
        {"model_id": ladder.model_id(rung.id), "start": ladder.model_id(rung.after), "n_preferences": rung.n}
        if rung
        else {"model_id": ladder.start}
        for ladder, rung in ladders_in_order(recipe)
    ]
    return pd.DataFrame(rows).assign(n_steps=0, weights_sha256="", broken=0)


def _unmeasured(recipe: Recipe, known: Registry) -> list[ModelSpec]:
    models = [known.model(ladder.model_id(rung.id if rung else None)) for ladder, rung in ladders_in_order(recipe)]
    return [spec for spec in models if recipe.study.performance not in spec.scores]


def write_registry(known: Registry, recipe: Recipe, table: pd.DataFrame, *, out: Path) -> Path:
    """Write the registry folder with every rung, and with the starts that drsow's own registry does not have."""
    folder, rows = out / REGISTRY, table.set_index("model_id")
    specs: dict[str, ModelSpec] = {}
    for ladder, rung in ladders_in_order(recipe):
        start, model_id = known.model(ladder.start), ladder.model_id(rung.id if rung else None)
        if rung is None:
            specs |= {spec.id: spec for spec in _carried(start, folder)}
        else:
            specs[model_id] = _rung_entry(start, rung, rows.loc[model_id], folder)
    broken = rows.index[rows["broken"] == 1].tolist()
    write_whole(folder / "models.toml", models_toml(list(specs.values())).encode())
    n_tuned = rows["n_preferences"].dropna().astype(int).to_dict()
    counts = {name: n for ladder in recipe.ladders for name, n in net_preferences(ladder, n_tuned).items()}
    scores = [
        MeasuredScore(model_id=name, performance_id=NET_PREFERENCES, value=n, source="the recipe")
        for name, n in counts.items()
    ]
    replace_scores(folder / SCORES, NET_PREFERENCES, scores)
    write_whole(folder / "pairs.toml", pairs_toml(recipe, broken, has_scores=False).encode())
    if not _unmeasured(recipe, load_registry(folder)):
        write_whole(folder / "pairs.toml", pairs_toml(recipe, broken, has_scores=True).encode())
    return folder


def _rung_entry(start: ModelSpec, rung: Rung, row: pd.Series, folder: Path) -> ModelSpec:
    """The entry of a tuned model; `row` is that of RUNGS."""
    kind = rung.loss if rung.labels == "given" else f"{rung.loss}-{rung.labels}"
    of = f" of {rung.subset}" if rung.subset else ""
    told = f"{row['start']}; {kind}; {row['n_preferences']} preferences from {rung.first}{of}; "
    told += f"{row['n_steps']} steps; lr {rung.lr:g}; seed {rung.seed}; weights sha256 {row['weights_sha256']}"
    weights = folder.parent / WEIGHTS / str(row.name) / MODEL
    return start.model_copy(
        update={
            "model_id": row.name,
            "source": FolderSource(folder=_relative(weights, folder)),
            "format": "safetensors",
            "method": kind,
            "licence_notice": None,
            "scores": {},
            "note": told + ("; broken" if row["broken"] else ""),
        }
    )


def _carried(spec: ModelSpec, folder: Path) -> list[ModelSpec]:
    """The entry of a start for another folder, after that of its base; none that drsow's own registry has."""
    own = load_registry()
    if spec.id in own.models:
        return []
    base = [] if spec.files is spec else _carried(spec.files, folder)
    source = spec.source
    if isinstance(source, FolderSource):
        source = FolderSource(folder=_relative(source.folder, folder))
    elif isinstance(source, FileSource):
        source = source.model_copy(update={"file": _relative(source.file, folder)})
    elif isinstance(source, AdapterSource):
        source = source.model_copy(update={"model": None})
    # A performance of the user's own registry would be unknown, and the recipe says NET_PREFERENCES itself.
    known = {name: score for name, score in spec.scores.items() if name in own.performances and name != NET_PREFERENCES}
    return [*base, spec.model_copy(update={"source": source, "scores": known})]


def _relative(path: Path, folder: Path) -> Path:
    return Path(os.path.relpath(path.resolve(), folder.resolve()))
