"""Where tokens lie in a rendered response: the bytes that they spell, whatever the template cut."""

import pytest
from test_render import READERS, SHAPES, TEMPLATES, example
from tiny_tokenizers import byte_level
from tokenizers import normalizers

from bench.schema import DrsowError
from bench.scoring.chat import Template
from bench.scoring.render import render
from bench.scoring.tokens import byte_spans

TEXTS = ["no\n", "  yes, the answer \n", "éé is 🎉\n\n", "\u00a0二 the", "7 <0x41> ▁▁ x", "[INST] no", "<|im_start|>no"]


def spans(text: str, tokenizer, template: Template) -> tuple[list[tuple[int, int]], list[str], str]:
    """Spans, tokens and the rendered text of one response."""
    row = example("the", responses=(text,))
    (sequence,) = render([row], tokenizer, template).sequences
    found = byte_spans(sequence, tokenizer, template.text(row.messages, generation=True), model="m")
    return found, tokenizer.convert_ids_to_tokens(sequence.ids[sequence.start : -1].tolist()), sequence.text


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_cover_the_rendered_text_without_a_gap(shape, kind, text):
    found, _, rendered = spans(text, READERS[kind], TEMPLATES[shape])
    whole, at = rendered.encode(), 0
    for low, high in found:
        # A token inside a character spans all of it: the next one may begin where that character does.
        assert low <= at <= high
        whole[low:high].decode()
        at = high
    assert at == len(whole)


def test_tokens_of_a_trimmed_response_lie_where_its_template_wrote_them():
    found, tokens, rendered = spans("éé yes\n", READERS["first"], TEMPLATES["Mistral"])
    assert rendered == " éé yes"
    assert tokens == ["▁", "<0xC3>", "<0xA9>", "<0xC3>", "<0xA9>", "▁", "yes"]
    assert found == [(0, 1), (1, 3), (1, 3), (3, 5), (3, 5), (5, 6), (6, 9)]


def test_a_character_that_is_split_over_tokens_belongs_to_each_of_them():
    found, tokens, _ = spans("é yes", READERS["bytes"], TEMPLATES["ChatML"])
    assert tokens == ["Ã", "©", "Ġ", "yes"]
    assert found == [(0, 2), (0, 2), (2, 3), (3, 6)]


def test_a_tokenizer_that_changes_the_text_says_where_its_tokens_lie():
    reader = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    reader.backend_tokenizer.normalizer = normalizers.NFC()
    found, tokens, _ = spans("e\u0301 yes", reader, TEMPLATES["ChatML"])
    assert tokens == ["Ã", "©", "Ġ", "yes"]
    assert found == [(0, 3), (0, 3), (3, 4), (4, 7)]


def test_tokens_that_do_not_fit_the_text_are_refused_with_the_response_named():
    row, reader = example("the", responses=("yes",)), READERS["bytes"]
    (sequence,) = render([row], reader, TEMPLATES["ChatML"]).sequences
    with pytest.raises(DrsowError, match=r"^s/1: response 0: the tokens of m cannot be placed in its text"):
        byte_spans(sequence._replace(text="two"), reader, "", model="m")
