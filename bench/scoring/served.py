"""Scores with a model on a server: drsow renders and tokenises here, the server returns the log-probabilities.

Before the first row a short text is scored (the preflight), which shows whether the server's numbers can be used at
all. The same text after each part shows whether the server still has the same model.
"""

import functools
import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np

from bench.entries import UrlSource
from bench.schema import DrsowError, Example, Message, PreconditionError
from bench.scoring import models, wire
from bench.scoring.added import added
from bench.scoring.chat import adds_bos
from bench.scoring.passes import WHOLE, Options, Ready, Share
from bench.scoring.progress import OnShare, unheard
from bench.scoring.render import Sequence
from bench.scoring.scorer import Scorer
from bench.scoring.together import together
from bench.scoring.tokens import TokenValues
from bench.store.folder import ScoreSet, Store

PROBE = Example(
    "the preflight",
    "",
    (Message("user", "Count from one to ten."),),
    (("0", "One, two, three, four, five, six, seven, eight, nine, ten."),),
)
"""The text of the preflight. Every language model expects most of its response."""

CHANCE_NATS = 1.0
"""How much better than chance, -log(number of tokens), a model must expect the preflight's tokens on average."""

SAME_NATS = 0.05
"""Largest mean difference a token between two scores of the preflight by one model. The batch changes the last bits of
bfloat16, which is a tenth of that; two models differ by more."""

PROBED = "probe_nats"
"""The setting of a score set that holds the preflight's log-probabilities."""

LIMIT = "limit_tokens"
"""The setting of a score set that holds the longest text in tokens, which is the server's limit if that is smaller."""


def scorer_of(ready: Ready, options: Options) -> Scorer:
    """The scorer of a pass: the model is on this machine, or on a server."""
    return ServedScorer(ready, options) if isinstance(ready.work.spec.source, UrlSource) else Scorer(ready, options)


def _same(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two scores of the preflight can be one model's."""
    return len(before) == len(now) and bool(np.abs(before - now).mean() <= SAME_NATS)


class ServedScorer(Scorer):
    """A tokenizer here with its model on a server."""

    served = True
    is_adapter = False
    """Whether the model is a LoRA adapter of another model of the server; known from the preflight on."""

    @property
    def source(self) -> UrlSource:
        """Where the server is."""
        source = self.ready.work.spec.source
        assert isinstance(source, UrlSource)
        return source

    def _sizes(self, files: Path, *, trusted: bool) -> tuple[int, int]:
        """The context and the number of tokens, from the registry or the tokenizer's folder."""
        known = self.ready.work.spec.context_tokens
        if (files / "config.json").is_file():
            limit = known or models.context_tokens(files, trust_remote_code=trusted)
            return limit, models.n_embedded(files, trust_remote_code=trusted)
        if known is None:
            raise PreconditionError(
                f"{self.ready.work.spec.model_id}: its tokenizer's folder has no config.json, so its context is "
                "unknown; add `context_tokens` to its entry in models.toml"
            )
        return known, len(self.tokenizer)

    def load(self) -> None:
        """Nothing is loaded; the server shows that its numbers can be used."""
        _ = self.probe

    def _check_ops(self) -> None:
        self.load()

    @functools.cached_property
    def probe(self) -> np.ndarray:
        """The preflight: the log-probabilities of the probe's response, nats, float64.

        Raises:
            PreconditionError: The server's numbers cannot be used. The message says why.
        """
        server = wire.identify(self.source)
        self.limit = min(self.limit, server.context_tokens or self.limit)
        self.is_adapter = server.is_adapter
        first, second = self._probed(), self._probed()
        words = ""
        if np.isnan(first).any():
            words = "returns log-probabilities that are no numbers"
        elif np.isinf(first).any():
            words = f"clamps log-probabilities at {wire.CLAMP_NATS:g}"
        elif first.mean() < CHANCE_NATS - math.log(len(self.tokenizer)):
            words = f"computes chance values: {first.mean():.1f} nats per token for a text that every model expects"
        elif not _same(first, second):
            words = "gives other numbers when it is asked again"
        if words:
            raise self._refused(words)
        note = f"scores come from {server.name} at {self.source.url}; their last digits depend on how it batches"
        self._say([note])
        return first

    def _probed(self) -> np.ndarray:
        (sequence,) = self.rendered([PROBE]).sequences
        return self._scored(self._text(sequence))

    def _answered(self, asked: tuple[Sequence, wire.Text]) -> np.ndarray:
        """As `_scored`, for a response of the data."""
        sequence, text = asked
        return self._scored(text, f" ({sequence.example_id}, response {sequence.response_id})")

    def _scored(self, text: wire.Text, row: str = "") -> np.ndarray:
        """The log-probabilities of a text's response, nats, (n,), float64; `row` is an error's name of the text."""
        try:
            return wire.score(self.source, text, is_adapter=self.is_adapter)
        except wire.WireError as error:
            raise self._refused(f"{error}{row}") from None
        except PreconditionError:
            raise
        except DrsowError as error:
            raise DrsowError(f"{self.ready.key.model_id}{row}: {error}") from None

    def _refused(self, words: str) -> PreconditionError:
        where = f"{self.ready.key.model_id}: the server at {self.source.url} {words}"
        return PreconditionError(
            f"{where}; drsow cannot use its scores. Change how the server is started, or use another"
        )

    def _text(self, sequence: Sequence) -> wire.Text:
        ids = [int(each) for each in sequence.ids]
        if self.source.kind != "openai-echo":
            return wire.Text(ids, sequence.start)
        # Decoded as a whole: a character may have several tokens, and a piece alone may lose its space.
        words = self._decoded(ids[1 if adds_bos(self.tokenizer) else 0 :])
        special = frozenset(added(self.tokenizer).special)
        return wire.Text(ids, sequence.start, words, [self._decoded([i]) for i in ids], special)

    def _decoded(self, ids: Seq[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _settings(self) -> dict:
        return super()._settings() | {PROBED: [round(float(value), 6) for value in self.probe], LIMIT: self.limit}

    def stages(
        self, score_set: ScoreSet, share: Share = WHOLE, following: Path | None = None, *, store: Store | None = None
    ) -> Iterator[None]:
        """As `Scorer.stages`, if the server still has the model that began the set, and the same limit.

        Raises:
            DrsowError: Another model, or another limit: other responses would be too long than in the stored parts.
        """
        self.check_model(score_set)
        self.load()
        limit = (score_set.recorded_settings() or {}).get(LIMIT, self.limit)
        if limit != self.limit:
            raise DrsowError(
                f"{self.ready.key.model_id}: the server at {self.source.url} now allows {self.limit:,} tokens per "
                f"text, but {limit:,} when this set was begun. Start it with the first limit and run again: stored "
                "parts stay; or score everything again in another folder (--results)"
            )
        yield from super().stages(score_set, share, following, store=store)

    def check_model(self, score_set: ScoreSet) -> None:
        """Compares the model that the server has now with the one that began a set; a new set fits every model.

        Raises:
            DrsowError: It is another model.
            PreconditionError: The server cannot be reached, or its numbers cannot be used.
        """
        known = (score_set.recorded_settings() or {}).get(PROBED)
        if known is not None:
            self._check_same(np.array(known), self.probe)

    def _check_same(self, before: np.ndarray, now: np.ndarray) -> None:
        """Refuses to continue with another model.

        Raises:
            DrsowError: The numbers of the preflight have changed.
        """
        if not _same(before, now):
            raise DrsowError(
                f"{self.ready.key.model_id}: the server at {self.source.url} has another model than before: the same "
                "text has other log-probabilities. Start it with the first model and run again: stored parts stay"
            )

    def values(
        self,
        sequences: Seq[Sequence],
        budget: int,
        counts: dict | None = None,
        *,
        dtype: str | None = None,
        on_share: OnShare = unheard,
        detailed: bool = False,
    ) -> list[TokenValues | None]:
        """As `Scorer.values`; several questions are under way at once, and the server chooses budget and dtype.

        A server gives log-probabilities alone.
        """
        before = self.probe
        fits = [s for s in sequences if len(s.ids) <= self.limit]
        found: dict[int, np.ndarray] = {}
        asked = [(s, self._text(s)) for s in fits]
        for (s, _), logps in together(self._answered, asked, n_threads=self.source.concurrency):
            found[id(s)] = logps
            on_share(len(found) / len(fits))
        self._check_same(before, self._probed())
        if counts is not None:
            counts["n_steps"] += len(fits)
            counts["n_computed_tokens"] += sum(len(s.ids) for s in fits)
        return [TokenValues(found[id(s)]) if id(s) in found else None for s in sequences]

    def close(self) -> None:
        """Nothing is held here."""

    def _device_words(self) -> str:
        return f"{self.ready.key.ops} at {self.source.url}; scores depend on the server's batching"
