"""One data set under two names, and a results folder that cannot be written, by the real command."""

import shutil

import pytest

pytestmark = pytest.mark.slow

FOLDER = "tiny/rows"


def test_a_renamed_copy_is_not_scored_again_and_has_one_leaderboard(drsow, tiny_run, data, finished, results, tmp_path):
    copy = shutil.copy(data, tmp_path / "copy.jsonl")
    done = drsow(*tiny_run[:6], copy, *tiny_run[7:], "--results", results)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == finished[1].stdout.replace(str(finished[0]), str(results))
    again = drsow("leaderboard", *tiny_run[1:6], copy, "--results", results)
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_a_results_folder_that_cannot_be_written_prints_the_leaderboard(drsow, tiny_run, finished, results):
    # A file in the folder's place: nobody can write below it, root neither.
    shutil.rmtree(results / "tiny")
    (results / "tiny").write_text("")
    done = drsow("leaderboard", *tiny_run[1:7], "--results", results)
    assert done.returncode == 3
    assert done.stdout.splitlines() == finished[1].stdout.splitlines()[:2]
    assert done.stderr.count("\n") == 1 and f"{results / 'tiny'}" in done.stderr and "cannot be written" in done.stderr
