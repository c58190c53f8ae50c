"""Files: whole or absent, safe names, tables that no spreadsheet runs and that come back as they were."""

import math
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import schema
from bench.files import (
    TEXT_COLUMNS,
    check_not_read,
    edited_text,
    read_csv,
    rounded,
    safe_name,
    write_csv,
    write_json,
    write_whole,
)
from bench.schema import DrsowError, PreconditionError, UsageError

HOSTILE = [
    "../x", "..", ".", "", "/", "/etc/passwd", "a\0b", "x" * 300, "CON", "con", "nul.txt", "COM1.a.b", "x/y", "x_y",
    "x-y", "x\\y", ".hidden", "trailing.", "trailing ", "-rf", "~", "$HOME", "a b", "a\nb", "раура", "paypa\u04cf",
    "ｘ", "x\u0301", "🙂", "\ud800", "x" * 100, "x" * 101, "CON.", ".CON", "C:", "NUL:", "*", "LPT9",
]  # fmt: skip


def test_a_safe_name_stays_as_it_is():
    for name in ("embedded", "reward-bench", "SmolLM2-135M_v1.0", "x" * 100, "console"):
        assert safe_name(name) == name


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_becomes_one_harmless_path_part(text, tmp_path):
    name = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name)
    assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    assert not name.endswith(".")
    write_whole(tmp_path / name / "file", b"")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_hostile_names_do_not_collide_even_with_their_own_safe_names():
    texts = {*HOSTILE, *map(safe_name, HOSTILE)}
    twice = texts | {safe_name(text) for text in texts}
    assert len({safe_name(text) for text in twice}) == len(twice)


@settings(deadline=None)
@given(st.text(), st.text())
def test_two_names_share_a_path_part_only_when_equal(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize("data", ["é\nb\n".encode(), "é\r\nb\r\n".encode("utf-8-sig"), "é\rb\n".encode("utf-8-sig")])
def test_an_edited_text_is_the_same_whatever_the_editor_adds(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    assert edited_text(tmp_path / "a.txt") == "é\nb\n"


def test_an_edited_text_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "a.txt").write_bytes("a\né".encode("latin-1"))
    with pytest.raises(UsageError, match=r"a\.txt, line 2: is not UTF-8"):
        edited_text(tmp_path / "a.txt")
    with pytest.raises(PreconditionError, match=r"b\.txt: no such file"):
        edited_text(tmp_path / "b.txt")


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_into_a_file_as_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DrsowError) as error:
        write_whole(tmp_path / "file" / "x", b"")
    assert str(error.value) == f"{tmp_path}/file/x: cannot be written: File exists"


def test_a_link_stays_and_the_file_that_it_names_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    for name, target in (("one", "folder/file"), ("two", "one"), ("new", "folder/absent")):
        (tmp_path / name).symlink_to(target)
        write_whole(tmp_path / name, name.encode())
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == name.encode()
    assert {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == {
        "file": b"two", "absent": b"new"
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    # Open for both, so that the writer finds a reader and an empty pipe does not make the reader wait.
    handle = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write_whole(tmp_path / name, b"data")
    assert os.read(handle, 100) == b"data"
    os.close(handle)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link"}


def test_a_device_is_written_into_and_stays_a_device(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        (tmp_path / "null").write_bytes(b"")
    except OSError:
        pytest.skip("needs the right to make devices")
    write_whole(tmp_path / "null", b"data")
    assert (tmp_path / "null").is_char_device()


def test_a_file_to_write_is_not_the_one_that_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "link").symlink_to("a.jsonl")
    for out, source in (("a.jsonl", "a.jsonl"), ("link", "a.jsonl"), ("a.jsonl", "link"), ("a.jsonl", "./a.jsonl")):
        with pytest.raises(UsageError, match=r"^--out .* is the file that --data reads; name another file$"):
            check_not_read(tmp_path / out, "--data", f"{tmp_path}/{source}")
    for source in (None, "reward-bench", f"{tmp_path}/b.jsonl", "x" * 5000, "a\0b"):
        check_not_read(tmp_path / "a.jsonl", "--data", source)
    check_not_read(tmp_path / "b.jsonl", "--data", tmp_path / "b.jsonl")


FULL = """
import resource, sys
from pathlib import Path
from bench.files import write_whole
from bench.schema import DrsowError

path = Path(sys.argv[1]) / "file"
write_whole(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(path, b"x" * 100_000)
except DrsowError as error:
    print(error)
"""


def test_a_write_that_does_not_fit_leaves_the_old_file(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/file: cannot be written: File too large\n"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_table_is_written_in_its_columns_order(tmp_path):
    frame = pd.DataFrame({"b": [0.1, math.nan, 1e-300], "n": [1, 2, 3], "a": ["x", "", "z,\n"]})
    write_csv(tmp_path / "t.csv", frame, ("a", "b", "n"))
    assert (tmp_path / "t.csv").read_bytes() == b'a,b,n\nx,0.1,1\n,,2\n"z,\n",1e-300,3\n'


def test_a_table_with_other_columns_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: columns are \['a', 'x'\], not \['a', 'b'\]"):
        write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1], "x": [1]}), ("a", "b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'"])
def test_a_cell_that_would_run_as_a_formula_is_guarded_and_comes_back(start, tmp_path):
    cell = f"{start}1+1"
    write_csv(tmp_path / "t.csv", pd.DataFrame({"name": [cell], "value": [-1.0]}), ("name", "value"))
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert text.partition("\n")[2].lstrip('"').startswith("'" + start)
    assert ",-1.0\n" in text
    assert read_csv(tmp_path / "t.csv").to_dict("list") == {"name": [cell], "value": [-1.0]}


def test_a_carriage_return_starts_no_new_row(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"name": ["a\r=1+1"], "value": [1]}), ("name", "value"))
    assert (tmp_path / "t.csv").read_bytes() == b'"name","value"\n"a\r=1+1",1\n'


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.floats(), st.integers(-(2**63), 2**63 - 1))))
def test_a_table_comes_back_as_it_was(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "tables" / "t.csv"
    frame = pd.DataFrame(rows, columns=["name", "x", "n"]).astype({"name": object, "x": float, "n": "int64"})
    write_csv(path, frame, ("name", "x", "n"))
    back, digits = read_csv(path), rounded(frame)
    assert list(back["name"]) == list(frame["name"])
    for name in ("x", "n"):
        pd.testing.assert_series_equal(
            back[name], digits[name], check_exact=True, check_dtype=len(rows) > 0, check_index_type=False
        )


def test_two_processors_write_the_same_digits(tmp_path):
    sums = pd.DataFrame({"x": [0.1 + 0.2, 1e15 / 3, 5e-324, np.inf, np.nan], "n": [2**53 + 1] * 5})
    near = sums.assign(x=np.nextafter(sums["x"], 0).where(sums["x"].between(1e-300, 1e300), sums["x"]))
    for name, frame in (("one.csv", sums), ("other.csv", near)):
        write_csv(tmp_path / name, frame, ("x", "n"))
    assert (tmp_path / "one.csv").read_text() == (
        "x,n\n0.3,9007199254740993\n333333333333000.0,9007199254740993\n5e-324,9007199254740993\n"
        "inf,9007199254740993\n,9007199254740993\n"
    )
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_ids_that_look_like_numbers_or_like_nothing_stay_text(tmp_path):
    frame = pd.DataFrame({"example_id": ["007", "1e3", "NA", "None", "nan", "True"]})
    write_csv(tmp_path / "t.csv", frame, ("example_id",))
    assert list(read_csv(tmp_path / "t.csv")["example_id"]) == list(frame["example_id"])


def test_an_empty_cell_is_no_text_or_no_number(tmp_path):
    (tmp_path / "t.csv").write_text("subset,score\n,\n")
    frame = read_csv(tmp_path / "t.csv")
    assert frame["subset"].tolist() == [""]
    assert math.isnan(frame["score"].iloc[0])


def test_every_text_column_of_the_schema_is_read_as_text():
    numbers = {
        "logp_sum_nats", "logp_end_nats", "n_tokens", "n_bytes", "byte_start", "byte_end", "logp_nats", "margin_nats",
        "accuracy", "stderr", "tie_rate", "n_examples", "n_ties", "n_excluded", "rank", "rank_low", "rank_high",
        "gap_points", "score", "score_low", "score_high", "score_held_out", "chat", "chat_hard", "safety", "reasoning",
        "n_params", "cost_flop", "estimate", "low", "high", "p_value", "p_holm", "primary", "n_pairs", "n_models",
        "n_prompts",
    }  # fmt: skip
    tables = (schema.SCORES, schema.TOKENS, schema.MARGINS, schema.ACCURACY, schema.LEADERBOARD, schema.CORRELATION)
    assert {name for table in tables for name in table} - numbers <= TEXT_COLUMNS
    assert not numbers & TEXT_COLUMNS


def test_a_table_that_is_not_there_is_a_missing_precondition(tmp_path):
    with pytest.raises(PreconditionError) as error:
        read_csv(tmp_path / "t.csv")
    assert str(error.value) == f"{tmp_path}/t.csv: not found"


@pytest.mark.parametrize(
    ("name", "verb"),
    [("leaderboard", "run"), ("correlation", "run --study"), ("ablation", "ablate"), ("agreement", "agree"),
     ("judge", "judge"), ("curve", "tune"), ("skipped", "annotate")],
)  # fmt: skip
def test_a_missing_table_names_the_verb_that_writes_it(name, verb, tmp_path):
    with pytest.raises(PreconditionError) as error:
        read_csv(tmp_path / f"{name}.csv")
    assert str(error.value) == f"{tmp_path}/{name}.csv: not found; `drsow {verb}` writes it"


@pytest.mark.parametrize("data", [b"", b"a,b\n1\n2,3,4\n", b"a\n\xff\n"])
def test_a_broken_table_is_one_line(data, tmp_path):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DrsowError, match=r"^/[^\n]*/t\.csv: is no table: [^\n]+$"):
        read_csv(tmp_path / "t.csv")


def test_json_keeps_its_order_and_refuses_nan(tmp_path):
    write_json(tmp_path / "t.json", {"b": "é", "a": [1]})
    assert (tmp_path / "t.json").read_text() == '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "t.json", {"a": math.nan})
    assert (tmp_path / "t.json").read_text().startswith('{\n  "b"')
