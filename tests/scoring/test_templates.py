"""Which chat template is used, and what it may know: nothing of today, nothing random."""

import json

import pytest
from chat_templates import CHATML, LLAMA_3
from tiny_tokenizers import byte_level

from bench.schema import DrsowError, Example, Message, UsageError
from bench.scoring import fetch, located, templates
from bench.scoring.chat import Template, own_template
from bench.scoring.models import load_tokenizer
from bench.scoring.render import prompt_ids, render

TURNS = [Message("user", "two"), Message("assistant", "is \N{PARTY POPPER} <b>")]
DATED = "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}" + CHATML
# As Llama 3.2 has it.
DEFAULTED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% endif %}{% endif %}{{ date_string }}" + CHATML
)
RANDOM = "{{ ['a', 'b'] | random }}" + CHATML
OTHER = CHATML.replace("im_start", "start")


def owner(template: object):
    tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    tokenizer.chat_template = template
    return tokenizer


def example(text: str = "two") -> Example:
    return Example("s/1", "s", (Message("user", text),), (("0", "yes"),))


@pytest.mark.parametrize("text", [
    CHATML,
    "{% for turn in messages %}\n  {{- turn | tojson }}\n{% endfor %}\n{{ eos_token }}{{ add_generation_prompt }}",
    "{% set ns = namespace(n=0) %}{% for t in messages %}{% set ns.n = ns.n + 1 %}{% continue %}{% endfor %}{{ ns.n }}",
    "{% generation %}{{ messages[1]['content'] }}{% set a = 1 %}{% endgeneration %}{{ a }}",
    "{{ dict(a=1) | tojson }}{{ dict.fromkeys(['b']) }}{{ documents is none }}{{ unknown }}",
])  # fmt: skip
@pytest.mark.parametrize("generation", [False, True])
def test_a_template_writes_what_transformers_writes(text, generation):
    made = owner(text)
    dicts = [turn._asdict() for turn in TURNS]
    theirs = made.apply_chat_template(dicts, tokenize=False, add_generation_prompt=generation)
    ours = templates.write(text, TURNS, generation=generation, special=made.special_tokens_map)
    assert ours == theirs


@pytest.mark.parametrize("text", [DATED, DEFAULTED])
def test_every_reader_of_a_template_that_asks_for_the_date_is_told_the_same_one(text):
    made = owner(text)
    (sequence,) = render([example()], made, Template(made)).sequences
    assert "26 Jul 2024" in made.decode(sequence.ids[: sequence.start])
    assert prompt_ids(example(), made, Template(made)) == sequence.ids[: sequence.start].tolist()


def test_a_date_depends_neither_on_the_clock_nor_on_the_time_zone():
    text = "{{ strftime_now('%Y-%m-%d %H:%M:%S %s %%s') }}"
    assert templates.write(text, TURNS, generation=False, special={}) == "2024-07-26 00:00:00 1721952000 %s"


@pytest.mark.parametrize("text", [RANDOM, "{{ lipsum(1) }}" + CHATML])
def test_a_template_that_draws_at_random_is_refused_and_named(text):
    with pytest.raises(UsageError, match=r"^the chat template of m cannot write .*: it draws at random"):
        render([example()], owner(text), Template(owner(text), "m"))


@pytest.mark.parametrize("text", ["{% if %}", "{{ messages[0]['content'] + 1 }}", "{{ 1 // 0 }}", "{{ no.such.name }}"])
def test_a_broken_template_is_one_line(text):
    with pytest.raises(UsageError, match=r"^the chat template of m cannot write a user turn and a response: ") as error:
        render([example()], owner(text), Template(owner(text), "m"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "words"), [
    ("{% for a in [1] %}" * 21 + "{% endfor %}" * 21, "SyntaxError: too many statically nested blocks"),
    ("{{ 'a' * 99999999999 }}", "MemoryError"),
    ("{{ '\\ud800' }}", r"it writes half of a surrogate pair, '\\ud800'"),
])  # fmt: skip
def test_a_template_that_python_cannot_run_is_one_line(text, words):
    with pytest.raises(UsageError, match=rf"^the chat template of m cannot write .*: {words}[^\n]*$"):
        render([example()], owner(text + CHATML), Template(owner(text + CHATML), "m"))


def test_a_tokenizers_file_that_nests_too_deeply_is_named(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(DrsowError, match=r"tokenizer_config\.json: its chat template cannot be read: "):
        templates.read(tmp_path)


def test_a_prompt_that_a_template_refuses_is_named():
    text = "{% if 'no' in messages[0]['content'] %}{{ raise_exception('not this\\none') }}{% endif %}" + CHATML
    for call in (render, lambda examples, *rest: prompt_ids(examples[0], *rest)):
        with pytest.raises(UsageError, match=r"^s/1: the chat template of m rejects it: not this$"):
            call([example("no")], owner(text), Template(owner(text), "m"))


ENTRIES = {
    "one text": (CHATML, CHATML, ""),
    "none": (None, "", ""),
    "a default": ({"tool_use": OTHER, "default": CHATML}, CHATML, ""),
    "one other": ({"tool_use": CHATML}, CHATML, "has no chat template named 'default', only 'tool_use', which is used"),
    "one text twice": (
        {"rag": CHATML, "tool_use": CHATML},
        CHATML,
        "has no chat template named 'default', only 'rag', 'tool_use', which is used",
    ),
    "two others": (
        {"rag": CHATML, "tool_use": OTHER},
        "",
        "has no chat template named 'default', only 'rag', 'tool_use'; the plain format is used",
    ),
}


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("case", ENTRIES)
def test_a_choice_without_a_default_is_said_and_a_folder_says_what_its_tokenizer_does(case, files, tmp_path):
    found, text, note = ENTRIES[case]
    assert templates.choose(found) == (text, note)
    owner(found).save_pretrained(tmp_path, save_jinja_files=files)
    assert templates.read(tmp_path) == (text, note)
    assert fetch.template_text(tmp_path) == text
    assert Template(load_tokenizer(tmp_path)).source == text


@pytest.mark.parametrize("found", [5, [CHATML], [{"name": "default"}], {"default": 3}])
def test_what_is_no_template_is_refused_with_the_file_named(found, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": found}))
    with pytest.raises(DrsowError, match=r"tokenizer_config\.json: chat_template is neither"):
        templates.read(tmp_path)


def test_a_template_file_beside_others_changes_a_folders_revision(tmp_path):
    owner({"rag": CHATML, "tool_use": OTHER}).save_pretrained(tmp_path)
    before = located.folder_digest(tmp_path)
    (tmp_path / templates.MORE / "rag.jinja").write_text(LLAMA_3)
    assert located.folder_digest(tmp_path) != before


def test_a_policy_without_a_template_to_use_is_refused_with_the_reason():
    with pytest.raises(
        UsageError, match="it has no chat template named 'default', only 'rag', 'tool_use', so it cannot"
    ):
        own_template(owner({"rag": CHATML, "tool_use": OTHER}), "answer prompts")
    with pytest.raises(UsageError, match=r"^it has no chat template, so it cannot answer prompts$"):
        own_template(owner(None), "answer prompts")
