"""Scores a caller's own texts under a pair: the reward of a response, and the log-ratio of each stretch of it.

Nothing is stored. The verbs `show` and `report` and the Python interface use this module.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from bench.contrast import with_text
from bench.data.rows import ROLES
from bench.registry import Pair, Registry
from bench.schema import Dataset, Example, Message, UsageError
from bench.scoring import passes
from bench.scoring.garbage import uncollected
from bench.study.stretches import stretches
from bench.verbs.session import Session
from bench.verbs.told import rows_for

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer

NO_ROWS = Dataset("", "", "", ())
"""Stands for a data set in the keys of models that score a caller's texts; nothing is stored under these keys."""


class PairScorers(NamedTuple):
    """Both sides of a pair, which read the pair's chat template. In a pair of one model, both are the same scorer."""

    strong: "Scorer"
    weak: "Scorer"
    registry: Registry
    pair: Pair

    def sides(self) -> tuple[tuple["Scorer", str], tuple["Scorer", str]]:
        """The strong and the weak scorer, each with the name of the model or reader."""
        return (self.strong, self.pair.strong), (self.weak, self.pair.weak)

    def load(self) -> None:
        """Load the weights, unless they are loaded."""
        for scorer, _ in self.sides():
            scorer.load()

    def close(self) -> None:
        """Release the weights and their memory."""
        for scorer, _ in self.sides():
            scorer.close()

    def revision(self, name: str) -> str:
        """The revision of one side's model, with the digest of its text if it reads one."""
        scorer = self.strong if name == self.pair.strong else self.weak
        return with_text(scorer.ready.key.revision, rows_for(self.registry, name, NO_ROWS).domain_digest)

    def read_by(self, name: str, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The examples as one side reads them."""
        return rows_for(self.registry, name, NO_ROWS._replace(examples=tuple(examples))).examples


def scorers(session: Session, pair: Pair) -> PairScorers:
    """Both sides of a pair. A model loads its weights when it scores its first text.

    Raises:
        PreconditionError: a model is not on this machine and cannot be fetched.
    """
    with uncollected():
        from bench.scoring.served import scorer_of

    registry, options = session.registry, session.options
    owner = registry.model(pair.template)
    works = [passes.Work(registry.weights(name), owner, NO_ROWS) for name in (pair.strong, pair.weak)]
    # Both are found or fetched before the first one reads its files.
    ready = [passes.make_ready(work, options) for work in works]
    strong = scorer_of(ready[0], options)
    return PairScorers(strong, strong if pair.of_one_model else scorer_of(ready[1], options), registry, pair)


def loaded_scorers(session: Session, pair: Pair) -> PairScorers:
    """Both sides of a pair with their weights in memory."""
    models = scorers(session, pair)
    models.load()
    return models


def examples_of(batch: Sequence[tuple[str | Sequence[Mapping[str, str]], Sequence[str]]]) -> list[Example]:
    """The prompts of a batch with their responses; arguments and errors of each are those of `example_of`."""
    found = []
    for i, each in enumerate(_listed("the batch", batch, "must be a list of (messages, responses)")):
        parts = _listed(f"batch[{i}]", each, "must be (messages, responses)")
        if len(parts) != 2:
            raise UsageError(f"batch[{i}]: must be (messages, responses), has {len(parts)} parts")
        found.append(example_of(f"batch[{i}]", *parts))
    return found


def example_of(name: str, messages: str | Sequence[Mapping[str, str]], responses: Sequence[str]) -> Example:
    """A prompt and its responses, "0" to "n-1", checked.

    Args:
        name: What an error calls the prompt.
        messages: One user turn, or {"role", "content"} messages.
        responses: Texts of the assistant's turn.

    Raises:
        UsageError: the messages do not end on a user turn, there is no response, or something is no text.
    """
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    listed = _listed(name, turns, "messages must be a text or a list of messages")
    conversation = tuple(_message(f"{name}: messages[{i}]", turn) for i, turn in enumerate(listed))
    if not conversation or conversation[-1].role != "user":
        raise UsageError(f"{name}: the messages must end on a user turn")
    if isinstance(responses, str):
        raise UsageError(f"{name}: responses must be a list of texts, not one text")
    texts = _listed(name, responses, "responses must be a list of texts")
    if not texts:
        raise UsageError(f"{name}: there is no response to score; give at least one")
    checked = tuple((str(i), _text(f"{name}: responses[{i}]", text)) for i, text in enumerate(texts))
    return Example(name, "", conversation, checked)


def _listed(name: str, value: object, rule: str) -> list:
    """The items of a list, a tuple, a pandas Series, a numpy array or the like; `rule` says what the value must be."""
    # A data frame's items are the names of its columns.
    named = isinstance(value, str | bytes | Mapping | Set) or hasattr(value, "columns")
    if isinstance(value, Iterable) and not named:
        with contextlib.suppress(TypeError):  # an array without dimensions has no items
            return list(value)
    raise UsageError(f"{name}: {rule}, is {type(value).__name__}")


def _message(name: str, turn: object) -> Message:
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        raise UsageError(f"{name}: must be a mapping with the keys role and content")
    if turn["role"] not in ROLES:
        raise UsageError(f"{name}: unknown role {turn['role']!r:.40} (known: {', '.join(ROLES)})")
    return Message(turn["role"], _text(f"{name}: content", turn["content"]))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: must be text, is {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: holds half of a surrogate pair, which is no text") from error
    # A text from a numpy array has another class.
    return str(value)


def rewards(models: PairScorers, examples: Sequence[Example]) -> list[list[float]]:
    """Reward of every response of every example: log p_strong - log p_weak in nats (arXiv 2411.02481).

    Each side scores all examples in one packed run.

    Raises:
        UsageError: a prompt with its response is longer than a model's context.
    """
    if not examples:
        return []
    strong, weak = (_sums(scorer, models.read_by(name, examples)) for scorer, name in models.sides())
    return [[float(x) for x in a - b] for a, b in zip(strong, weak, strict=True)]


def _sums(model: "Scorer", examples: Sequence[Example]) -> list[np.ndarray]:
    """log p of each example's responses in nats, (responses,) each, the end of turn included."""
    return [np.array([values.sum() for values in row]) for row in model.examples_logps(examples)]


class TokenTable(NamedTuple):
    """One example's tokens."""

    strong: pd.DataFrame
    """TOKENS under the strong side."""
    weak: pd.DataFrame
    texts: dict[str, str]
    """response_id -> the response as both models' chat template renders it."""


def token_table(models: PairScorers, example: Example) -> TokenTable:
    """The tokens of one example under a pair's strong and weak side."""
    from bench.scoring.tokens import rendered_texts, tokens

    strong, weak = (tokens(scorer, *models.read_by(name, [example])) for scorer, name in models.sides())
    return TokenTable(strong, weak, rendered_texts(models.strong, example))


def response_stretches(models: PairScorers, example: Example) -> dict[str, pd.DataFrame]:
    """response_id -> STRETCHES of that response under a pair."""
    table = token_table(models, example)
    strong, weak = (dict(iter(side.groupby("response_id"))) for side in (table.strong, table.weak))
    return {name: stretches(strong[name], weak[name], text) for name, text in table.texts.items()}


def stretched_pairs(session: Session, rows: Sequence[tuple[Pair, Sequence[str]]], dataset: Dataset) -> pd.DataFrame:
    """STORED_STRETCHES, without the data's digest, of some rows under each pair; each pair is loaded once.

    Args:
        session: The registry, device and dtype.
        rows: Each pair with the example_ids of its rows.
        dataset: Where the rows are.
    """
    # The report's libraries take seconds to import, and nothing else here needs them.
    from bench.study.report import STORED_STRETCHES

    examples = {example.example_id: example for example in dataset.examples}
    frames = []
    for pair, ids in rows:
        if not ids:
            continue
        with contextlib.closing(scorers(session, pair)) as models:
            for example_id in ids:
                frames += [
                    frame.assign(
                        pair_id=pair.pair_id,
                        example_id=example_id,
                        response_id=response_id,
                        strong_revision=models.revision(pair.strong),
                        weak_revision=models.revision(pair.weak),
                    )
                    for response_id, frame in response_stretches(models, examples[example_id]).items()
                ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(STORED_STRETCHES))
