"""Reads IFEval's prompts: each comes with the rules that a response is checked by."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.data.load import digest
from bench.data.rows import text_of
from bench.data.sources import Row, file_rows
from bench.faults import first_line
from bench.files import safe_name
from bench.schema import Dataset, Example, Message, PreconditionError, UsageError

REPOSITORY, REVISION = "google/IFEval", "966cd89545d6b6acfd7638bc708b98261ca58e84"
"""The hub's data set, at the commit of its 541 prompts."""
FILE = "ifeval_input_data.jsonl"


class Rule(NamedTuple):
    """A rule that a response must follow."""

    name: str
    """IFEval's instruction_id, such as "punctuation:no_comma"."""
    options: Mapping[str, object]
    """What the rule asks for, such as {"num_words": 300, "relation": "at least"}."""


class Instructed(NamedTuple):
    """Prompts and their rules."""

    dataset: Dataset
    rules: Mapping[str, tuple[Rule, ...]]
    """By example_id, in the order of the dataset."""


def load_instructed(path: str | None) -> Instructed:
    """Loads prompts in IFEval's own columns: key, prompt, instruction_id_list and kwargs.

    Args:
        path: A .jsonl file; None: the hub's file at REVISION.

    Raises:
        UsageError: The file does not exist, or a row is bad. The message names its line and field.
        PreconditionError: The hub's file is not on this machine and cannot be fetched.
    """
    source = path or _hub_file()
    if not source.endswith(".jsonl"):
        raise UsageError(f"{source}: IFEval's prompts are read from a .jsonl file")
    examples: list[Example] = []
    rules: dict[str, tuple[Rule, ...]] = {}
    for row in file_rows(source):
        example = _example(row)
        if example.example_id in rules:
            raise row.error("key", f"{example.example_id} is the key of an earlier row")
        rules[example.example_id] = _rules(row)
        examples.append(example)
    if not examples:
        raise UsageError(f"{source} has no rows")
    name = path or REPOSITORY
    return Instructed(Dataset(name, safe_name(Path(name).stem), digest(examples), tuple(examples)), rules)


def _hub_file() -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(REPOSITORY, FILE, repo_type="dataset", revision=REVISION)
    except (OSError, ValueError) as error:
        raise PreconditionError(
            f"{REPOSITORY}: not on this machine, and the hub cannot be reached ({first_line(error)}); name a copy of "
            f"{FILE} with --prompts"
        ) from error


def _example(row: Row) -> Example:
    key, prompt = row.value("key"), row.value("prompt")
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
        raise row.error("key", "must be a whole number or text")
    return Example(str(key), "", (Message("user", text_of(row, "prompt", prompt)),), ())


def _rules(row: Row) -> tuple[Rule, ...]:
    names, options = row.value("instruction_id_list"), row.value("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise row.error("instruction_id_list", "must be a list of one or more names of rules")
    if not isinstance(options, list) or not all(isinstance(each, dict) for each in options):
        raise row.error("kwargs", "must be a list of objects, one a rule")
    if len(options) != len(names):
        raise row.error("kwargs", f"has {len(options)} objects for {len(names)} rules")
    # Some copies give every rule all options, with null where a rule has none, and its numbers as 3.0.
    given = [{name: _whole(value) for name, value in each.items() if value is not None} for each in options]
    return tuple(Rule(name, each) for name, each in zip(names, given, strict=True))


def _whole(value: object) -> object:
    """A value, as an int where it is a whole float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
