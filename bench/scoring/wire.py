"""Speaks the formats of the servers that can return a prompt's own log-probabilities: vLLM, SGLang, OpenAI's echo.

The functions of a format are pure: token ids -> question, answer -> log-probabilities. An answer about other token ids
than those that drsow sent is refused, because its numbers are those of another text.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.entries import UrlSource
from bench.schema import DrsowError, PreconditionError
from bench.scoring.asking import ask

CLAMP_NATS = -9999.0
"""The value that servers write instead of minus infinity, which JSON lacks."""


MALFORMED = (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError)
"""The errors of reading an answer that has another form."""


class Text(NamedTuple):
    """A text to score."""

    ids: Sequence[int]
    """Prompt, response and end of turn."""
    first: int
    """Index of the first id whose log-probability is wanted, at least 1."""
    words: str = ""
    """The text of all ids but a BOS that the server adds; like the next two only for a server that takes no ids."""
    pieces: Sequence[str] = ()
    """The text of each id. A special token is its own name; a piece of a character is U+FFFD."""
    special: frozenset[int] = frozenset()
    """The ids of special tokens, which a server may return without a text."""


class WireError(DrsowError):
    """An answer whose numbers drsow cannot use. The text says what the server does."""


class Format(NamedTuple):
    """How one kind of server is asked, and what it answers."""

    path: str
    question: Callable[[str, Text], dict[str, object]]
    """The body for a model's name and a text."""
    logps: Callable[[Any, Text], np.ndarray]
    """Nats of ids[first:], (n,), from the answer."""
    identity: str
    """Path of the server's version."""


def _vllm_question(model: str, text: Text) -> dict[str, object]:
    return {
        "model": model,
        "prompt": [list(text.ids)],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "return_token_ids": True,
    }


def _vllm_logps(answer: Any, text: Text) -> np.ndarray:
    choice = answer["choices"][0]
    if choice.get("prompt_logprobs") is None:
        raise WireError("returns no prompt_logprobs: it does not compute a prompt's log-probabilities")
    if choice.get("prompt_token_ids") is None:
        raise WireError("returns no prompt_token_ids, so the ids cannot be checked: vLLM 0.10.2 or newer returns them")
    _check_ids(choice["prompt_token_ids"], text.ids)
    entries = choice["prompt_logprobs"]
    if len(entries) != len(text.ids):
        raise WireError(f"returns {len(entries)} log-probabilities for {len(text.ids)} tokens")
    return _checked([entries[i][str(text.ids[i])]["logprob"] for i in range(text.first, len(text.ids))])


def _sglang_question(model: str, text: Text) -> dict[str, object]:
    # The first entry of an answer has no number, so the answer begins one token early.
    return {
        "input_ids": list(text.ids),
        "sampling_params": {"temperature": 0, "max_new_tokens": 0},
        "return_logprob": True,
        "logprob_start_len": text.first - 1,
    }


def _sglang_logps(answer: Any, text: Text) -> np.ndarray:
    meta = (answer[0] if isinstance(answer, list) else answer)["meta_info"]
    entries = meta.get("input_token_logprobs")
    if not entries:
        raise WireError("returns no input_token_logprobs: it does not compute a prompt's log-probabilities")
    n_tokens = meta.get("prompt_tokens", len(text.ids))
    ids = [*text.ids[: text.first - 1], *(entry[1] for entry in entries)]
    if n_tokens < len(text.ids):
        raise WireError(f"cuts a text: it read {n_tokens} of {len(text.ids)} tokens")
    if n_tokens > len(text.ids) and n_tokens - len(ids) in (0, 1) and ids[-1] == text.ids[-1]:
        raise WireError("adds a BOS token to the ids that it is sent")
    _check_ids(ids, text.ids)
    return _checked([entry[0] for entry in entries[1:]])


def _echo_question(model: str, text: Text) -> dict[str, object]:
    return {
        "model": model,
        "prompt": text.words,
        "max_tokens": 1,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }


def _echo_logps(answer: Any, text: Text) -> np.ndarray:
    found = answer["choices"][0].get("logprobs")
    if not found or not found.get("token_logprobs"):
        raise WireError("returns no logprobs with echo: it does not compute a prompt's log-probabilities")
    n_tokens = len(text.ids)
    n_read = (answer.get("usage") or {}).get("prompt_tokens", n_tokens)
    if n_read < n_tokens:
        raise WireError(f"cuts a text, or divides it in another way: it read {n_read} tokens, drsow sent {n_tokens}")
    if n_read > n_tokens:
        raise WireError(f"adds a BOS token, or divides a text in another way: it read {n_read} tokens for {n_tokens}")
    listed = _listed(found["tokens"], text)
    if len(found["tokens"]) == n_tokens == len(listed) and answer["choices"][0].get("finish_reason") == "length":
        raise WireError(
            "gives every token the number of the next one, because the text does not begin with the BOS of its file: "
            "llama-cpp-python does so"
        )
    n_values = len(found["token_logprobs"])
    if n_values != len(found["tokens"]):
        raise WireError(f"returns {n_values} log-probabilities for the {len(found['tokens'])} tokens that it lists")
    # The generated token has a number, but no place.
    values = dict(zip(listed, found["token_logprobs"], strict=False))
    return _checked([values.get(place) for place in range(text.first, n_tokens)])


def _listed(tokens: Sequence[str], text: Text) -> list[int]:
    """The index in the text of each token that a server lists.

    The format lists every token, and the one that is generated. llama-cpp-python (0.3.36) leaves out each token that is
    the file's BOS. In chat text that is the first one, and others like it: of SmolLM2 every "<|im_start|>".

    Raises:
        WireError: The server lists other tokens than those of the text.
    """
    every = list(range(len(text.ids)))
    without = [place for place in every if text.ids[place] != text.ids[0]]
    for places in (every, without):
        # The generated token may be an end, which is not listed.
        if len(tokens) - len(places) in (0, 1) and _differs(tokens, places, text) is None:
            return places
    if len(tokens) < len(without):
        raise WireError(f"cuts a text, or divides it in another way: it lists {len(tokens)} of {len(every)} tokens")
    places = without if len(tokens) - len(without) in (0, 1) else every
    at = _differs(tokens, places, text) or 0
    raise WireError(
        f"reads other tokens than drsow sent: token {at} is {tokens[at]!r}, not {text.pieces[places[at]]!r}"
    )


def _differs(tokens: Sequence[str], places: Sequence[int], text: Text) -> int | None:
    """The first listed token that has another text than the token at its place; None if there is none."""
    for i, (token, place) in enumerate(zip(tokens, places, strict=False)):
        piece = text.pieces[place]
        # A special token may come as an empty text, and half a character has no text.
        known = "\ufffd" in piece or (text.ids[place] in text.special and not token)
        if not known and token.strip() != piece.strip():
            return i
    return None


FORMATS: Mapping[str, Format] = {
    "vllm": Format("/v1/completions", _vllm_question, _vllm_logps, "/version"),
    "sglang": Format("/generate", _sglang_question, _sglang_logps, "/get_server_info"),
    "openai-echo": Format("/v1/completions", _echo_question, _echo_logps, "/openapi.json"),
}


def _check_ids(got: Sequence[int], sent: Sequence[int]) -> None:
    got, sent = list(got), list(sent)
    if got == sent:
        return
    if got[1:] == sent:
        raise WireError("adds a BOS token to the ids that it is sent")
    if len(got) < len(sent) and (got == sent[-len(got) :] or got == sent[: len(got)]):
        raise WireError(f"cuts a text: it read {len(got)} of {len(sent)} tokens")
    place = next(
        (i for i, pair in enumerate(zip(got, sent, strict=False)) if pair[0] != pair[1]), min(len(got), len(sent))
    )
    raise WireError(f"reads other tokens than drsow sent: they differ from token {place} on")


def _checked(values: Sequence[float | None]) -> np.ndarray:
    if any(value is None for value in values):
        raise WireError("returns no number for a token of the response")
    logps = np.array(values, dtype=np.float64)
    if (logps > 1e-4).any():
        raise WireError(f"returns a log-probability above 0: {logps.max():g}")
    # What a server clamps is minus infinity: the response is not finite, and counted as that.
    logps[logps <= CLAMP_NATS] = -math.inf
    return logps


def score(source: UrlSource, text: Text, *, is_adapter: bool = False) -> np.ndarray:
    """The log-probabilities of a text's ids from `first` on, (n,), nats.

    Args:
        source: Where the server is, and the model's name there.
        text: The text.
        is_adapter: As in `Server`.

    Raises:
        WireError: The server's numbers are not those of this text.
        DrsowError: The server refuses the question.
        PreconditionError: The server cannot be reached.
    """
    form = FORMATS[source.kind]
    question = form.question(source.model, text)
    if is_adapter and source.kind == "sglang":
        # /generate names no model. Without this field, the base model answers.
        question["lora_path"] = source.model
    answer = ask(source, form.path, question).content
    try:
        return form.logps(answer, text)
    except MALFORMED as error:
        raise WireError(_other_format(source, error)) from None


def _other_format(source: UrlSource, error: Exception) -> str:
    return f"answers in another format than {source.kind} ({type(error).__name__}: {error}); correct `kind`"


class Server(NamedTuple):
    """What a server says about itself."""

    name: str
    """Kind and version, such as "vllm-0.12.0"."""
    context_tokens: int | None
    """The longest text that it takes, None if it does not say."""
    is_adapter: bool
    """Whether the model is a LoRA adapter of another model of the server."""


def identify(source: UrlSource) -> Server:
    """Asks a server for its version, its models and its context.

    Raises:
        PreconditionError: It is llama.cpp's own server, it does not have the model, or it cannot be reached.
        DrsowError: Its answers have another format.
    """
    try:
        return _identified(source)
    except MALFORMED as error:
        raise DrsowError(f"{source.url}: the server {_other_format(source, error)} in models.toml") from None


def _identified(source: UrlSource) -> Server:
    models = ask(source, "/v1/models")
    listed = models.content.get("data", []) if isinstance(models.content, dict) else []
    if models.server.startswith("llama.cpp") or any(each.get("owned_by") == "llamacpp" for each in listed):
        raise PreconditionError(
            f"{source.url}: llama.cpp's own server cannot return prompt log-probabilities; serve the file with "
            "llama-cpp-python's server (kind openai-echo), or let drsow read it"
        )
    known = {each["id"]: each for each in listed}
    if source.model not in known:
        words = f"the server has no model {source.model!r}, but {', '.join(sorted(known)) or 'none'}"
        raise PreconditionError(f"{source.url}: {words}; correct `model` in models.toml")
    about = ask(source, FORMATS[source.kind].identity).content
    version = about.get("info", {}).get("version") if source.kind == "openai-echo" else about.get("version")
    card = known[source.model]
    # The entry of an adapter gives no limit; that of its base model does.
    base = known.get(card.get("parent"), {})
    limit = card.get("max_model_len") or base.get("max_model_len") or about.get("context_length")
    # A server keeps room for one new token.
    name = f"{source.kind}-{version or 'unknown'}"
    return Server(name, limit and int(limit) - 1, bool(card.get("parent")))
