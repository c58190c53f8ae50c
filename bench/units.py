"""Formats numbers for people: three digits with an SI prefix, percent with one decimal, durations, times."""

import math
import time
from collections.abc import Mapping

MISSING = "-"
"""Text shown for an unknown value."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_SHORT = ("", "k", "M", "B", "T")
"""Prefixes of counts. B is a billion, as usual for model sizes."""


def tally(counts: Mapping[str, int]) -> str:
    """Counts by their names: "ties 12, prompts whose responses all have one label 3"."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def si(value: float, unit: str) -> str:
    """A quantity with its unit: 1.27e11 and "FLOP" give "127 GFLOP"."""
    number, prefix = _scaled(value, _PREFIXES)
    return f"{number} {prefix}{unit}".rstrip()


def count(value: float) -> str:
    """A count: all digits below 100,000, then three digits and a letter: "2,985", "54.2 M", "16.1 B"."""
    if abs(value) < 1e5:
        return f"{value:,.0f}"
    number, prefix = _scaled(value, _SHORT)
    return f"{number} {prefix}".rstrip()


def amount(value: float) -> str:
    """A large count with three digits, and a letter from 1,000 on: "30 k", "16.1 B"."""
    number, prefix = _scaled(value, _SHORT)
    return f"{number} {prefix}".rstrip()


def percent(value: float) -> str:
    """A fraction, 0 to 1, in percent with one decimal, without the percent sign."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def decimal(value: float) -> str:
    """A number with one decimal."""
    return f"{round(value, 1) + 0.0:.1f}"


def significant(value: float) -> str:
    """Three significant digits."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"


def signed(value: float) -> str:
    """Three significant digits with the sign."""
    return significant(value) if value < 0 else f"+{significant(value)}"


def tiny(value: float) -> str:
    """A small number in scientific notation, two digits."""
    return f"{value:.1e}"


def p_value(value: float) -> str:
    """A p-value with three decimals."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes, hours or days, so that the number is small: "3.2 h"."""
    for size, unit in ((86_400 * 3, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86_400 if unit == 'd' else size):.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _scaled(value: float, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """The number with three significant digits and no trailing zeros, and its prefix."""
    step = 0
    while step < len(prefixes) - 1 and abs(float(f"{value:.3g}")) >= 1000:
        value, step = value / 1000, step + 1
    rounded = float(f"{value:.3g}")
    return f"{rounded:g}" if abs(rounded) < 1000 else f"{rounded:,.0f}", prefixes[step]


def utc_now() -> str:
    """The time now, to the second: "2026-01-31T12:00:00Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
