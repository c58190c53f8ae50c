"""Rendered ids against what each template writes and each kind of tokenizer reads."""

import itertools
import re

import pytest
from chat_templates import CHATML, CHATML_SYSTEM, GEMMA, LLAMA_2, LLAMA_3, MISTRAL, MISTRAL_3, ZEPHYR
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, sentence_piece, spelled
from tokenizers import normalizers, pre_tokenizers

from bench.schema import DrsowError, Example, Message, UsageError
from bench.scoring.models import load_tokenizer
from bench.scoring.render import Template, _finder, check_ids, encode_alone, render

HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
READERS = {
    "bytes": byte_level(eos="<|im_end|>", special=["<|im_start|>"]),
    "bytes with BOS": byte_level(bos="<|begin|>", adds_bos=True, eos="<|end|>", special=HEADERS),
    "first": sentence_piece(kind="first", special=["[INST]", "[/INST]"]),
    "always": sentence_piece(kind="always"),
    "legacy": sentence_piece(kind="legacy"),
    "never": sentence_piece(kind="never", special=["<start_of_turn>", "<end_of_turn>"]),
}
"""Kind of tokenizer -> one, named after where it puts dummy spaces."""

SHAPES = {
    "ChatML": (CHATML, "bytes"),
    "ChatML with a system turn": (CHATML_SYSTEM, "bytes"),
    "Llama 3": (LLAMA_3, "bytes with BOS"),
    "Mistral": (MISTRAL, "legacy"),
    "Mistral 3": (MISTRAL_3, "first"),
    "Zephyr": (ZEPHYR, "always"),
    "Gemma": (GEMMA, "never"),
    "Llama 2": (LLAMA_2, "legacy"),
    "plain": (None, "bytes"),
}
"""Template -> its text and the tokenizer that it came with."""

PIECES = ["the", " the", "User", ".", " ", "  ", "\n", "\n\n", "\t", "é", "🎉", "二", "\u00a0", "<", "|", "[", "7"]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join).filter(str.strip)
TURNS = st.lists(TEXTS, min_size=1, max_size=3).filter(lambda texts: len(texts) != 2)
"""An odd number of turns: user, or user, assistant, user."""


def owner_of(text: str | None, kind: str):
    """A tokenizer of that kind that owns that chat template."""
    made = {"bytes": byte_level(eos="<|im_end|>", special=["<|im_start|>"])}
    made["bytes with BOS"] = byte_level(bos="<|begin|>", adds_bos=True, eos="<|end|>", special=HEADERS)
    extra = {"first": ["[INST]", "[/INST]"], "never": ["<start_of_turn>", "<end_of_turn>"]}
    owner = made[kind] if kind in made else sentence_piece(kind=kind, special=extra.get(kind, ()))
    owner.chat_template = text
    return owner


TEMPLATES = {name: Template(None if text is None else owner_of(text, kind)) for name, (text, kind) in SHAPES.items()}
BOTH = pytest.mark.parametrize(("shape", "kind"), [(shape, kind) for shape in SHAPES for kind in READERS])


def messages(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts))


def example(*texts: str, responses: tuple[str, ...] = ("yes",)) -> Example:
    return Example("s/1", "s", messages(*texts), tuple((str(i), text) for i, text in enumerate(responses)))


def written(shape: str, turns: tuple[Message, ...], *, generation: bool) -> str:
    """What the template writes by itself, without the BOS that its own tokenizer would double."""
    owner = TEMPLATES[shape].owner
    if owner is None:
        text = "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in turns)
        return text + "\n\nAssistant:" if generation else text
    dicts = [turn._asdict() for turn in turns]
    text = owner.apply_chat_template(dicts, tokenize=False, add_generation_prompt=generation)
    return text.removeprefix(owner.bos_token) if owner.bos_token else text


def with_dummies(kind: str, text: str) -> str:
    """The text with the dummy spaces that a tokenizer of this kind puts before stretches of ordinary text."""
    special = "|".join(re.escape(token) for token in READERS[kind].get_added_vocab())
    stretches = re.split(f"({special})", text)
    if kind == "first":
        stretches[0] = stretches[0] if stretches[0].startswith(" ") or not stretches[0] else f" {stretches[0]}"
    elif kind == "always":
        stretches[::2] = [f" {s}" if s and not s.startswith(" ") else s for s in stretches[::2]]
    elif kind == "legacy":
        stretches[::2] = [f" {s}" if s else s for s in stretches[::2]]
    return "".join(stretches)


def plain_ids(kind: str, text: str) -> list[int]:
    return READERS[kind](text, add_special_tokens=False).input_ids


@BOTH
@settings(deadline=None, max_examples=40)
@given(TURNS, st.lists(TEXTS, min_size=1, max_size=2))
def test_prompt_and_response_are_what_a_prompted_model_reads(shape, kind, texts, responses):
    row = example(*texts, responses=tuple(responses))
    rendered = render([row], READERS[kind], TEMPLATES[shape])
    prompt = written(shape, row.messages, generation=True)
    n_bos, fallbacks = int(READERS[kind]("x").input_ids[0] == READERS[kind].bos_token_id), 0
    for (_, given_text), sequence in zip(row.responses, rendered.sequences, strict=True):
        head, tail = sequence.ids[n_bos : sequence.start].tolist(), sequence.ids[sequence.start : -1].tolist()
        assert head == plain_ids(kind, prompt)
        assert spelled(READERS[kind], head) == with_dummies(kind, prompt)
        whole = written(shape, (*row.messages, Message("assistant", given_text)), generation=False)
        assert whole.startswith(prompt + sequence.text)
        assert sequence.text.strip() == given_text.strip()
        assert sequence.n_bytes == len(sequence.text.encode())
        joint = plain_ids(kind, prompt + sequence.text)
        if joint[: len(head)] == head:
            assert tail == joint[len(head) :]
        else:
            fallbacks += 1
            assert spelled(READERS[kind], tail) == sequence.text
    assert rendered.n_start_fallback == fallbacks


def test_many_rows_are_encoded_in_pieces_and_have_the_ids_of_each_alone(monkeypatch):
    reader, n_texts = READERS["bytes"], []

    def counting(self, texts, **options):
        n_texts.append(len(texts))
        return called(self, texts, **options)

    rows = [example(f"the {i}", responses=("yes", f"no {i}")) for i in range(1200)]
    alone = [s.ids.tolist() for row in rows for s in render([row], reader, TEMPLATES["ChatML"]).sequences]
    called = type(reader).__call__
    monkeypatch.setattr(type(reader), "__call__", counting)
    found = render(rows, reader, TEMPLATES["ChatML"]).sequences
    assert [s.ids.tolist() for s in found] == alone
    # 1,200 prompts, then 2,400 responses. A call of all of them would take 90 bytes a token.
    assert n_texts[:5] == [1000, 200, 1000, 1000, 400]


@BOTH
@settings(deadline=None, max_examples=20)
@given(TURNS)
def test_one_bos_at_the_start_exactly_where_the_tokenizer_adds_one(shape, kind, texts):
    reader = READERS[kind]
    ids = render([example(*texts)], reader, TEMPLATES[shape]).sequences[0].ids.tolist()
    assert (ids[0] == reader.bos_token_id) == (reader("x").input_ids[0] == reader.bos_token_id)
    # Llama 2 writes one more before each later user turn.
    later = len(texts) // 2 if shape == "Llama 2" and reader.bos_token == "<s>" else 0
    assert ids[1:].count(reader.bos_token_id) == later
    assert all(pair != (reader.bos_token_id,) * 2 for pair in itertools.pairwise(ids))


@BOTH
@settings(deadline=None, max_examples=20)
@given(TURNS, TEXTS)
def test_one_end_of_turn_closes_every_response(shape, kind, texts, response):
    ids = render([example(*texts, responses=(response,))], READERS[kind], TEMPLATES[shape]).sequences[0].ids
    specials = set(READERS[kind].get_added_vocab().values())
    assert int(ids[-1]) in specials
    assert int(ids[-2]) not in specials


@pytest.mark.parametrize(
    ("shape", "kind", "token"),
    [
        ("ChatML", "bytes", "<|im_end|>"),
        ("ChatML", "legacy", "</s>"),
        ("Llama 3", "bytes with BOS", "<|eot_id|>"),
        ("Llama 3", "bytes", "<|im_end|>"),
        ("Mistral", "legacy", "</s>"),
        ("Mistral", "bytes with BOS", "<|end|>"),
        ("Mistral 3", "first", "</s>"),
        ("Zephyr", "always", "</s>"),
        ("Gemma", "never", "<end_of_turn>"),
        ("Gemma", "first", "</s>"),
        ("Llama 2", "legacy", "</s>"),
        ("plain", "bytes with BOS", "<|end|>"),
    ],
)
def test_the_end_is_the_templates_token_where_the_reader_has_it_else_its_eos(shape, kind, token):
    ids = render([example("the")], READERS[kind], TEMPLATES[shape]).sequences[0].ids
    assert READERS[kind].convert_ids_to_tokens(int(ids[-1])) == token


def test_chatml_in_bytes_is_spelled_to_the_letter():
    rendered = render([example("is 7 prime", responses=("yes.",))], READERS["bytes"], TEMPLATES["ChatML"])
    (sequence,) = rendered.sequences
    text = "<|im_start|>user\nis 7 prime<|im_end|>\n<|im_start|>assistant\nyes.<|im_end|>"
    assert READERS["bytes"].decode(sequence.ids) == text
    assert READERS["bytes"].decode(sequence.ids[sequence.start :]) == "yes.<|im_end|>"
    assert (sequence.text, sequence.n_bytes) == ("yes.", 4)


def test_the_bos_of_llama_3s_template_is_not_doubled():
    (sequence,) = render([example("yes")], READERS["bytes with BOS"], TEMPLATES["Llama 3"]).sequences
    tokens = READERS["bytes with BOS"].convert_ids_to_tokens(sequence.ids[:3].tolist())
    assert tokens == ["<|begin|>", "<|start_header_id|>", "user"]


def test_a_bos_that_no_tokenizer_adds_stays_as_the_template_writes_it():
    owner = byte_level(bos="<|begin|>", eos="<|end|>", special=HEADERS)
    owner.chat_template = LLAMA_3
    (sequence,) = render([example("yes")], owner, Template(owner)).sequences
    tokens = owner.convert_ids_to_tokens(sequence.ids.tolist())
    assert (tokens[0], tokens.count("<|begin|>")) == ("<|begin|>", 1)


def test_two_bos_in_a_row_are_refused_with_the_row_named():
    owner = byte_level(bos="<s>", eos="</s>", special=HEADERS)
    owner.chat_template = LLAMA_3
    with pytest.raises(UsageError, match=r"^s/1: the prompt begins with a second <s>$"):
        render([example("yes")], READERS["legacy"], Template(owner))


def test_a_response_that_merges_with_the_header_is_encoded_alone_and_counted():
    rendered = render([example("the", responses=("\n\nno", "no"))], READERS["bytes"], TEMPLATES["ChatML"])
    merged, clean = rendered.sequences
    assert rendered.n_start_fallback == 1
    assert merged.ids[: merged.start].tolist() == clean.ids[: clean.start].tolist()
    assert READERS["bytes"].convert_ids_to_tokens(merged.ids[merged.start :].tolist()) == ["Ċ", "Ċ", "no", "<|im_end|>"]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("text", ["the answer", " the answer", "\nthe", "7", "  7"])
def test_a_response_alone_has_no_dummy_space(kind, text):
    assert spelled(READERS[kind], encode_alone(READERS[kind], text)) == text


@pytest.mark.parametrize(
    ("shape", "given_text", "text", "trimmed"),
    [
        ("Gemma", "  no \n", "no", 1),
        ("Llama 3", "\tno", "no", 1),
        ("Mistral", "no\n", " no", 1),
        ("Mistral", "no", " no", 0),
        ("ChatML", "  no \n", "  no \n", 0),
        ("Zephyr", " é ", " é ", 0),
        ("plain", " no\n\n", "  no\n\n", 0),
    ],
)
def test_what_a_template_trims_is_counted_and_bytes_are_of_the_rendered_text(shape, given_text, text, trimmed):
    rendered = render([example("the", responses=(given_text,))], READERS["bytes"], TEMPLATES[shape])
    assert rendered.n_trimmed == trimmed
    assert rendered.sequences[0].text == text
    assert rendered.sequences[0].n_bytes == len(text.encode())


@pytest.mark.parametrize(("shape", "merges"), [("Gemma", True), ("Mistral", True), ("Mistral 3", True),
                                               ("Llama 2", False), ("ChatML", False), ("plain", False)])  # fmt: skip
def test_a_system_turn_joins_the_first_user_turn_where_the_template_loses_it(shape, merges):
    template = TEMPLATES[shape]
    system = Message("system", "no water")
    text = template.text([system, *messages("two", "yes", "three")], generation=True)
    merged = template.text(messages("no water\n\ntwo", "yes", "three"), generation=True)
    assert (text == merged) == merges
    assert text.count("no water") == 1


@pytest.mark.parametrize("shape", ["Gemma", "Mistral", "Mistral 3"])
def test_an_empty_system_turn_that_joins_the_user_turn_adds_nothing(shape):
    turns = messages("two")
    with_system = TEMPLATES[shape].text([Message("system", ""), *turns], generation=True)
    assert with_system == TEMPLATES[shape].text(turns, generation=True)


FIRST_ONLY = (
    "{% if messages[0]['role'] == 'system' %}S {{ messages[0]['content'] }}\n{% endif %}"
    "{% for turn in messages if turn['role'] != 'system' %}"
    "{{ turn['role'] }} {{ turn['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
"""Writes a system turn at the start, and leaves out every other one."""


@pytest.mark.parametrize(("text", "kind"), [(FIRST_ONLY, "bytes"), SHAPES["Llama 2"], SHAPES["Mistral 3"]])
def test_a_system_turn_that_a_template_leaves_out_or_writes_as_another_is_refused_with_the_row_named(text, kind):
    template = Template(owner_of(text, kind))
    row = example("two", "yes", "three")
    first, late = Message("system", "no water"), Message("system", "NOW IN FRENCH")
    for turns in ((first, *row.messages), row.messages):
        render([row._replace(messages=turns)], READERS["bytes"], template)
    for turns, n in (((first, late, *row.messages[:1]), r"[12]"), ((*row.messages[:2], late, row.messages[2]), "3")):
        with pytest.raises(UsageError, match=rf"s/1: the chat template (rejects it|does not write turn {n}, a system)"):
            render([row._replace(messages=turns)], READERS["bytes"], template)


@pytest.mark.parametrize("shape", ["ChatML", "Llama 3", "plain"])
def test_a_template_that_writes_late_system_turns_keeps_them(shape):
    turns = (*messages("two", "yes"), Message("system", "NOW IN FRENCH"), Message("user", "three"))
    (sequence,) = render([example("x")._replace(messages=turns)], READERS["bytes"], TEMPLATES[shape]).sequences
    assert "NOW IN FRENCH" in READERS["bytes"].decode(sequence.ids[: sequence.start])


def test_a_prompt_without_a_token_is_refused_with_the_row_named():
    bare = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    assert refusal(bare, "") == "s/1: the prompt has no token"


def refusal(template: str, *texts: str, responses: tuple[str, ...] = ("yes",)) -> str:
    """What `render` says against a template."""
    with pytest.raises(UsageError) as error:
        render([example(*texts, responses=responses)], READERS["bytes"], Template(owner_of(template, "bytes")))
    return str(error.value)


def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_row_named():
    rewrites = "{% if messages | length == 4 %}{% set messages = messages[2:] %}{% endif %}" + CHATML
    render([example("two")], READERS["bytes"], Template(owner_of(rewrites, "bytes")))
    words = "s/1: the rendered prompt is no prefix of the rendered conversation"
    assert refusal(rewrites, "two", "no", "three") == words


def test_a_template_that_rewrites_a_response_is_refused_with_the_row_named():
    rewrites = CHATML.replace("turn['content']", "turn['content'] | replace('cold', 'warm')")
    assert refusal(rewrites, "water", responses=("yes", "it is cold")) == "s/1: the template rewrites response 1"


@pytest.mark.parametrize("block", ["<think>\\n\\n</think>\\n\\n", "1 May 2024: "])
def test_a_template_that_writes_a_block_before_the_response_is_refused(block):
    injects = CHATML.replace("turn['content']", f"('{block}' if turn['role'] == 'assistant' else '') + turn['content']")
    assert "does not directly follow the generation header" in refusal(injects, "two")


def test_a_template_that_marks_the_last_turn_is_refused():
    marks = CHATML.replace("turn['content']", "('now: ' if loop.last else '') + turn['content']")
    assert "does not directly follow the generation header" in refusal(marks, "two")


def test_a_conversation_that_the_template_cannot_write_is_refused_with_the_row_named():
    row = example("two")._replace(messages=(Message("user", "two"), Message("user", "three")))
    with pytest.raises(UsageError, match=r"^s/1: the chat template rejects it: turns must alternate"):
        render([row], READERS["legacy"], TEMPLATES["Mistral"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_response_is_refused_with_the_row_named(shape, empty):
    with pytest.raises(UsageError, match=r"^s/1: response 1 is empty$"):
        render([example("two", responses=("yes", empty))], READERS["bytes"], TEMPLATES[shape])


def test_a_tokenizer_without_any_end_token_is_refused():
    endless = byte_level(eos="</s>")
    endless.eos_token = None
    with pytest.raises(DrsowError, match="neither the template's end of turn nor an EOS token"):
        render([example("two")], endless, TEMPLATES["ChatML"])


@settings(deadline=None, max_examples=60)
@given(texts=TURNS, response=TEXTS)
def test_the_packaged_models_read_the_rendered_conversation(packaged, texts, response):
    owner = packaged["smollm2-135m-instruct-q4"]
    row = example(*texts, responses=(response,))
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    turns = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in row.messages)
    text = system + turns + "<|im_start|>assistant\n"
    for name, bos, end in (("smollm2-135m-instruct-q4", "", "<|im_end|>"), ("gemma-3-270m-q4", "<bos>", "<eos>")):
        (sequence,) = render([row], packaged[name], Template(owner)).sequences
        assert packaged[name].decode(sequence.ids[: sequence.start]) == bos + text
        assert packaged[name].decode(sequence.ids[sequence.start :]) == response + end


@pytest.fixture(scope="module")
def packaged(small_models):
    return {model_id: load_tokenizer(folder) for model_id, folder in small_models.items()}


def test_a_later_system_turn_is_missed_even_where_its_words_stand_elsewhere():
    owner = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    owner.chat_template = (
        "{% for m in messages %}{% if loop.first or m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    turns = (Message("system", "the"), *messages("two", "yes"), Message("system", "the"), Message("user", "two"))
    with pytest.raises(UsageError, match="does not write turn 4, a system turn, as one"):
        render([example("two")._replace(messages=turns)], owner, Template(owner))


def test_a_second_bos_behind_whitespace_is_refused():
    owner = byte_level(bos="<s>", adds_bos=True, eos="<|im_end|>", special=["<|im_start|>"])
    owner.chat_template = "{% set x = 1 %}\n\n{{ bos_token }}" + CHATML
    with pytest.raises(UsageError, match="the prompt begins with a second <s>"):
        render([example("two")], owner, Template(owner))


def test_a_response_that_merges_with_its_header_gets_no_space_of_the_tokenizer():
    reader = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    reader.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert reader.decode(encode_alone(reader, "no")) == "no"
    # This one has no token for a line break.
    blind = sentence_piece(kind="never")
    blind.backend_tokenizer.normalizer = normalizers.Replace("\n", "")
    assert blind.convert_ids_to_tokens(encode_alone(blind, "yes")) == ["yes"]


def test_responses_of_other_texts_and_the_same_tokens_are_counted():
    reader = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    reader.backend_tokenizer.normalizer = normalizers.NFC()
    row = example("two", responses=("no \u00e9", "no e\u0301"))
    for right, n in ((("0",), 1), ((), 0), (("0", "1"), 0)):
        rendered = render([example("the"), row._replace(right=right)], reader, TEMPLATES["ChatML"])
        assert rendered.n_same_ids == n
    assert render([row._replace(right=("0",))], READERS["bytes"], TEMPLATES["ChatML"]).n_same_ids == 0


def counted(*texts: str, responses: tuple[str, ...], kind: str = "bytes", shape: str = "ChatML"):
    return render([example(*texts, responses=responses)], READERS[kind], TEMPLATES[shape])


@pytest.mark.parametrize(
    ("shape", "kind", "end"),
    [
        ("ChatML", "bytes", "<|im_end|>"),
        ("ChatML", "bytes", "<|im_end|>\n"),
        ("ChatML", "legacy", "<|im_end|> <|im_end|>\n\n"),
        ("Llama 3", "bytes with BOS", "<|eot_id|>"),
        # The owner's EOS is not what its template ends a turn with; it ends a response all the same.
        ("Llama 3", "bytes with BOS", "<|eot_id|><|end|>"),
        ("Gemma", "never", "<end_of_turn>\n</s>"),
        ("Llama 2", "legacy", "</s>"),
        ("Zephyr", "bytes", "</s> "),
    ],
)
def test_end_of_turn_text_behind_a_response_is_cut_for_every_reader_and_counted(shape, kind, end):
    plain = counted("the", responses=("yes.",), kind=kind, shape=shape)
    ended = counted("the", responses=(f"yes.{end}",), kind=kind, shape=shape)
    (one,), (other,) = plain.sequences, ended.sequences
    assert (one.ids.tolist(), one.text, one.n_bytes) == (other.ids.tolist(), other.text, other.n_bytes)
    assert (plain.n_end_cut, ended.n_end_cut, ended.n_end_kept, ended.n_special_text) == (0, 1, 0, 0)
    assert ended.lines() == ["1 responses end in end-of-turn text: drsow removed it, so one end of turn is scored"]


def test_the_end_of_a_reader_that_the_template_does_not_use_is_kept_and_counted():
    rendered = counted("the", responses=("yes</s>", "no"), kind="legacy")
    assert [sequence.text for sequence in rendered.sequences] == ["yes</s>", "no"]
    assert (rendered.n_end_cut, rendered.n_end_kept, rendered.n_special_text) == (0, 1, 1)
    # To the template's owner these are ordinary letters.
    assert counted("the", responses=("yes</s>", "no")).n_end_kept == 0


@pytest.mark.parametrize(
    ("prompt", "response"),
    [("the<|im_start|>system", "yes"), ("the", "yes<|im_end|> no"), ("<|im_end|>", "<|im_end|>no")],
)
def test_rows_that_hold_the_text_of_special_tokens_are_counted_and_kept(prompt, response):
    rendered = counted(prompt, responses=(response, "no"))
    assert rendered.sequences[0].text == response
    assert (rendered.n_special_text, rendered.n_end_cut) == (1, 0)
    assert counted("the <start_of_turn>", responses=("yes",)).n_special_text == 0


def test_a_response_of_end_of_turn_text_alone_is_refused_with_the_row_named():
    with pytest.raises(UsageError, match=r"^s/1: response 0 has nothing but end-of-turn text$"):
        counted("the", responses=("<|im_end|>\n",))


@pytest.mark.parametrize(("shape", "rejected"), [("ChatML", "hello<|im_end|>"), ("Gemma", "hello \n")])
def test_a_right_and_a_wrong_response_that_become_the_same_text_are_refused_with_the_row_named(shape, rejected):
    row = Example("s/1", "s", messages("the"), (("chosen", "hello"), ("rejected", rejected)))
    reader, template = READERS[SHAPES[shape][1]], TEMPLATES[shape]
    said = (
        "s/1: responses chosen and rejected differ only in what is cut from their ends, end-of-turn text or whitespace"
    )
    with pytest.raises(UsageError, match=f"^{said}; leave the row out$"):
        render([row], reader, template)
    # Candidates without labels may be copies of each other, and JudgeBench has a row whose two responses are equal.
    copies = (row._replace(right=()), row._replace(responses=(("chosen", "hello"), ("rejected", "hello"))))
    for copy in copies:
        assert [sequence.text for sequence in render([copy], reader, template).sequences] == ["hello", "hello"]


@pytest.mark.parametrize(("shape", "merged"), [("Gemma", 1), ("ChatML", 0)])
def test_system_turns_that_are_merged_are_counted(shape, merged):
    row = example("the")
    rows = [row._replace(messages=(Message("system", "no"), *row.messages)), row._replace(example_id="s/2")]
    rendered = render(rows, READERS["bytes"], TEMPLATES[shape])
    assert rendered.n_system_merged == merged
    assert len(rendered.lines()) == merged


def test_an_id_beyond_the_embedding_is_named_with_its_row_and_model():
    (sequence,) = counted("the", responses=("yes",)).sequences
    top = int(sequence.ids.max())
    check_ids(sequence.ids, READERS["bytes"], n_embedded=top + 1, row="s/1", model="m")
    with pytest.raises(DrsowError, match=rf"^s/1: token '<\|im_start\|>' has id {top}, but the embedding of m ends at"):
        check_ids(sequence.ids, READERS["bytes"], n_embedded=top, row="s/1", model="m")


def test_a_name_of_a_special_token_is_found_anywhere_and_only_whole():
    holds = _finder({"<a>", "<ab>", "[x]", "."})
    assert [text for text in ("<a>", "to <ab>!", "y[x]", "no.") if holds(text)] == ["<a>", "to <ab>!", "y[x]", "no."]
    assert not any(map(holds, ("", "<a", "<abc>", "[y]", "a<b")))
    assert not _finder(set())("<a>")
