"""Measured performances in a registry folder: `scores.toml`, which `drsow perform` writes and the registry reads."""

import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bench.entries import Entry, Id, ModelSpec, Score
from bench.files import edited_text, toml_table, write_whole
from bench.schema import UsageError

_COLUMNS = ("model_id", "performance_id", "value", "stderr", "source")
"""The keys of a row, in the order in which they are written."""

HEADER = "# Scores that `drsow perform` measured; see docs/guides/perform.md.\n"


_STRING = re.compile(r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL)
"""A string of a TOML file, which may hold "#"."""


class MeasuredScore(Entry, Score):
    """A score of one model, in a separate table, so that a folder can add it to a model that another file defines."""

    KEY = "score"
    model_id: Id
    performance_id: Id

    @property
    def id(self) -> str:
        """Model and performance."""
        return f"{self.model_id} {self.performance_id}"

    @property
    def score(self) -> Score:
        """The score as the model's entry would hold it."""
        return Score(value=self.value, source=self.source, stderr=self.stderr)


def with_scores(
    models: Mapping[str, ModelSpec], found: Iterable[MeasuredScore], origins: Mapping[tuple[str, str], Path]
) -> dict[str, ModelSpec]:
    """The models with their measured scores.

    Args:
        models: By model_id.
        found: The rows of every scores.toml.
        origins: ("scores", id) -> the file of a row, for the error message.

    Raises:
        UsageError: There is no such model, or its entry has this score already.
    """
    models = dict(models)
    for row in found:
        where = f"{origins['scores', row.id]}: {row.id}"
        if row.model_id not in models:
            raise UsageError(f"{where}: model_id: unknown model {row.model_id!r}")
        spec = models[row.model_id]
        if row.performance_id in spec.scores:
            raise UsageError(f"{where}: performance_id: the entry of {row.model_id} has this score already")
        models[row.model_id] = spec.model_copy(update={"scores": spec.scores | {row.performance_id: row.score}})
    return models


def typical_stderr(scores: Sequence[Score | None], otherwise: float) -> float:
    """Root mean square of the scores' standard errors; `otherwise` stands in for a score that says none."""
    known = [None if score is None else score.stderr for score in scores]
    if all(stderr is None for stderr in known):
        return otherwise
    return math.sqrt(sum((otherwise if each is None else each) ** 2 for each in known) / len(known))


def check_place(
    path: Path, model_id: str, performance_id: str, models: Mapping[str, ModelSpec], measured: Collection[str]
) -> None:
    """Checks, before a measurement that may take hours, that a scores.toml can take the score of a model.

    Args:
        path: The scores.toml.
        model_id: Of the model.
        performance_id: Of the score.
        models: The registry's, by model_id.
        measured: ids of the registry's scores that are from a scores.toml, where another row may replace them.

    Raises:
        UsageError: The registry could not read the file, because it has no such model or the model's entry has this
            score already, or the file is no scores.toml.
    """
    if model_id not in models:
        raise UsageError(
            f"--scores {path}: {model_id} is no model_id of the registry; add an entry for it to models.toml, or leave "
            "--scores out"
        )
    if performance_id in models[model_id].scores and f"{model_id} {performance_id}" not in measured:
        raise UsageError(
            f"--scores {path}: the entry of {model_id} in models.toml has a score {performance_id} already; remove it "
            "there, or leave --scores out"
        )
    _rows(path)


def add_score(path: Path, row: MeasuredScore) -> None:
    """Writes a score into a scores.toml, in place of an earlier one of the same model and performance.

    Raises:
        UsageError: The file is no scores.toml, so rewriting it would lose something.
    """
    rows = {each.id: each for each in _rows(path)} | {row.id: row}
    _write(path, rows.values())


def replace_scores(path: Path, performance_id: str, rows: Iterable[MeasuredScore]) -> None:
    """Writes all scores of one performance into a scores.toml, in place of all earlier ones of it.

    Raises:
        UsageError: The file is no scores.toml, so rewriting it would lose something.
    """
    _write(path, [*(each for each in _rows(path) if each.performance_id != performance_id), *rows])


def _write(path: Path, rows: Iterable[MeasuredScore]) -> None:
    dumped = (each.model_dump(exclude_none=True) for each in rows)
    tables = (toml_table("scores", {name: row[name] for name in _COLUMNS if name in row}) for row in dumped)
    write_whole(path, (HEADER + "".join(tables)).encode())


def _rows(path: Path) -> list[MeasuredScore]:
    if not path.exists():
        return []
    try:
        text = edited_text(path)
        tables = tomllib.loads(text)
        rows = tables.pop("scores", [])
        if tables or not isinstance(rows, list):
            raise ValueError("it has something else than [[scores]]")
        if "#" in _STRING.sub("", text.removeprefix(HEADER)):
            raise ValueError("it has comments, which would be lost")
        return [MeasuredScore.model_validate(row) for row in rows]
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path}: is no file of scores ({reason}); name another file with --scores") from error
