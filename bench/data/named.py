"""Finds the rows of the benchmarks that have a name: in a folder of the user's, or on the hub at a fixed commit."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bench.data.sources import READERS, Row, file_rows
from bench.faults import first_line
from bench.schema import PreconditionError, UsageError

DATA_VARIABLE = "DRSOW_DATA"
"""Environment variable with the folder of the benchmarks' files, for machines without a network."""

COMMIT_DIGITS = 40


class HubFiles(NamedTuple):
    """The files of a benchmark in its hub repository."""

    repository: str
    commit: str
    """Commit to read. Where it is shorter than 40 digits, these are the digits that the hub shows; drsow looks up the
    whole commit when it fetches the files."""
    files: Mapping[str, str]
    """Path of the file of each split; the only split of a benchmark without splits is ""."""


BENCHMARKS = {
    "reward-bench-2": HubFiles(
        "allenai/reward-bench-2",
        "7ff08853b0d5686e79b13fda8677024f566a104a",
        {"": "data/test-00000-of-00001.parquet"},
    ),
    "rm-bench": HubFiles("THU-KEG/RM-Bench", "ee19843", {"": "total_dataset.json"}),
    "judge-bench": HubFiles(
        "ScalerLab/JudgeBench",
        "57dd5e0",
        {"gpt": "data/gpt-00000-of-00001.jsonl", "claude": "data/claude-00000-of-00001.jsonl"},
    ),
}
"""The benchmarks that `--data` knows by name, besides RewardBench, and the commit of the hub that drsow reads."""


class Found(NamedTuple):
    """The rows of a benchmark, and the commit that they come from; "" for a user's files."""

    rows: Iterator[Row]
    revision: str


def benchmark_rows(name: str, split: str, *, offline: bool) -> Found:
    """The rows of a named benchmark.

    Args:
        name: A key of BENCHMARKS.
        split: One of its splits; "" for all.
        offline: Read the hub's files only if they are on this machine.

    Raises:
        UsageError: There is no such split.
        PreconditionError: The files are not on this machine and cannot be fetched.
    """
    source = BENCHMARKS[name]
    if split and split not in source.files:
        known = f"; choose one of {', '.join(s for s in source.files if s)}" if any(source.files) else ""
        raise UsageError(f"{name}: no split {split!r}{known or ': it has no splits'}")
    wanted = [split] if split else list(source.files)
    if local := local_files(name, wanted):
        return Found(chain.from_iterable(file_rows(str(path)) for path in local), "")
    paths, commit = _hub_files(name, source, [source.files[each] for each in wanted], offline=offline)
    return Found(chain.from_iterable(file_rows(str(path)) for path in paths), commit)


def local_files(name: str, splits: Sequence[str] = ("",)) -> list[Path]:
    """The files of a benchmark in the folder that DRSOW_DATA names; empty if it names none, or has none of them.

    The folder has a file `NAME.jsonl` (.parquet, .csv, .json), with splits `NAME-SPLIT.jsonl` for each, or a folder
    `NAME` with the files of the hub's repository.

    Raises:
        PreconditionError: DRSOW_DATA names no folder.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return []
    folder = Path(root)
    if not folder.is_dir():
        raise PreconditionError(f"{DATA_VARIABLE}: no such folder: {root}")
    whole = [path for path in (folder / f"{name}{ending}" for ending in READERS) if path.is_file()][:1]
    if whole and len(splits) > 1:
        return whole
    inside = sorted(path for path in (folder / name).rglob("*") if path.suffix in READERS)
    found = {}
    for split in splits:
        own = [path for path in (folder / f"{name}-{split}{ending}" for ending in READERS) if path.is_file()][:1]
        found[split] = (own if split else whole) or [path for path in inside if path.name.startswith(split)]
    lacking = [split for split, files in found.items() if not files]
    if lacking and len(lacking) < len(splits):
        raise PreconditionError(f"{folder}: has files of {name}, but none of its split {lacking[0]}")
    return [path for files in found.values() for path in files]


def _missing(name: str, repository: str) -> str:
    """The message if a benchmark's files are not on this machine."""
    endings = ", ".join(READERS)
    return (
        f"{name}: {repository} is not on this machine; with access to the hub, `drsow fetch {name}` fetches it, or "
        f"{DATA_VARIABLE}=FOLDER names a folder with {name} ({endings}, or a folder of such files)"
    )


def _hub_files(name: str, source: HubFiles, files: Sequence[str], *, offline: bool) -> tuple[list[Path], str]:
    """The paths of a repository's files at the fixed commit, and the whole commit."""
    # Slow to import, and most data sets are files.
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    commit, place = source.commit, {"repo_id": source.repository, "repo_type": "dataset"}
    if len(commit) < COMMIT_DIGITS:
        folder = Path(HF_HUB_CACHE) / f"datasets--{source.repository.replace('/', '--')}" / "snapshots"
        commit = next((path.name for path in sorted(folder.glob(f"{commit}*"))), commit)
    try:
        if len(commit) < COMMIT_DIGITS and not offline:
            commits = HfApi().list_repo_commits(**place)
            commit = next((c.commit_id for c in commits if c.commit_id.startswith(commit)), commit)
        if len(commit) < COMMIT_DIGITS:
            raise PreconditionError(_missing(name, source.repository))
        paths = [
            Path(hf_hub_download(**place, filename=file, revision=commit, local_files_only=offline)) for file in files
        ]
    except LocalEntryNotFoundError as error:
        raise PreconditionError(_missing(name, source.repository)) from error
    # A broken connection is an error of the HTTP library, which is no OSError.
    except (HTTPError, OSError) as error:
        raise PreconditionError(f"{_missing(name, source.repository)} ({first_line(error)})") from error
    return paths, commit
