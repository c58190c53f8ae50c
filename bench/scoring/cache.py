"""Where drsow keeps files on this machine that it can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where converted package files lie: DRSOW_CACHE, or drsow/ in the user's cache."""
    if "DRSOW_CACHE" in os.environ:
        return Path(os.environ["DRSOW_CACHE"])
    return user_cache()


def user_cache() -> Path:
    """drsow/ in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drsow"
