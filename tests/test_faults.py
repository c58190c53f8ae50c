"""Whatever exception is left is one line that says where, what and what to do."""

import concurrent.futures.process
import errno
import importlib.metadata
import shutil

import pytest
import torch
from tiny_models import as_of_another_machine

from bench.data.load import load_data
from bench.faults import explained, first_line, warn
from bench.registry import load_registry
from bench.schema import DrsowError, UsageError
from bench.scoring import passes, run
from bench.scoring.cluster import score_some
from bench.store.folder import Store
from bench.study.board import Subject
from bench.verbs import run as run_verb
from bench.verbs import score
from bench.verbs.session import Session

REPORT = "this is a fault in drsow: please report it with the command and the output of --debug to the project's "


def test_what_nobody_foresaw_names_its_type_and_asks_for_a_report():
    error = explained(ZeroDivisionError("division by zero\nand more"))
    assert (type(error), error.code) == (DrsowError, 1)
    assert str(error) == f"unexpected ZeroDivisionError: division by zero; {REPORT}issue tracker"


def test_an_exception_without_words_is_named_by_its_type():
    assert str(explained(KeyError())).startswith("unexpected KeyError: KeyError; ")
    assert first_line(ValueError("\n  \nsecond")) == "second"


def test_a_warning_has_no_control_character(capsys):
    warn("a\x1b]0;b\x07\x9bc\nd")
    assert capsys.readouterr().err == "a ]0;b  c d\n"


def test_our_own_errors_stay_as_they_are():
    error = UsageError("x: wrong")
    assert explained(error) is error


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "/d/f: no space left on device; free some space and run the command again"),
        (errno.EACCES, "/d/f: permission denied; change its permissions, or name another place"),
        (errno.EROFS, "/d/f: read-only file system; name a place that can be written"),
        (errno.EISDIR, "/d/f: is a directory"),
    ],
)
def test_an_error_of_the_system_says_where_what_and_what_to_do(number, line):
    assert str(explained(OSError(number, "whatever", "/d/f"))) == line
    assert str(explained(OSError(number, "whatever", b"/d/f"))) == line


def test_an_error_of_the_system_without_a_file_says_what():
    assert str(explained(OSError(errno.ENOSPC, ""))) == (
        "no space left on device; free some space and run the command again"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("you can't allocate memory: 3 bytes")]
)
def test_a_lack_of_memory_is_no_fault_of_ours(error):
    assert str(explained(error)).startswith("out of memory (") and "fault in drsow" not in str(explained(error))
    assert str(explained(error)).endswith(
        "; close other programs; run and sample need less with a lower --batch-tokens"
    )


def test_a_worker_process_that_was_killed_is_told_as_that():
    error = concurrent.futures.process.BrokenProcessPool("A process in the process pool was terminated abruptly")
    assert str(explained(error)).startswith("a worker process was killed")


def test_debug_prints_the_traceback(monkeypatch, capsys):
    explained(ValueError("quiet"))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("DRSOW_DEBUG", "1")
    explained(ValueError("loud"))
    assert "ValueError: loud" in capsys.readouterr().err


def test_a_checkout_that_is_not_installed_is_told_so_before_anything_is_scored(tiny_registry, tmp_path, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    known, dataset = load_registry(tiny_registry), load_data("sample", limit_per_subset=1)
    session = Session(known, Store(tmp_path), passes.resolved("fp32", "cpu"))
    with pytest.raises(importlib.metadata.PackageNotFoundError) as caught:
        score.score_all(session, [Subject("tiny", (known.pair("tiny"),))], dataset)
    error = explained(caught.value)
    assert (error.code, list(tmp_path.iterdir())) == (4, [])
    assert str(error) == (
        "the package drsow is not installed, so its version cannot be recorded; run `pip install -e .` in the checkout "
        "of drsow and try again"
    )


class Sudden(Exception):
    """What no module of ours knows."""


def test_what_one_model_raises_stops_its_own_pairs_alone(tiny_registry, tmp_path, monkeypatch):
    known, dataset = load_registry(tiny_registry), load_data("sample", limit_per_subset=1)
    subjects, options = [Subject("tiny", (known.pair("tiny"),))], passes.resolved("fp32", "cpu")
    whole = run.score_together

    def broken(jobs, *args):
        if jobs[0].ready.work.spec.model_id == "tiny-strong":
            raise Sudden("no such thing")
        return whole(jobs, *args)

    monkeypatch.setattr(run, "score_together", broken)
    sets, errors, code = score.score_all(Session(known, Store(tmp_path), options), subjects, dataset)
    assert [model_id for model_id, _ in sets] == ["tiny-weak"]
    assert (errors, code) == ([f"tiny-strong: unexpected Sudden: no such thing; {REPORT}issue tracker"], 1)
    work = passes.Work(known.model("tiny-strong"), known.model("tiny-strong"), dataset)
    assert score_some([(work, passes.WHOLE)], str(tmp_path), options) == [(errors[0], 1)]


def test_stored_scores_stand_in_for_a_model_whose_files_are_not_here(tiny_registry, tmp_path, capsys):
    made = shutil.copytree(tiny_registry, tmp_path / "r")
    known, dataset = load_registry(made), load_data("sample", limit_per_subset=1)
    subjects, options = [Subject("tiny", (known.pair("tiny"),))], passes.resolved("fp32", "cpu")
    session = Session(known, Store(tmp_path / "out"), options)
    before, _, _ = score.score_all(session, subjects, dataset)
    # The strong model is also the owner of the chat template.
    shutil.rmtree(made / "strong")
    capsys.readouterr()
    found, errors, _ = score.score_all(session, subjects, dataset)
    assert errors == [] and {side: each.key for side, each in found.items()} == {
        side: each.key for side, each in before.items()
    }
    said = f"tiny-strong: {made / 'strong'} is no folder with a config.json"
    assert capsys.readouterr().err == f"{said}; the stored scores of tiny-strong, tiny-weak are used\n"
    # Other rows, and another dtype, are not stored.
    for each, rows in ((session, load_data("sample", limit_per_subset=2)), (wide(session), dataset)):
        found, errors, code = score.score_all(each, subjects, rows)
        assert (found, code) == ({}, 4) and errors[0].startswith(said)


def wide(session: Session) -> Session:
    """The same in bfloat16."""
    return session._replace(options=session.options._replace(dtype="bfloat16"))


def test_a_run_says_that_its_tables_mix_two_arithmetics(tiny_registry, tmp_path, capsys, monkeypatch):
    made = shutil.copytree(tiny_registry, tmp_path / "r")
    known, dataset = load_registry(made), load_data("sample", limit_per_subset=1)
    subjects, store = [Subject("tiny", (known.pair("tiny"),))], Store(tmp_path / "out")
    session = Session(known, store, passes.resolved("fp32", "cpu"))
    weak = score.score_all(session, subjects, dataset)[0]["tiny-weak", "tiny-strong"]
    as_of_another_machine(store, weak)
    shutil.rmtree(made / "weak")
    monkeypatch.setattr(run_verb, "draw", lambda *_: [])
    capsys.readouterr()
    done = run_verb.run_subjects(session, subjects, dataset, reward="sum", spread=score.LOCAL, seed=None)
    assert not done.errors and len(done.written) == 1
    assert "warning: tiny: its models were scored in different ways (float32 by cpu-" in capsys.readouterr().err
