"""A tokenizer's added tokens are read once, and are those that it has."""

from tiny_tokenizers import byte_level, sentence_piece

from bench.scoring.added import added


def test_they_are_those_of_the_tokenizer():
    for tokenizer in (byte_level(eos="<end>", special=["<a>", "<b>"]), sentence_piece(kind="never", special=["<a>"])):
        tokenizer.add_tokens(["a plain one"])
        found = added(tokenizer)
        assert dict(found.ids) == tokenizer.get_added_vocab()
        assert "a plain one" in found.ids
        assert "a plain one" not in found.special.values()
        assert {tokenizer.convert_ids_to_tokens(i) for i in found.special} == set(found.special.values()) >= {"<a>"}


def test_the_tokenizer_is_asked_once(monkeypatch):
    tokenizer = byte_level(eos="<end>")
    found = added(tokenizer)
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", property(lambda _: 1 / 0))
    assert added(tokenizer) is found
