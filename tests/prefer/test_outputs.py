"""What AlpacaEval and Arena-Hard get, read as they read it."""

import importlib.util
import json
import sys
from types import ModuleType

import pytest

from bench.prefer.outputs import alpaca_eval, arena_hard
from bench.schema import Example, Message, UsageError
from bench.verbs.sample import single_responses

LINES = [
    {"id": "a", "prompt": "Is 7 prime?", "candidates": ["Yes,\n7 is. 🎉"]},
    {"id": "b", "prompt": [{"role": "user", "content": "01"}], "candidates": [""]},
]


@pytest.fixture
def sampled(tmp_path):
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return single_responses(str(path))


@pytest.fixture
def alpaca_utils(monkeypatch) -> ModuleType:
    """AlpacaEval's own module of loaders; its package wants an API's client before it lets itself be imported."""
    root = importlib.util.find_spec("alpaca_eval").submodule_search_locations
    package = ModuleType("alpaca_eval")
    package.__path__ = list(root)
    monkeypatch.setitem(sys.modules, "alpaca_eval", package)
    # setuptools has it no longer; the loaders do not use it.
    monkeypatch.setitem(sys.modules, "pkg_resources", ModuleType("pkg_resources"))
    yield importlib.import_module("alpaca_eval.utils")
    for name in [name for name in sys.modules if name.startswith("alpaca_eval")]:
        del sys.modules[name]


def test_alpaca_evals_own_loader_reads_every_prompt_and_the_name(sampled, alpaca_utils, tmp_path):
    path = tmp_path / "model_outputs.json"
    path.write_bytes(alpaca_eval(sampled[0].examples, sampled[1], generator="tuned"))
    frame = alpaca_utils.load_or_convert_to_dataframe(path)
    assert list(frame["instruction"]) == ["Is 7 prime?", "01"]
    assert list(frame["output"]) == ["Yes,\n7 is. 🎉", ""]
    assert alpaca_utils.get_generator_name(None, frame) == "tuned"


def test_arena_hard_finds_the_answer_where_its_judge_looks(sampled):
    # gen_judgment.py: answers by line["uid"], answer["model"], answer["messages"][-1]["content"]["answer"].
    lines = map(json.loads, arena_hard(sampled[0].examples, sampled[1], generator="tuned").decode().splitlines())
    answers = {line["uid"]: line for line in lines}
    assert {uid: line["messages"][-1]["content"]["answer"] for uid, line in answers.items()} == sampled[1]
    assert {line["model"] for line in answers.values()} == {"tuned"}
    assert len({line["ans_id"] for line in answers.values()}) == 2
    assert answers["a"]["messages"][0] == {"role": "user", "content": "Is 7 prime?"}


def test_a_board_gets_each_prompts_own_id_and_its_subset_apart(tmp_path):
    rows = [{"id": "u1", "subset": "a/b"}, {"id": "b/u1", "subset": "a"}, {"id": "c/1"}]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps(row | {"prompt": "01", "candidates": ["x"]}) + "\n" for row in rows))
    dataset, texts = single_responses(str(path))
    lines = arena_hard(dataset.examples, texts, generator="tuned").decode().splitlines()
    assert [json.loads(line)["uid"] for line in lines] == ["u1", "b/u1", "c/1"]
    rows = json.loads(alpaca_eval(dataset.examples, texts, generator="tuned"))
    assert [row["dataset"] for row in rows] == ["a/b", "a", ""]


def test_arena_hard_gets_no_two_answers_under_one_id(tmp_path):
    rows = [{"id": "u1", "subset": subset, "prompt": subset, "candidates": ["x"]} for subset in ("a", "b")]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset, texts = single_responses(str(path))
    with pytest.raises(
        UsageError, match=r"^a/u1 and b/u1: Arena-Hard .* both have the id 'u1'; give each prompt an id"
    ):
        arena_hard(dataset.examples, texts, generator="tuned")
    # AlpacaEval knows an answer by its instruction.
    assert len(json.loads(alpaca_eval(dataset.examples, texts, generator="tuned"))) == 2


@pytest.mark.parametrize("write", [alpaca_eval, arena_hard])
def test_a_prompt_of_several_turns_is_refused(write):
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    with pytest.raises(UsageError, match=r"x: AlpacaEval and Arena-Hard need prompts of one user turn"):
        write([Example("x", "", turns, ())], {"x": "y"}, generator="g")


def test_half_of_a_surrogate_pair_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "a", "candidates": [" "]}\n{"prompt": "b", "candidates": ["\\ud83d"]}\n')
    with pytest.raises(UsageError, match=r"line 2, field candidates\[0\]: contains half of a surrogate pair"):
        single_responses(str(path))


def test_a_line_with_several_responses_is_named_and_none_of_them_chosen(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "a", "candidates": ["b"]}\n{"prompt": "c", "candidates": ["d", "e"]}\n')
    with pytest.raises(UsageError, match=r"line 2, field candidates: has 2 responses, a board judges one; .* --n 1"):
        single_responses(str(path))


def test_a_line_without_responses_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "a", "candidates": ["b"]}\n{"prompt": "c"}\n')
    with pytest.raises(UsageError, match=r"line 2, field candidates: missing"):
        single_responses(str(path))
