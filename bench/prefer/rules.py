"""Checks responses by IFEval's rules (Zhou et al., arXiv 2311.07911), with the functions of if-verifiable.

Where a rule counts a character that is no letter, such as "#", these functions draw a letter at random at every call.
Such a rule is checked by code of this module, so that the same response always gets the same verdict.
"""

import contextlib
import logging
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.data.instructed import Instructed, Rule
from bench.faults import first_line
from bench.schema import PreconditionError, UsageError

NEED_PUNKT = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Rules that need nltk's punkt data to find sentences. nltk would download these, so such prompts are left out."""


LISTS = frozenset({"keywords", "forbidden_words"})
"""Options that are lists of texts; all others are a number or a text."""

LETTERS, PARAGRAPH = "keywords:letter_frequency", "length_constraints:nth_paragraph_first_word"
"""Rules for which the package draws a letter or a paragraph at random, if it does not take the one that is given."""


def checkable(found: Instructed) -> list[str]:
    """The example_ids of the prompts whose rules can all be checked here, in order.

    Raises:
        PreconditionError: The package with the rules is not installed.
        UsageError: A rule is unknown, lacks an option, or has one that the package would replace by a random one.
    """
    known = _checkers()
    for example_id, rules in found.rules.items():
        for rule in rules:
            _check_rule(f"{found.dataset.data_id}, key {example_id}", rule, known)
    return [name for name, rules in found.rules.items() if not NEED_PUNKT & {rule.name for rule in rules}]


def followed(response: str, rules: Sequence[Rule]) -> list[bool]:
    """Which rules a response follows, by IFEval's strict reading: the whole response counts as it is."""
    known = _checkers()
    found = []
    with _silent():
        for rule in rules:
            if _counts_a_sign(rule):
                kept = _has_the_signs(response, rule)
            else:
                checker = known[rule.name](rule.name)
                checker.build_description(**rule.options)
                kept = bool(checker.check_following(response))
            found.append(bool(response.strip()) and kept)
    return found


def _counts_a_sign(rule: Rule) -> bool:
    """Whether the letter of a rule is another character than a to z, such as "#": the package counts none of these."""
    options: Mapping[str, Any] = rule.options
    return rule.name == LETTERS and options["letter"].lower() not in string.ascii_lowercase


def _has_the_signs(response: str, rule: Rule) -> bool:
    """Whether a response has a character as often as the rule asks, counted as the package counts letters."""
    options: Mapping[str, Any] = rule.options
    count, limit = response.lower().count(options["letter"].lower()), options["let_frequency"]
    return bool(count < limit if options["let_relation"] == "less than" else count >= limit)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the package's log off stderr: it reports every answer whose language cannot be told."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _checkers() -> Mapping[str, Any]:
    """Class of each rule, by its name."""
    try:
        import langdetect
        from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
    except ImportError as error:
        raise PreconditionError(
            "IFEval's rules are in the package if-verifiable, which is not installed; "
            "`pip install 'drsow[perform]'` installs it"
        ) from error
    # Without a seed langdetect draws at random, and a short text may change its language from call to call.
    langdetect.DetectorFactory.seed = 0
    return INSTRUCTION_DICT


def _check_rule(where: str, rule: Rule, known: Mapping[str, Any]) -> None:
    if rule.name not in known:
        raise UsageError(f"{where}, field instruction_id_list: unknown rule {rule.name!r}")
    wanted, given = set(known[rule.name](rule.name).get_instruction_args_keys()), set(rule.options)
    if missing := sorted(wanted - given):
        # The package would draw a missing option at random.
        raise UsageError(f"{where}, field kwargs: {rule.name} lacks {missing[0]!r}")
    if unknown := sorted(given - wanted):
        raise UsageError(f"{where}, field kwargs: {rule.name} does not know {unknown[0]!r}")
    for name, value in rule.options.items():
        if problem := _wrong_value(name, value):
            raise UsageError(f"{where}, field kwargs: {rule.name}: {name} {problem}")
    if problem := _drawn(rule):
        raise UsageError(f"{where}, field kwargs: {rule.name}: {problem}")
    # The relation is checked with any letter.
    any_letter = {"letter": "a"} if _counts_a_sign(rule) else {}
    try:
        known[rule.name](rule.name).build_description(**(dict(rule.options) | any_letter))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{where}, field kwargs: {rule.name}: {first_line(error)}") from error


def _drawn(rule: Rule) -> str:
    """What is wrong with a rule whose option the package would replace by one drawn at random, "" if nothing is."""
    options: Mapping[str, Any] = rule.options
    if rule.name == LETTERS and len(options["letter"]) != 1:
        return "letter must be one character"
    if rule.name == PARAGRAPH and options["nth_paragraph"] > options["num_paragraphs"]:
        return "nth_paragraph must be at most num_paragraphs"
    return ""


def _wrong_value(name: str, value: object) -> str:
    """What is wrong with the value of an option, "" if nothing is. The package takes some wrong values in silence."""
    if name in LISTS:
        right = isinstance(value, list) and value and all(isinstance(each, str) and each for each in value)
        return "" if right else "must be a list of one or more texts"
    if name.startswith("num_") or name.endswith("frequency") or name == "nth_paragraph":
        # For a negative number the package draws one at random; paragraphs are counted from 1.
        least = int(name == "nth_paragraph")
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return "" if right else f"must be a whole number from {least} on"
    return "" if isinstance(value, str) and value else "must be text"
