"""The stored scores of single tokens: whole or absent, beside sums that they add up to."""

import contextlib

import pandas as pd
import pytest
from test_store import KEY, KILLED, PARTS, SETTINGS, child, content, run_to_the_end, scores

from bench.schema import TOKEN_SCORES, DrsowError, PreconditionError
from bench.store.folder import ScoreSet, Store
from bench.store.token_parts import check_tokens


def tokens(frame: pd.DataFrame) -> pd.DataFrame:
    """Three tokens per response, which add up to the -2.5 and -0.5 of `test_store.scores`."""
    lists = [[-1.0, -1.5, -0.5], [9.0, 8.0, 7.0], [-1.0, -0.25, -0.125], [4, 9, 9]]
    rows = [(row.example_id, row.response_id, *lists) for row in frame.itertuples()]
    return pd.DataFrame(rows, columns=list(TOKEN_SCORES))


def run_with_tokens(root) -> ScoreSet:
    """What a run with tokens does, and a run that goes on."""
    score_set = Store(root).score_set(KEY)
    with score_set.lock():
        score_set.begin(len(PARTS), SETTINGS)
        missing = score_set.missing()
        for index in sorted({*missing, *score_set.without_tokens()}):
            score_set.write_tokens(index, tokens(PARTS[index]))
            if index in missing:
                score_set.write_part(index, PARTS[index])
        if not score_set.complete:
            score_set.finish({"device": "cpu"})
    return score_set


def test_tokens_are_read_sorted_like_the_sums(tmp_path):
    score_set = run_with_tokens(tmp_path)
    found = score_set.read_tokens()
    assert tuple(found.columns) == TOKEN_SCORES
    assert found[["example_id", "response_id"]].equals(score_set.read()[["example_id", "response_id"]])
    assert [list(values) for values in found.iloc[0, 2:]] == [
        [-1.0, -1.5, -0.5], [9.0, 8.0, 7.0], [-1.0, -0.25, -0.125], [4, 9, 9]
    ]  # fmt: skip


def test_tokens_added_later_leave_every_file_of_the_sums_as_it_is(tmp_path):
    plain = content(run_to_the_end(tmp_path / "later").folder)
    assert not Store(tmp_path / "later").score_set(KEY).has_tokens
    later, once = run_with_tokens(tmp_path / "later"), run_with_tokens(tmp_path / "once")
    assert content(later.folder) == content(once.folder)
    assert {name: data for name, data in content(later.folder).items() if "tokens-" not in name} == plain
    assert later.has_tokens


def test_a_set_without_tokens_names_the_command_that_stores_them(tmp_path):
    with pytest.raises(PreconditionError, match=r"tokens are not stored in .*; `drsow run --tokens` stores them$"):
        run_to_the_end(tmp_path).read_tokens()


@pytest.mark.parametrize("label", ["after-temp:tokens-0001", "after-rename:tokens-0001"])
def test_a_kill_while_tokens_are_written_leaves_them_whole_or_missing(label, tmp_path):
    code = "import test_token_parts; test_token_parts.run_with_tokens(root)"
    process = child(code, tmp_path / "killed", DRSOW_CRASH_AT=label)
    assert (process.wait(60), *process.communicate()) == (KILLED, "", "")
    score_set = Store(tmp_path / "killed").score_set(KEY)
    assert (score_set.missing(), score_set.without_tokens()) == ([1, 2], [2] if "rename" in label else [1, 2])
    assert not score_set.has_tokens
    assert content(run_with_tokens(tmp_path / "killed").folder) == content(run_with_tokens(tmp_path / "whole").folder)


def test_damaged_tokens_are_set_aside_and_missing_and_the_sums_stay(tmp_path):
    score_set = run_with_tokens(tmp_path)
    (path,) = score_set.folder.glob("tokens-0001-*")
    path.write_bytes(path.read_bytes()[:-1])
    assert score_set.complete and not score_set.has_tokens
    assert score_set.without_tokens() == [1]
    assert path.with_name(f"{path.name}.damaged").is_file()


def test_tokens_of_another_computation_are_not_stored_beside_sums(tmp_path):
    score_set = run_to_the_end(tmp_path)
    wrong = tokens(PARTS[0])
    wrong.at[0, "logp_nats"] = [-1.0, -1.6, -0.5]
    words = r"b/1, 0: its tokens add up to -2.6 nats, but logp_sum_nats is -2.5. Delete this folder and run again"
    with pytest.raises(DrsowError, match=words):
        score_set.write_tokens(0, wrong)
    assert score_set.without_tokens() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(logp_nats=[-2.5, -0.5]), "logp_nats has 2 values, but the response has 3 tokens"),
        (lambda row: row.update(logp_nats=None), "logp_nats is missing"),
        (lambda row: row.update(top_logp_nats=[-1.0, -1.6, -0.5]), "more likely than the most likely one"),
        (lambda row: row.update(logsumexp_nats=[1.0, float("nan"), 2.0]), "logsumexp_nats has a value that is not"),
        (lambda row: row.update(response_id="2"), "0: has a sum, but no tokens"),
    ],
)
def test_tokens_that_are_wrong_are_refused_with_the_response_named(change, message):
    frame = scores("a/1")
    rows = tokens(frame).to_dict("records")
    change(rows[0])
    with pytest.raises(ValueError, match=f"a/1, 0: .*{message}|a/1, {message}"):
        check_tokens(pd.DataFrame(rows), frame)


@pytest.mark.parametrize(("off", "words"), [(8e-5, ""), (2e-4, "a/1, 0: its tokens add up to ")])
def test_tokens_may_miss_their_sum_by_what_float32_rounds(off, words):
    frame, rows = scores("a/1"), tokens(scores("a/1"))
    rows.at[0, "logp_nats"] = [-1.0 - off, -1.5, -0.5]
    with pytest.raises(ValueError, match=words) if words else contextlib.nullcontext():
        check_tokens(rows, frame)


def test_a_response_that_was_too_long_has_no_tokens():
    frame = scores("a/1").assign(status="too_long", logp_sum_nats=float("nan"), logp_end_nats=float("nan"))
    rows = tokens(frame)
    with pytest.raises(ValueError, match="a/1, 0: has tokens, although its status is too_long"):
        check_tokens(rows, frame)
    check_tokens(rows.assign(**dict.fromkeys(TOKEN_SCORES[2:])), frame)
