"""Keeps the two models that `bench.reward` used last, so that a second call does not load them again."""

import functools
import threading
from collections.abc import Sequence
from pathlib import Path

from bench.entries import ModelSpec, UrlSource
from bench.registry import Pair
from bench.schema import Example, UsageError
from bench.scoring import fetch
from bench.verbs import texts
from bench.verbs.session import Session


class Kept:
    """The models of the latest pair. They are used again only for the same entries, files, dtype and device."""

    def __init__(self) -> None:
        """Holds no model yet."""
        # Two threads must not compute with one model at the same time.
        self._lock = threading.Lock()
        self._key: tuple[object, ...] = ()
        self._models: texts.PairScorers | None = None

    def rewards(self, session: Session, pair: Pair, examples: Sequence[Example]) -> list[list[float]]:
        """`texts.rewards` under the kept models, or under newly loaded ones. Releases another pair's first."""
        with self._lock:
            try:
                return texts.rewards(self._loaded(session, pair), examples)
            except UsageError:
                raise
            except BaseException:
                self._release()
                raise
            finally:
                if _on_server(session, pair):
                    self._release()

    def release(self) -> None:
        """Releases the models and their memory."""
        with self._lock:
            self._release()

    def _loaded(self, session: Session, pair: Pair) -> texts.PairScorers:
        key = _key(session, pair)
        if self._models is None or key != self._key:
            self._release()
            self._models = texts.loaded_scorers(session, pair)
            # Read again: before, some files may not have been on this machine.
            self._key = _key(session, pair)
        return self._models

    def _release(self) -> None:
        models, self._models = self._models, None
        if models is not None:
            models.close()


@functools.cache
def kept() -> Kept:
    """The one `Kept` of this process."""
    return Kept()


def _specs(session: Session, pair: Pair) -> list[ModelSpec]:
    return [session.registry.weights(name) for name in (pair.strong, pair.weak, pair.template)]


def _on_server(session: Session, pair: Pair) -> bool:
    """Whether a model is on a server, which may have another one at the next call."""
    return any(isinstance(spec.files.source, UrlSource) for spec in _specs(session, pair))


def _key(session: Session, pair: Pair) -> tuple[object, ...]:
    """Everything that the models depend on: entries, texts, options, and size and time of each of their files."""
    specs = _specs(session, pair)
    found = [each for spec in specs if (each := fetch.locate(spec)) is not None]
    folders = [folder for each in found for folder in (each.folder, each.adapter) if folder]
    files = [stamp for folder in folders for path in sorted(folder.rglob("*")) for stamp in _stamps(path)]
    entries = [*(spec.model_dump_json() for spec in specs), *_texts(session, pair)]
    return (*entries, session.options, tuple(files))


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file; nothing for a link to a file that is not there, such as an editor's lock."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return []
    return [(str(path), stat.st_size, stat.st_mtime_ns)]


def _texts(session: Session, pair: Pair) -> list[str]:
    """The names and texts of the readers of a pair of one model."""
    readers, domains = session.registry.readers, session.registry.domains
    return [f"{name} {readers[name].texts(domains)}" for name in (pair.strong, pair.weak) if name in readers]
