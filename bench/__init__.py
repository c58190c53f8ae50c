"""drsow: which pair of language models judges best.

The pipeline, one line per stage:
    registry      pairs/*.toml -> models, pairs, studies
    data          data id, file or hub -> examples
    scoring       examples x model -> log-probabilities, once per model
    study         log-probabilities -> rewards, accuracy, leaderboard, figures
The same in Python, for your own responses:
    >>> import bench
    >>> bench.reward("embedded", "Name a prime number.", ["7 is one.", "8 is one."])  # doctest: +SKIP
    >>> with bench.Annotator("embedded") as annotator:  # doctest: +SKIP
    ...     annotator.tokens("Name a prime number.", "7 is one.")

`import bench` is quick: pandas and torch are imported when a reward is computed.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.schema import DrsowError, PreconditionError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd

    from bench.registry import Pair, Registry
    from bench.verbs.texts import PairScorers

__all__ = ["Annotator", "DrsowError", "Messages", "PreconditionError", "UsageError", "release", "reward"]

Messages = str | Sequence[Mapping[str, str]]
"""A prompt: the text of one user turn, or {"role", "content"} messages that end on a user turn."""


class Annotator:
    """A pair of models that rewards responses. It loads both models once and keeps them until `close`.

    The reward of a response y to a prompt x is log p_strong(y | x) - log p_weak(y | x) in nats, summed over the
    response's tokens and its end of turn (Dr. SoW, arXiv 2411.02481). Both models read the pair's chat template.

    Examples:
        >>> with bench.Annotator("embedded") as annotator:  # doctest: +SKIP
        ...     annotator.reward("Name a prime number.", ["7 is one.", "8 is one."])
    """

    def __init__(
        self, pair: str, *, dtype: str = "auto", device: str = "auto", registry: str | Path | None = None
    ) -> None:
        """Fetch both models if they are not on this machine, and load them.

        Args:
            pair: A pair_id of the registry.
            dtype: "bf16", "fp32" or "auto", which is bf16 where the hardware multiplies it.
            device: "cpu", "cuda" or "auto", which is the GPU where there is one.
            registry: Folder with models and pairs of your own.

        Raises:
            UsageError: there is no such pair, dtype or device.
            PreconditionError: there is no GPU, or a model cannot be fetched.
            DrsowError: a model cannot be loaded, or memory ran out.
        """
        known, found = _found(pair, registry)

        from bench.verbs.session import open_session
        from bench.verbs.texts import loaded_scorers

        self._models: PairScorers | None = loaded_scorers(open_session(known, dtype=dtype, device=device), found)

    def reward(self, messages: Messages, responses: Sequence[str]) -> list[float]:
        """Reward of each response to one prompt.

        Args:
            messages: The prompt.
            responses: n texts of the assistant's turn: a list, or another sequence such as a pandas Series.

        Returns:
            n rewards in nats, in the order of the responses.

        Raises:
            UsageError: the annotator is closed; the messages do not end on a user turn; there is no response, an empty
                one, one that is no text, or one that is longer with its prompt than a model's context.
            DrsowError: a model has no embedding for a token of a text, or memory ran out.
        """
        from bench.verbs.texts import example_of, rewards

        return rewards(self._loaded(), [example_of("the prompt", messages, responses)])[0]

    def rewards(self, batch: Sequence[tuple[Messages, Sequence[str]]]) -> list[list[float]]:
        """Reward of each response to each prompt. Each model computes text that prompts share once for the batch.

        Args:
            batch: (messages, responses) of each prompt, as `reward` takes them.

        Returns:
            Rewards in nats, a list for each prompt. They equal those of `reward` except for rounding, because a batch
            is summed in another order.

        Raises:
            UsageError: as `reward`; an error names the prompt by its index in the batch.
            DrsowError: as `reward`.
        """
        from bench.verbs.texts import examples_of, rewards

        return rewards(self._loaded(), examples_of(batch))

    def tokens(self, messages: Messages, response: str) -> "pd.DataFrame":
        """Log-ratio of each stretch of one response, between the byte boundaries that both models' tokens share.

        Args:
            messages: The prompt.
            response: Text of the assistant's turn.

        Returns:
            One row per stretch, in the order of the text. The last row is the end of turn, which has no text and
            whose byte_start equals its byte_end. The columns are

            - byte_start: First UTF-8 byte in the response as the chat template renders it.
            - byte_end: The byte after its last one.
            - text: The text between them.
            - ratio_nats: log p_strong - log p_weak of the stretch given all text before it. These sum to the reward.

        Raises:
            UsageError: as `reward`.
            DrsowError: as `reward`; or a model's tokens cannot be placed in the text.
        """
        from bench.verbs.texts import example_of, response_stretches

        (frame,) = response_stretches(self._loaded(), example_of("the prompt", messages, [response])).values()
        return frame

    def close(self) -> None:
        """Release both models and the memory that they held. A closed annotator scores nothing more."""
        models, self._models = self._models, None
        if models is not None:
            models.close()

    def __enter__(self) -> "Annotator":
        """The annotator itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """`close`."""
        self.close()

    def _loaded(self) -> "PairScorers":
        if self._models is None:
            raise UsageError("this annotator is closed: its models are no longer loaded; make another bench.Annotator")
        return self._models


def reward(
    pair: str,
    messages: Messages,
    responses: Sequence[str],
    *,
    dtype: str = "auto",
    device: str = "auto",
    registry: str | Path | None = None,
) -> list[float]:
    """Reward of each response, as `Annotator.reward`.

    The pair's two models stay in memory until `release`, or until a call needs others. A later call uses them again if
    the pair, dtype, device, registry and the models' files are the same.

    Args:
        pair: A pair_id of the registry.
        messages: The prompt.
        responses: n texts of the assistant's turn.
        dtype: "auto", "bf16" or "fp32".
        device: "auto", "cpu" or "cuda".
        registry: Folder with models and pairs of your own.

    Returns:
        n rewards in nats, in the order of the responses (arXiv 2411.02481).

    Raises:
        DrsowError: as `Annotator` and `Annotator.reward`.
    """
    known, found = _found(pair, registry)

    from bench.verbs.kept import kept
    from bench.verbs.session import open_session
    from bench.verbs.texts import example_of

    session = open_session(known, dtype=dtype, device=device)
    return kept().rewards(session, found, [example_of("the prompt", messages, responses)])[0]


def _found(pair: str, registry: str | Path | None) -> "tuple[Registry, Pair]":
    """The registry, with the user's folder, and the pair of this name."""
    if not isinstance(pair, str):
        raise UsageError(f"pair must be a pair_id, is {type(pair).__name__}")
    if not isinstance(registry, str | os.PathLike | None):
        raise UsageError(f"registry must be a folder, is {type(registry).__name__}")
    from bench.registry import load_registry

    known = load_registry(None if registry is None else Path(registry))
    return known, known.pair(pair)


def release() -> None:
    """Release the models that `reward` keeps, and their memory."""
    from bench.verbs.kept import kept

    kept().release()
