"""Imported scores of tokens: vLLM's prompt_logprobs beside the sums, and what is refused."""

import json

import pandas as pd
import pytest
from test_imported import DATA, scores

from bench.lookup import Lookup
from bench.schema import TOKEN_SCORES, UsageError
from bench.store.folder import ScoreSet, Store
from bench.store.imported_tokens import check_imported_tokens, tokens_of_lines
from bench.store.token_parts import encode_tokens, join_tokens
from bench.verbs.exchange import export_tokens, import_scores

LOGPS = [-4.0, -3.0, -2.0, -0.5, -0.5]
"""Four tokens of the text, -9.5 together, and the end of turn."""


def line(example_id: str, response_id: str, logps: list[float], *, top: bool = True) -> dict:
    """A response as vLLM tells of it: two tokens of the prompt, and then one token 7 after another."""
    own = [{"7": {"logprob": x, "rank": 2, "decoded_token": "a"}} for x in logps]
    likeliest = {"9": {"logprob": -0.25, "rank": 1, "decoded_token": "b"}}
    entries = [None, {"5": {"logprob": -1.0, "rank": 1}}, *(each | (likeliest if top else {}) for each in own)]
    ids = [3, 5, *[7] * len(logps)]
    told = {"example_id": example_id, "response_id": response_id, "start": 2}
    return told | {"prompt_token_ids": ids, "prompt_logprobs": entries}


def imported(folder, rows: list[dict], lines: str | None = None) -> ScoreSet:
    """Import the rows' tokens, as `lines` spells them if they are given."""
    scores().to_csv(folder / "m.csv", index=False)
    lines = lines or "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "m.jsonl").write_text(lines, encoding="utf-8")
    store = Store(folder / "results")
    import_scores(store, folder / "m.csv", "m", "m", DATA, dtype="bf16", tokens=folder / "m.jsonl")
    return store.find()[0]


def every(**wish) -> list[dict]:
    return [line(row.example_id, row.response_id, LOGPS, **wish) for row in scores().itertuples()]


def test_vllms_prompt_log_probabilities_are_the_tokens_of_the_sums(tmp_path):
    score_set = imported(tmp_path, every())
    frame = score_set.read_tokens()
    assert [list(values) for values in frame["logp_nats"]] == [LOGPS] * 6
    assert frame["top_logp_nats"].iloc[0].tolist() == [-0.25] * 5
    assert frame["logsumexp_nats"].isna().all() and frame["byte_end"].isna().all()
    out = tmp_path / "tokens.parquet"
    export_tokens(Store(tmp_path / "results"), "m", "m", DATA, out, lookup=Lookup())
    other = Store(tmp_path / "other")
    import_scores(other, tmp_path / "m.csv", "m", "m", DATA, dtype="bf16", tokens=out)
    (again,) = other.find()
    assert {p.name: p.read_bytes() for p in again.folder.glob("*.parquet")} == {
        p.name: p.read_bytes() for p in score_set.folder.glob("*.parquet")
    }


@pytest.mark.parametrize("token", ["\u2028", "\u2029", "\x85"])
def test_a_token_that_some_call_the_end_of_a_line_ends_no_line(tmp_path, token):
    rows = every()
    for row in rows:
        row["prompt_logprobs"][2]["7"]["decoded_token"] = token
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert len(imported(tmp_path, rows, lines).read_tokens()) == 6


def test_without_the_likeliest_token_its_log_probability_is_missing(tmp_path):
    rows = every(top=False)
    for row in rows:
        row["prompt_logprobs"][2]["7"]["rank"] = 1  # of the first token it is known
    assert imported(tmp_path, rows).read_tokens()["top_logp_nats"].isna().all()


def test_two_tokens_that_are_equally_likely_are_one_likeliest():
    told = line("0", "chosen", [-0.25, -0.25])
    for entry in told["prompt_logprobs"][2:]:
        entry["7"]["rank"] = 1
    assert tokens_of_lines(json.dumps(told))["top_logp_nats"][0].tolist() == [-0.25, -0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].update(prompt_logprobs=rows[2]["prompt_logprobs"][:-1]), "line 3: prompt_logprobs has 6"),
        (lambda rows: rows[2].pop("start"), "line 3: has no 'start'"),
        (lambda rows: rows[2].update(start=0), "line 3: start is 0, and must be from 1 to 6"),
        (lambda rows: rows[2].update(prompt_token_ids=[3, 5, 8, 7, 7, 7, 7]), "line 3: has no '8'"),
        (lambda rows: rows.pop(2), "1, chosen: has a sum, but no tokens"),
        (lambda rows: rows.append(rows[2]), "1, chosen: is there twice"),
        (lambda rows: rows.__setitem__(2, line("1", "chosen", [-9.0, *LOGPS[1:]])), "1, chosen: its tokens add up to"),
        (lambda rows: rows[2].update(example_id=[1]), "response 3: example_id and response_id must be texts"),
        (lambda rows: rows[2].update(byte_end=[5 * 10**9] * 5), "1, chosen: byte_end has a value that is no whole"),
        (lambda rows: rows[2].update(byte_end=[0.5, 1, 2, 3, 4]), "1, chosen: byte_end has a value that is no whole"),
        (lambda rows: rows[2].update(byte_end=[10**30] * 5), "1, chosen: byte_end is no list of numbers"),
        (lambda rows: rows[2].update(byte_end=["1"] * 5), "1, chosen: byte_end is no list of numbers"),
        (lambda rows: rows[2].update(byte_end=3), "1, chosen: byte_end is no list of numbers"),
        (lambda rows: rows[2].update(byte_end=[4, 2, 9, 10, 10]), "1, chosen: byte_end must rise from 0 or more to n"),
        (lambda rows: rows[2].update(byte_end=[-1, 2, 9, 10, 10]), "1, chosen: byte_end must rise from 0 or more to n"),
        (lambda rows: rows[2].update(byte_end=[1, 2, 3, 4, 9999]), "1, chosen: byte_end must rise from 0 or more to n"),
        (lambda rows: rows.__setitem__(2, line("1", "chosen", [0.5, *LOGPS[1:]])), "1, chosen: logp_nats has a value"),
    ],
)
def test_tokens_that_are_not_those_of_the_sums_are_refused_with_their_place(tmp_path, change, message):
    rows = every()
    change(rows)
    with pytest.raises(UsageError, match=r"m\.jsonl: " + message):
        imported(tmp_path, rows)
    assert not list((tmp_path / "results").glob("scores/*"))


@pytest.mark.parametrize("field", ["logp_nats", "logsumexp_nats", "top_logp_nats", "byte_end"])
@pytest.mark.parametrize("cell", [-1.5, ["-1.5"] * 5], ids=["a number", "texts"])
def test_a_cell_of_a_parquet_file_that_is_no_list_of_numbers_is_refused_with_its_response(tmp_path, field, cell):
    rows = [(*row[1:3], LOGPS, None, None, None) for row in scores().itertuples()]
    frame = pd.DataFrame(rows, columns=list(TOKEN_SCORES))
    frame = frame.assign(**{field: pd.Series([cell] * len(rows))})
    with pytest.raises(ValueError, match=f"^0, chosen: {field} is no list of numbers$"):
        check_imported_tokens(frame, scores())


def test_a_byte_end_of_whole_floats_is_taken():
    rows = [(*row[1:3], LOGPS, None, None, [1.0, 1.0, 2.0, row.n_bytes, row.n_bytes]) for row in scores().itertuples()]
    whole = check_imported_tokens(pd.DataFrame(rows, columns=list(TOKEN_SCORES)), scores())
    assert join_tokens([encode_tokens(whole)])["byte_end"].iloc[1].tolist() == [1, 1, 2, 2, 2]
