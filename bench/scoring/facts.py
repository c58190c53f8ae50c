"""Finds out what a registry entry says about a model: from its files, and from the hub if that can be reached.

What neither says is unknown. No weights are downloaded: of those that are here, the headers are read.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from bench.faults import first_line
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.scoring import templates
from bench.scoring.hub import NotHere, snapshot
from bench.scoring.located import ADAPTER_CONFIG, ADAPTER_WEIGHTS

SMALL = ("config.json", "tokenizer_config.json", "*.jinja", ADAPTER_CONFIG, "README.md")
"""The files of a repository that facts are read from."""

_LICENCE = re.compile(r"^license(?:_name)?:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)


class Facts(NamedTuple):
    """What is known about a model. A fact that is unknown is None."""

    files: Mapping[str, str | None]
    """Names of its files, with the sha256 that the hub promises, if it does."""
    folder: Path
    """Its small files on this machine."""
    all_listed: bool = True
    """Whether `files` are all of its files: of a repository in the cache, some may be missing."""
    revision: str | None = None
    """Commit on the hub."""
    gated: bool = False
    n_params: int | None = None
    licence: str | None = None
    context_tokens: int | None = None
    has_template: bool | None = None
    """Whether its tokenizer has a chat template."""
    has_code: bool = False
    """Whether it needs code that comes with it."""

    def named(self, ending: str) -> list[str]:
        """The files with an ending, without those of an adapter."""
        return [name for name in self.files if name.endswith(ending) and Path(name).name != ADAPTER_WEIGHTS]


def folder_facts(folder: Path) -> Facts:
    """What the files in a folder say."""
    # A repository without any of the small files leaves no folder in the cache.
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    config = _json(folder / "config.json")
    inner = config.get("text_config")
    sizes = inner if isinstance(inner, dict) else config
    context = next((sizes[k] for k in ("max_position_embeddings", "n_positions", "n_ctx") if sizes.get(k)), None)
    has_tokenizer = any(name.startswith("tokenizer") or name.endswith(".jinja") for name in names)
    return Facts(
        files=dict.fromkeys(names),
        folder=folder,
        n_params=_n_params(folder),
        licence=_card_licence(folder / "README.md"),
        context_tokens=context if isinstance(context, int) and context > 0 else None,
        has_template=bool(templates.read(folder).text) if has_tokenizer else None,
        has_code="auto_map" in config,
    )


def hub_facts(repo: str, revision: str | None) -> Facts:
    """What the hub says about a repository; without the hub, what its files in the cache say.

    Raises:
        UsageError: The hub has no such commit.
        PreconditionError: There is no such repository, it is gated, or it is neither on this machine nor reachable.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    except GatedRepoError:
        raise PreconditionError(f"{repo} is gated: accept its licence on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise PreconditionError(f"the hub has no repository {repo}, or it needs HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UsageError(f"{repo} has no commit {revision}") from None
    # A broken connection is an error of the HTTP library, which is no OSError.
    except (HTTPError, OSError) as error:
        return _cached_facts(repo, revision, first_line(error))
    sizes, card = info.safetensors, info.card_data
    found = folder_facts(snapshot("models add", repo, info.sha, SMALL, local=False))
    licence = card.get("license") if card else None
    return found._replace(
        files={each.rfilename: each.lfs.sha256 if each.lfs else None for each in info.siblings or ()},
        revision=info.sha,
        gated=bool(info.gated),
        n_params=sizes.total if sizes else found.n_params,
        licence=licence if isinstance(licence, str) and licence != "other" else found.licence,
    )


def _cached_facts(repo: str, revision: str | None, reason: str) -> Facts:
    from huggingface_hub import constants

    # A commit that was fetched by its name is not the cache's newest one, but it may be the only one.
    commits = list(Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots").glob("*"))
    only = commits[0].name if revision is None and len(commits) == 1 else revision
    try:
        folder = snapshot("models add", repo, only, SMALL, local=True)
    except NotHere:
        raise PreconditionError(
            f"{repo}: the hub cannot be reached ({reason}), and the repository is not on this machine; try again where "
            "there is a network, or name a folder"
        ) from None
    return folder_facts(folder)._replace(revision=folder.name, all_listed=False)


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DrsowError(f"{path}: broken JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _card_licence(path: Path) -> str | None:
    """The licence in the first lines of a model card."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    names: Sequence[str] = [name for name in _LICENCE.findall(head) if name != "other"]
    return names[0] if names else None


def _n_params(folder: Path) -> int | None:
    """Numbers in the weights of a folder; None without weights."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == ADAPTER_WEIGHTS:
            continue
        try:
            with safe_open(path, "np") as weights:
                total += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DrsowError(f"{path}: cannot be read: {first_line(error)}") from error
    return total or None
