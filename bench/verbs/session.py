"""What a verb that runs a model needs: the registry, the results folder, and how passes are computed."""

from pathlib import Path
from typing import NamedTuple

from bench.registry import Registry
from bench.schema import TOKEN_REWARDS
from bench.scoring.passes import Options, resolved
from bench.store.folder import Store

RESULTS = Path("results")
"""The results folder if the user names none."""


class Session(NamedTuple):
    """The registry, the results folder and the resolved options of one command."""

    registry: Registry
    store: Store
    """Holds scores and tables. A verb that stores neither does not touch it."""
    options: Options


def for_reward(session: Session, reward: str) -> Session:
    """The session, whose passes store tokens too if a reward needs them."""
    tokens = session.options.tokens or reward in TOKEN_REWARDS
    return session._replace(options=session.options._replace(tokens=tokens))


def open_session(
    registry: Registry,
    *,
    dtype: str = "auto",
    device: str,
    batch_tokens: int | None = None,
    results: Path = RESULTS,
    tokens: bool = False,
) -> Session:
    """A session whose options name the device, dtype and token budget that are used.

    A verb that only reads the store opens no session: "auto" asks torch, whose import takes seconds.

    Args:
        registry: Knows the models.
        dtype: "auto", "bf16" or "fp32".
        device: "auto", "cpu" or "cuda".
        batch_tokens: The most tokens of one step; None: the device's usual number.
        results: The results folder.
        tokens: Whether passes store the scores of single tokens too.

    Raises:
        UsageError: there is no such dtype or device.
        PreconditionError: the user asks for a GPU and there is none.
    """
    return Session(registry, Store(results), resolved(dtype, device, batch_tokens, tokens=tokens))
