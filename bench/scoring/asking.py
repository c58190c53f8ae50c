"""Asks a model server over HTTP: JSON in, JSON out, with retries. The token comes from the environment only."""

import functools
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from bench import units
from bench.schema import DrsowError, PreconditionError
from bench.sources import Served

Made = TypeVar("Made")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Seconds before the first retry, which double with each further one, and the most seconds before a retry."""

LONGEST_ANSWER_BYTES = 2**28
"""The longest answer that is read: more than the log-probabilities of a million tokens have."""

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which a server may answer the same question."""


class Answer(NamedTuple):
    """What a server answered."""

    content: Any
    """The decoded JSON."""
    server: str
    """The header Server, "" if there is none."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because Python would send the token to the other address too."""

    def redirect_request(self, *_: object) -> None:
        """No further request."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class AskAgainError(Exception):
    """A question may be asked again after some seconds."""

    def __init__(self, problem: DrsowError, wait_s: float = 0.0) -> None:
        super().__init__(str(problem))
        self.problem, self.wait_s = problem, wait_s


def ask(source: Served, path: str, body: Mapping[str, object] | None = None) -> Answer:
    """A server's answer: GET, or POST if there is a body. A busy or broken server is asked again, after longer waits.

    Raises:
        PreconditionError: The server cannot be reached, or wants another token.
        DrsowError: The server refuses the question, or answers no JSON. The message has the server's words.
    """
    return patiently(source, functools.partial(_once, source, path, body))


def patiently(source: Served, once: Callable[[], Made]) -> Made:
    """What a question gives. After an AskAgainError it is asked again, `source.retries` times, after longer waits.

    Raises:
        DrsowError: The problem of the last error.
    """
    for attempt in range(source.retries + 1):
        try:
            return once()
        except AskAgainError as error:
            problem, wait_s = error.problem, error.wait_s
        if attempt < source.retries:
            time.sleep(min(max(FIRST_WAIT_S * 2**attempt, wait_s), LONGEST_WAIT_S))
    raise problem from None


def check_answers(source: Served, path: str) -> None:
    """Asks a server once, whatever it answers.

    Raises:
        UnreachableError: It gives no answer.
    """
    try:
        _once(source, path, None)
    except AskAgainError as error:
        if isinstance(error.problem, UnreachableError):
            raise error.problem from None
    except DrsowError:
        return


def _once(source: Served, path: str, body: Mapping[str, object] | None) -> Answer:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token := token_of(source):
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(source.url + path, data=data, headers=headers)
    ends_s = time.monotonic() + source.timeout_s
    try:
        with _OPENER.open(request, timeout=source.timeout_s) as response:
            text, server = _read(source, response, ends_s), response.headers.get("Server", "")
    except urllib.error.HTTPError as error:
        problem = refusal(source, error.code, _said(source, error, ends_s))
        if error.code not in RETRIED:
            raise problem from None
        raise AskAgainError(problem, asked_wait_s(dict(error.headers))) from None
    except http.client.HTTPException as error:
        raise AskAgainError(unreachable(source, f"the answer broke off: {type(error).__name__}")) from error
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise AskAgainError(unreachable(source, reason)) from error
    try:
        return Answer(json.loads(text), server)
    except (ValueError, RecursionError):
        said = masked(source, text.decode(errors="replace"))[:80]
        raise DrsowError(f"{source.url}{path}: the server answered no JSON: {said!r}") from None


def _read(source: Served, response: Any, ends_s: float) -> bytes:
    """An answer's bytes, piece by piece: `timeout` of urllib counts anew with each piece.

    Args:
        source: The server.
        response: What urllib opened, or the HTTPError that it raised.
        ends_s: When the whole answer must be here, on the clock of `time.monotonic`.

    Raises:
        TimeoutError: It is not.
        DrsowError: It is longer than LONGEST_ANSWER_BYTES.
    """
    text = bytearray()
    while piece := response.read1(2**16):
        text += piece
        if len(text) > LONGEST_ANSWER_BYTES:
            words = f"the server's answer is longer than {units.si(LONGEST_ANSWER_BYTES, 'B')}; {REGISTRY[1]}"
            raise DrsowError(f"{source.url}: {words}")
        if time.monotonic() > ends_s:
            raise TimeoutError(f"no whole answer in {source.timeout_s:g} s")
    if response.length:
        raise http.client.IncompleteRead(bytes(text), response.length)
    return bytes(text)


REGISTRY = (
    "`source` in models.toml",
    "check `url`, `model` and `kind` in models.toml",
    "lower `context_tokens` of the model in models.toml to the server's limit",
)
"""Where a user corrects an address, and what to do about a question that a server refuses, in general and because the
text is too long, for a model of the registry."""


def refusal(source: Served, code: int, said: str, places: tuple[str, str, str] = REGISTRY) -> DrsowError:
    """The error for a status that is not 200, with the server's own words.

    Args:
        source: The server.
        code: The status.
        said: From `complaint`.
        places: As REGISTRY.
    """
    where = f"{source.url}: the server answered {code}" + (f" ({said})" if said else "")
    if code in (401, 403):
        return PreconditionError(f"{where}; set {source.token_env} to the server's token")
    if code in RETRIED:
        return DrsowError(
            f"{where} {source.retries + 1} times; run the command again when it has recovered: it continues"
        )
    if 300 <= code < 400:
        return DrsowError(f"{where} and names another address; write that address into {places[0]}")
    return DrsowError(f"{where}; {places[2 if 'context' in said.lower() else 1]}")


class UnreachableError(PreconditionError):
    """A server that gives no answer."""


def unreachable(source: Served, reason: object) -> UnreachableError:
    """The error for a server that gives no answer."""
    return UnreachableError(
        f"{source.url} cannot be reached ({reason}); start the server and run the command again: it continues"
    )


def _said(source: Served, error: urllib.error.HTTPError, ends_s: float) -> str:
    try:
        with error:
            return complaint(source, _read(source, error, ends_s).decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return ""


def token_of(source: Served) -> str:
    """The server's token, "" if the environment has none.

    Raises:
        PreconditionError: It has a character that no header can have. The HTTP libraries would print the token.
    """
    token = os.environ.get(source.token_env, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise PreconditionError(f"{source.token_env}: has a character that no token has; set it to the server's token")
    return token


def masked(source: Served, text: str) -> str:
    """A text of the server without the token that drsow sent."""
    token = token_of(source)
    return text.replace(token, "***") if token else text


def complaint(source: Served, text: str) -> str:
    """The first line of a server's complaint, at most 200 characters, without the token."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    lines = masked(source, str(content)).strip().splitlines()
    return lines[0][:200] if lines else ""


def asked_wait_s(headers: Mapping[str, str]) -> float:
    """The seconds that a busy server asks for, 0 if it asks for none."""
    # Header names have no case: uvicorn, which serves vLLM, sends them in lower case.
    values = {name.lower(): value for name, value in headers.items()}
    try:
        return float(values.get("retry-after", 0))
    except ValueError:
        return 0.0
