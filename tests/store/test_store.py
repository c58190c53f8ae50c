"""The store: keys, parts that are whole or absent, what a kill, a flipped bit and a second process leave behind."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.schema import SCHEMA_VERSION, SCORES, DrsowError, PreconditionError, ScoreKey, UsageError
from bench.store.folder import ScoreSet, Store
from bench.store.parts import check_scores, decode_manifest, encode_manifest, encode_part

TESTS = Path(__file__).parent
KEY = ScoreKey(
    model_id="org/model", revision="abc", template_digest="t", domain="", domain_digest="",
    data_digest="d", dtype="float32", ops="cpu-torch", attention="sdpa", span="1", schema_version=SCHEMA_VERSION,
)  # fmt: skip
SETTINGS = {"batch_tokens": 4096, "n_threads": 2}
KILLED = 137


def scores(*example_ids: str) -> pd.DataFrame:
    rows = [(example_id, response, -2.5, -0.5, 3, 9, "ok") for example_id in example_ids for response in ("0", "1")]
    return pd.DataFrame(rows, columns=list(SCORES))


PARTS = [scores("b/1", "a/1"), scores("c/1"), scores("a/2")]


def run_to_the_end(root: Path) -> ScoreSet:
    """What a run does, and a run that goes on."""
    score_set = Store(root).score_set(KEY)
    with score_set.lock():
        score_set.begin(len(PARTS), SETTINGS)
        for index in score_set.missing():
            score_set.write_part(index, PARTS[index])
        score_set.finish({"device": "cpu"})
    return score_set


def child(code: str, root: Path, **environment: str) -> subprocess.Popen:
    """A second process, in which the names of this module and `root` are known."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", f"from test_store import *; root = Path(sys.argv[1]); {code}", str(root)],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only_part(score_set: ScoreSet, index: int) -> Path:
    (path,) = score_set.folder.glob(f"part-{index:04d}-*.parquet")
    return path


@pytest.fixture
def finished(tmp_path) -> ScoreSet:
    return run_to_the_end(tmp_path)


def test_a_finished_set_is_read_sorted(finished):
    frame = finished.read()
    assert tuple(frame.columns) == SCORES
    assert list(zip(frame["example_id"], frame["response_id"], strict=True)) == [
        (example_id, response) for example_id in ("a/1", "a/2", "b/1", "c/1") for response in ("0", "1")
    ]
    assert frame["logp_sum_nats"].tolist() == [-2.5] * 8
    assert frame["n_tokens"].dtype == "int64"
    assert finished.complete
    assert finished.info() == {"device": "cpu"}


def test_a_set_lies_in_a_folder_of_its_model_and_key(tmp_path):
    folder = Store(tmp_path).score_set(KEY).folder
    assert folder.parent == tmp_path / "scores"
    assert folder.name.startswith("org-model-")
    assert not folder.parent.exists()


def test_every_field_of_the_key_has_a_folder_of_its_own(tmp_path):
    keys = [KEY] + [KEY._replace(**{field: "other"}) for field in KEY._fields]
    assert len({Store(tmp_path).score_set(key).folder for key in keys}) == len(keys)


def test_a_hostile_model_name_stays_under_the_results(tmp_path):
    folder = Store(tmp_path).score_set(KEY._replace(model_id="../../etc")).folder
    assert folder.resolve().parent == (tmp_path / "scores").resolve()


def test_equal_frames_give_equal_bytes():
    assert encode_part(PARTS[0]) == encode_part(PARTS[0].copy())
    narrow = PARTS[0].astype({"logp_sum_nats": "float32", "n_tokens": "int32", "status": object})
    assert encode_part(narrow) == encode_part(PARTS[0])


def test_nan_sums_come_back_as_nan(tmp_path):
    frame = scores("a/1").assign(status="too_long", logp_sum_nats=math.nan, logp_end_nats=math.nan)
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(1, SETTINGS)
    score_set.write_part(0, frame)
    score_set.finish({})
    pd.testing.assert_frame_equal(score_set.read(), frame, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "a/1, 0: unknown status (status 'fine')"),
        ({"status": None}, "status has a missing value, or one that is no text"),
        ({"logp_sum_nats": math.nan}, "a/1, 0: no finite log-probability (status 'ok')"),
        ({"logp_end_nats": -math.inf}, "a/1, 0: no finite log-probability (status 'ok')"),
        ({"response_id": "0"}, "a/1, 0: stored twice (status 'ok')"),
        ({"example_id": None}, "example_id has a missing value, or one that is no text"),
        ({"example_id": 7}, "example_id has a missing value, or one that is no text"),
        ({"n_tokens": 3.0}, "n_tokens has a value that is no count"),
        ({"n_bytes": -1}, "n_bytes has a value that is no count"),
    ],
)
def test_a_frame_that_is_wrong_is_refused(change, message):
    with pytest.raises(ValueError) as error:
        check_scores(scores("a/1").assign(**change))
    assert str(error.value) == message


def test_a_frame_with_other_columns_is_refused():
    with pytest.raises(ValueError, match=r"^columns are example_id; expected example_id, response_id, "):
        check_scores(scores("a/1")[["example_id"]])


def test_a_part_that_the_set_does_not_have_is_refused(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    with pytest.raises(ValueError, match="was not begun with a part 0"):
        score_set.write_part(0, PARTS[0])
    score_set.begin(1, SETTINGS)
    with pytest.raises(ValueError, match="was not begun with a part 1"):
        score_set.write_part(1, PARTS[1])


def test_a_set_with_a_missing_part_is_not_finished(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(3, SETTINGS)
    score_set.write_part(1, PARTS[1])
    with pytest.raises(DrsowError) as error:
        score_set.finish({})
    assert str(error.value) == f"{score_set.folder}: not complete, missing parts: 0, 2"
    with pytest.raises(PreconditionError) as error:
        score_set.read()
    assert str(error.value) == (
        f"org/model: the score set {score_set.folder} is not complete; `drsow run` scores the rest"
    )


def test_a_response_in_two_parts_is_an_error(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(2, SETTINGS)
    score_set.write_part(0, scores("a/1"))
    score_set.write_part(1, scores("b/1", "a/1"))
    with pytest.raises(DrsowError) as error:
        score_set.finish({})
    assert str(error.value) == f"{score_set.folder}: a/1, 0 is in two parts"
    assert not score_set.complete


def test_a_part_written_again_takes_the_place_of_the_old_one(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(1, SETTINGS)
    for frame in (scores("a/1"), scores("b/1")):
        score_set.write_part(0, frame)
    score_set.finish({})
    assert set(score_set.read()["example_id"]) == {"b/1"}


def test_settings_are_those_of_the_run_that_began(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    assert score_set.recorded_settings() is None
    assert score_set.begin(3, SETTINGS) == SETTINGS
    assert score_set.begin(3, {"batch_tokens": 1, "n_threads": 9}) == SETTINGS
    assert score_set.recorded_settings() == SETTINGS


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"X" + data[1:]])
def test_a_damaged_part_is_set_aside_and_missing(finished, damage):
    before = finished.read()
    part = only_part(finished, 1)
    part.write_bytes(damage(part.read_bytes()))
    assert not finished.complete
    assert finished.missing() == [1]
    assert not part.exists()
    assert part.with_name(f"{part.name}.damaged").exists()
    run_to_the_end(finished.folder.parents[1])
    pd.testing.assert_frame_equal(finished.read(), before)


def test_a_part_that_is_gone_is_missing(finished):
    only_part(finished, 2).unlink()
    assert not finished.complete
    assert finished.missing() == [2]


def test_of_two_sound_files_of_one_part_neither_is_believed(finished):
    other = Store(finished.folder.parents[1] / "other").score_set(KEY)
    other.begin(1, SETTINGS)
    other.write_part(0, scores("x/1"))
    shutil.copy(only_part(other, 0), finished.folder)
    assert finished.missing() == [0]
    finished.write_part(0, PARTS[0])
    assert finished.missing() == []


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lambda data: data[: len(data) // 2], "its manifest cannot be read"),
        (lambda data: b"", "its manifest cannot be read"),
        (lambda data: b"[]", "its manifest cannot be read"),
        (lambda data: b"\xff\xfe\x00", "its manifest cannot be read"),
        (
            lambda data: data.replace(b'"batch_tokens": 4096', b'"batch_tokens": 4097'),
            "its manifest was changed after ",
        ),
        (None, "its manifest is gone"),
    ],
)
def test_a_set_with_a_damaged_manifest_is_set_aside_and_begun_anew(finished, damage, detail, capsys):
    manifest = finished.folder / "manifest.json"
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_bytes(damage(manifest.read_bytes()))
    assert not finished.complete
    assert finished.recorded_settings() is None
    finished.begin(3, SETTINGS)
    assert finished.missing() == [0, 1, 2]
    aside = finished.folder.with_name(f"{finished.folder.name}.damaged-1")
    assert len(list(aside.glob("part-*"))) == 3
    line = capsys.readouterr().err
    assert line.startswith(f"warning: {finished.folder}: {detail}")
    assert line.endswith(f"; drsow renamed it to {aside.name} and scores the set again\n")


def test_a_set_with_a_changed_key_field_is_a_miss_and_set_aside(finished, capsys):
    manifest = finished.folder / "manifest.json"
    stored = decode_manifest(manifest.read_bytes())
    manifest.write_bytes(encode_manifest(stored._replace(key=stored.key | {"dtype": "bfloat16"})))
    assert not finished.complete
    assert finished.begin(3, {"batch_tokens": 1}) == {"batch_tokens": 1}
    assert finished.missing() == [0, 1, 2]
    assert capsys.readouterr().err == (
        f"warning: {finished.folder}: dtype was 'bfloat16', is 'float32'; "
        f"drsow renamed it to {finished.folder.name}.stale-1 and scores the set again\n"
    )


def test_another_cut_into_parts_starts_anew(finished, capsys):
    for n_parts, n_aside in ((4, 1), (5, 2)):
        finished.begin(n_parts, SETTINGS)
        assert f"n_parts was {n_parts - 1}, is {n_parts}; drsow renamed it to" in capsys.readouterr().err
        assert finished.folder.with_name(f"{finished.folder.name}.stale-{n_aside}").is_dir()
        assert finished.missing() == list(range(n_parts))


def test_found_are_complete_sets_with_these_values(finished, capsys):
    store = Store(finished.folder.parents[1])
    begun = store.score_set(KEY._replace(dtype="bfloat16"))
    begun.begin(1, SETTINGS)
    assert [found.key for found in store.find()] == [KEY]
    assert [found.key for found in store.find(model_id="org/model", dtype="float32")] == [KEY]
    assert store.find(dtype="bfloat16") == []
    begun.write_part(0, PARTS[0])
    begun.finish({})
    found = store.find(model_id="org/model")
    assert {score_set.key.dtype for score_set in found} == {"bfloat16", "float32"}
    assert [score_set.folder for score_set in found] == sorted(score_set.folder for score_set in found)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="no field of a score key: model"):
        store.find(model="org/model")


def test_found_are_no_damaged_copied_or_set_aside_sets(finished, capsys):
    store = Store(finished.folder.parents[1])
    copied = finished.folder.with_name("copied")
    shutil.copytree(finished.folder, copied)
    shutil.copytree(finished.folder, finished.folder.with_name(f"{finished.folder.name}.stale-1"))
    assert [found.folder for found in store.find()] == [finished.folder]
    assert (
        capsys.readouterr().err
        == f"warning: {copied}: left out: its name does not match its key, so it was copied or renamed\n"
    )
    (copied / "manifest.json").write_text("{")
    assert [found.folder for found in store.find()] == [finished.folder]
    assert capsys.readouterr().err == f"warning: {copied}: left out: its manifest cannot be read\n"


def test_a_set_with_a_damaged_part_is_told_once_and_one_that_is_not_finished_is_not(finished, capsys):
    store = Store(finished.folder.parents[1])
    other = store.score_set(KEY._replace(model_id="org/other"))
    other.begin(2, {})
    min(finished.folder.glob("part-*")).write_bytes(b"cut")
    assert store.find() == store.find() == []
    words = "left out: a part of it is damaged or gone; `drsow run` or `drsow import` stores it again"
    assert capsys.readouterr().err == f"warning: {finished.folder}: {words}\n"


def test_results_lie_by_name_data_and_variant(tmp_path):
    store = Store(tmp_path)
    assert store.result_dir("embedded", "sample") == tmp_path / "embedded" / "sample"
    assert store.result_dir("embedded", "sample", "native") == tmp_path / "embedded" / "sample-native"
    assert store.result_dir("../x", "sample").parent.parent == tmp_path
    with pytest.raises(UsageError, match=r"^scores: no pair or study can have this name"):
        store.result_dir("scores", "sample")
    with pytest.raises(ValueError, match=r"^'\.\./sample' is no safe folder name$"):
        store.result_dir("embedded", "../sample")


PART_KILLS = {"before-temp": [1], "after-temp": [1], "before-rename": [1], "after-rename": []}


@pytest.mark.parametrize("label", PART_KILLS)
def test_a_kill_while_a_part_is_written_leaves_it_whole_or_missing(label, tmp_path):
    process = child("run_to_the_end(root)", tmp_path / "killed", DRSOW_CRASH_AT=f"{label}:part-0001")
    assert (process.wait(60), *process.communicate()) == (KILLED, "", "")
    score_set = Store(tmp_path / "killed").score_set(KEY)
    assert score_set.missing() == [*PART_KILLS[label], 2]
    assert not score_set.complete
    assert content(run_to_the_end(tmp_path / "killed").folder) == content(run_to_the_end(tmp_path / "whole").folder)


FINISH_KILLS = {
    "before-finish": False,
    "before-temp": False,
    "after-temp": False,
    "before-rename": False,
    "after-rename": True,
}


@pytest.mark.parametrize("label", FINISH_KILLS)
def test_a_kill_while_a_set_is_finished_leaves_it_finished_or_not(label, tmp_path):
    score_set = Store(tmp_path / "killed").score_set(KEY)
    score_set.begin(len(PARTS), SETTINGS)
    process = child("run_to_the_end(root)", tmp_path / "killed", DRSOW_CRASH_AT=f"{label}:manifest")
    assert (process.wait(60), *process.communicate()) == (KILLED, "", "")
    assert score_set.complete == FINISH_KILLS[label]
    assert score_set.missing() == []
    assert content(run_to_the_end(tmp_path / "killed").folder) == content(run_to_the_end(tmp_path / "whole").folder)


@pytest.mark.parametrize("label", ["before-aside", "after-aside", "before-rename:manifest", "after-rename:manifest"])
def test_a_kill_while_a_stale_set_is_set_aside_loses_nothing(label, tmp_path, capsys):
    stale = Store(tmp_path).score_set(KEY)
    stale.begin(2, SETTINGS)
    stale.write_part(0, PARTS[0])
    process = child("run_to_the_end(root)", tmp_path, DRSOW_CRASH_AT=label)
    assert process.wait(60) == KILLED
    process.communicate()
    assert run_to_the_end(tmp_path).complete
    (aside,) = stale.folder.parent.glob("*.stale-*")
    assert len(list(aside.glob("part-*"))) == 1
    assert ("n_parts was 2, is 3" in capsys.readouterr().err) == (label == "before-aside")


HOLD = "lock = Store(root).score_set(KEY).lock(); lock.__enter__(); print('held', flush=True); input()"


def test_a_second_process_gets_one_clear_error_until_the_first_is_gone(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    process = child(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(DrsowError) as error, score_set.lock():
        pass
    words = f"org/model is being scored by another process ({score_set.folder}); wait for it, or share the work"
    assert str(error.value) == f"{words} with --shard i/n"
    process.kill()
    process.communicate()
    with score_set.lock():
        pass


def test_the_lock_is_free_after_an_error(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    with pytest.raises(KeyboardInterrupt), score_set.lock():
        raise KeyboardInterrupt
    with score_set.lock():
        pass


FILL_THE_DISK = """
import json
score_set = Store(root).score_set(KEY)
score_set.begin(3, SETTINGS)
score_set.write_part(0, PARTS[0])
outcome = []
for index, work in enumerate([
    lambda: score_set.write_part(1, scores(*map(str, range(200_000)))),
    lambda: score_set.finish({}),
]):
    try:
        work()
    except DrsowError as error:
        outcome.append(str(error))
outcome += [score_set.missing(), sorted(path.suffix for path in score_set.folder.iterdir())]
for index in (1, 2):
    score_set.write_part(index, PARTS[index])
score_set.finish({})
print(json.dumps([*outcome, score_set.complete]))
"""


def test_a_full_disk_is_one_line_and_damages_nothing(tmp_path):
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    code = f"from test_store import *; root = Path(sys.argv[1])\n{FILL_THE_DISK}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [*mount, sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    full, unfinished, missing, suffixes, complete = json.loads(done.stdout)
    folder = Store(tmp_path).score_set(KEY).folder
    assert full.startswith(f"{folder}/part-0001-")
    assert full.endswith(".parquet: cannot be written: No space left on device")
    assert unfinished == f"{folder}: not complete, missing parts: 1, 2"
    assert missing == [1, 2]
    assert suffixes == [".json", ".parquet"]
    assert complete


def test_left_over_temporary_files_are_removed(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(1, SETTINGS)
    half = score_set.folder / ".0123456789abcdef.tmp"
    half.write_bytes(b"half")
    assert score_set.missing() == [0]
    # another process may be writing it
    score_set.begin(1, SETTINGS, alone=False)
    assert half.exists()
    score_set.begin(1, SETTINGS)
    assert [path.name for path in score_set.folder.iterdir()] == ["manifest.json"]


def test_costs_are_added_up_over_the_parts(tmp_path):
    score_set = Store(tmp_path).score_set(KEY)
    score_set.begin(3, SETTINGS)
    for index in (0, 2):
        score_set.write_part(index, PARTS[index], spent={"ms": 500})
    assert score_set.spent() == {"ms": 1000}
