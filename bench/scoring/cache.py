"""Says where drsow keeps files that it can create again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of converted package files: DRSOW_CACHE, or drsow/ in the user's cache."""
    if "DRSOW_CACHE" in os.environ:
        return Path(os.environ["DRSOW_CACHE"])
    return user_cache()


def user_cache() -> Path:
    """drsow/ in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drsow"
