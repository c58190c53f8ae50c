"""Writes a file of one line per prompt, so that a stopped run continues after its last whole line."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.data.rows import example_id, own_id
from bench.faults import warn
from bench.files import read_if_there, write_json, write_whole
from bench.schema import DrsowError, Example, UsageError

PARTIAL, SETTINGS = ".partial", ".settings.json"
"""Ends of the names of a file that is not complete yet, and of the settings beside a file."""

N_LINES = "n_lines"
"""The field beside a file's settings that says how many lines the complete file got."""

_PLACES = {
    "model_id": "revision",
    "policy": "revision",
    "template": "template_digest",
    "prompts": "prompts_digest",
    "data": "data_digest",
}
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


class Said(NamedTuple):
    """One response."""

    text: str
    reason: str
    """Its finish_reason: ENDED, CUT or another word of a server."""


ENDED, CUT = "stop", "length"
"""The finish_reason of a response that the model ended, and of one that `max_new_tokens` or the context ended."""

WHOLE = frozenset({ENDED, "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call"})
"""What servers say about a response that the model ended."""

REASONS = "finish_reasons"
"""The field of a line that says for each response why it ended. Lines of earlier versions of drsow have none."""

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
    """Completes a file of one line per prompt, in the prompts' order; makes the lines that it lacks.

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
        UsageError: The file was begun with other settings, another program wrote it, or lines are gone from it.
        DrsowError: The file cannot be written.
    """
    partial, note = out.with_name(f"{out.name}{PARTIAL}"), out.with_name(f"{out.name}{SETTINGS}")
    stored = _ours(out, partial, note, settings)
    if out.exists():
        return _complete(out, note, stored.get(N_LINES, 0 if final else len(names)))
    write_json(note, dict(settings))
    lines = (final or list)(_filled(partial, names, make, name_of))
    write_json(note, {**settings, N_LINES: len(lines)})
    write_whole(out, encoded(lines))
    # Another process that completes the same file may have removed it.
    partial.unlink(missing_ok=True)
    return lines


def _filled(
    partial: Path,
    names: Sequence[str],
    make: Callable[[list[str]], Iterable[tuple[str, Line]]],
    name_of: Callable[[Line], str],
) -> list[Line]:
    """Adds the lines that a partial file lacks; returns all lines in the prompts' order."""
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
    return [found[name] for name in names]


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


def stored_settings(note: Path) -> dict | None:
    """The settings of an earlier run; None if there are none.

    Raises:
        UsageError: The file is damaged.
    """
    data = read_if_there(note)
    if data is None:
        return None
    found = _json_object(data)
    if found is None:
        raise UsageError(
            f"{note}: is damaged (no JSON object), so the settings of the earlier run are not known; restore it, or "
            "name another --out"
        )
    return found


def _json_object(data: bytes) -> dict | None:
    """The JSON object that some bytes spell; None for anything else."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _ours(out: Path, partial: Path, note: Path, settings: Mapping[str, object]) -> dict:
    """What the note beside a file says; rejects a file that was begun with other settings, or that no run wrote."""
    stored = stored_settings(note)
    there = [path for path in (out, partial) if path.exists()]
    if stored is None and there:
        raise UsageError(
            f"{there[0]} exists already, and what it was made with is not known ({note.name} is missing); name another "
            "--out, or remove it"
        )
    kept = {name: value for name, value in (stored or {}).items() if name != N_LINES}
    if stored is not None and (told := changed(kept, settings)):
        files = " and ".join(path.name for path in (*there, note))
        raise UsageError(
            f"{out} was begun with other settings: {'; '.join(told)}; name another --out, or remove {files}"
        )
    return stored or {}


def _complete(out: Path, note: Path, n_written: int) -> list[Line]:
    """The lines of a complete file; rejects one that has fewer of them than were written."""
    lines = list(whole_lines(out))
    if (n_lost := n_written - len(lines)) > 0:
        raise UsageError(
            f"{out}: lacks {n_lost} of its prompts' lines; rename it to {out.name}{PARTIAL} and run the command again, "
            f"which adds them, or remove it and {note.name}"
        )
    return lines


def sampled_id(line: Mapping[str, object]) -> str:
    """The example_id of a line of the candidates file."""
    return example_id(str(line.get("subset", "")), str(line["id"]))


def candidates_line(example: Example, said: Sequence[Said]) -> Line:
    """The line of a candidates file for a prompt and its responses."""
    head = {"subset": example.subset} if example.subset else {}
    prompt = [message._asdict() for message in example.messages]
    told = {"candidates": [each.text for each in said], REASONS: [each.reason for each in said]}
    return {"id": own_id(example), **head, "prompt": prompt, **told}


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
    """Why the responses of a line ended; empty if that was not recorded."""
    return _list(line, REASONS) if REASONS in line else []


def ended(lines: Iterable[Line]) -> dict[str, int]:
    """How many responses of some lines ended for each reason."""
    return dict(Counter(reason for line in lines for reason in reasons(line)))


def tell_cut(lines: Iterable[Line], n_tokens: int, *, model: str) -> dict[str, int]:
    """Says on stderr how many responses of a model were cut; returns `ended`. `n_tokens`: `max_new_tokens`."""
    found = ended(lines)
    for reason in (each for each in found if each not in WHOLE):
        words = f"may not be whole: their finish_reason is {reason!r}"
        if reason == CUT:
            words = f"are cut at {n_tokens} tokens or at the end of the context"
        warn(f"{model}: {found[reason]} of {sum(found.values())} responses {words}")
    return found


def _list(line: Line, name: str) -> list[str]:
    values = line[name]
    assert isinstance(values, list)
    return values


def whole_lines(path: Path) -> Iterator[Line]:
    """The complete lines of a file; a stop may have cut its last line off.

    Raises:
        UsageError: A line is damaged.
    """
    for number, line in enumerate((read_if_there(path) or b"").split(b"\n")[:-1], start=1):
        found = _json_object(line)
        if found is None or "id" not in found or not {"answer", "candidates"} & set(found):
            what = "no JSON object" if found is None else "no id or no response"
            raise UsageError(f"{path}, line {number}: is damaged ({what}); remove it and run the command again")
        yield found


def encoded(lines: Iterable[Line]) -> bytes:
    """Lines as the file has them."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
