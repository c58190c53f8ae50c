"""Asks a model server over HTTP: JSON in, JSON out, with retries. The token comes from the environment only."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.entries import UrlSource
from bench.schema import DrsowError, PreconditionError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Seconds before the first retry, which double with each further one, and the most seconds before a retry."""

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


def ask(source: UrlSource, path: str, body: Mapping[str, object] | None = None) -> Answer:
    """A server's answer: GET, or POST if there is a body. A busy or broken server is asked again, after longer waits.

    Raises:
        PreconditionError: The server cannot be reached, or wants another token.
        DrsowError: The server refuses the question, or answers no JSON. The message has the server's words.
    """
    for attempt in range(source.retries + 1):
        try:
            return _once(source, path, body)
        except urllib.error.HTTPError as error:
            problem, wait_s = _refusal(source, error), _asked_wait_s(error)
            if error.code not in RETRIED:
                raise problem from None
        except OSError as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            problem = PreconditionError(
                f"{source.url} cannot be reached ({reason}); start the server and run the command again: it continues"
            )
            wait_s = 0.0
        if attempt < source.retries:
            time.sleep(min(max(FIRST_WAIT_S * 2**attempt, wait_s), LONGEST_WAIT_S))
    raise problem from None


def _once(source: UrlSource, path: str, body: Mapping[str, object] | None) -> Answer:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token := os.environ.get(source.token_env):
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(source.url + path, data=data, headers=headers)
    try:
        with _OPENER.open(request, timeout=source.timeout_s) as response:
            text, server = response.read(), response.headers.get("Server", "")
    except http.client.HTTPException as error:
        # An error of the system, like a refused connection.
        raise ConnectionError(f"the answer broke off: {type(error).__name__}") from error
    try:
        return Answer(json.loads(text), server)
    except ValueError:
        raise DrsowError(
            f"{source.url}{path}: the server answered no JSON: {text[:80].decode(errors='replace')!r}"
        ) from None


def _refusal(source: UrlSource, error: urllib.error.HTTPError) -> DrsowError:
    """The error for a status that is not 200, with the server's own words."""
    said = _said(error)
    where = f"{source.url}: the server answered {error.code}" + (f" ({said})" if said else "")
    if error.code in (401, 403):
        return PreconditionError(f"{where}; set {source.token_env} to the server's token")
    if error.code in RETRIED:
        return DrsowError(
            f"{where} {source.retries + 1} times; run the command again when it has recovered: it continues"
        )
    if 300 <= error.code < 400:
        return DrsowError(f"{where} and names another address; write that address into `source` in models.toml")
    return DrsowError(f"{where}; check `url`, `model` and `kind` in models.toml")


def _said(error: urllib.error.HTTPError) -> str:
    """The first line of a server's complaint, at most 200 characters."""
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        content = json.loads(text)
    except ValueError:
        content = text
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    lines = str(content).strip().splitlines()
    return lines[0][:200] if lines else ""


def _asked_wait_s(error: urllib.error.HTTPError) -> float:
    """The seconds that a busy server asks for, 0 if it asks for none."""
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
