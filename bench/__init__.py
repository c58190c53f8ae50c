"""drsow: which pair of language models judges best.

The pipeline, one line a stage:
    registry      pairs/*.toml -> models, pairs, studies
    data          data id, file or hub -> examples
    scoring       examples x model -> log-probabilities, once a model
    study         log-probabilities -> rewards, accuracy, leaderboard, figures
The same in Python, for your own candidates:
    >>> import bench
    >>> bench.reward("embedded", "Name a prime number.", ["7 is one.", "8 is one."])  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["reward"]


def reward(
    pair: str,
    messages: str | Sequence[Mapping[str, str]],
    responses: Sequence[str],
    *,
    dtype: str = "auto",
    registry: Path | None = None,
) -> list[float]:
    """Reward of each response: log p_strong(response | messages) - log p_weak(response | messages).

    Args:
        pair: Alias or pair_id of the registry.
        messages: The prompt: one user turn, or {"role", "content"} messages.
        responses: Texts of the assistant's turn.
        dtype: "auto", "bf16" or "fp32".
        registry: Folder with models and pairs of your own.

    Returns:
        Nats, one a response, summed over its tokens and the end of turn (arXiv 2411.02481).
    """
    from bench.registry import load_registry
    from bench.schema import Message
    from bench.verbs import texts
    from bench.verbs.session import open_session

    known = load_registry(registry)
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    conversation = [Message(turn["role"], turn["content"]) for turn in turns]
    return texts.reward(open_session(known, dtype=dtype), known.pair(pair), conversation, responses)
