"""Finds a repository's files in the hub's cache, and downloads what is missing."""

from collections.abc import Sequence
from pathlib import Path

from bench.faults import first_line
from bench.schema import DrsowError, PreconditionError
from bench.scoring.located import file_digest, promised_digest

PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
"""Configuration and tokenizer files. Weights come only as safetensors; drsow never fetches a pickle."""

CODE = "*.py"
"""Files of a repository's own code, which are fetched only if the registry trusts it."""


class NotHere(PreconditionError):
    """A model's files are not on this machine."""


def snapshot(model_id: str, repo: str, revision: str | None, patterns: Sequence[str], *, local: bool) -> Path:
    """The folder with a repository's files. Missing files are downloaded, except with `local`.

    Args:
        model_id: For error messages.
        repo: "owner/name".
        revision: Commit; None for the newest one.
        patterns: Names of the files, with wildcards.
        local: Open no socket.

    Raises:
        NotHere: The files are not in the cache and were not downloaded.
        PreconditionError: The hub refuses the download.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns), local_files_only=local))
    except GatedRepoError:
        raise PreconditionError(
            f"{model_id}: {repo} is gated: accept its licence on the hub and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise PreconditionError(f"{model_id}: the hub has no repository {repo}, or it needs HF_TOKEN") from None
    except LocalEntryNotFoundError:
        raise NotHere(f"{model_id}: the hub cannot be reached, and {repo} is not on this machine") from None
    except (HfHubHTTPError, OSError) as error:
        raise PreconditionError(f"{model_id}: {repo}: {first_line(error)}") from None


def check_promised(model_id: str, path: Path) -> None:
    """Compares a downloaded file with the sha256 that the hub gives, if it gives one. A wrong file is deleted.

    Raises:
        DrsowError: They differ.
    """
    promised = promised_digest(path)
    if promised and (got := file_digest(path)) != promised:
        path.resolve().unlink()
        path.unlink()
        words = f"sha256 is {got[:16]}…, the hub promised {promised[:16]}…; fetch it again"
        raise DrsowError(f"{model_id}: {path.name}: {words}")
