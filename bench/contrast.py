"""Pairs of one model: strong and weak are the same weights, and each side reads its own text before every prompt.

The reward is log p(y | x and a principle) - log p(y | x and its opposite), the prompt contrast of DLMA (arXiv
2402.11907). A side that reads a text is called a reader. A side without a text is the plain model, and it shares the
model's scores with all other pairs.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bench.entries import Domain, PairEntry

DOMAINS = "domains"
"""Value of `PairEntry.texts`: the texts are those of each prompt's domain."""

INSTRUCTION, OPPOSITE = "instruction", "opposite"
"""The fields of a domain that the strong and the weak side of such a pair read."""

TEXT_TURN = "system"
"""The turn that gets a pair's own text."""

_AT = "@"
"""Between the model_id and the rest of a reader's name; no model_id has this character."""


class Reader(NamedTuple):
    """One side of a pair of one model: the weights, and the text that they read before each prompt."""

    model_id: str
    text: str = ""
    """The text, the same for every prompt; "" if `of_domain` names the text."""
    of_domain: str = ""
    """INSTRUCTION or OPPOSITE: the text of each prompt's domain. "" if all prompts get `text`."""

    def texts(self, domains: Mapping[str, "Domain"]) -> dict[str, tuple[str, str]]:
        """Every text that a prompt can get, with the turn that gets it: by domain_id, or one text named ""."""
        if not self.of_domain:
            return {"": (self.text, TEXT_TURN)}
        # A domain without an opposite is left out, so that both sides agree on the domain of every prompt.
        return {name: (self._text_in(domain), domain.turn) for name, domain in domains.items() if domain.opposite}

    def _text_in(self, domain: "Domain") -> str:
        return {INSTRUCTION: domain.instruction, OPPOSITE: domain.opposite or ""}[self.of_domain]


def model_of(name: str) -> str:
    """The model_id of a reader's weights; the name itself if it is a model_id."""
    return name.partition(_AT)[0]


def with_text(revision: str, text_digest: str) -> str:
    """A model's revision, with the digest of the texts that it reads; the revision alone if it reads none."""
    return f"{revision} + text {text_digest[:12]}" if text_digest else revision


def sides_of(entry: "PairEntry") -> tuple[str, str]:
    """Names of a pair's strong and weak side: model_ids, or readers as "<model_id>@<pair_id>-strong"."""
    names = {"strong": entry.strong, "weak": entry.weak}
    texts = {"strong": entry.strong_text, "weak": entry.weak_text}
    reads = {side: entry.texts == DOMAINS or bool(texts[side]) for side in names}
    strong, weak = (f"{name}{_AT}{entry.pair_id}-{side}" if reads[side] else name for side, name in names.items())
    return strong, weak


def readers_of(entry: "PairEntry") -> dict[str, Reader]:
    """The sides of a pair that read a text, by name."""
    strong, weak = sides_of(entry)
    if entry.texts == DOMAINS:
        return {strong: Reader(entry.strong, of_domain=INSTRUCTION), weak: Reader(entry.weak, of_domain=OPPOSITE)}
    texts = {strong: entry.strong_text, weak: entry.weak_text}
    return {name: Reader(entry.strong, text) for name, text in texts.items() if text}


def text_problems(entry: "PairEntry", domains: Mapping[str, "Domain"]) -> Iterator[tuple[str, str]]:
    """The fields of a pair's entry that are wrong about its texts, and why."""
    texts = {"strong_text": entry.strong_text, "weak_text": entry.weak_text, "texts": entry.texts}
    given = [field for field, text in texts.items() if text is not None]
    if entry.strong != entry.weak:
        for field in given:
            words = "only a pair of one model reads texts, and strong and weak are two models here"
            yield field, f"{words}; delete this field, or name one model on both sides"
    elif not given:
        yield "weak", 'is the strong model; a pair of one model needs strong_text and weak_text, or texts = "domains"'
    elif entry.texts is not None:
        if len(given) > 1:
            yield "texts", f'texts = "domains" and {given[0]} both say what a side reads; delete one of the two fields'
        elif not any(domain.opposite for domain in domains.values()):
            yield "texts", "no domain has an opposite; add `opposite` to a domain in domains.toml"
    else:
        yield from _own_text_problems(texts)


def _own_text_problems(texts: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    strong, weak = texts["strong_text"], texts["weak_text"]
    for field, text, other in (("strong_text", strong, "weak_text"), ("weak_text", weak, "strong_text")):
        if text is None:
            yield field, f'missing beside {other}; write {field} = "" if this side reads no text'
        elif text and not text.strip():
            yield field, f'is blank; write {field} = "" if this side reads no text'
    if strong is not None and weak is not None and strong.strip() == weak.strip():
        yield "weak_text", "is the same as strong_text, so every reward would be 0"
