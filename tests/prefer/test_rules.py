"""IFEval's rules: the same judgement as lm-eval's own functions, and prompts that cannot be checked are counted out."""

import importlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.data.instructed import Rule, load_instructed
from bench.prefer.rules import LETTERS, NEED_PUNKT, PARAGRAPH, checkable, followed
from bench.schema import UsageError

ROWS = [
    ("Write about tea without commas.", {"punctuation:no_comma": {}}),
    ("Name birds, at least 4 words.", {"length_constraints:number_words": {"num_words": 4, "relation": "at least"}}),
    ("Birds in fewer than 4 words.", {"length_constraints:number_words": {"num_words": 4, "relation": "less than"}}),
    ("No milk.", {"keywords:forbidden_words": {"forbidden_words": ["milk", "cream"]}}),
    ("Use tea and cup.", {"keywords:existence": {"keywords": ["tea", "cup"]}}),
    ("Say tea twice.", {"keywords:frequency": {"keyword": "tea", "frequency": 2, "relation": "at least"}}),
    ("Five e.", {"keywords:letter_frequency": {"letter": "e", "let_frequency": 5, "let_relation": "at least"}}),
    ("Highlight one.", {"detectable_format:number_highlighted_sections": {"num_highlights": 1}}),
    ("Repeat: pour tea", {"combination:repeat_prompt": {"prompt_to_repeat": "Repeat: pour tea"}}),
    ("Quote it.", {"startend:quotation": {}}),
    ("Small letters.", {"change_case:english_lowercase": {}}),
    ("Capitals.", {"change_case:english_capital": {}}),
    ("A title.", {"detectable_format:title": {}}),
    ("Two bullets.", {"detectable_format:number_bullet_lists": {"num_bullets": 2}}),
    ("In German.", {"language:response_language": {"language": "de"}}),
    ("A blank to fill.", {"detectable_content:number_placeholders": {"num_placeholders": 1}}),
    ("Two paragraphs.", {"length_constraints:number_paragraphs": {"num_paragraphs": 2}}),
    ("End so.", {"startend:end_checker": {"end_phrase": "That is all."}}),
    ("With P.S.", {"detectable_content:postscript": {"postscript_marker": "P.S."}}),
    ("Two answers.", {"combination:two_responses": {}}),
    ("JSON.", {"detectable_format:json_format": {}}),
    ("Two parts.", {"detectable_format:multiple_sections": {"section_spliter": "PART", "num_sections": 2}}),
    ("Second begins with milk.", {"length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": 2, "nth_paragraph": 2, "first_word": "milk"}}),
    ("Yes or no.", {"detectable_format:constrained_response": {}}),
    ("Small and without commas.", {"change_case:english_lowercase": {}, "punctuation:no_comma": {}}),
]  # fmt: skip
"""One prompt for each rule that works without nltk's data, and one prompt with two rules; all made up here."""

ANSWERS = [
    "", "   ", "tea", "Tea, milk and a cup of tea.", '"pour the tea into a cup"', "TEA IS HOT",
    "tea is hot, milk is not",    "*tea*\n\nand milk [how much]", "<<Tea>>\n* one\n* two",
    "Repeat: pour tea\n\nHere it is.", '{"tea": "green"}',
    "```json\n[1, 2]\n```", "Tee und Milch schmecken uns heute besonders gut.", "One.\n***\nTwo.", "one\n******\ntwo",
    "PART 1\ntea\nPART 2\nmilk", "The end.\n\nP.S. More tea. That is all.", "first\n\nmilk second", "My answer is yes.",
    "eeeee", "Think of tea\n\n\n\nmilk", "That is all.", "- one\n- two\n- three", "*a* **b** *c d*", "no, tea: tea!",
]  # fmt: skip


def write(path: Path, rows=ROWS) -> Path:
    lines = [
        {"key": 1000 + i, "prompt": text, "instruction_id_list": list(rules), "kwargs": list(rules.values())}
        for i, (text, rules) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory):
    """lm-eval's IFEval functions, without the packages that the rest of lm-eval needs and without its download."""
    (root,) = find_spec("lm_eval").submodule_search_locations
    import nltk

    home = tmp_path_factory.mktemp("nltk")
    (home / "tokenizers" / "punkt_tab").mkdir(parents=True)
    patch = pytest.MonkeyPatch()
    patch.setattr(nltk.data, "path", [str(home)])
    for name in ("lm_eval", "lm_eval.tasks"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(root, *name.split(".")[1:]))]
        patch.setitem(sys.modules, name, package)
    yield importlib.import_module("lm_eval.tasks.ifeval.utils")
    for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.ifeval")]:
        del sys.modules[name]
    patch.undo()


def test_the_rules_judge_as_those_of_lm_eval(lm_eval, tmp_path):
    found = load_instructed(str(write(tmp_path / "rows.jsonl")))
    assert checkable(found) == [example.example_id for example in found.dataset.examples]
    right = {}
    for example in found.dataset.examples:
        rules, prompt = found.rules[example.example_id], example.messages[0].content
        row = lm_eval.InputExample(
            int(example.example_id), [r.name for r in rules], prompt, [dict(r.options) for r in rules]
        )
        for answer in ANSWERS:
            mine = followed(answer, rules)
            assert mine == lm_eval.test_instruction_following_strict(row, answer).follow_instruction_list, answer
            for rule, each in zip(rules, mine, strict=True):
                right.setdefault(rule.name, set()).add(each)
    # Every rule is followed by some answer and broken by another, so that the comparison says something.
    assert {name: found for name, found in right.items() if found != {True, False}} == {}
    assert len(right) == 23


def test_an_empty_answer_follows_no_rule():
    assert followed(" \n", [Rule("punctuation:no_comma", {})]) == [False]


@pytest.mark.parametrize(
    ("answer", "relation", "is_kept"),
    [
        ("# tea ## milk #", "at least", True),
        ("# tea ## milk, uuuu mmmm eeee aaaa", "at least", False),
        ("### uuuu mmmm eeee aaaa", "less than", True),
        ("####", "less than", False),
    ],
)
def test_a_sign_that_is_no_letter_is_counted_itself(answer, relation, is_kept, tmp_path):
    # The package would count a letter that it draws at every call. Real prompts of IFEval ask for "#" and "!".
    options = {"letter": "#", "let_frequency": 4, "let_relation": relation}
    assert {followed(answer, [Rule(LETTERS, options)])[0] for _ in range(60)} == {is_kept}
    found = load_instructed(str(write(tmp_path / "rows.jsonl", [("Four signs.", {LETTERS: options})])))
    assert checkable(found) == ["1000"]


def test_the_whole_answer_counts_as_it_is():
    # What stands before "</think>" is part of the answer, and asterisks around it are too.
    rules = [Rule("punctuation:no_comma", {}), Rule("startend:quotation", {})]
    assert followed('well, <think>\n</think>"tea"', rules) == [False, False]
    assert followed('*"tea"*', rules) == [True, False]


def test_prompts_whose_rules_need_data_of_nltks_are_counted_out(tmp_path):
    two = {"length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"}}
    capitals = {"change_case:capital_word_frequency": {"capital_frequency": 1, "capital_relation": "at least"}}
    assert {*two, *capitals} == NEED_PUNKT
    rows = [ROWS[0], ("Two sentences.", two), ("Shout, no commas.", ROWS[0][1] | capitals), ROWS[3]]
    assert checkable(load_instructed(str(write(tmp_path / "rows.jsonl", rows)))) == ["1000", "1003"]


WORDS = "length_constraints:number_words"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"keywords:frequency": {"keyword": "tea", "relation": "at least"}}, "keywords:frequency lacks 'frequency'"),
        ({"startend:quotation": {"mark": "'"}}, "startend:quotation does not know 'mark'"),
        ({"keywords:rhyme": {}}, "unknown rule 'keywords:rhyme'"),
        (
            {"keywords:forbidden_words": {"forbidden_words": "tea"}},
            "keywords:forbidden_words: forbidden_words must be a li",
        ),
        ({"keywords:existence": {"keywords": []}}, "keywords:existence: keywords must be a list of one or more texts"),
        ({WORDS: {"num_words": "3", "relation": "at least"}}, f"{WORDS}: num_words must be a whole number from 0 on"),
        ({WORDS: {"num_words": -1, "relation": "at least"}}, f"{WORDS}: num_words must be a whole number from 0 on"),
        ({WORDS: {"num_words": 3, "relation": "more than"}}, f"{WORDS}: .*more than"),
        ({"language:response_language": {"language": "xx"}}, "language:response_language: 'xx'"),
        ({LETTERS: {"letter": "ab", "let_frequency": 2, "let_relation": "at least"}}, f"{LETTERS}: letter must be one"),
        ({LETTERS: {"letter": "#", "let_frequency": 2, "let_relation": "most"}}, f"{LETTERS}: .*most"),
        (
            {PARAGRAPH: {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "tea"}},
            f"{PARAGRAPH}: nth_paragraph must be at most num_paragraphs",
        ),
        ({"startend:end_checker": {"end_phrase": 7}}, "startend:end_checker: end_phrase must be text"),
    ],
)
def test_a_rule_that_would_be_checked_at_random_or_not_at_all_is_an_error(tmp_path, rules, said):
    found = load_instructed(str(write(tmp_path / "rows.jsonl", [("Tea?", rules)])))
    with pytest.raises(UsageError, match=rf"rows.jsonl, key 1000, field \w+: {said}"):
        checkable(found)


def test_options_that_a_copy_fills_with_null_or_writes_as_floats_are_those_of_the_original(tmp_path):
    path = tmp_path / "rows.jsonl"
    kwargs = [{"num_words": None, "keyword": "tea", "frequency": 1.0, "relation": "at least"}]
    row = {"key": "a", "prompt": "Tea?", "instruction_id_list": ["keywords:frequency"], "kwargs": kwargs}
    path.write_text(json.dumps(row) + "\n")
    found = load_instructed(str(path))
    assert checkable(found) == ["a"]
    options = dict(found.rules["a"][0].options)
    assert options == {"keyword": "tea", "frequency": 1, "relation": "at least"} and type(options["frequency"]) is int


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": None}, "line 1, field key: must be a whole number or text"),
        ({"prompt": " "}, "line 1, field prompt: only whitespace"),
        ({"instruction_id_list": []}, "line 1, field instruction_id_list: must be a list of one or more"),
        ({"kwargs": []}, "line 1, field kwargs: has 0 objects for 1 rules"),
        ({"kwargs": "{}"}, "line 1, field kwargs: must be a list of objects"),
    ],
)
def test_a_row_that_is_no_prompt_of_ifeval_is_named(tmp_path, change, said):
    row = {"key": 1, "prompt": "Tea?", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row | change) + "\n")
    with pytest.raises(UsageError, match=said):
        load_instructed(str(path))


def test_an_answer_without_a_language_is_no_message(capfd, caplog):
    # langdetect finds no language in a number; the rule then counts as followed, as in IFEval.
    assert followed("12345", [Rule("change_case:english_capital", {})]) == [False]
    assert followed("12345", [Rule("language:response_language", {"language": "de"})]) == [True]
    assert capfd.readouterr().err == "" and caplog.records == []
