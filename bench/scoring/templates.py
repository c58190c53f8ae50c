"""Which chat template a tokenizer has, and the one function that runs it.

The function is ours and not `apply_chat_template`, because that one tells a template today's date: the scores of two
days would differ under one key. Here a template that asks for the date gets DATE, and one that draws at random is
refused. What a template writes is otherwise what transformers' own function writes.
"""

import datetime
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2.exceptions import SecurityError, TemplateError

from bench.schema import DrsowError, Message

DATE = datetime.datetime(2024, 7, 26)
"""What `strftime_now` tells every chat template: the date that Llama 3's own templates fall back on. It is part of
`scoring.SPAN`: raise that one when you change it."""

DEFAULT = "default"
"""The name that transformers takes of several templates."""

MORE = "additional_chat_templates"
"""Folder beside a tokenizer for templates in files of their own."""


class ChatTemplate(NamedTuple):
    """The template that is used of those that a tokenizer has."""

    text: str
    """Its source, "" where there is none to use."""
    note: str
    """What the user has to know about the choice, said of the tokenizer ("has no …"); "" where there is one text."""


def choose(found: object) -> ChatTemplate:
    """Choose from a tokenizer's `chat_template`: a text, several by name (a dict or a list of entries), or None.

    Of several, "default" is used; without a default the only one is, and the note says so. Of several others none is
    more right than the next, so none is used, and the note says that too.

    Raises:
        DrsowError: it is something else.
    """
    if not found or isinstance(found, str):
        return ChatTemplate(found or "", "")
    try:
        named = dict(found) if isinstance(found, Mapping) else {entry["name"]: entry["template"] for entry in found}
        right = all(isinstance(part, str) for part in (*named, *named.values()))
    except (KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise DrsowError("chat_template is neither a text nor a list of entries with name and template")
    if DEFAULT in named:
        return ChatTemplate(named[DEFAULT], "")
    names = f"no chat template named 'default', only {', '.join(repr(name) for name in sorted(named))}"
    if len(set(named.values())) == 1:
        return ChatTemplate(next(iter(named.values())), f"has {names}, which is used")
    return ChatTemplate("", f"has {names}; the plain format is used")


def read(folder: Path) -> ChatTemplate:
    """The template of a tokenizer's folder; files of their own come before tokenizer_config.json, as in transformers.

    Raises:
        DrsowError: a file cannot be read, or holds no template.
    """
    config = folder / "tokenizer_config.json"
    try:
        files = {path.name.removesuffix(".jinja"): path for path in sorted((folder / MORE).glob("*.jinja"))}
        alone = folder / "chat_template.jinja"
        files = ({DEFAULT: alone} if alone.is_file() else {}) | files
        found: object = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
        if not found and config.is_file():
            found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        return choose(found)
    except (AttributeError, OSError, ValueError) as error:
        raise DrsowError(f"{config}: its chat template cannot be read: {error}") from error
    except DrsowError as error:
        raise DrsowError(f"{config}: {error}") from None


def write(text: str, messages: Sequence[Message], *, generation: bool, special: Mapping[str, object]) -> str:
    """What a chat template writes for a conversation.

    Args:
        text: The template.
        messages: The conversation.
        generation: Whether the assistant's header follows it.
        special: Names and texts of the tokenizer's special tokens, which the template may use.

    Raises:
        TemplateError: the template refuses the conversation, or is broken.
    """
    words = {"messages": [m._asdict() for m in messages], "tools": None, "documents": None}
    try:
        return _compiled(text).render(**{**special, **words, "add_generation_prompt": generation})
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # What a template does to a conversation that it was not made for.
        raise TemplateError(f"{type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    """A template in the environment that transformers gives it, but for the clock and what is random."""
    room = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    room.filters |= {"tojson": _json, "random": _random}
    room.globals |= {"strftime_now": _strftime, "raise_exception": _refuse, "lipsum": _random}
    room.globals |= {"dict": _Dict(), "namespace": _Namespace}
    return room.from_string(text)


def _strftime(form: str) -> str:
    # %s, the seconds since 1970, is the one code that also depends on the machine's time zone.
    seconds = str(int(DATE.replace(tzinfo=datetime.UTC).timestamp()))
    return DATE.strftime(re.sub("%([%s])", lambda code: seconds if code[1] == "s" else code[0], form))


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _random(*_: object, **__: object) -> None:
    raise TemplateError("it draws at random, so no score would be repeatable")


def _json(value: object, ensure_ascii: bool = False, indent=None, separators=None, sort_keys: bool = False) -> str:
    """JSON without jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Dict:
    """dict without the attributes of a class."""

    def __call__(self, *pairs: object, **more: object) -> dict:
        return dict(*pairs, **more)

    def fromkeys(self, *words: object) -> dict:
        return dict.fromkeys(*words)


class _Namespace(jinja2.utils.Namespace):
    """jinja's namespace without names that Python keeps to itself."""

    def __init__(*words: object, **more: object) -> None:
        # As jinja's own has it: a template may name an attribute "self".
        self, *pairs = words
        jinja2.utils.Namespace.__init__(self)
        for name, value in dict(*pairs, **more).items():
            self[name] = value

    def __setitem__(self, name: str, value: object) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace takes no attribute {name!r}")
        jinja2.utils.Namespace.__setitem__(self, name, value)


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: marks what the assistant says, and writes what stands inside."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)
