"""The settings of a stopped run beside those of now."""

import json

import pytest

from bench.prefer.resumed import changed, comparable, finish
from bench.schema import UsageError

RUN = {
    "model_id": "run/tuned", "revision": "sha256:1", "prompts": "prompts.jsonl", "prompts_digest": "ab", "top_p": 1.0,
}  # fmt: skip


def test_a_folder_that_was_moved_goes_on_and_other_weights_or_rows_do_not():
    moved = RUN | {"model_id": "/elsewhere/run/tuned", "prompts": "/elsewhere/prompts.jsonl"}
    assert changed(RUN, moved) == []
    assert changed(RUN, moved | {"revision": "sha256:2", "prompts_digest": "cd"}) == [
        "model_id was run/tuned, now /elsewhere/run/tuned", "revision was sha256:1, now sha256:2",
        "prompts was prompts.jsonl, now /elsewhere/prompts.jsonl", "prompts_digest was ab, now cd",
    ]  # fmt: skip


def test_a_place_without_a_digest_is_the_setting_itself():
    server = {"model_id": "one", "url": "http://localhost:8000"}
    assert changed(server, server | {"model_id": "two"}) == ["model_id was one, now two"]


def test_a_setting_that_one_of_both_lacks_is_named_and_a_long_one_is_cut():
    assert changed(RUN, RUN | {"slots": 64}) == ["slots was absent, now 64"]
    assert changed(RUN | {"slots": 64}, RUN) == ["slots was 64, now absent"]
    assert changed(RUN, RUN | {"revision": "x" * 50}) == [f"revision was sha256:1, now {'x' * 40}…"]


NAMES = [f"p{i}" for i in range(5)]


def finished(out, *, names=NAMES, made=None, final=None) -> list[dict]:
    """The lines of a file of one line per prompt, whose first prompt has one response with text."""

    def make(todo):
        for name in todo:
            if made is not None:
                made.append(name)
            yield name, {"id": name, "candidates": ["a", "" if name == "p0" else "b"]}

    return finish(out, {"seed": 1}, names, make, name_of=lambda line: line["id"], final=final)


@pytest.mark.parametrize("final", [None, comparable])
def test_a_complete_file_that_lost_lines_is_refused_and_goes_on_under_its_partial_name(tmp_path, final):
    out = tmp_path / "out.jsonl"
    lines = finished(out, final=final)
    assert len(lines) == (5 if final is None else 4)
    whole = out.read_bytes()
    assert finished(out, final=final) == lines
    kept = whole.splitlines(keepends=True)
    out.write_bytes(b"".join([kept[0], *kept[3:]]))
    with pytest.raises(UsageError) as error:
        finished(out, final=final)
    assert str(error.value) == (
        f"{out}: lacks 2 of its prompts' lines; rename it to out.jsonl.partial and run the command again, which adds "
        "them, or remove it and out.jsonl.settings.json"
    )
    out.rename(tmp_path / "out.jsonl.partial")
    made = []
    assert finished(out, made=made, final=final) == lines
    assert out.read_bytes() == whole
    assert len(made) == (2 if final is None else 3)


def test_a_file_whose_settings_do_not_count_its_lines_is_complete(tmp_path):
    out = tmp_path / "out.jsonl"
    lines = finished(out, final=comparable)
    (tmp_path / "out.jsonl.settings.json").write_text('{"seed": 1}')
    assert finished(out, final=comparable) == lines


@pytest.mark.parametrize("data", [b"", b'{"seed": 1', b"[1]", b"\xff\xfe"])
def test_damaged_settings_are_one_line_that_names_the_file(tmp_path, data):
    out, note = tmp_path / "out.jsonl", tmp_path / "out.jsonl.settings.json"
    finished(out)
    note.write_bytes(data)
    with pytest.raises(UsageError) as error:
        finished(out)
    assert str(error.value) == (
        f"{note}: is damaged (no JSON object), so the settings of the earlier run are not known; restore it, or name "
        "another --out"
    )
    assert note.read_bytes() == data


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.partial"])
def test_a_damaged_line_is_named(tmp_path, name):
    finished(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").rename(tmp_path / name)
    with (tmp_path / name).open("r+b") as file:
        file.seek(len(file.readline()))
        file.write(b"!")
    with pytest.raises(UsageError, match=rf"{name}, line 2: is damaged \(no JSON object\); remove it and run the com"):
        finished(tmp_path / "out.jsonl")


@pytest.mark.parametrize("line", [{"x": 1}, {"id": "1"}, {"candidates": ["a"]}])
def test_a_line_of_another_kind_is_named(tmp_path, line):
    finished(tmp_path / "out.jsonl")
    partial = (tmp_path / "out.jsonl").rename(tmp_path / "out.jsonl.partial")
    n = len(partial.read_text().splitlines())
    with partial.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=rf"partial, line {n + 1}: is damaged \(no id or no response\); remove it"):
        finished(tmp_path / "out.jsonl")


def test_a_file_that_two_processes_complete_is_complete(tmp_path):
    out = tmp_path / "out.jsonl"

    def make(todo):
        # The second run begins and ends while the first one makes its lines.
        lines.append(finished(out))
        yield from ((name, {"id": name, "candidates": ["a", "" if name == "p0" else "b"]}) for name in todo)

    lines = []
    lines.append(finish(out, {"seed": 1}, NAMES, make, name_of=lambda line: str(line["id"])))
    assert lines[0] == lines[1] == [json.loads(line) for line in out.read_text().splitlines()]
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_lines_of_other_settings_are_never_taken_whatever_of_the_run_is_removed(tmp_path):
    out = tmp_path / "out.jsonl"

    def run(seed, *, most=5):
        lines = [(name, {"id": name, "seed": seed}) for name in NAMES]
        return finish(out, {"seed": seed}, NAMES, lambda _: lines[:most], name_of=lambda line: line["id"])

    with pytest.raises(KeyError):
        run(0, most=2)
    with pytest.raises(UsageError, match=r"seed was 0, now 1; .*remove out\.jsonl\.partial and out\.jsonl\.settings\."):
        run(1)
    (tmp_path / "out.jsonl.settings.json").unlink()
    for seed in (0, 1):
        with pytest.raises(UsageError, match=r"out\.jsonl\.partial exists already, .* or remove it$"):
            run(seed)
    (tmp_path / "out.jsonl.partial").unlink()
    assert {line["seed"] for line in run(1)} == {1}
    with pytest.raises(UsageError, match=r"remove out\.jsonl and out\.jsonl\.settings\.json$"):
        run(0)
