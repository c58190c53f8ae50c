"""Chooses a tokenizer's chat template and runs it.

drsow does not use `apply_chat_template`, because that function gives a template today's date: scores of two days would
differ under the same key. Here a template that asks for the date gets DATE, and a template that draws at random is
rejected. Otherwise the output is the same as that of transformers' function.
"""

import datetime
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2.exceptions import SecurityError, TemplateError

from bench.schema import DrsowError, Message

DATE = datetime.datetime(2024, 7, 26)
"""The date that `strftime_now` gives to every chat template: the default date in Llama 3's templates. `scoring.SPAN`
covers it: increase SPAN when you change this date."""

DEFAULT = "default"
"""Name of the template that transformers uses if there are several."""

MORE = "additional_chat_templates"
"""Folder beside a tokenizer with further templates, one per file."""


PLAIN = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The plain format "User: … Assistant: …" as a chat template, for a policy that gets one when it is tuned."""


_BROKEN = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    *(SyntaxError, MemoryError),
)
"""How a template may fail: on a conversation that it was not written for, because Python does not compile it (jinja
makes a block of Python of every loop), or because it repeats a text too often."""


class ChatTemplate(NamedTuple):
    """The chosen template of a tokenizer."""

    text: str
    """The template's jinja source, "" if no template can be used."""
    note: str
    """A remark about the choice for the user, whose subject is the tokenizer ("has no …"); "" if none is needed."""


def choose(found: object) -> ChatTemplate:
    """Chooses from a tokenizer's `chat_template`: a text, several by name (a dict or a list of entries), or None.

    If there are several, the one named "default" is used. Without a default, a single other template is used. If
    there are several others, none is used, because there is no reason to prefer one. The note tells the user about it.

    Raises:
        DrsowError: `found` has another form.
    """
    if not found:
        return ChatTemplate("", "")
    if isinstance(found, str):
        return ChatTemplate(found, "")
    named = _by_name(found)
    if named is None:
        raise DrsowError("chat_template is neither a text nor a list of entries with name and template")
    if DEFAULT in named:
        return ChatTemplate(named[DEFAULT], "")
    names = f"no chat template named 'default', only {', '.join(repr(name) for name in sorted(named))}"
    if len(set(named.values())) == 1:
        return ChatTemplate(next(iter(named.values())), f"has {names}, which is used")
    return ChatTemplate("", f"has {names}; the plain format is used")


def _by_name(found: object) -> dict[str, str] | None:
    """Several templates by name, or None if `found` has another form."""
    if not isinstance(found, Mapping | list | tuple):
        return None
    try:
        named = dict(found) if isinstance(found, Mapping) else {entry["name"]: entry["template"] for entry in found}
    except (KeyError, TypeError):
        return None
    return named if all(isinstance(part, str) for part in (*named, *named.values())) else None


def read(folder: Path) -> ChatTemplate:
    """Reads the template in a tokenizer's folder. As in transformers, .jinja files precede tokenizer_config.json.

    Raises:
        DrsowError: A file cannot be read, or contains no template.
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
    except (AttributeError, OSError, ValueError, RecursionError) as error:
        raise DrsowError(f"{config}: its chat template cannot be read: {error}") from error
    except DrsowError as error:
        raise DrsowError(f"{config}: {error}") from None


def write(text: str, messages: Sequence[Message], *, generation: bool, special: Mapping[str, object]) -> str:
    """Renders a conversation with a chat template.

    Args:
        text: The template.
        messages: The conversation.
        generation: Whether to append the assistant's header.
        special: Names and texts of the tokenizer's special tokens, which the template may use.

    Raises:
        TemplateError: The template rejects the conversation, or is broken.
    """
    words = {"messages": [m._asdict() for m in messages], "tools": None, "documents": None}
    try:
        written = _compiled(text).render(**{**special, **words, "add_generation_prompt": generation})
        written.encode()
        return written
    except UnicodeEncodeError as error:
        raise TemplateError(f"it writes half of a surrogate pair, {error.object[error.start]!a}") from error
    except _BROKEN as error:
        raise TemplateError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


def written_after(text: str, special: Mapping[str, object]) -> str:
    """What a chat template writes after a response, without the whitespace in front; "" if it writes no response."""
    probe = "drsow probe"
    turns = [Message("user", "x"), Message("assistant", probe)]
    try:
        return write(text, turns, generation=False, special=special).partition(probe)[2].lstrip()
    except TemplateError:
        return ""


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    """Compiles a template in the same environment as transformers, except for the clock and random functions."""
    room = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    room.filters |= {"tojson": _json, "random": _random}
    room.globals |= {"strftime_now": _strftime, "raise_exception": _refuse, "lipsum": _random}
    room.globals |= {"dict": _Dict(), "namespace": _Namespace}
    return room.from_string(text)


def _strftime(form: str) -> str:
    # %s, the seconds since 1970, is the only code that depends on the machine's time zone.
    seconds = str(int(DATE.replace(tzinfo=datetime.UTC).timestamp()))
    return DATE.strftime(re.sub("%([%s])", lambda code: seconds if code[1] == "s" else code[0], form))


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _random(*_: object, **__: object) -> None:
    raise TemplateError("it draws at random, so no score would be repeatable")


def _json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Dict:
    """dict without the attributes of a class."""

    def __call__(self, *pairs: object, **more: object) -> dict:
        return dict(*pairs, **more)

    def fromkeys(self, names: Iterable, value: object = None, /) -> dict:
        return dict.fromkeys(names, value)


class _Namespace(jinja2.utils.Namespace):
    """jinja's namespace without names that start with "_", which Python reserves."""

    # `self` is only positional, because a template may use "self" as the name of an attribute.
    def __init__(self, /, *pairs: object, **more: object) -> None:
        jinja2.utils.Namespace.__init__(self)
        for name, value in dict(*pairs, **more).items():
            self[name] = value

    def __setitem__(self, name: str, value: object) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace takes no attribute {name!r}")
        jinja2.utils.Namespace.__setitem__(self, name, value)


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: marks the assistant's text, and renders the text inside."""

    tags = jinja2.ext.Extension.tags | {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)
