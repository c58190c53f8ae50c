"""What every verb that computes works with: the registry, the results folder, and how passes are computed."""

from pathlib import Path
from typing import NamedTuple

from bench.registry import Registry
from bench.scoring.passes import Options, resolved
from bench.store.folder import Store

RESULTS = Path("results")
"""The results folder where a user names none."""


class Session(NamedTuple):
    """The registry, the results folder and the resolved options of one command."""

    registry: Registry
    store: Store
    """Scores and tables; a verb that stores none leaves it alone."""
    options: Options


def open_session(
    registry: Registry,
    *,
    dtype: str = "auto",
    device: str = "auto",
    batch_tokens: int | None = None,
    results: Path = RESULTS,
) -> Session:
    """A session, with the options resolved once: the device, the dtype and the token budget that are really used.

    A verb that reads only what is stored opens no session: "auto" asks torch, which takes seconds to import.

    Args:
        registry: Knows the models.
        dtype: "auto", "bf16" or "fp32".
        device: "auto", "cpu" or "cuda".
        batch_tokens: The most tokens of one step; None: the device's usual number.
        results: The results folder.

    Raises:
        UsageError: there is no such dtype or device.
        PreconditionError: the user asks for a GPU and there is none.
    """
    return Session(registry, Store(results), resolved(dtype, device, batch_tokens))
