"""Finds the stored score sets that a pair or study needs, by the fields of their keys."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, get_args

from bench.contrast import model_of
from bench.faults import warn
from bench.schema import DTYPES, IMPORTED, Dataset, PreconditionError, UsageError
from bench.sources import UrlSource
from bench.store.folder import ScoreSet, Store
from bench.store.places import data_option, results_option
from bench.subject import Sets, Side, Subject

SERVERS = get_args(UrlSource.model_fields["kind"].annotation)
"""`ScoreKey.attention` of the sets that servers computed."""

NAMED = 3
"""The most items of a list that a message names."""


def _unknown(_name: str) -> None:
    """A `Lookup.template_of` that knows no template, or a `Lookup.revision_of` that knows no files."""


def _without_text(name: str, dataset: Dataset) -> Dataset:
    """A `Lookup.rows_for` that knows no reader."""
    if model_of(name) != name:
        raise ValueError(f"{name}: this look-up does not know its text")
    return dataset


class Lookup(NamedTuple):
    """Which stored score sets a user asks for."""

    dtype: str | None = None
    """The dtype's full name; None accepts any."""
    ops: str | None = None
    """`ScoreKey.ops`; None accepts any."""
    template_of: Callable[[str], str | None] = _unknown
    """model_id of a template's owner -> the template's digest; None if the owner's files are not on this machine."""
    rows_for: Callable[[str, Dataset], Dataset] = _without_text
    """A model_id or reader, and rows without texts -> the rows as it reads them."""
    revision_of: Callable[[str], str | None] = _unknown
    """A model_id or reader -> the revision of its files, whose sets alone are found; None if they are not here."""

    def find(self, store: Store, name: str, dataset: Dataset, owner: str | None = None) -> list[ScoreSet]:
        """The complete score sets of a model or reader; with `owner`, only those under that owner's template."""
        rows = self.rows_for(name, dataset)
        sets = store.find(model_id=model_of(name), data_digest=rows.digest, domain=rows.domain)
        fitting = [s for s in sets if self._meant(s) and (owner is None or self._under(s, owner))]
        return [s for s in fitting if not self.outdated(s, name)]

    def outdated(self, score_set: ScoreSet, name: str) -> bool:
        """Whether a model's or reader's files have changed since this set of it was scored."""
        if score_set.key.ops == IMPORTED:
            return False
        return self.revision_of(name) not in (None, score_set.key.revision)

    def _meant(self, score_set: ScoreSet) -> bool:
        wanted = ((self.dtype, score_set.key.dtype), (self.ops, score_set.key.ops))
        return all(want in (None, have) for want, have in wanted)

    def _under(self, score_set: ScoreSet, owner: str) -> bool:
        """Whether a score set is of the text that an owner's template makes."""
        wanted, named = self.template_of(owner), score_set.info().get("template")
        if score_set.key.ops == IMPORTED:
            # An imported set records the owner's name, but not the template's text.
            return named == owner or (wanted is not None and named is not None and self.template_of(named) == wanted)
        return named == owner if wanted is None else score_set.key.template_digest == wanted


def stored_sets(store: Store, subject: Subject, dataset: Dataset, lookup: Lookup = Lookup()) -> dict[Side, ScoreSet]:  # noqa: B008
    """The complete score sets that a subject needs, found by model, template and rows.

    Sets that agree in dtype and arithmetic are preferred; imported sets may fill what they lack. If only a mix covers
    the subject, a warning on stderr names it.

    Raises:
        PreconditionError: a pass is not scored; the message says which sets exist and what to run.
        UsageError: several sets fit; the message says which options choose one.
    """
    fitting = {side: lookup.find(store, side[0], dataset, side[1]) for side in subject.passes()}
    for side, sets in fitting.items():
        if not sets:
            raise PreconditionError(missing(store, subject, dataset, lookup, side))
    covering = _covering(fitting)
    if len(covering) > 1:
        every = [sets for found in covering for sets in found.values()]
        raise _several(f"{subject.name}: all of its models are scored in more than one way", every)
    chosen = covering[0] if covering else fitting
    for (model_id, _), sets in chosen.items():
        if len(sets) > 1:
            raise _several(f"{model_id}: several score sets fit", [sets])
    found = {side: sets[0] for side, sets in chosen.items()}
    tell_mix(store, subject, dataset, found, lookup)
    return found


Kind = tuple[str, str]
"""dtype and ops of a score set."""


def _kind(score_set: ScoreSet) -> Kind:
    return score_set.key.dtype, score_set.key.ops


def _covering(fitting: Mapping[Side, Sequence[ScoreSet]]) -> list[dict[Side, list[ScoreSet]]]:
    """The sets of each kind that covers all passes. If none does, imported sets fill the passes that a kind lacks."""
    kinds = list(dict.fromkeys(_kind(s) for sets in fitting.values() for s in sets))
    for stand_ins in (False, True):
        found = []
        for kind in kinds if not stand_ins else [k for k in kinds if k[1] != IMPORTED]:
            mine = {side: [s for s in sets if _kind(s) == kind] for side, sets in fitting.items()}
            if stand_ins:
                mine = {k: v or [s for s in fitting[k] if s.key.ops == IMPORTED] for k, v in mine.items()}
            if all(mine.values()):
                found.append(mine)
        if found:
            return found
    return []


def _several(words: str, groups: Sequence[Sequence[ScoreSet]]) -> UsageError:
    """The error if several sets fit. It names the options that choose one, or the folders if no option can."""
    sets = list({s.folder: s for group in groups for s in group}.values())
    kinds = list(dict.fromkeys(_kind(s) for s in sets))
    if len(kinds) > 1:
        short = {full: name for name, full in DTYPES.items()}
        by_dtype = len({dtype for dtype, _ in kinds}) == len(kinds)
        options = [f"--dtype {short[dtype]}" + ("" if by_dtype else f" --ops {ops}") for dtype, ops in kinds]
        named = "; ".join(f"{option} ({dtype} by {ops})" for option, (dtype, ops) in zip(options, kinds, strict=True))
        return UsageError(
            f"{words}; choose with {named}, or delete the sets you do not want in {sets[0].folder.parent}"
        )
    named = ", ".join(f"{s.folder} (revision {s.key.revision})" for s in sets[:NAMED])
    return UsageError(f"{words}, all in {kinds[0][0]} by {kinds[0][1]}; delete all but one: {named}")


def tell_mix(store: Store, subject: Subject, dataset: Dataset, sets: Sets, lookup: Lookup) -> None:
    """Warn on stderr if the sets mix dtypes or ops. Imported sets do not count.

    Args:
        store: Where the sets are.
        subject: What they are of.
        dataset: The rows without texts.
        sets: The complete set of each pass.
        lookup: Which sets the user asks for.
    """
    models: dict[Kind, list[str]] = {}
    for (model_id, _), score_set in sets.items():
        if score_set.key.ops != IMPORTED:
            models.setdefault(_kind(score_set), []).append(model_id)
    if len(models) > 1:
        mix = "; ".join(f"{dtype} by {ops}: {some(names)}" for (dtype, ops), names in models.items())
        words = f"warning: {subject.name}: its models were scored in different ways ({mix}), so rounding differences "
        command = f"drsow run {subject.option} {data_option(dataset)}{dtype_option(lookup)}{results_option(store)}"
        # A server computes with arithmetic of its own.
        served = any(score_set.key.attention in SERVERS for score_set in sets.values())
        remedy = "" if served else f"; `{command}` on one machine with the files of all models scores them in one way"
        warn(f"{words}are part of the rewards{remedy}")


def missing(store: Store, subject: Subject, dataset: Dataset, lookup: Lookup, side: Side) -> str:
    """The message if a pass is not scored: which sets of the model exist, and which command stores the missing one."""
    model_id, owner = side
    rows = lookup.rows_for(model_id, dataset)
    there = store.find(model_id=model_of(model_id), domain=rows.domain)
    here = [s for s in there if s.key.data_digest == rows.digest]
    asked = [lookup.dtype and f"in {lookup.dtype}", lookup.ops and f"by {lookup.ops}"]
    words = f"{model_id} is not scored on {dataset.slug} under the chat template of {owner}"
    words = " ".join([words, *filter(None, asked)])
    if there:
        words += f"; there is {some([_described(s, lookup, model_id, rows) for s in here or there])}"
    short = dtype_option(lookup)
    command = f"drsow run {subject.option} {data_option(dataset)}{short}"
    if any(s.key.ops == IMPORTED for s in there):
        command = f"drsow import FILE --model {model_id} --template {owner} {data_option(dataset)}{short}"
    return f"{words}; `{command}{results_option(store)}` stores it"


def _described(score_set: ScoreSet, lookup: Lookup, name: str, rows: Dataset) -> str:
    """A model's or reader's score set as a message names it."""
    key, info = score_set.key, score_set.info()
    where = f" on other rows ({info.get('data')})" if key.data_digest != rows.digest else ""
    outdated = ", but its files have changed since" if lookup.outdated(score_set, name) else ""
    under, digest = info.get("template"), lookup.template_of(str(info.get("template")))
    if key.ops != IMPORTED and digest not in (None, key.template_digest):
        under = f"another text of {under}'s template"
    return f"one under {under} in {key.dtype} by {key.ops}{where}{outdated}"


def some(names: Sequence[str]) -> str:
    """The first names of a list as a message names them, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def one_set(store: Store, dataset: Dataset, lookup: Lookup, model_id: str, owner: str | None) -> ScoreSet:
    """The only complete score set of a model on these rows; with `owner`, under that owner's template.

    Raises:
        PreconditionError: there is none.
        UsageError: several sets fit; the message says which options choose one.
    """
    sets = lookup.find(store, model_id, dataset, owner)
    if not sets:
        under = f" under the chat template of {owner}" if owner else ""
        told = lookup.rows_for(model_id, dataset)
        there = store.find(model_id=model_of(model_id), domain=told.domain)
        named = [_described(s, lookup, model_id, told) for s in there]
        words = f"; there is {some(named)}" if named else ""
        current = [s for s in there if s.key.data_digest == told.digest and not lookup.outdated(s, model_id)]
        remedy = "`drsow run` or `drsow import` stores it"
        if owner and current:
            remedy = f"choose with --template {current[0].info().get('template')}"
        raise PreconditionError(f"{model_id} is not scored on {dataset.slug}{under}{words}; {remedy}")
    owners = list(dict.fromkeys(str(s.info().get("template")) for s in sets))
    if len(sets) > 1 and len(owners) > 1 and owner is None:
        words = f"{model_id}: it is scored under several chat templates"
        raise UsageError(f"{words}; choose with --template {' or --template '.join(owners[:NAMED])}")
    if len(sets) > 1:
        raise _several(f"{model_id}: several score sets fit", [sets])
    return sets[0]


def dtype_option(lookup: Lookup) -> str:
    """The command-line option of a look-up's dtype, after a space; "" if it accepts any."""
    return {full: f" --dtype {name}" for name, full in DTYPES.items()}.get(lookup.dtype or "", "")
