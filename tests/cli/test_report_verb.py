"""The page that `drsow report` writes of a finished run."""

import shutil

import pandas as pd
import pytest

from bench.files import read_csv

pytestmark = pytest.mark.slow

FOLDER = "tiny/rows"


@pytest.fixture
def words(tiny_run, results) -> list:
    """The words of a report on the finished run's copy."""
    return ["report", *tiny_run[1:7], "--dtype", "fp32", "--device", "cpu", "--results", results]


def test_a_report_needs_no_model_and_says_how_to_shade(drsow, words, results):
    done = drsow(*words)
    path = results / FOLDER / "report.html"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    page = path.read_text()
    assert "drsow report --tokens" in page
    assert "tiny-strong over tiny-weak" in page
    assert f"{100 * read_csv(results / FOLDER / 'leaderboard.csv')['score'][0]:.1f}" in page


def test_tokens_shade_the_rows_and_later_reports_keep_them(drsow, words, results):
    done = drsow(*words, "--tokens")
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(results / FOLDER / "stretches.parquet")
    margins = read_csv(results / FOLDER / "margins.csv").set_index("example_id")["margin_nats"]
    sums = frame.groupby(["example_id", "response_id"])["ratio_nats"].sum().unstack()
    # The stretches of both responses add up to the margin that the run stored.
    assert (sums["chosen"] - sums["rejected"]).to_dict() == pytest.approx(margins[sums.index].to_dict(), abs=1e-3)
    first = (results / FOLDER / "report.html").read_bytes()
    assert b"drsow report --tokens" not in first
    assert drsow(*words).returncode == 0
    assert (results / FOLDER / "report.html").read_bytes() == first


def test_without_scores_the_page_shows_the_tables_and_says_what_to_run(drsow, words, results):
    shutil.rmtree(results / "scores")
    assert drsow(*words).returncode == 0
    assert "tiny-strong is not scored on rows" in (results / FOLDER / "report.html").read_text()


def test_a_report_without_tables_says_what_to_run(drsow, words, tmp_path):
    done = drsow(*words[:-1], tmp_path / "empty")
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "leaderboard.csv: not found; `drsow run` writes it" in done.stderr


def test_stretches_of_two_templates_are_refused(drsow, words):
    done = drsow(*words, "--tokens", "--template", "native")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
