"""Gives the scores of each token of a response, with the bytes of the rendered response that it spans."""

import itertools
import unicodedata
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerFast

from bench.schema import TOKEN_SCORES, TOKENS, DrsowError, Example
from bench.scoring.added import added
from bench.scoring.render import Sequence

if TYPE_CHECKING:
    from bench.scoring.scorer import Scorer


class TokenValues(NamedTuple):
    """The numbers of a response's tokens, the end of turn last."""

    logps: np.ndarray
    """Log-probabilities, nats, (n,), float64."""
    totals: np.ndarray | None = None
    """Log-sum-exp of the logits, (n,), float64; None if it was not asked for, or a server gave none."""
    tops: np.ndarray | None = None
    """Largest log-probability of any token in this place, nats, (n,), float64; None as `totals`."""


def token_scores(scorer: "Scorer", sequences: Seq[Sequence], values: Seq[TokenValues | None]) -> pd.DataFrame:
    """TOKEN_SCORES of some responses. A response that is too long or not finite has no lists.

    Args:
        scorer: The run's scorer, which rendered the responses.
        sequences: The rendered responses.
        values: Their numbers; None if too long.
    """
    mine = {sequence.example_id for sequence in sequences}
    prompts = {
        example.example_id: scorer.template.text(example.messages, generation=True)
        for example in scorer.ready.work.dataset.examples
        if example.example_id in mine
    }
    rows: list[tuple] = []
    for sequence, each in zip(sequences, values, strict=True):
        lists: list[np.ndarray | None] = [None] * 4
        if each is not None and np.isfinite(each.logps).all():
            lists = [None if x is None else x.astype(np.float32) for x in each]
            lists.append(
                byte_ends(sequence, scorer.tokenizer, prompts[sequence.example_id], model=scorer.ready.key.model_id)
            )
        rows.append((sequence.example_id, sequence.response_id, *lists))
    return pd.DataFrame(rows, columns=list(TOKEN_SCORES))


def byte_ends(
    sequence: Sequence, tokenizer: PreTrainedTokenizerFast, prompt: str, *, model: str = ""
) -> np.ndarray | None:
    """The byte of the rendered response at which each token ends, (n,), int32; None if they cannot be placed."""
    try:
        spans = byte_spans(sequence, tokenizer, prompt, model=model)
    except DrsowError:
        return None
    return np.array([*(high for _, high in spans), sequence.n_bytes], dtype=np.int32)


def tokens(scorer: "Scorer", example: Example) -> pd.DataFrame:
    """TOKENS of an example under one model. The end of turn is the last row of a response and spans no bytes.

    Byte positions refer to `rendered_texts`. A token inside a character of several bytes spans that whole character.

    Raises:
        DrsowError: The tokens do not match the rendered text. The message names the response.
    """
    sequences = scorer.rendered([example]).sequences
    rows = []
    prompt, model = scorer.template.text(example.messages, generation=True), scorer.ready.key.model_id
    for sequence, logps in zip(sequences, scorer.examples_logps([example])[0], strict=True):
        spans = byte_spans(sequence, scorer.tokenizer, prompt, model=model)
        for (low, high), logp in zip([*spans, (sequence.n_bytes, sequence.n_bytes)], logps, strict=True):
            rows.append((sequence.example_id, sequence.response_id, low, high, float(logp)))
    return pd.DataFrame(rows, columns=list(TOKENS))


def rendered_texts(scorer: "Scorer", example: Example) -> dict[str, str]:
    """The rendered responses by response_id; TOKENS' byte positions refer to them."""
    return {sequence.response_id: sequence.text for sequence in scorer.rendered([example]).sequences}


def byte_spans(
    sequence: Sequence, tokenizer: PreTrainedTokenizerFast, prompt: str, *, model: str
) -> list[tuple[int, int]]:
    """Bytes of the rendered response that each of its tokens spans, without the end of turn.

    Args:
        sequence: The response with its token ids.
        tokenizer: The tokenizer that gave the ids.
        prompt: The rendered prompt.
        model: Name of the model in the error message.

    Raises:
        DrsowError: The tokens do not match the text.
    """
    ids = sequence.ids[sequence.start : -1].tolist()
    spans = _spelled(tokenizer, ids, sequence.text) or _told(tokenizer, ids, sequence.text, prompt)
    if spans is None or not _fit(spans, sequence.text.encode()):
        raise DrsowError(
            f"{sequence.example_id}: response {sequence.response_id}: the tokens of {model} cannot be placed in its "
            "text, so drsow cannot give its tokens separately"
        )
    return _tiled(spans, sequence.text)


def _spelled(tokenizer: PreTrainedTokenizerFast, ids: Seq[int], text: str) -> list[tuple[int, int]] | None:
    """The bytes that each token spells, or None if all tokens together do not spell exactly the text."""
    names = tokenizer.convert_ids_to_tokens(ids)
    known = added(tokenizer).ids
    for spell in (_byte_level, _sentence_piece):
        spelled = [name.encode() if name in known else spell(name) for name in names]
        pieces = [piece for piece in spelled if piece is not None]
        if len(pieces) < len(spelled):
            continue
        whole = b"".join(pieces)
        # SentencePiece may add a space before a text.
        extra = 1 if whole == b" " + text.encode() else 0
        if whole[extra:] == text.encode():
            ends = [max(end - extra, 0) for end in itertools.accumulate(map(len, pieces))]
            return list(zip([0, *ends[:-1]], ends, strict=True))
    return None


def _byte_level(name: str) -> bytes | None:
    """The bytes of a byte-level BPE token: one character per byte, printable Latin-1 unchanged, others from U+0100."""
    return bytes(_BYTE_OF[character] for character in name) if set(name) <= set(_BYTE_OF) else None


def _sentence_piece(name: str) -> bytes:
    """The bytes of a SentencePiece token: "▁" is a space, <0x0A> is a byte."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes.fromhex(name[3:5])
    return name.replace("▁", " ").encode()


_PLAIN_BYTES = (*range(33, 127), *range(161, 173), *range(174, 256))
_BYTE_OF = {chr(byte): byte for byte in _PLAIN_BYTES} | {
    chr(256 + place): byte for place, byte in enumerate(b for b in range(256) if b not in _PLAIN_BYTES)
}
"""The byte of each character of byte-level BPE (GPT-2's table)."""


def _told(tokenizer: PreTrainedTokenizerFast, ids: Seq[int], text: str, prompt: str) -> list[tuple[int, int]] | None:
    """The bytes of each token as the tokenizer reports them, or None if it finds other tokens in the text.

    This works for tokenizers that change a text before they divide it, for example into Unicode's normal form C.
    """
    starts = [0, *itertools.accumulate(len(c.encode()) for c in text)]
    for before in (prompt, "\n", ""):
        coded = tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=True)
        if coded.input_ids[-len(ids) :] == ids:
            offsets = np.clip(np.array(coded.offset_mapping[-len(ids) :]) - len(before), 0, len(text)).tolist()
            return [(starts[low], starts[_with_marks(text, high)]) for low, high in offsets]
    return None


def _with_marks(text: str, end: int) -> int:
    """The end of a token, moved past the accents and invisible characters after it, which may belong to the token."""
    while 0 < end < len(text) and unicodedata.category(text[end]) in ("Mn", "Mc", "Me", "Cf", "Cc") and text[end] > " ":
        end += 1
    return end


def _fit(spans: Seq[tuple[int, int]], text: bytes) -> bool:
    """Whether spans are in order and leave out only whitespace."""
    at = 0
    for low, high in spans:
        if high < low or text[at:low].strip():
            return False
        at = max(at, high)
    return not text[at:].strip()


def _tiled(spans: Seq[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Spans widened to whole characters; the last span includes the whitespace after it."""
    starts = np.array([0, *itertools.accumulate(len(c.encode()) for c in text)])
    low, high = np.array(spans).T
    high[-1] = starts[-1]
    whole = (starts[np.searchsorted(starts, low, side="right") - 1], starts[np.searchsorted(starts, high)])
    return list(zip(*(side.tolist() for side in whole), strict=True))
