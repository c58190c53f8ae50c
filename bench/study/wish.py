"""The user's conditions for a pair, and the pairs that satisfy them."""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from bench.schema import UsageError


class Wish(NamedTuple):
    """The user's conditions for a pair."""

    section: str | None = None
    """A section or style of the benchmark, or None for the overall score."""
    max_params: float | None = None
    """Upper limit of the parameters of both models together."""
    budget_flop: float | None = None
    """Upper limit of the FLOP per row of both models together."""
    licences: tuple[str, ...] = ()
    """Allowed licences of both models; empty allows any."""
    gap_unit: str = "points"
    """No condition: the name of the unit of the gaps."""

    def limits(self) -> tuple[tuple[str, str, float | None], ...]:
        """Option, column and upper limit of each cost."""
        return ("max-params", "n_params", self.max_params), ("budget-flop", "cost_flop", self.budget_flop)


def filtered(board: pd.DataFrame, wish: Wish) -> tuple[pd.DataFrame, str]:
    """The pairs that satisfy a wish, and the filters in words. A pair with an unknown value does not satisfy it."""
    said = []
    for option, field, limit in wish.limits():
        if limit is not None:
            values = board[field].astype(float)
            least = (
                f"the smallest {field} is {values.min():g}" if values.notna().any() else f"their {field} is not known"
            )
            board = _keep(board, values <= limit, f"--{option} {limit:g}", least)
            said.append(f"{field} up to {limit:g}")
    if wish.licences:
        known = sorted({part for licence in board["licence"].dropna() for part in licence.split(" + ")})
        strange = [licence for licence in wish.licences if licence not in known]
        if strange and len(strange) == len(wish.licences):
            raise UsageError(f"no pair has the licence {strange[0]!r}{meant(strange[0], known)}")
        allowed = board["licence"].map(_within(wish.licences))
        board = _keep(board, allowed, f"--licence {','.join(wish.licences)}", f"their licences are {', '.join(known)}")
        said.append(f"licence {' or '.join(wish.licences)}")
    if board.empty:
        raise UsageError(
            "no pair is scored on every row, so none can be ranked: a row is excluded where it is too long for a model "
            "or its score is not finite. Choose on data without those rows"
        )
    return board, f" with {', '.join(said)}" if said else ""


def within(ensembles: list[dict[str, object]], wish: Wish) -> tuple[list[dict[str, object]], tuple[str, ...]]:
    """The rows of CHOICE of ensembles that satisfy a wish, and a sentence on those that do not, if there are any.

    Ensembles of the same pairs cost the same, and have no other licences than their pairs.
    """
    for option, field, limit in wish.limits():
        if limit is not None and ensembles and not float(str(ensembles[0][field])) <= limit:
            return [], (f"No ensemble of the best pairs: its {field}, {ensembles[0][field]:g}, is over --{option}.",)
    return ensembles, ()


def _keep(board: pd.DataFrame, allowed: pd.Series, option: str, hint: str) -> pd.DataFrame:
    """The allowed pairs; fails where an option rules out every pair."""
    left = board[allowed.astype(bool)]
    if len(board) and left.empty:
        raise UsageError(f"{option} leaves none of {n_pairs(len(board))}: {hint}. Relax the option or leave it out")
    return left


def _within(licences: tuple[str, ...]) -> Callable[[object], bool]:
    """Check of a licence string: one licence for both models, or "one + other". An unknown licence is not allowed."""
    return lambda licence: isinstance(licence, str) and set(licence.split(" + ")) <= set(licences)


def meant(name: str, known: list[str]) -> str:
    """End of a message about an unknown name: the closest known one, or all of them."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f", did you mean {close[0]!r}?" if close else f": choose one of {', '.join(known)}"


def n_pairs(n: int) -> str:
    """A number of pairs in words."""
    return "1 pair" if n == 1 else f"{n} pairs"
