"""Small tokenizers of the kinds that real models come with, made in code, and what their ids spell."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("the", "user", "assistant", "system", "answer", "is", "no", "yes", "two", "three", "prime", "water", "INST")
"""Words that are one token each in every vocabulary here, alone and after a space."""


def byte_level(*, bos: str | None = None, adds_bos: bool = False, eos: str, special: Sequence[str] = ()) -> object:
    """Byte-level BPE, as GPT-2, Llama 3 and SmolLM2 have it: no dummy space, pieces may straddle turns."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    space, newline = "Ġ", "Ċ"
    merges = [*_merges(WORDS), *_merges([space + word for word in WORDS])]
    # A run of newlines is one piece: a prompt that ends on one merges with a response that begins with one.
    merges += [(newline, newline), (space, space)]
    tokenizer = Tokenizer(models.BPE(vocab=_vocab(alphabet, merges), merges=_unique(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, bos=bos, adds_bos=adds_bos, eos=eos, special=special)


def sentence_piece(*, kind: str, special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """BPE over "▁" for space with bytes to fall back on and a BOS, as Llama 2 and Mistral have it.

    Args:
        kind: Where a dummy space is put: "first" before the text, "always" before every stretch between special
            tokens that has none, "legacy" before every such stretch, "never" as for Gemma.
        special: More special tokens.
    """
    alphabet = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    alphabet += [chr(code) for code in range(33, 127)]
    merges = [*_merges(WORDS), *_merges(["▁" + word for word in WORDS]), ("▁", "▁")]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=_vocab(alphabet, merges), merges=_unique(merges), unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    if kind == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return _fast(tokenizer, bos="<s>", adds_bos=True, eos="</s>", special=special)


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """The merges that join each word from the left."""
    return [(word[:i], word[i]) for word in words for i in range(1, len(word))]


def _unique(merges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(merges))


def _vocab(alphabet: Sequence[str], merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys([*alphabet, *("".join(pair) for pair in merges)]))}


def _fast(
    tokenizer: Tokenizer, *, bos: str | None, adds_bos: bool, eos: str, special: Sequence[str]
) -> PreTrainedTokenizerFast:
    names = [name for name in (bos, eos, *special) if name]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in dict.fromkeys(names)])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)


def spelled(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text that ids spell, special tokens and dummy spaces included."""
    back = {shown: code for code, shown in _byte_alphabet().items()}
    sentence = "▁" in tokenizer.get_vocab()
    spelling = b""
    for token in tokenizer.convert_ids_to_tokens([int(i) for i in ids]):
        if token in tokenizer.get_added_vocab():
            spelling += token.encode()
        elif not sentence:
            spelling += bytes(back[shown] for shown in token)
        elif len(token) == 6 and token.startswith("<0x"):
            spelling += bytes([int(token[3:5], 16)])
        else:
            spelling += token.replace("▁", " ").encode()
    return spelling.decode()


def _byte_alphabet() -> dict[int, str]:
    """How byte-level BPE shows each byte: printable Latin-1 as itself, the others from U+0100 on, in order."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
