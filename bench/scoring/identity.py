"""Identifies the chat template and the ops in the keys of score sets, because both can change a number."""

import contextlib
import hashlib
import json
import re
from pathlib import Path

from bench.entries import FolderSource, ModelSpec, UrlSource
from bench.schema import DrsowError
from bench.scoring import PLAIN, fetch, templates
from bench.scoring.garbage import uncollected
from bench.store.parts import canonical


def template_digest(folder: Path) -> str:
    """sha256 over everything with which a tokenizer's chat template can change a text; over PLAIN without a template.

    Two tokenizers whose templates write the same texts have the same digest, even if the rest of them differs.
    """
    text = fetch.template_text(folder)
    with uncollected():
        return hashlib.sha256(canonical(_contributed(folder, text)) if text else PLAIN.encode()).hexdigest()


def owner_digest(spec: ModelSpec) -> str | None:
    """`template_digest` of a model, None if its tokenizer is not on this machine. Fetches nothing, reads no weights."""
    source = spec.files.source
    if isinstance(source, FolderSource):
        return template_digest(source.folder) if (source.folder / "config.json").is_file() else None
    located = None
    with contextlib.suppress(DrsowError):
        located = fetch.locate(spec, weights=False)
    return None if located is None else template_digest(located.folder)


def present_revision(spec: ModelSpec) -> str | None:
    """The revision of the files that a pass would read now; None if they are not on this machine. Fetches nothing."""
    if isinstance(spec.source, UrlSource):
        return None
    with contextlib.suppress(DrsowError):
        located = fetch.locate(spec)
        return located and located.revision
    return None


def _contributed(folder: Path, text: str) -> list:
    """The template's text, and those properties of the tokenizer that the template can write into a conversation.

    Returns:
        A list: the text; the special tokens that it names; the BOS that drsow removes, with the rule when; the added
        tokens that it can write, because one of them may end a turn; the tokenizer's class if its defaults matter; an
        end of turn that the template puts together; the EOS that does not end a turn, because drsow removes it from the
        end of a response.
    """
    config, specials, whole = (
        _json(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
    )
    named = {name: _content(value) for name, value in (specials | config).items() if name.endswith("_token")}
    written = {name: value for name, value in named.items() if re.search(rf"\b{name}\b", text)}
    # A special token that no file names is the default of the tokenizer's class.
    unknown = set(re.findall(r"\b[a-z]+_token\b", text)) - set(named)
    bos = named.get("bos_token")
    stripped = bos is not None and ("bos_token" in written or bos in text)
    rule = [bos, config.get("add_bos_token"), whole.get("post_processor")] if stripped else []
    added = [*whole.get("added_tokens", ()), *config.get("added_tokens_decoder", {}).values()]
    tokens = {_content(token) for token in added}
    kept = sorted(token for token in tokens if token and (token in text or token in written.values()))
    after = templates.written_after(text, {name: value for name, value in named.items() if value is not None})
    ends = {token for token in tokens if token and after.startswith(token)}
    eos = named.get("eos_token")
    # The plain template is as it was before this rule, so that scores under it are found.
    is_cut = eos and "eos_token" not in written and eos not in ends and text != templates.PLAIN
    ending = [*sorted(ends - set(kept)), *([eos] if is_cut else [])]
    return [text, written, rule, kept, config.get("tokenizer_class") if unknown or stripped else None, *ending]


def _content(token: object) -> str | None:
    """The text of a token, which files store in one of two forms."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _json(path: Path) -> dict:
    """The fields of a tokenizer's file; empty if there is no file.

    Raises:
        DrsowError: The file holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DrsowError(f"{path}: cannot be read as JSON ({error}); get the tokenizer's files again") from error
    if not isinstance(found, dict):
        raise DrsowError(f"{path}: holds no JSON object; get the tokenizer's files again")
    return found


def ops_name(device: str, dtype: str, *, compiles: bool = True) -> str:
    """The name of the operations that this process computes scores with: `forward.ops.Ops.name`.

    Args:
        device: "cpu" or "cuda".
        dtype: "bfloat16" or "float32".
        compiles: As in `forward.ops.choose`.
    """
    # Imported here, because code that only reads the store does not need torch.
    import torch

    from bench.scoring.forward.ops import choose

    kind = {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    return choose(torch.device(device), kind, compiles=compiles).name
