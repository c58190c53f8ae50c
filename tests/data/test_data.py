"""Data: every form a row may have, and the one line that each bad row gets."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.data import cells
from bench.data.labelled import ties_number
from bench.data.load import NAMES, REWARD_BENCH_VARIABLE, load_candidates, load_data, load_prompts, load_transcripts
from bench.data.rows import own_id
from bench.schema import SUBSET_WEIGHTS, Message, PreconditionError, UsageError

REPOSITORY = Path(__file__).parents[1]
GOOD = {"prompt": "Add 2 and 2.", "chosen": "4", "rejected": "5", "subset": "sums", "id": 7}
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jsonl(*rows: dict | str, name: str = "rows.jsonl") -> str:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    Path(name).write_text(text, encoding="utf-8", newline="")
    return name


def test_a_row_becomes_an_example():
    data = load_data(jsonl(GOOD | {"chosen_model": "ignored"}))
    (example,) = data.examples
    assert (data.data_id, data.slug) == ("rows.jsonl", "rows")
    assert (example.example_id, example.subset) == ("sums/7", "sums")
    assert example.messages == (Message("user", "Add 2 and 2."),)
    assert example.responses == (("chosen", "4"), ("rejected", "5"))


def test_id_defaults_to_the_row_number_and_subset_to_none():
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert [e.example_id for e in load_data(jsonl(row, "", row)).examples] == ["0", "1"]


def test_outer_whitespace_is_kept():
    (example,) = load_data(jsonl(GOOD | {"prompt": "\n a ", "chosen": "\tb\n"})).examples
    assert (example.messages[0].content, example.responses[0][1]) == ("\n a ", "\tb\n")


def test_a_line_separator_inside_a_text_ends_no_row():
    path = jsonl(json.dumps(GOOD | {"chosen": "a\u2028b\x85c"}, ensure_ascii=False))
    assert load_data(path).examples[0].responses[0][1] == "a\u2028b\x85c"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": "No"},
        {"prompt": "Hi", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT | {"content": "No"}]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT | {"content": "No"}]},
        {"chosen": [USER, ASSISTANT], "rejected": "No"},
        {"prompt": [USER | {"name": None}], "chosen": [ASSISTANT], "rejected": "No"},
        {"prompt": [USER | {"tool_calls": [], "name": "", "meta": {"a": [None]}}], "chosen": "Hello", "rejected": "No"},
        {"prompt": None, "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT | {"content": "No"}]},
        {"prompt": "", "chosen": "Hello", "rejected": [USER, ASSISTANT | {"content": "No"}]},
    ],
)
def test_text_turns_and_whole_conversations_say_the_same(row):
    plain = load_data(jsonl({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, name="plain.jsonl"))
    assert load_data(jsonl(row)).examples == plain.examples
    # As pandas writes it, which pyarrow does not: it knows no struct without fields.
    if "meta" not in str(row):
        pd.DataFrame([row]).to_parquet("rows.parquet")
        assert load_data("rows.parquet").examples == plain.examples
    for spell in (json.dumps, repr):
        cells = {field: spell(value) if isinstance(value, list) else value for field, value in row.items()}
        pd.DataFrame([cells]).to_csv("rows.csv", index=False)
        assert load_data("rows.csv").examples == plain.examples
        assert load_data(jsonl(cells)).examples == plain.examples
    assert load_prompts("rows.csv").examples[0].messages == plain.examples[0].messages


def test_a_system_turn_may_be_empty_and_earlier_turns_stay():
    turns = [{"role": "system", "content": ""}, USER, ASSISTANT, USER]
    (example,) = load_data(jsonl(GOOD | {"prompt": turns})).examples
    assert [message.role for message in example.messages] == ["system", "user", "assistant", "user"]


TEXTS = [
    "[1, 2, 3]",
    "[]",
    '["a"]',
    "['a', 'b']",
    "[not JSON",
    "[1] According to the role: 'user' is a word.",
    "[INST] Hi [/INST]",
    '[{"name": "Ann", "age": 3}]',
    '[{"role": "baker", "name": "Ann"}, {"role": "smith"}]',
    '[{"a": 1},',
    '{"role": "baker"}',
    '[{"role": "user", "content": "Hi"}] is what you send.',
    "[{'role': 'user', 'content': '[b'}] is what you send (as Python).",
    "(I shrug) {role}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_csv_cell_that_lists_no_messages_is_text(text):
    pd.DataFrame([GOOD | {"chosen": text}]).to_csv("rows.csv", index=False)
    assert load_data("rows.csv").examples[0].responses[0][1] == text


NO_LISTS = [
    "[{'role': 'user', 'content': 'a'} {'role': 'assistant', 'content': 'b'}]",
    "array([{'role': 'user', 'content': 'a'}], dtype=object)",
    "[{'role': 'user', 'content': 'a', 'weight': nan}]",
    "[{'role': 'user', 'content': 'a' 'b'}]",
    "[{'role': 'user', 'content': 'a\\d'}]",
    "[{'content': 'it is so and', 'role': 'user'}, {'content': 'cut o",
    '[{"role": "user", "content": "cut o',
    '[{\\"role\\": \\"user\\", \\"content\\": \\"a\\"}]',
    '"[{\\"role\\": \\"user\\", \\"content\\": \\"a\\"}]"',
    '{"role": "user", "content": "a"}',
]


@pytest.mark.parametrize("text", NO_LISTS)
def test_a_cell_that_looks_like_a_list_of_messages_and_is_none_is_named_with_the_remedy(text):
    pd.DataFrame([GOOD, ROW | {"prompt": text}]).to_csv("rows.csv", index=False)
    with pytest.raises(UsageError, match=r"^rows\.csv, line 3, field prompt: .*: write it as JSON, \[\{"):
        load_data("rows.csv")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"role": "user"}]', "prompt[0]: not a message with role and content"),
        (
            "[{'from': 'bot', 'value': 'a'}]",
            "prompt[0].from: unknown role 'bot' (known: system, human, user, gpt, assistant)",
        ),
        ('[[{"role": "user", "content": "a"}]]', "prompt[0]: not a message with role and content"),
        ('[{"role": "ai", "content": "a"}]', "prompt[0].role: unknown role 'ai' (known: system, user, assistant)"),
        (
            "[{'role': 'user', 'content': 'a', 'name': 'Ann'}]",
            "prompt[0]: 'name' would be lost: only role and content are read",
        ),
        ("[{'role': 'user', 'content': 'a'}, Ellipsis]", None),
    ],
)
def test_a_listed_message_is_held_to_the_rules_of_messages(text, problem):
    pd.DataFrame([GOOD | {"prompt": text}]).to_csv("rows.csv", index=False)
    with pytest.raises(UsageError) as error:
        load_data("rows.csv")
    assert problem is None or str(error.value) == f"rows.csv, line 2, field {problem}"


ODD = {
    "a date after 9999": pa.array([253402300800 * 10**6] * 2, pa.timestamp("us")),
    "an unknown time zone": pa.array([0, 0], pa.timestamp("us", tz="Mars/Olympus")),
    "no UTF-8": pa.array([b"\xff", b"\xff"]).view(pa.utf8()),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_column_that_is_not_needed_is_not_read_and_one_that_is_needed_is_named(kind):
    rows = {name: ["a", "b"] for name in ("prompt", "id")} | {"chosen": ["c", "c"], "rejected": ["d", "d"]}
    pq.write_table(pa.table(rows | {"made": ODD[kind], "prompt.made": ODD[kind]}), "rows.parquet")
    assert [example.messages[0].content for example in load_data("rows.parquet").examples] == ["a", "b"]
    pq.write_table(pa.table(rows | {"chosen": ODD[kind]}), "rows.parquet")
    # Prompts alone need no responses.
    assert len(load_prompts("rows.parquet").examples) == 2
    with pytest.raises(
        UsageError, match=r"^rows\.parquet, row 1, field chosen: a value of type .+ cannot be read: .+$"
    ):
        load_data("rows.parquet")


def test_a_parquet_file_with_none_of_the_columns_says_which_is_missing():
    pd.DataFrame([{"Chosen": "a"}]).to_parquet("rows.parquet")
    with pytest.raises(UsageError, match=r"^rows\.parquet, row 1, field chosen: missing, did you mean 'Chosen'\?$"):
        load_data("rows.parquet")


def test_two_columns_of_one_name_are_refused_where_the_name_is_read():
    row = list(GOOD.values())
    for header, problem in ([*GOOD, "x", "x"], None), ([*GOOD, "x", "id"], "two columns have one name, 'id'"):
        pd.DataFrame([[*row, "1", "2"]], columns=header).to_csv("rows.csv", index=False)
        columns = [pa.array([value]) for value in (*row, "1", "2")]
        pq.write_table(pa.Table.from_arrays(columns, names=header), "rows.parquet")
        for name in ("rows.csv", "rows.parquet"):
            if problem is None:
                assert load_data(name).examples[0].example_id == "sums/7"
            else:
                with pytest.raises(UsageError, match=problem):
                    load_data(name)


def test_a_number_too_long_for_python_breaks_no_row_that_does_not_need_it():
    row = json.dumps(GOOD)[:-1] + ', "big": ' + "9" * 5000 + "}"
    assert load_data(jsonl(row)).examples[0].example_id == "sums/7"


def test_the_three_formats_give_one_digest():
    rows = [GOOD | {"chosen": 'a "quoted",\nline'}, GOOD | {"id": 8, "prompt": "x" * 200_000}]
    jsonl(*rows)
    pd.DataFrame(rows).to_parquet("rows.parquet")
    pd.DataFrame(rows).to_csv("rows.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    assert len({load_data(f"rows.{kind}").digest for kind in ("jsonl", "parquet", "csv")}) == 1


def test_the_digest_knows_every_field():
    rows = [GOOD] + [GOOD | {field: "other"} for field in GOOD] + [GOOD | {"prompt": [USER]}]
    assert len({load_data(jsonl(row)).digest for row in rows}) == len(rows)
    assert load_data(jsonl(GOOD, GOOD | {"id": 8})).digest != load_data(jsonl(GOOD | {"id": 8}, GOOD)).digest


def test_a_limit_draws_rows_of_each_subset_and_keeps_their_order():
    rows = [GOOD | {"subset": subset, "id": i} for i, subset in enumerate("aabab" * 100)]
    whole, few, more = load_data(jsonl(*rows)), *(load_data("rows.jsonl", limit_per_subset=n) for n in (20, 40))
    assert (few.slug, few.limit) == ("rows-20-per-subset", 20) and few.digest != whole.digest
    assert Counter(example.subset for example in few.examples) == {"a": 20, "b": 20}
    drawn = [whole.examples.index(example) for example in few.examples]
    # The first 20 of a subset end before row 50; a draw comes from the whole subset.
    assert drawn == sorted(drawn) and drawn[-1] > 400
    assert set(few.examples) < set(more.examples)
    assert load_data(jsonl(*reversed(rows)), limit_per_subset=20).examples == few.examples[::-1]
    assert [e.example_id for e in load_prompts("rows.jsonl", limit_per_subset=20).examples] == [
        e.example_id for e in few.examples[::-1]
    ]


def test_a_limit_draws_both_forms_of_a_prompt_of_ties_together():
    def row(subset: str, name: str, n_right: int) -> dict:
        right = [f"{name} right {i}" for i in range(n_right)]
        return {
            "id": name,
            "subset": subset,
            "prompt": name,
            "chosen": right,
            "rejected": ["x"],
            "num_correct": n_right,
        }

    forms = (("ref", 1), ("tied", 2))
    rows = [row("Ties", f"{form}:{i}", n_right) for i in range(30) for form, n_right in forms]
    rows += [row("Math", str(i), 1) for i in range(30)]
    jsonl(*rows)
    drawn = {}
    for limit, n_ties in ((1, 2), (9, 10), (20, 20)):
        examples = load_data("rows.jsonl", limit_per_subset=limit).examples
        assert Counter(example.subset for example in examples) == {"Ties": n_ties, "Math": limit}
        forms = Counter(ties_number(example) for example in examples if example.subset == "Ties")
        assert set(forms.values()) == {2}
        drawn[limit] = {example.example_id for example in examples}
    assert drawn[1] < drawn[9] < drawn[20]


def test_a_limit_hides_no_bad_row():
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 3, field chosen: empty"):
        load_data(jsonl(GOOD, GOOD | {"id": 8}, GOOD | {"id": 9, "chosen": ""}), limit_per_subset=1)


def test_a_limit_is_at_least_one():
    with pytest.raises(UsageError, match="limit per subset: must be 1 or more, is 0"):
        load_data(jsonl(GOOD), limit_per_subset=0)


def test_a_users_sample_file_is_not_the_built_in_sample():
    assert load_data(jsonl(GOOD, name="sample.jsonl")).slug == "sample-file"


ROW = GOOD | {"id": 8}
LOST = "would be lost: chat templates get the messages alone; empty it or remove the row"
BAD_ROWS = [
    ({k: v for k, v in ROW.items() if k != "chosen"}, ", field chosen: missing"),
    ({"Chosen" if k == "chosen" else k: v for k, v in ROW.items()}, ", field chosen: missing, did you mean 'Chosen'?"),
    ({k: v for k, v in ROW.items() if k != "prompt"}, ", field prompt: missing"),
    (ROW | {"chosen": None}, ", field chosen: missing"),
    (ROW | {"prompt": None}, ", field prompt: missing"),
    (ROW | {"prompt": ""}, ", field prompt: empty"),
    (ROW | {"prompt": []}, ", field prompt: empty"),
    (ROW | {"rejected": []}, ", field rejected: empty"),
    (ROW | {"rejected": ""}, ", field rejected: empty"),
    (ROW | {"rejected": " \n"}, ", field rejected: only whitespace"),
    (ROW | {"chosen": 4}, ", field chosen: must be text, is int"),
    (ROW | {"chosen": "5"}, ", field rejected: equal to chosen"),
    (ROW | {"chosen": "\ud800"}, ", field chosen: contains half of a surrogate pair, which is not valid text"),
    (ROW | {"id": "7"}, ", field id: 'sums/7' is also the id of line 1"),
    (ROW | {"id": ""}, ", field id: empty"),
    (ROW | {"id": None}, ", field id: missing"),
    (ROW | {"id": 1.5}, ", field id: must be text or a whole number, is 1.5"),
    (ROW | {"id": True}, ", field id: must be text or a whole number, is True"),
    (ROW | {"id": "a\nb"}, ", field id: contains control characters"),
    (ROW | {"subset": "a\x1b[2J"}, ", field subset: contains control characters"),
    (ROW | {"prompt": ["Hi"]}, ", field prompt[0]: not a message with role and content"),
    (
        ROW | {"prompt": [{"role": "human", "content": "Hi"}]},
        ", field prompt[0].role: unknown role 'human' (known: system, user, assistant)",
    ),
    (ROW | {"prompt": [USER, USER | {"content": " "}]}, ", field prompt[1].content: only whitespace"),
    (ROW | {"prompt": [USER | {"content": None}]}, ", field prompt[0].content: missing"),
    (
        ROW | {"prompt": [USER | {"tool_calls": [{"name": "f"}]}]},
        ", field prompt[0]: 'tool_calls' would be lost: only role and content are read",
    ),
    (ROW | {"tools": [{"name": "f"}]}, f", field tools: {LOST}"),
    (ROW | {"tools": '[{"name": "f"}]'}, f", field tools: {LOST}"),
    (ROW | {"chat_template_kwargs": {"enable_thinking": False}}, f", field chat_template_kwargs: {LOST}"),
    (ROW | {"images": [{"bytes": None, "path": "a.png"}]}, f", field images: {LOST}"),
    (ROW | {"image": "a.png"}, f", field image: {LOST}"),
    (ROW | {"prompt": [USER, ASSISTANT]}, ", field prompt: ends on an assistant turn"),
    (ROW | {"chosen": [USER]}, ", field chosen: does not end on an assistant turn"),
    (ROW | {"chosen": [USER, ASSISTANT]}, ", field chosen: its earlier turns differ from the prompt"),
    ('{"prompt": "a", "chosen" "b"}', ": broken JSON: Expecting ':' delimiter (column 26)"),
    ('{"prompt": "a', ": broken JSON: Unterminated string starting at (column 12)"),
    ("[1, 2]", ": not a JSON object"),
]


@pytest.mark.parametrize(("row", "problem"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_line_and_field(row, problem):
    with pytest.raises(UsageError) as error:
        load_data(jsonl(GOOD, row))
    assert str(error.value) == f"rows.jsonl, line 2{problem}"


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("load", [load_data, load_prompts, load_candidates])
@pytest.mark.parametrize("column", ["tools", "chat_template_kwargs", "images"])
def test_what_a_template_would_get_beside_the_messages_is_refused_by_every_reader(column, load, ending):
    more = {"tools": [{"name": "f"}], "chat_template_kwargs": {"enable_thinking": False}, "images": ["a.png"]}[column]
    frame = pd.DataFrame([GOOD | {column: None}, GOOD | {"id": 2, column: more}])
    if ending == ".jsonl":
        frame.to_json("rows.jsonl", orient="records", lines=True)
    else:
        getattr(frame, f"to_{ending[1:]}")(f"rows{ending}", index=False)
    place = {".jsonl": "line 2", ".parquet": "row 2", ".csv": "line 3"}[ending]
    with pytest.raises(UsageError, match=rf"^rows\{ending}, {place}, field {column}: would be lost"):
        load(f"rows{ending}")


@pytest.mark.parametrize("nothing", [None, [], {}, "", "[]", "{}", "null"])
def test_tools_words_for_the_template_and_images_may_be_empty(nothing):
    row = GOOD | dict.fromkeys(("tools", "chat_template_kwargs", "images", "image"), nothing)
    assert load_data(jsonl(row)).examples == load_data(jsonl(GOOD, name="plain.jsonl")).examples


def test_blank_lines_are_counted_as_lines():
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 4, field chosen: empty$"):
        load_data(jsonl("", GOOD, "  ", ROW | {"chosen": ""}))


def test_a_parquet_row_is_named_by_its_number():
    pd.DataFrame([GOOD, ROW | {"chosen": ""}]).to_parquet("rows.parquet")
    with pytest.raises(UsageError, match=r"^rows\.parquet, row 2, field chosen: empty$"):
        load_data("rows.parquet")


def test_a_csv_row_is_named_by_the_line_on_which_it_starts():
    pd.DataFrame([GOOD | {"chosen": "two\nlines"}, ROW | {"chosen": ""}]).to_csv("rows.csv", index=False)
    with pytest.raises(UsageError, match=r"^rows\.csv, line 4, field chosen: empty$"):
        load_data("rows.csv")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "a.jsonl has no rows"),
        ("a.jsonl", b'{"prompt": "a"}\n\xff\n', "a.jsonl, line 1, field chosen: missing"),
        ("a.jsonl", b"\xff\n", "a.jsonl, line 1: not UTF-8 text"),
        ("a.csv", b"prompt,chosen,rejected\n", "a.csv has no rows"),
        ("a.csv", b"prompt,chosen\na,b\n", "a.csv, line 2, field rejected: missing"),
        ("a.csv", b"prompt,chosen,rejected\n\na,b\n", "a.csv, line 3: 2 cells, but the header has 3"),
        ("a.csv", b'prompt,chosen,rejected\na,b,"c\n', "a.csv, line 2: broken CSV: unexpected end of data"),
        (
            "a.csv",
            b"prompt;chosen;rejected\na, b;c;d\n",
            "a.csv, line 1: its only column is 'prompt;chosen;rejected'; save it with commas",
        ),
        (
            "a.csv",
            b"prompt\tchosen\na\tc\n",
            "a.csv, line 1: its only column is 'prompt\\tchosen'; save it with commas",
        ),
        ("a.csv", b"prompt,prompt\na,b\n", "a.csv, line 1: two columns have one name, 'prompt'"),
        ("a.csv", b"prompt\na\n\xff\n", "a.csv, line 3: not UTF-8 text"),
        ("a.txt", b"", "a.txt: only .jsonl, .parquet, .csv, .json files are read"),
    ],
)
def test_a_broken_file_is_one_line(name, data, message):
    Path(name).write_bytes(data)
    with pytest.raises(UsageError) as error:
        load_data(name)
    assert str(error.value) == message


def test_a_broken_parquet_file_is_one_line():
    Path("a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match=r"^a\.parquet: broken parquet: [^\n]+$"):
        load_data("a.parquet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reward-bnech", "unknown data set 'reward-bnech', did you mean 'reward-bench'? (known: "),
        ("Sample", "unknown data set 'Sample', did you mean 'sample'? (known: "),
        (
            "qqq",
            f"unknown data set 'qqq' (known: {', '.join(NAMES)}, a .jsonl, .parquet, .csv, .json file, a hub id ",
        ),
        ("rowz.jsonl", "rowz.jsonl: no such file, did you mean 'rows.jsonl'?"),
        ("nowhere/rows.jsonl", "nowhere/rows.jsonl: no such file"),
        ("rows", "rows: no such file, did you mean 'rows.jsonl'?"),
        ("./rows", "./rows: no such file, did you mean './rows.jsonl'?"),
        ("data/prefs", "data/prefs: is a folder; name a file in it, such as data/prefs/b.parquet"),
        ("./data", "./data: is a folder; name a file in it (.jsonl, .parquet, .csv, .json)"),
        ("./prefs", "unknown data set './prefs' (known: "),
    ],
)
def test_a_wrong_name_gets_did_you_mean(name, message):
    jsonl(GOOD)
    Path("data/prefs").mkdir(parents=True)
    for file in ("README.md", "b.parquet", "c.csv"):
        Path("data/prefs", file).write_text("")
    with pytest.raises(UsageError) as error:
        load_data(name)
    assert str(error.value).startswith(message)
    assert error.value.code == 2


def test_candidates_are_numbered():
    data = load_candidates(jsonl({"prompt": "Hi", "candidates": ["a", "b", "a"], "id": "x"}))
    assert data.examples[0].example_id == "x"
    assert data.examples[0].responses == (("0", "a"), ("1", "b"), ("2", "a"))


@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_a_csv_cell_spells_candidates(spell):
    pd.DataFrame([{"prompt": "Hi", "candidates": spell(["[1]", "it's"])}]).to_csv("rows.csv", index=False)
    assert load_candidates("rows.csv").examples[0].responses == (("0", "[1]"), ("1", "it's"))


NO_LIST = 'must be a list of texts; a CSV cell holds it as JSON, ["…", "…"]'


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "Hi"}, "field candidates: missing"),
        ({"prompt": "Hi", "candidate": ["a", "b"]}, "field candidates: missing, did you mean 'candidate'?"),
        ({"prompt": "Hi", "candidates": "ab"}, f"field candidates: {NO_LIST}"),
        ({"prompt": "Hi", "candidates": "['a' 'b']"}, f"field candidates: {NO_LIST}"),
        ({"prompt": "Hi", "candidates": "[a, b]"}, f"field candidates: {NO_LIST}"),
        ({"prompt": "Hi", "candidates": '["a"]'}, "field candidates: must be a list of two or more texts"),
        ({"prompt": "Hi", "candidates": ["a"]}, "field candidates: must be a list of two or more texts"),
        ({"prompt": "Hi", "candidates": ["a", " "]}, "field candidates[1]: only whitespace"),
        ({"prompt": "Hi", "candidates": ["a", None]}, "field candidates[1]: missing"),
        ({"candidates": ["a", "b"]}, "field prompt: missing"),
    ],
)
def test_bad_candidates_are_named_by_file_line_and_field(row, problem):
    with pytest.raises(UsageError) as error:
        load_candidates(jsonl(row))
    assert str(error.value) == f"rows.jsonl, line 1, {problem}"


def test_the_variable_names_the_file_behind_reward_bench(monkeypatch):
    monkeypatch.setenv(REWARD_BENCH_VARIABLE, jsonl(GOOD))
    data = load_data("reward-bench")
    assert (data.slug, len(data.examples)) == ("reward-bench", 1)
    monkeypatch.setenv(REWARD_BENCH_VARIABLE, "gone.jsonl")
    with pytest.raises(PreconditionError, match=r"^DRSOW_REWARDBENCH: no such file: gone\.jsonl$"):
        load_data("reward-bench")


def test_reward_bench_has_its_2985_rows(request, monkeypatch):
    if REWARD_BENCH_VARIABLE not in os.environ:
        pytest.skip(f"{REWARD_BENCH_VARIABLE} is not set")
    # A relative path is meant from where pytest was started, not from this test's folder.
    monkeypatch.chdir(request.config.invocation_params.dir)
    data = load_data("reward-bench")
    assert len(data.examples) == 2985
    # Maths weighs as all code together, but has 447 rows.
    assert Counter(example.subset for example in data.examples) == SUBSET_WEIGHTS | {"math-prm": 447}


OFFLINE = """
import json, os, sys
from pathlib import Path
from bench.data.load import load_data
from bench.schema import DrsowError
import datasets

def outcome(data):
    try:
        return load_data(data, offline=sys.argv[2] == "offline").examples[0].example_id
    except DrsowError as error:
        return f"{error.code} {error}"

found = {"absent": outcome("reward-bench")}
cache = Path(os.environ["HF_HOME"]) / "datasets"
datasets.load_dataset("json", data_files={"train": sys.argv[1]})
# The builder's cache of a local file, moved to where a data set of the hub has its own.
(old,) = (cache / "json").iterdir()
(cache / "org___name").mkdir()
old.rename(cache / "org___name" / "default")
for arrow in cache.rglob("json-train.arrow"):
    arrow.rename(arrow.with_name("name-train.arrow"))
for path in cache.rglob("dataset_info.json"):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset_name": "name"}))
found |= {data: outcome(data) for data in ("org/name", "org/name:train", "org/name:test")}
print(json.dumps(found))
"""


@pytest.mark.parametrize(("asked", "forbidden"), [("online", "1"), ("offline", "0")])
def test_a_hub_data_set_is_read_offline_from_the_cache_or_named_with_the_command_that_fetches_it(
    tmp_path, asked, forbidden
):
    kept = {name: value for name, value in os.environ.items() if name != REWARD_BENCH_VARIABLE}
    offline = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": forbidden, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, jsonl(GOOD), asked],
        env=kept | offline,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "absent": "4 allenai/reward-bench: not on this machine; with access to the hub, "
        "`drsow fetch reward-bench` fetches it, or DRSOW_REWARDBENCH=FILE names a copy",
        "org/name": "sums/7",
        "org/name:train": "sums/7",
        "org/name:test": "2 org/name: Unknown split \"test\". Should be one of ['train'].",
    }


def test_data_and_store_import_no_torch_and_a_file_needs_no_datasets():
    code = (
        "import sys; import bench.store.folder; from bench.data.load import load_data; load_data(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code, jsonl(GOOD)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_reading_a_csv_leaves_the_csv_module_as_it_was():
    before = csv.field_size_limit()
    pd.DataFrame([GOOD]).to_csv("rows.csv", index=False)
    load_data("rows.csv")
    assert csv.field_size_limit() == before


class Counted:
    """A pattern that counts the characters of its matches."""

    def __init__(self, pattern: re.Pattern, counts: list[int]) -> None:
        self.pattern, self.counts = pattern, counts

    def search(self, text: str, at: int) -> re.Match | None:
        found = self.pattern.search(text, at)
        self.counts.append((found.end() if found else len(text)) - at)
        return found


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_text_of_open_quotation_marks_is_read_a_few_times_however_many_they_are(quote, monkeypatch):
    counts: list[int] = []
    monkeypatch.setattr(cells, "_PIECES", {name: Counted(found, counts) for name, found in cells._PIECES.items()})
    text = f'[{{"role": "user", "content": {quote}' + f"\\{quote}" * 1000
    with pytest.raises(ValueError, match="looks like a list of messages"):
        cells.messages_in(text)
    assert len(text) <= sum(counts) <= 4 * len(text) and len(counts) < 20


@pytest.mark.parametrize(("text", "ends"), [
    ('[{"a": "]"}] and', True), ('[{"a": "]"}]', False), ("[{'a': 'it's'}] and", True), ("[{'a': 'b\\'}] and", True),
    ("[{'a': \"b\\\\\"}] and", True), ('[{"a": "}] and\\', True), ("[(')', ", False),
])  # fmt: skip
def test_what_follows_a_list_is_seen_behind_open_quotation_marks(text, ends):
    assert cells._ends_early(text) == ends


@pytest.mark.parametrize("tail", ["", "\n\nAssistant:", "\n\nAssistant: "])
def test_a_transcript_becomes_its_turns(tail):
    prompt = f"\n\nHuman: a\n\nHuman: b\n\nAssistant: Assistant: c\n\nd\n\nHuman: e{tail}"
    path = jsonl({"prompt": prompt, "chosen": " f", "rejected": " g"})
    plain, found = load_data(path), load_transcripts(path)
    turns = [("user", "a"), ("user", "b"), ("assistant", "Assistant: c\n\nd"), ("user", "e")]
    (example,) = found.examples
    assert example.messages == tuple(Message(*turn) for turn in turns)
    # Behind an open header a response is a turn of the transcript as well.
    assert example.responses == ((("chosen", "f"), ("rejected", "g")) if tail else plain.examples[0].responses)
    assert found.digest != plain.digest and found.slug == "rows-turns"


@pytest.mark.parametrize("prompt", [{"prompt": "Human: a"}, {}])
def test_a_transcript_with_tools_is_refused(prompt):
    row = prompt | {"chosen": "Human: a\n\nAssistant: f", "rejected": "Human: a\n\nAssistant: g"}
    with pytest.raises(UsageError, match=f", field tools: {LOST}"):
        load_transcripts(jsonl(row | {"tools": '[{"name": "f"}]'}))


def test_a_limit_on_transcripts_is_in_their_slug():
    path = jsonl(*({"prompt": "Human: a", "chosen": "f", "rejected": "g"} for _ in range(3)))
    assert load_transcripts(path, limit_per_subset=2).slug == "rows-2-per-subset-turns"


@pytest.mark.parametrize(
    "prompt",
    [
        "a",
        "Human: a\n\nAssistant: b",
        "Human: \n\nHuman: b",
        "x Human: a",
        "Human:",
        "Assistant:",
        "Human: a\n\nAssistant:\n\nAssistant:",
        [USER, ASSISTANT, USER],
    ],
)
def test_a_prompt_that_is_no_transcript_is_named_by_file_line_and_field(prompt):
    path = jsonl(
        {"prompt": "Human: a", "chosen": "f", "rejected": "g"}, {"prompt": prompt, "chosen": "f", "rejected": "g"}
    )
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 2, field prompt: is no transcript"):
        load_transcripts(path)


def whole(*texts: str) -> str:
    """A conversation as Anthropic publishes it in HH-RLHF."""
    speakers = ["Human", "Assistant"] * len(texts)
    return "".join(f"\n\n{speaker}: {text}" for speaker, text in zip(speakers, texts, strict=False))


def test_whole_transcripts_without_a_prompt_are_split_into_prompt_and_answers(capsys):
    rows = [{"chosen": whole("a", "b\n\nc", "d", "e"), "rejected": whole("a", "b\n\nc", "d", "f")}]
    path = jsonl(*rows, rows[0] | {"prompt": None})
    first, second = load_transcripts(path).examples
    turns = (Message("user", "a"), Message("assistant", "b\n\nc"), Message("user", "d"))
    assert first.messages == second.messages == turns
    assert first.responses == second.responses == (("chosen", "e"), ("rejected", "f"))
    assert capsys.readouterr().err == "rows.jsonl: read as HH-RLHF (chosen, rejected); preferences: 2\n"


def test_whole_transcripts_that_prefer_no_answer_are_left_out_and_counted():
    good = {"chosen": whole("a", "b"), "rejected": whole("a", "c")}
    other = {"chosen": whole("a", "b", "c", "d"), "rejected": whole("a", "B", "c", "e")}
    shorter = {"chosen": whole("a", "b", "c", "d"), "rejected": whole("a", "b")}
    equal = {"chosen": whole("a", "b"), "rejected": whole("a", "b ")}
    data = load_transcripts(jsonl(other, shorter, good, equal))
    assert [example.example_id for example in data.examples] == ["2"]
    assert dict(data.left_out) == {
        "conversations whose earlier answers differ": 2,
        "rows whose two responses are equal": 1,
    }
    with pytest.raises(UsageError, match=r"^rows\.jsonl: no row prefers a response \(left out: .* equal 1\)$"):
        load_transcripts(jsonl(equal))


@pytest.mark.parametrize(
    "text", ["b", whole("a"), whole("a", "b", "c"), whole("a", ""), whole("", "b"), f"x{whole('a', 'b')}"]
)
def test_a_whole_transcript_that_does_not_end_on_an_answer_is_named_by_file_line_and_field(text):
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 1, field rejected: is no transcript"):
        load_transcripts(jsonl({"chosen": whole("a", "b"), "rejected": text}))


def test_responses_that_differ_in_outer_whitespace_alone_are_equal_behind_an_open_header():
    path = jsonl({"prompt": "Human: a\n\nAssistant:", "chosen": " f", "rejected": "f"})
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 1, field rejected: equal to chosen$"):
        load_transcripts(path)


def test_two_names_never_share_an_example_id_and_each_gives_its_id_back():
    names = [("", "1"), ("", "a/1"), ("a", "1"), ("a/b", "1"), ("a", "b/1"), ("a%2Fb", "1"), ("", "/a/1"), ("a/", "1")]
    data = load_data(jsonl(*(GOOD | {"subset": subset, "id": number} for subset, number in names)))
    assert [(example.subset, own_id(example)) for example in data.examples] == names
    assert len({example.example_id for example in data.examples}) == len(names)
    assert [example.example_id for example in data.examples[:3]] == ["1", "/a/1", "a/1"]
