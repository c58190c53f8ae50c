"""Samples responses of a model on a server, as chat completions through the OpenAI client library.

The server renders the prompt and draws. drsow asks for all responses to a prompt at once; a server that gives one, or
refuses to be asked for several, is asked for one at a time, each with its own seed.
"""

import concurrent.futures
import contextlib
import importlib.metadata
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.faults import warn
from bench.prefer.customise import row_number
from bench.prefer.resumed import Said, Sampling
from bench.schema import DrsowError, Example, PreconditionError
from bench.scoring.asking import (
    RETRIED,
    AskAgainError,
    asked_wait_s,
    complaint,
    patiently,
    refusal,
    token_of,
    unreachable,
)
from bench.sources import Served

REFUSED = (400, 422)
"""Status codes of a server that does not take a field of the question."""

PLACES = ("--url", "check --url and --model", "leave the prompt out, or lower --max-new-tokens")
"""As `asking.REGISTRY`, for a command."""


class RefusedError(DrsowError):
    """The server does not take a field of the question."""


class StoppedError(DrsowError):
    """Another question has failed, so this one is not asked."""


@dataclass
class Told:
    """What the server has shown about itself."""

    takes_n: bool = True
    takes_seed: bool = True
    listed: list[str] = field(default_factory=list)
    """The models that it lists."""
    before: str = ""
    """The model that its answers named in an earlier run into the same file."""
    model: str = ""
    """The model that its answers name now."""
    server: str = ""
    """Its header Server."""


class Service:
    """A model that answers chat completions."""

    def __init__(self, source: Served, wish: Sampling) -> None:
        """Opens the client.

        Raises:
            PreconditionError: The package openai is missing, or the token has a character that no header can have.
        """
        try:
            import openai
        except ImportError as error:
            raise PreconditionError("--url needs the package openai; `pip install 'drsow[url]'` installs it") from error
        self.source, self.wish, self.told, self.stop = source, wish, Told(), threading.Event()
        token = token_of(source)
        self.client = openai.OpenAI(
            api_key=token or "none",
            base_url=source.url if source.url.endswith("/v1") else f"{source.url}/v1",
            timeout=source.timeout_s,
            # `patiently` asks again.
            max_retries=0,
            # A redirect would take the prompts, which may be private, to another host.
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self.headers: dict[str, Any] = {} if token else {"Authorization": openai.Omit()}

    def check(self) -> None:
        """Asks which models the server has. A model that it does not list may be there all the same.

        Raises:
            PreconditionError: The server cannot be reached, or wants another token.
        """
        try:
            found = patiently(
                self.source,
                lambda: self._once(lambda: self.client.models.with_raw_response.list(extra_headers=self.headers)),
            )
            self.told.listed = [str(each["id"]) for each in json.loads(found.text)["data"]]
        except PreconditionError:
            raise
        except (DrsowError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            # Some servers have no list. What else is wrong shows at the first question.
            return
        if self.told.listed and self.source.model not in self.told.listed:
            words = f"does not list a model {self.source.model!r}, but {self._names()}"
            warn(f"{self.source.url} {words}")

    def facts(self) -> dict[str, object]:
        """What the server has shown, for the manifest; nothing if it was not asked."""
        told = self.told
        if not told.model:
            return {}
        shown = {"server": told.server, "answering_model": told.model, "takes_n": told.takes_n}
        return shown | {"takes_seed": told.takes_seed, "openai": importlib.metadata.version("openai")}

    def _names(self) -> str:
        return ", ".join(sorted(self.told.listed)[:8])

    def _once(self, ask: Any) -> Any:
        """The raw answer of one question to the client.

        Raises:
            AskAgainError: The server is busy, broken or away.
            DrsowError: It refuses the question.
        """
        import openai

        if self.stop.is_set():
            raise StoppedError
        try:
            return ask()
        except openai.APIStatusError as error:
            raise self._failure(error.status_code, error.response.text, error.response.headers) from None
        except openai.APIConnectionError as error:
            timed_out = isinstance(error, openai.APITimeoutError)
            reason = f"no answer in {self.source.timeout_s:g} s" if timed_out else error.__cause__ or error
            raise AskAgainError(unreachable(self.source, reason)) from None

    def _failure(self, status: int, text: str, headers: Mapping[str, str]) -> Exception:
        """The error for a status and the server's words."""
        problem = refusal(self.source, status, complaint(self.source, text), PLACES)
        if status in RETRIED:
            return AskAgainError(problem, asked_wait_s(headers))
        return RefusedError(str(problem)) if status in REFUSED else problem

    def _content(self, question: Mapping[str, Any]) -> tuple[dict, Mapping[str, str]]:
        """The answer to a question, without an error inside, and its headers.

        Raises:
            DrsowError: As `_once`; or the answer is no JSON.
            AskAgainError: As `_once`. Some servers answer 200 all the same, and the error is in the answer.
        """
        create = self.client.chat.completions.with_raw_response.create
        answer = self._once(lambda: create(**question, extra_headers=self.headers))
        with self._reading():
            content = json.loads(answer.text)
            for part in (content, *(content.get("choices") or [])):
                if error := part.get("error"):
                    code = error.get("code") if isinstance(error, dict) else None
                    status = code if isinstance(code, int) else answer.status_code
                    raise self._failure(status, json.dumps(part), answer.headers)
        return content, answer.headers

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns the exceptions of an answer in another form into one clear error."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            where = f"{self.source.url}: the server answers in another format than chat completions"
            raise DrsowError(f"{where} ({type(error).__name__}: {error}); check --url") from None

    def _asked(self, example: Example, n: int, number: int) -> list[Said]:
        """Up to `n` responses of one question; `number` is that of the first."""
        wish = self.wish
        question: dict[str, Any] = {
            "model": self.source.model,
            "messages": [message._asdict() for message in example.messages],
            "max_tokens": wish.max_new_tokens,
            "temperature": wish.temperature,
        }
        if wish.top_p < 1:
            question["top_p"] = wish.top_p
        if n > 1:
            question["n"] = n
        if self.told.takes_seed:
            question["seed"] = (row_number(example.example_id, seed=wish.seed) + number) % 2**31
        content, headers = patiently(self.source, lambda: self._content(question))
        with self._reading():
            said = [
                Said(_valid(_text(c["message"]["content"])).strip(), _valid(str(c["finish_reason"])))
                for c in content["choices"]
            ]
            self._check_model(_valid(str(content.get("model", ""))), headers)
        if not said:
            raise DrsowError(f"{example.example_id}: {self.source.url}: the server answered without a response")
        return said[:n]

    def _check_model(self, model: str, headers: Mapping[str, str]) -> None:
        """Refuses the answer of another model.

        Raises:
            DrsowError: The server has not the wanted model, or another one than at the first answer.
        """
        told, wanted = self.told, self.source.model
        first = told.model or told.before
        if first and model != first:
            words = f"another model than before answers: {model!r}, not {first!r}; start the server with the first one"
            raise DrsowError(f"{self.source.url}: {words} and run again, which continues, or name another --out")
        if not told.model:
            if not first and told.listed and wanted not in told.listed and model != wanted:
                words = f"the server has no model {wanted!r}, but {self._names()}, and {model!r} answers in its place"
                raise DrsowError(f"{self.source.url}: {words}; correct --model")
            told.model, told.server = model, headers.get("Server", "")

    def responses(self, example: Example) -> list[Said]:
        """All responses to a prompt.

        Raises:
            DrsowError: The server refuses the prompt, or fails.
        """
        found: list[Said] = []
        while len(found) < self.wish.n:
            left = self.wish.n - len(found)
            some = self._asked(example, left if self.told.takes_n else 1, len(found))
            found += some
            if len(some) < left:
                self.told.takes_n = False
        return found

    def first(self, example: Example) -> list[Said]:
        """As `responses`, for the first prompt: it shows which fields of a question the server takes.

        Raises:
            DrsowError: The server refuses the question in every form.
        """
        problems = []
        several = self.wish.n > 1
        for self.told.takes_n, self.told.takes_seed in [(several, True), *[(False, True)] * several, (False, False)]:
            try:
                found = self.responses(example)
            except RefusedError as error:
                problems.append(error)
                continue
            if not self.told.takes_seed:
                warn(f"{self.source.url} takes no seed: its responses cannot be drawn again")
            return found
        raise problems[0]


def _text(content: object) -> str:
    """The text of a response's `content`: a text, nothing, or a list of parts; a model's thinking is left out."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"content is {type(content).__name__}")
    return content or ""


def _valid(text: str) -> str:
    """A text with U+FFFD in place of each half of a surrogate pair, which JSON can spell and no file can hold."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def served_texts(service: Service, examples: Sequence[Example]) -> Iterator[tuple[str, list[Said]]]:
    """The responses to some prompts, each as soon as it has all of them; several questions are under way at once.

    Raises:
        DrsowError: The server refuses a prompt, or fails. The message names the prompt.
    """
    with contextlib.closing(service.client):
        service.check()
        yield examples[0].example_id, _named(service, service.first, examples[0])
        pool = concurrent.futures.ThreadPoolExecutor(service.source.concurrency)
        asked = {pool.submit(_named, service, service.responses, each): each.example_id for each in examples[1:]}
        try:
            for done in concurrent.futures.as_completed(asked):
                # The error that stopped the others comes too.
                if not isinstance(done.exception(), StoppedError):
                    yield asked[done], done.result()
        finally:
            service.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _named(service: Service, ask: Callable[[Example], list[Said]], example: Example) -> list[Said]:
    """The responses to a prompt. An error names it, and stops all further questions."""
    try:
        return ask(example)
    except StoppedError:
        raise
    except DrsowError as error:
        service.stop.set()
        kind = PreconditionError if isinstance(error, PreconditionError) else DrsowError
        raise kind(f"{example.example_id}: {error}") from error
