"""Writes a file of one line a prompt, so that a stopped run continues after its last whole line."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.data.rows import example_id, own_id
from bench.schema import DrsowError, Example, UsageError
from bench.store.folder import write_json, write_whole

PARTIAL, SETTINGS = ".partial", ".settings.json"
"""Ends of the names of a file that is not complete yet, and of the settings beside a file."""


_PLACES = {"model_id": "revision", "policy": "revision", "prompts": "prompts_digest", "data": "data_digest"}
"""Settings that name a place, and the digest of what lies there."""

_MAX_SHOWN = 40
"""Most characters of a setting in a message."""


class Sampling(NamedTuple):
    """Settings of the sampling."""

    n: int = 32
    """Number of responses per prompt."""
    temperature: float = 0.7
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    keep_empty: bool = False
    """Whether to keep empty responses, and so every prompt."""


Line = dict[str, object]


def finish(
    out: Path,
    settings: Mapping[str, object],
    names: Sequence[str],
    make: Callable[[list[str]], Iterable[tuple[str, Line]]],
    *,
    name_of: Callable[[Line], str],
    final: Callable[[list[Line]], list[Line]] | None = None,
) -> list[Line]:
    """Completes a file of one line a prompt, in the prompts' order; makes the lines that it lacks.

    The file's name ends in ".partial" until it is complete. Its lines may come in any order, so that a prompt that is
    done need not wait for an earlier one.

    Args:
        out: The .jsonl file.
        settings: What the lines depend on. They are stored beside the file; a run that continues compares them.
        names: The prompts.
        make: Makes the lines of some prompts, each with its prompt's name. It is not called if none is missing.
        name_of: The prompt's name of a stored line.
        final: Turns all lines into those of the complete file; None keeps them.

    Returns:
        The lines of the complete file.

    Raises:
        UsageError: The file was begun with other settings, or another program wrote it.
        DrsowError: The file cannot be written.
    """
    partial, note = out.with_name(f"{out.name}{PARTIAL}"), out.with_name(f"{out.name}{SETTINGS}")
    _check_ours(out, note, settings)
    if out.exists():
        return list(whole_lines(out))
    write_json(note, dict(settings))
    found = _filled(partial, names, make, name_of)
    lines = [found[name] for name in names]
    lines = lines if final is None else final(lines)
    write_whole(out, encoded(lines))
    partial.unlink()
    return lines


def _filled(
    partial: Path,
    names: Sequence[str],
    make: Callable[[list[str]], Iterable[tuple[str, Line]]],
    name_of: Callable[[Line], str],
) -> dict[str, Line]:
    """Adds the lines that a partial file lacks; returns all lines by their prompts' names."""
    # A stopped run may have left half a line: remove it before adding lines.
    found = {name_of(line): line for line in whole_lines(partial)}
    write_whole(partial, encoded(found.values()))
    if todo := [name for name in names if name not in found]:
        try:
            with partial.open("ab") as file:
                for name, line in make(todo):
                    found[name] = line
                    file.write(encoded([line]))
                    file.flush()
        except OSError as error:
            raise DrsowError(f"{partial} cannot be written: {error.strerror or error}") from error
    return found


def changed(stored: Mapping[str, object], settings: Mapping[str, object]) -> list[str]:
    """What differs between the settings of a stopped run and those of now, in words.

    A model or a file of prompts that lies elsewhere than before is the same if its digest is.
    """
    now = json.loads(json.dumps(settings))
    moved = {place for place, digest in _PLACES.items() if digest in now and stored.get(digest) == now[digest]}
    names = [name for name in {**now, **stored} if name not in moved and stored.get(name) != now.get(name)]
    return [f"{name} was {_shown(stored.get(name))}, now {_shown(now.get(name))}" for name in names]


def _shown(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _check_ours(out: Path, note: Path, settings: Mapping[str, object]) -> None:
    """Rejects a file that was begun with other settings, or that no run wrote."""
    if note.exists() and (told := changed(json.loads(note.read_text(encoding="utf-8")), settings)):
        raise UsageError(
            f"{out} was begun with other settings: {'; '.join(told)}; name another --out, or remove it and {note.name}"
        )
    if out.exists() and not note.exists():
        raise UsageError(
            f"{out} exists already, and drsow did not write it ({note.name} is missing); name another --out"
        )


def sampled_id(line: Mapping[str, object]) -> str:
    """The example_id of a line of the candidates file."""
    return example_id(str(line.get("subset", "")), str(line["id"]))


def candidates_line(example: Example, texts: Sequence[str]) -> Line:
    """The line of a candidates file for a prompt and its responses."""
    head = {"subset": example.subset} if example.subset else {}
    prompt = [message._asdict() for message in example.messages]
    return {"id": own_id(example), **head, "prompt": prompt, "candidates": list(texts)}


REASONS = "finish_reasons"
"""The field of a line that says for each response from a server why it ended."""


def comparable(lines: Sequence[Line]) -> list[Line]:
    """The lines without their empty responses; a line that keeps fewer than two responses is dropped."""
    told = []
    for line in lines:
        kept = [number for number, text in enumerate(candidates(line)) if text]
        lists = [name for name in ("candidates", REASONS) if name in line]
        if len(kept) > 1:
            told.append(line | {name: [_list(line, name)[number] for number in kept] for name in lists})
    return told


def candidates(line: Line) -> list[str]:
    """The responses of a line of the candidates file."""
    return _list(line, "candidates")


def reasons(line: Line) -> list[str]:
    """Why the responses of a line from a server ended."""
    return _list(line, REASONS)


def _list(line: Line, name: str) -> list[str]:
    values = line[name]
    assert isinstance(values, list)
    return values


def whole_lines(path: Path) -> Iterator[Line]:
    """The complete lines of a file; a stop may have cut its last line off."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            yield json.loads(line)


def encoded(lines: Iterable[Line]) -> bytes:
    """Lines as the file has them."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
