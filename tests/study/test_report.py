"""The report's rows, texts and page, without a browser."""

from html.parser import HTMLParser

import pandas as pd
import pytest
import worlds
from made_report import HOSTILE, made_report

from bench.schema import OK, SCORES, DrsowError, Example, Message
from bench.study.report import Report, html, views
from bench.study.report.cases import Run, cases, shown, wrong_rows
from bench.study.report.sure import sure_table
from bench.study.stretches import STRETCHES, pieces, stretches

NAN = float("nan")
SIDES = ("chosen", "rejected")


def scores(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """SCORES of examples: id, log-probability of chosen and of rejected; the end of turn is certain."""
    lines = [
        (name, side, value, 0.0, 2, 8, OK) for name, *values in rows for side, value in zip(SIDES, values, strict=True)
    ]
    return pd.DataFrame(lines, columns=list(SCORES))


STRONG = scores(("a", -1.0, -2.0), ("b", -5.0, -1.0), ("c", -9.0, -1.0), ("tie", -1.0, -1.0))
WEAK = scores(("a", -2.0, -2.0), ("b", -1.0, -1.0), ("c", -1.0, -2.0), ("tie", -1.0, -1.0))


def test_the_worst_rows_are_wrong_ones_by_margin_and_a_tie_is_none():
    worst = wrong_rows(STRONG, WEAK, reward="sum")
    assert worst.index.tolist() == ["c", "b"]
    assert worst.loc["c"].tolist() == [-8.0, 1.0, -9.0]


def test_a_row_left_out_is_no_worst_row():
    strong = STRONG.assign(status=STRONG["status"].mask(STRONG["example_id"] == "c", "too_long"))
    assert wrong_rows(strong, WEAK, reward="sum").index.tolist() == ["b"]


def test_a_case_holds_both_rewards_and_is_not_shaded_without_stretches():
    examples = {"b": Example("b", "mine", (Message("user", "Why?"),), (("chosen", "So."), ("rejected", "No.")))}
    worst = wrong_rows(STRONG, WEAK, reward="sum").loc[["b"]]
    (case,) = cases("p", worst, examples, pd.DataFrame(columns=["example_id", "response_id", *STRETCHES]))
    assert (case.margin, [answer.reward for answer in case.answers]) == (-4.0, [-4.0, 0.0])
    assert [answer.shaded for answer in case.answers] == [False, False]
    assert case.answers[0].text.runs == (Run("", "So."),)
    assert case.prompt[0][0] == "user"


def test_neighbours_of_one_shade_are_one_run():
    text = shown([("a", 3.0), ("b", 2.0), ("c", 0.0), ("d", -0.6), ("e", -4.0), ("", -1.0)], limit=100)
    assert text.runs == (Run("F", "ab"), Run("", "c"), Run("a", "d"), Run("A", "e"))
    assert text.n_hidden == 0


def test_what_is_not_shown_is_counted():
    parts = [("abc", 0.0), ("dé", 1.0), ("ghi", 1.0), ("j", 0.0)]
    text = shown(parts, limit=15 + 3 + 15 + 2)
    # The limit falls into the two bytes of the é.
    assert [run.text for run in text.runs] == ["abc", "d"]
    assert text.n_hidden == 1 + 3 + 1


def test_stretches_end_where_both_models_tokens_end():
    def tokens(*rows: tuple[int, int, float]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["byte_start", "byte_end", "logp_nats"])

    strong = tokens((0, 2, -1.0), (2, 5, -1.0), (5, 6, -1.0), (6, 6, -0.5))
    weak = tokens((0, 1, -2.0), (1, 5, -2.0), (5, 6, -3.0), (6, 6, -0.25))
    frame = stretches(strong, weak, "höllo")
    assert tuple(frame.columns) == STRETCHES
    assert frame.to_numpy().tolist() == [[0, 5, "höll", 2.0], [5, 6, "o", 2.0], [6, 6, "", -0.25]]
    assert pieces(frame) == [("höll", 2.0), ("o", 2.0), ("", -0.25)]
    with pytest.raises(DrsowError, match=r"has 7 bytes, but its tokens end at byte 6 .* byte 6 in the weak"):
        stretches(strong, weak, " höllo")
    with pytest.raises(DrsowError, match="cuts a character"):
        stretches(strong, weak, "hollé")


def test_a_missing_number_is_a_dash_and_sorts_as_the_least():
    assert views.share(NAN) == (views.DASH, "", -1.0)
    assert views.share(0.6549, 0.5, 0.75) == ("65.5", "[50.0, 75.0]", 0.6549)


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report(n_models=8)


def in_one_tab(report: Report) -> Report:
    """The same without sections, which takes less time to draw."""
    return report._replace(accuracy=report.accuracy[report.accuracy["level"] != "section"])


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return html(in_one_tab(made_report(n_models=8, hostile=True)))


class Tags(HTMLParser):
    """The tags of a page with their attributes, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_texts_that_would_run_are_escaped(hostile_page: str):
    for text in HOSTILE:
        assert text not in hostile_page
    assert "&lt;script&gt;window.broken = true; alert(1)&lt;/script&gt;" in hostile_page
    assert not [attributes for _, attributes in Tags(hostile_page).found if {"onclick", "onerror"} & set(attributes)]


def test_every_script_is_one_that_the_policy_names(hostile_page: str):
    tags = Tags(hostile_page).found
    policy = next(attributes["content"] for _, attributes in tags if "http-equiv" in attributes)
    kinds = [attributes.get("type") for tag, attributes in tags if tag == "script"]
    assert [kind for kind in kinds if kind not in ("application/json", "text/plain")] == [None, "module"]
    assert policy.count("'sha256-") == 2
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_no_tag_names_another_file(hostile_page: str):
    tags = Tags(hostile_page).found
    assert not {"link", "img", "iframe", "object", "embed", "base", "source"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if "src" in attributes]
    assert {attributes["href"][0] for tag, attributes in tags if tag == "a"} == {"#"}


def test_without_stretches_the_page_says_how_to_get_them():
    page = html(in_one_tab(made_report(shaded=False, n_models=8)))
    assert "drsow report --tokens" in page
    assert "<i class=" not in page


def test_a_single_pair_without_scores_shows_its_subsets_and_says_what_is_missing(report: Report):
    first = report.board["pair_id"].iloc[-1]
    one = report._replace(
        board=report.board[report.board["pair_id"] == first].reset_index(drop=True),
        accuracy=report.accuracy[report.accuracy["pair_id"] == first].reset_index(drop=True),
        correlation=report.correlation.iloc[:0],
        cases=(),
        missing="alpha-000 is not scored",
    )
    assert [[figure.title for figure in tab.figures] for tab in views.tabs(one)] == [["Accuracy by subset"]] * 5
    page = html(one)
    assert "alpha-000 is not scored" in page
    assert "Median pair" not in page


def test_statistics_name_the_estimator_its_declared_test_and_where_models_are_too_few(report: Report):
    table = report.correlation
    missing = table["estimator"].eq("slope")
    few = report._replace(correlation=table.assign(low=table["low"].mask(missing), high=table["high"].mask(missing)))
    rho, slope = views.tabs(few)[0].statistics
    assert (rho["estimator"], rho["interval"]) == ("Spearman's ρ inside families", "[0.35, 0.65]")
    assert (rho["p_value"], rho["p_holm"]) == ("< 0.001", "declared")
    assert slope["interval"] == "too few models"
    # the same test of a section is adjusted
    assert views.tabs(few)[1].statistics[0]["p_holm"] == "< 0.001"


def test_a_row_of_several_candidates_is_wrong_where_a_wrong_one_has_the_best_reward():
    lines = [("q", name, value, 0.0, 2, 8, OK) for name, value in (("0", -1.0), ("1", -3.0), ("2", -2.0))]
    strong = pd.DataFrame(lines, columns=list(SCORES))
    weak = strong.assign(logp_sum_nats=-2.0)
    # Rewards 1, -1, 0.
    assert wrong_rows(strong, weak, reward="sum", right={"q": ["0", "1"]}).empty
    assert wrong_rows(strong, weak, reward="sum", right={"q": ["1", "2"]})["margin"].tolist() == [-1.0]


def test_data_without_sections_have_one_tab(report: Report):
    assert [tab.title for tab in views.tabs(in_one_tab(report))] == ["Overall"]


@pytest.mark.slow
def test_a_full_study_with_long_shaded_responses_is_under_8_megabytes():
    report = made_report(n_models=44, sizes=worlds.SIZES, n_characters=8000)
    assert (len(report.board), len(report.dataset.examples), len(report.cases)) == (221, 2985, 200)
    assert len(html(report).encode()) < 8e6


def test_the_page_warns_where_length_alone_does_as_well_and_says_how_sure_labels_are(report: Report):
    page = html(in_one_tab(report))
    first = report.board["pair_id"].iloc[0]
    score = report.board["score"].iloc[0]
    warning = f"Warning: always preferring the longer response scores 98.8%, and {first} scores {score:.1%}."
    assert warning in page
    assert '<th scope="col">Length-balanced</th>' in page
    row = report.checks.calibration.iloc[0]
    error, low, high = (f"{100 * row[name]:.1f}" for name in ("error", "error_low", "error_high"))
    assert f"<td class=k>{error} [{low}, {high}]</td>" in page
    assert page.count('class="figure"') == 2 + html(in_one_tab(report._replace(checks=None))).count('class="figure"')


def test_the_table_of_sure_labels_has_the_accuracy_of_each_share_that_is_kept(report: Report):
    cells = sure_table(report.checks).cells.iloc[0]
    kept = report.checks.coverage
    kept = kept[(kept["pair_id"] == cells["Pair"]) & (kept["by"] == "margin")].set_index("n_examples")
    for share, name in ((120, "All labels"), (60, "Largest 50% by margin"), (24, "Largest 20% by margin")):
        assert cells[name] == f"{100 * kept.loc[share, 'accuracy']:.1f} [{100 * kept.loc[share, 'low']:.1f}, " + (
            f"{100 * kept.loc[share, 'high']:.1f}]"
        )


def test_the_page_names_a_data_file_without_its_folders(report: Report):
    page = html(in_one_tab(report._replace(dataset=report.dataset._replace(data_id="/home/me/secret/mine.jsonl"))))
    assert "secret" not in page and "on mine.jsonl</title>" in page and "Data mine.jsonl, " in page


def test_a_page_of_an_earlier_folder_or_of_too_few_labels_says_less(report: Report):
    assert "Only length?" not in html(in_one_tab(report._replace(checks=None)))
    few = report.checks.calibration.assign(confidence=NAN, error=NAN, error_low=NAN, error_high=NAN)
    page = html(in_one_tab(report._replace(checks=report.checks._replace(calibration=few))))
    assert "too few labelled rows for a calibration" in page
