"""Published formats of preferences: each is recognised by its columns and read, or refused in one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from bench.data.load import load_candidates, load_data, load_prompts, load_readable
from bench.data.rows import own_id
from bench.schema import Example, Message, UsageError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


ASK = "Which of these is a fruit?"
USER = {"role": "user", "content": ASK}
GOOD, BAD = "A pear is one.", "A spoon is one."


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


def person(text: str) -> dict:
    return {"from": "human", "value": text}


def machine(text: str) -> dict:
    return {"from": "gpt", "value": text}


def scored(*pairs: tuple[str, float]) -> list[dict]:
    return [{"model": "m", "response": text, "overall_score": score, "critique": "c"} for text, score in pairs]


VOTE = {"model_a": "m", "model_b": "n", "winner": "model_b", "turn": 1}
FORMATS = {
    "UltraFeedback (instruction, completions)": {
        "source": "s", "instruction": ASK, "completions": scored(("A plum?", 6.5), (GOOD, 9), (BAD, 1)),
    },
    "UltraFeedback's pairs (prompt, chosen, rejected, score_chosen, score_rejected)": {
        "prompt": ASK, "prompt_id": "x", "chosen": [USER, said(GOOD)], "rejected": [USER, said(BAD)],
        "messages": [USER, said(GOOD)], "score_chosen": 8.0, "score_rejected": 2.5,
    },
    "HelpSteer 2 (prompt, response_1, response_2, preference_strength)": {
        "split": "train", "prompt": ASK, "response_1": BAD, "response_2": GOOD, "preference_strength": 2,
    },
    "HelpSteer 3 (context, response1, response2, overall_preference)": {
        "domain": "general", "context": [USER], "response1": GOOD, "response2": BAD, "overall_preference": -1,
    },
    "distilabel (instruction, generations, ratings)": {
        "instruction": ASK, "generations": [BAD, GOOD], "ratings": [2, 4], "rationales": ["r", "r"],
    },
    "distilabel (instruction, chosen_response, rejected_response)": {
        "instruction": ASK, "chosen_response": GOOD, "chosen_rating": 9.0, "rejected_response": BAD,
        "rejected_rating": 3.0,
    },
    "distilabel's pairs (prompt, chosen, rejected, chosen_rating, rejected_rating)": {
        "instruction": ASK, "generations": [GOOD, BAD], "ratings": [5, 1], "prompt": ASK, "prompt_id": "x",
        "chosen": [USER, said(GOOD)], "chosen_rating": 5, "rejected": [USER, said(BAD)], "rejected_rating": 1,
    },
    "distilabel's pairs (prompt, chosen, rejected, rating_chosen, rating_rejected)": {
        "source": "s", "conversation": [{"input": ASK, "output": GOOD}], "prompt": ASK, "chosen": [USER, said(GOOD)],
        "rejected": [USER, said(BAD)], "rating_chosen": 5, "rating_rejected": 4,
    },
    "distilabel (prompt, chosen_response, rejected_response)": {
        "prompt": ASK, "chosen_response": GOOD, "rejected_response": BAD, "chosen_avg_rating": 4.5,
        "rejected_avg_rating": 4.25,
    },
    "ShareGPT (conversations, chosen, rejected)": {
        "conversations": [person(ASK)], "chosen": machine(GOOD), "rejected": machine(BAD),
    },
    "Arena votes (conversation_a, conversation_b, winner)": {
        **VOTE, "question_id": "q", "conversation_a": [USER, said(BAD)], "conversation_b": [USER, said(GOOD)],
    },
    "Arena votes (prompt, response_a, response_b, winner)": {
        **VOTE, "prompt": ASK, "response_a": BAD, "response_b": GOOD,
    },
    "Arena votes (prompt, response_a, response_b, winner_model_a, winner_model_b, winner_tie)": {
        "prompt": json.dumps([ASK]), "response_a": json.dumps([GOOD]), "response_b": json.dumps([BAD]),
        "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0,
    },
    "TRL's conversations (prompt, chosen, rejected)": {
        "prompt": [USER], "chosen": [said(GOOD)], "rejected": [said(BAD)],
    },
    "TRL's conversations (chosen, rejected)": {
        "chosen": [USER, said(GOOD)], "rejected": [USER, said(BAD)],
    },
}  # fmt: skip
ENDINGS = (".jsonl", ".json", ".parquet", ".csv")


def write(rows: list[dict], ending: str = ".jsonl") -> str:
    """A file of rows; a CSV cell spells lists and objects as JSON."""
    name = f"rows{ending}"
    if ending == ".csv":
        cells = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
        pd.DataFrame(cells).to_csv(name, index=False)
    elif ending == ".parquet":
        pd.DataFrame(rows).to_parquet(name)
    elif ending == ".json":
        Path(name).write_text(json.dumps(rows))
    else:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_recognised_by_its_columns_and_told(name, ending, capsys):
    row = FORMATS[name]
    if ending == ".csv" and isinstance(row.get("chosen"), dict):
        row = row | {side: [row[side]] for side in ("chosen", "rejected")}
    (example,) = load_data(write([row], ending)).examples
    assert example == Example("0", "", (Message("user", ASK),), (("chosen", GOOD), ("rejected", BAD)))
    assert capsys.readouterr().err == f"rows{ending}: read as {name}; preferences: 1\n"


def test_two_equal_conversations_are_left_out_whatever_the_file():
    good, bad = ([{"role": "assistant", "content": text}] for text in (GOOD, BAD))
    rows = [{"prompt": ASK, "chosen": good, "rejected": other} for other in (bad, good)]
    found = [load_data(write(rows, ending)).left_out for ending in ENDINGS]
    assert len({str(each) for each in found}) == 1 and found[0]


def test_the_number_of_tokens_in_a_message_of_an_arena_is_not_read():
    turns = [[{"role": role, "content": text, "num_tokens": 3}] for role, text in (("user", ASK), ("assistant", GOOD))]
    row = {"conversation_a": turns[0] + turns[1], "conversation_b": turns[0] + turns[1], "winner": "model_a"}
    row["conversation_b"] = [*turns[0], turns[1][0] | {"content": BAD}]
    (example,) = load_data(write([row])).examples
    assert example.responses == (("chosen", GOOD), ("rejected", BAD))


def test_an_answer_that_spells_a_message_is_that_text():
    answer = '[{"role": "assistant", "content": "Hi"}]'
    for ending in ENDINGS:
        (example,) = load_data(write([PLAIN | {"chosen": answer}], ending)).examples
        assert example.responses[0][1] == answer


def test_drsows_own_columns_need_no_word(capsys):
    load_data(write([PLAIN]))
    load_candidates(write([{"prompt": ASK, "candidates": [GOOD, BAD]}]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", FORMATS)
def test_prompts_and_candidates_of_a_format_come_from_the_same_rows(name, capsys):
    path = write([FORMATS[name]])
    (prompt,) = load_prompts(path).examples
    assert (prompt.messages, prompt.responses, prompt.right) == ((Message("user", ASK),), (), ())
    (found,) = load_candidates(path).examples
    assert [response_id for response_id, _ in found.responses] == [str(i) for i in range(len(found.responses))]
    assert {GOOD, BAD} <= {text for _, text in found.responses} and found.right == ()
    assert capsys.readouterr().err.splitlines()[-1] == f"rows.jsonl: read as {name}; prompts with candidates: 1"


def with_label(text: str, label: object, **more: object) -> dict:
    return {"prompt": [USER], "completion": [said(text)], "label": label} | more


def test_rows_with_one_response_of_a_prompt_are_one_preference(capsys):
    rows = [with_label(BAD, False, id="one"), with_label("Hello.", True, prompt="Greet me."), with_label(GOOD, True)]
    (example,) = load_data(write(rows)).examples
    assert example == Example("one", "", (Message("user", ASK),), (("chosen", GOOD), ("rejected", BAD)))
    told = "rows.jsonl: read as TRL's unpaired preferences (prompt, completion); preferences: 1; left out: "
    assert capsys.readouterr().err == f"{told}prompts whose responses all have one label 1\n"


def test_messages_with_a_completion_are_a_prompt_with_one_response():
    rows = [{"messages": [USER], "completion": text, "label": text == GOOD} for text in (GOOD, "Tea.", BAD)]
    (example,) = load_data(write(rows)).examples
    assert example.responses == (("chosen-0", GOOD), ("rejected-0", "Tea."), ("rejected-1", BAD))
    assert example.right == ("chosen-0",)
    (found,) = load_candidates("rows.jsonl").examples
    assert found.responses == (("0", GOOD), ("1", "Tea."), ("2", BAD))
    assert len(load_prompts("rows.jsonl").examples) == 3


def test_a_prompt_with_a_response_under_both_labels_is_left_out_and_counted():
    other = {"prompt": "Greet me."}
    both = [with_label(GOOD, True), with_label(GOOD, False), with_label(BAD, False)]
    data = load_data(write([*both, with_label("Hello.", True, **other), with_label("No.", False, **other)]))
    assert [example.example_id for example in data.examples] == ["3"]
    assert data.left_out == (("prompts with a response under both labels", 1),)


def test_where_bad_rows_are_listed_a_bad_prompt_of_single_responses_is_one_of_them():
    blank = with_label(GOOD, True, prompt="Greet me.", id="")
    data, bad = load_readable(
        write(
            [
                blank,
                with_label("No.", False, prompt="Greet me."),
                *(with_label(text, text == GOOD) for text in (GOOD, BAD)),
                {"prompt": ASK, "completion": BAD},
            ]
        )
    )
    assert [example.example_id for example in data.examples] == ["2"]
    assert [str(error) for error in bad] == [
        "rows.jsonl, line 5, field label: missing: one response alone is no preference",
        "rows.jsonl, line 1, field id: empty",
    ]


TIED = [
    ("UltraFeedback (instruction, completions)", {"completions": scored((GOOD, 4), (BAD, 4))}),
    ("UltraFeedback's pairs (prompt, chosen, rejected, score_chosen, score_rejected)", {"score_rejected": 8.0}),
    ("HelpSteer 2 (prompt, response_1, response_2, preference_strength)", {"preference_strength": 0}),
    ("HelpSteer 3 (context, response1, response2, overall_preference)", {"overall_preference": 0}),
    ("distilabel (instruction, generations, ratings)", {"ratings": [3, 3]}),
    ("distilabel (instruction, chosen_response, rejected_response)", {"rejected_rating": 9}),
    ("distilabel (prompt, chosen_response, rejected_response)", {"rejected_avg_rating": 4.5}),
    ("distilabel's pairs (prompt, chosen, rejected, rating_chosen, rating_rejected)", {"rating_rejected": 5}),
    ("Arena votes (conversation_a, conversation_b, winner)", {"winner": "tie"}),
    ("Arena votes (conversation_a, conversation_b, winner)", {"winner": "tie (bothbad)"}),
    ("Arena votes (prompt, response_a, response_b, winner)", {"winner": "both_bad"}),
    (
        "Arena votes (prompt, response_a, response_b, winner_model_a, winner_model_b, winner_tie)",
        {"winner_model_a": 0, "winner_tie": 1},
    ),
]


@pytest.mark.parametrize(("name", "change"), TIED)
def test_a_tie_prefers_no_response_and_is_left_out_and_counted(name, change, capsys):
    data = load_data(write([FORMATS[name] | change, FORMATS[name]]))
    # Its place is kept, so that the ids of the other rows do not depend on it.
    assert [example.example_id for example in data.examples] == ["1"]
    assert data.left_out == (("ties", 1),)
    assert capsys.readouterr().err == f"rows.jsonl: read as {name}; preferences: 1; left out: ties 1\n"
    assert len(load_candidates("rows.jsonl").examples) == len(load_prompts("rows.jsonl").examples) == 2


def test_a_file_of_ties_alone_is_refused():
    rows = [VOTE | {"prompt": ASK, "response_a": BAD, "response_b": GOOD, "winner": "tie"}] * 2
    with pytest.raises(UsageError, match=r"^rows\.jsonl: no row prefers a response \(left out: ties 2\)$"):
        load_data(write(rows))


def test_a_vote_on_conversations_whose_earlier_answers_differ_is_left_out_and_counted():
    name = "Arena votes (conversation_a, conversation_b, winner)"
    again = {"role": "user", "content": "Why?"}
    longer = {
        f"conversation_{side}": [USER, said(first), again, said(last)]
        for side, first, last in (("a", "Pear.", "It grows."), ("b", "Plum.", "It is sweet."))
    }
    data = load_data(write([FORMATS[name], FORMATS[name] | longer]))
    assert data.left_out == (("conversations whose earlier answers differ", 1),) and len(data.examples) == 1
    candidates = load_candidates("rows.jsonl")
    assert [example.responses for example in candidates.examples] == [(("0", BAD), ("1", GOOD))]
    assert candidates.left_out == data.left_out


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_vote_with_its_turns_as_lists_is_the_same_in_every_file(ending):
    row = VOTE | {"prompt": [ASK], "response_a": [BAD], "response_b": [GOOD]}
    (example,) = load_data(write([row], ending)).examples
    assert example == Example("0", "", (Message("user", ASK),), (("chosen", GOOD), ("rejected", BAD)))


def test_a_vote_on_equal_responses_is_left_out_and_counted():
    name = "Arena votes (prompt, response_a, response_b, winner)"
    data = load_data(write([FORMATS[name], FORMATS[name] | {"response_a": GOOD}]))
    assert data.left_out == (("rows whose two responses are equal", 1),)


PAIRS = [
    "UltraFeedback's pairs (prompt, chosen, rejected, score_chosen, score_rejected)",
    "distilabel's pairs (prompt, chosen, rejected, chosen_rating, rejected_rating)",
    "TRL's conversations (prompt, chosen, rejected)",
    "TRL's conversations (chosen, rejected)",
]


@pytest.mark.parametrize("name", PAIRS)
def test_a_published_pair_of_equal_responses_is_left_out_and_counted(name):
    equal = FORMATS[name] | {"rejected": FORMATS[name]["chosen"]}
    path = write([FORMATS[name], equal, FORMATS[name]])
    data = load_data(path)
    assert [example.example_id for example in data.examples] == ["0", "2"]
    assert data.left_out == (("rows whose two responses are equal", 1),)
    # As candidates they are two responses to a prompt, which `annotate` skips and counts.
    assert load_candidates(path).examples[1].responses == (("0", GOOD), ("1", GOOD))
    assert len(load_prompts(path).examples) == 3


def test_later_turns_of_a_prompt_of_help_steer_are_turns():
    name = "HelpSteer 2 (prompt, response_1, response_2, preference_strength)"
    text = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nWho are you?"
    (example,) = load_data(write([FORMATS[name] | {"prompt": text}])).examples
    assert example.messages == (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Who are you?"))


def test_the_best_and_the_worst_of_several_are_the_first_of_each_score():
    name = "distilabel (instruction, generations, ratings)"
    row = FORMATS[name] | {"generations": ["a", "b", "c", "d", "e"], "ratings": [2, 5, 1, 5, 1], "system": "Be brief."}
    (example,) = load_data(write([row])).examples
    assert example.responses == (("chosen", "b"), ("rejected", "c"))
    assert example.messages == (Message("system", "Be brief."), Message("user", ASK))


SYSTEM = {"role": "system", "content": "Be brief."}
RATED = {"instruction": ASK, "generations": [GOOD, BAD], "ratings": [5, 1], "prompt": ASK}
HISTORY = [{"role": "user", "content": "Hi"}, said("Hello.")]
LAST_STEPS = [
    (RATED | {"system_prompt": "Be brief."}, [SYSTEM, USER], [SYSTEM, USER]),
    (RATED | {"prompt": "Hi"}, [*HISTORY, USER], [*HISTORY, USER]),
    (RATED | {"system_prompt": "Be brief."}, [], [SYSTEM, USER]),
    (RATED | {"system_prompt": "Be brief."}, [USER], [SYSTEM, USER]),
    (RATED | {"prompt": None, "system": "Be brief."}, [USER], [SYSTEM, USER]),
    ({"prompt": ASK, "chosen_rating": 5, "rejected_rating": 1, "system": "Be brief."}, [], [SYSTEM, USER]),
]


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
@pytest.mark.parametrize(("row", "head", "turns"), LAST_STEPS)
def test_what_the_last_step_of_distilabel_writes_keeps_its_earlier_turns_and_its_system_prompt(
    row, head, turns, ending, capsys
):
    sides = {"chosen": [*head, said(GOOD)], "rejected": [*head, said(BAD)]}
    path = write([row | (sides if head else {"chosen": GOOD, "rejected": BAD})], ending)
    messages = tuple(Message(**turn) for turn in turns)
    assert load_data(path).examples == (Example("0", "", messages, (("chosen", GOOD), ("rejected", BAD))),)
    assert load_prompts(path).examples[0].messages == load_candidates(path).examples[0].messages == messages
    assert "not read" not in capsys.readouterr().err


def test_a_prompt_that_is_no_user_turn_of_the_conversations_or_conversations_that_differ_are_refused():
    whole = {"chosen": [*HISTORY, USER, said(GOOD)], "rejected": [*HISTORY, USER, said(BAD)]}
    other = {"rejected": [SYSTEM, USER, said(BAD)]}
    for row in ({"prompt": "Hello."} | whole, {"prompt": [USER]} | whole, {"prompt": ASK} | whole | other):
        with pytest.raises(UsageError, match="field chosen: its earlier turns differ from the prompt"):
            load_data(write([row]))


def test_a_system_prompt_that_is_not_read_is_told(capsys):
    rows = [PLAIN | {"system": "Be brief."}, PLAIN | {"system": ""}, PLAIN | {"system": None}]
    assert load_data(write(rows)).examples[0].messages == (Message("user", ASK),)
    words = "column system of 1 rows is not read; its text belongs in a system turn of the prompt"
    assert capsys.readouterr().err == f"rows.jsonl: preferences: 3; {words}\n"
    load_data(write([PLAIN | {"prompt": [SYSTEM, USER], "system": "Be brief."}]))
    load_data(write([FORMATS["distilabel (instruction, generations, ratings)"] | {"system": "Be brief."}]))
    assert "not read" not in capsys.readouterr().err


def test_a_content_of_one_part_is_its_text():
    name = "Arena votes (conversation_a, conversation_b, winner)"
    turn = {"role": "user", "content": [{"type": "text", "text": ASK, "image": None}]}
    both = {f"conversation_{side}": [turn, said(text)] for side, text in (("a", BAD), ("b", GOOD))}
    assert load_data(write([FORMATS[name] | both])).examples[0].messages == (Message("user", ASK),)


def named(path: str) -> list[tuple[str, str, str]]:
    """The row's own id, the subset and the text of each prompt."""
    return [(own_id(e), e.subset, e.messages[0].content) for e in load_prompts(path).examples]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_questions_of_arena_hard_keep_their_uids(ending, capsys):
    rows = [{"uid": uid, "category": "hard", "cluster": "c", "prompt": ASK} for uid in ("2edb", "ec71")]
    assert named(write(rows, ending)) == [("2edb", "", ASK), ("ec71", "", ASK)]
    assert capsys.readouterr().err == f"rows{ending}: read as Arena-Hard's questions (prompt, uid); prompts: 2\n"
    assert named(write([row | {"id": "mine"} for row in rows[:1]], ending)) == [("mine", "", ASK)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_questions_of_alpaca_eval_keep_their_data_set_as_subset(ending, capsys):
    row = {"dataset": "koala", "instruction": ASK, "output": GOOD, "generator": "davinci"}
    assert named(write([row], ending)) == [("0", "koala", ASK)]
    told = f"rows{ending}: read as AlpacaEval's questions (instruction, dataset); prompts: 1\n"
    assert capsys.readouterr().err == told
    with pytest.raises(UsageError, match=r"field instruction: only whitespace"):
        load_prompts(write([row | {"instruction": " "}], ending))


def test_a_file_with_responses_has_the_same_ids_as_prompts_and_as_preferences():
    path = write([PLAIN | {"uid": "2edb", "dataset": "koala"}])
    assert load_prompts(path).examples[0].example_id == load_data(path).examples[0].example_id == "0"


@pytest.mark.parametrize("row", [{"question": ASK, "source": "s"}, {"instruction": "Add.", "input": "1, 2"}])
def test_prompts_in_unknown_columns_are_refused_with_the_name_to_give(row):
    with pytest.raises(UsageError) as error:
        load_prompts(write([row]))
    words = f"its columns ({', '.join(sorted(row))}) fit no known format"
    assert str(error.value) == f"rows.jsonl, line 1: {words}; if one of them has the prompts, name it prompt"


def joined(*names: str) -> dict:
    return {key: value for name in names for key, value in FORMATS[name].items()}


VOTES, STEER = (
    "Arena votes (prompt, response_a, response_b, winner)",
    "HelpSteer 2 (prompt, response_1, response_2, preference_strength)",
)
PLAIN = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}


@pytest.mark.parametrize(
    ("row", "first", "second"),
    [
        (joined(VOTES, STEER), STEER, VOTES),
        (FORMATS[VOTES] | PLAIN, "drsow's own (prompt, chosen, rejected)", VOTES),
        (
            PLAIN | {"conversations": [person(ASK)]},
            "drsow's own (prompt, chosen, rejected)",
            "ShareGPT (conversations, chosen, rejected)",
        ),
        (
            with_label(GOOD, True, messages=[USER]),
            "TRL's unpaired preferences (prompt, completion)",
            "TRL's unpaired preferences (messages, completion)",
        ),
    ],
)
def test_columns_of_two_formats_are_refused(row, first, second):
    with pytest.raises(UsageError) as error:
        load_data(write([row]))
    words = f"its columns fit two formats, {first} and {second}; remove the columns of one of them"
    assert str(error.value) == f"rows.jsonl, line 1: {words}"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"question": ASK, "answer": GOOD},
            "(answer, question) fit no known format; name them prompt, chosen and rejected, or as one of these has "
            "them: UltraFeedback, distilabel, HelpSteer 2, HelpSteer 3, ShareGPT, Arena votes, TRL's unpaired "
            "preferences",
        ),
        (
            {"prompt": ASK, "response_1": BAD, "response_2": GOOD},
            "(prompt, response_1, response_2) fit no known format; the nearest is HelpSteer 2, which also needs "
            "preference_strength",
        ),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_columns_of_no_format_are_refused(row, words, ending):
    with pytest.raises(UsageError) as error:
        load_data(write([row], ending))
    # Only lines have numbers that a user can look up without counting.
    assert str(error.value).partition(": ")[2] == f"its columns {words}"


def test_a_row_of_another_format_is_named():
    with pytest.raises(
        UsageError, match=r"^rows\.jsonl, line 2: its columns are those of HelpSteer 2 \(.*\); the first "
    ):
        load_data(write([FORMATS[VOTES], FORMATS[STEER]]))
    with pytest.raises(
        UsageError, match=r"^rows\.jsonl, line 2: its columns are those of drsow's own; the first row ha"
    ):
        load_data(write([FORMATS[VOTES], PLAIN]))


CONVERSATIONS = "Arena votes (conversation_a, conversation_b, winner)"
BAD_ROWS = [
    ("UltraFeedback (instruction, completions)", {"completions": scored((GOOD, 4))},
     "completions: must have two or more responses, has 1"),
    ("UltraFeedback (instruction, completions)", {"completions": [*scored((GOOD, 4)), {"response": BAD}]},
     "completions[1].overall_score: missing"),
    ("UltraFeedback (instruction, completions)", {"completions": scored((GOOD, "high"), (BAD, 1))},
     "completions[0].overall_score: must be a number, is 'high'"),
    ("UltraFeedback (instruction, completions)", {"completions": scored((GOOD, 2), ("", 1))},
     "completions[1].response: empty"),
    (STEER, {"preference_strength": 5},
     "preference_strength: must be from -3 (the first is better) to 3, is 5"),
    (STEER, {"preference_strength": None}, "preference_strength: missing"),
    (STEER, {"response_2": None}, "response_2: missing"),
    ("distilabel (instruction, generations, ratings)", {"ratings": [1]}, "ratings: has 1 numbers for 2 generations"),
    ("distilabel (instruction, generations, ratings)", {"ratings": [1, None]}, "ratings[1]: missing"),
    ("ShareGPT (conversations, chosen, rejected)", {"chosen": person("Hi")},
     "chosen: does not end on an assistant turn"),
    ("ShareGPT (conversations, chosen, rejected)", {"conversations": [{"from": "tool", "value": "x"}]},
     "conversations[0].from: unknown role 'tool' (known: system, human, user, gpt, assistant)"),
    (VOTES, {"winner": "m"}, "winner: must be model_a, model_b, tie or tie (bothbad), is 'm'"),
    (VOTES, {"response_b": " "}, "response_b: only whitespace"),
    (CONVERSATIONS, {"conversation_a": GOOD},
     "conversation_a: must be a list of messages that ends on the assistant's answer to a prompt"),
    ("Arena votes (prompt, response_a, response_b, winner_model_a, winner_model_b, winner_tie)", {"winner_tie": 1},
     "winner_model_a: exactly one of winner_model_a, winner_model_b, winner_tie must be 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "problem"), BAD_ROWS)
def test_a_bad_row_of_a_format_is_named_by_file_line_and_field(name, change, problem):
    with pytest.raises(UsageError) as error:
        load_data(write([FORMATS[name], FORMATS[name] | change]))
    assert str(error.value) == f"rows.jsonl, line 2, field {problem}"


def test_a_row_that_lacks_a_column_of_the_files_format_is_named():
    row = {key: value for key, value in FORMATS[VOTES].items() if key != "winner"}
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 2, field winner: must be model_a, model_b, tie"):
        load_data(write([FORMATS[VOTES], row]))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"prompt": ASK, "completion": GOOD}], "line 1, field label: missing: one response alone is no preference"),
        ([with_label(GOOD, "yes")], "line 1, field label: must be true or false, is 'yes'"),
    ],
)
def test_bad_rows_with_one_response_are_named(rows, problem):
    with pytest.raises(UsageError) as error:
        load_data(write(rows))
    assert str(error.value) == f"rows.jsonl, {problem}"


def test_a_candidate_without_another_response_to_its_prompt_is_named():
    with pytest.raises(UsageError, match=r"^rows\.jsonl, line 1, field completion: no other row has this prompt"):
        load_candidates(write([with_label(GOOD, True)]))
